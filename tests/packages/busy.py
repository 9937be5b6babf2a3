"""A service like gunicorn: a process that starts workers by fork(2). The workers compute all
the time, with many shared objects. Answers each line of its standard input with "alive", when
all workers have.

    work          every worker computes once more
    load MODULE   every worker imports a module first, and with it a shared object
"""

import bz2
import decimal
import hashlib
import importlib
import itertools
import json
import lzma
import os
import select
import sqlite3
import sys
import zlib

WORKERS = 2


def compute(turn: int) -> None:
    data = str(turn).encode() * 500
    for module in (zlib, bz2, lzma):
        assert module.decompress(module.compress(data)) == data
    assert len(hashlib.sha256(data).hexdigest()) == 64
    assert decimal.Decimal(turn).sqrt() ** 2 - turn < 1
    assert json.loads(json.dumps({"turn": turn})) == {"turn": turn}
    connection = sqlite3.connect(":memory:")
    assert connection.execute("select ? + 1", (turn,)).fetchone() == (turn + 1,)
    connection.close()


def worker(commands: int, answers: int) -> None:
    turn = 0
    while True:
        turn += 1
        compute(turn)
        if select.select([commands], [], [], 0.005)[0]:
            words = os.read(commands, 1000).decode().split()
            if not words:
                os._exit(0)
            if words[0] == "load":
                importlib.import_module(words[1])
            compute(turn)
            os.write(answers, b"alive\n")


def main() -> int:
    workers = []
    for _ in range(WORKERS):
        (commands, to_worker), (from_worker, answers) = os.pipe(), os.pipe()
        process = os.fork()
        if process == 0:
            # The other ends are the service's, also those of the workers before this one.
            for descriptor in [to_worker, from_worker, *(end for ends in workers for end in ends[1:])]:
                os.close(descriptor)
            worker(commands, answers)
        os.close(commands)
        os.close(answers)
        workers.append((process, to_worker, from_worker))
    print("workers", *(process for process, _, _ in workers), flush=True)
    for line in itertools.chain(["work"], sys.stdin):
        for process, to_worker, from_worker in workers:
            try:
                os.write(to_worker, line.encode())
            except BrokenPipeError:
                pass
            if not os.read(from_worker, 100):
                print("worker ended:", os.waitpid(process, 0)[1], flush=True)
                return 70
        compute(1)
        print("alive", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.exit(71)
