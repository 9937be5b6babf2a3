"""A Python process that forks workers with multiprocessing; each computes with numpy
while the shared objects that it has inherited are rewritten.

The protocol is that of science.py. If a signal ends a worker, the parent prints the
signal and exits with 3.
"""

import multiprocessing
import select
import sys

import numpy as np
import numpy.random


def digest():
    random = np.random.default_rng(3)
    a = random.standard_normal((40, 40))
    return f"{np.linalg.inv(a).sum():.7g} {np.abs(np.fft.fft(a)).sum():.7g} {np.sort(a, axis=None)[7]:.7g}"


def work(results):
    for _ in range(20):
        results.send(digest())


def generation(context, expected):
    """Runs two workers at the same time. Both must return the expected result."""
    workers = []
    for _ in range(2):
        receive, send = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(send,))
        worker.start()
        # If this process kept this end open, it would not notice the end of the worker.
        send.close()
        workers.append((worker, receive))
    for worker, receive in workers:
        try:
            while True:
                result = receive.recv()
                assert result == expected, f"{result} is not {expected}"
        except EOFError:
            worker.join()
        if worker.exitcode:
            print("worker ended with", worker.exitcode, flush=True)
            sys.exit(3)


def main(kind):
    context = multiprocessing.get_context("fork")
    expected = digest()
    generation(context, expected)
    print("ready", flush=True)
    if kind == "idle":
        sys.stdin.readline()
        generation(context, expected)
    while kind == "busy" and not select.select([sys.stdin], [], [], 0)[0]:
        generation(context, expected)
        print("tick", flush=True)
    print("result", expected, flush=True)
    sys.exit(42)


main(sys.argv[1])
