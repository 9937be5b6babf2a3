#!/usr/bin/env python3
"""Measures what text in 2 MiB pages would gain, and what memory it would cost.

    measure.py [--pairs N] [--limit SECONDS] [--slices N] OBJECT... -- WORKER [ARGUMENT...]

Each OBJECT is copied twice for each pair: once as an entry of the store is written (64 KiB a call), once with every
whole, aligned 2 MiB of its executable segments written by one call, so that the page cache has 2 MiB folios there. A
pair of workers runs, each in a mount namespace where its copies cover the objects, both on one core and never at the
same time: a worker does a step for each line that it reads, and answers when it is done (`--write`, `--answer`). The
order of the two changes with each slice. What is compared is the CPU time of each one's median slice; each pair is
new processes. In a third as many pairs a second small copy takes the place of the huge one: what differs then is
noise.

Needs Linux, a file system with large folios (ext4 since Linux 6.16, xfs), and unshare(1). It changes no file
outside its temporary directory (`--directory`, by default /var/tmp)."""

import argparse
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HUGE = 2 << 20
SMALL = 64 << 10
PT_LOAD, PT_INTERP, PF_X, ET_DYN = 1, 3, 1, 3


@dataclass
class Segment:
    """A program header."""

    kind: int
    flags: int
    offset: int
    address: int
    size: int
    alignment: int

    @property
    def is_text(self):
        return self.kind == PT_LOAD and self.flags & PF_X


def segments(data):
    """Returns the program headers of a 64-bit little-endian ELF file."""
    if data[:6] != b"\x7fELF\x02\x01":
        sys.exit("not a 64-bit little-endian ELF file")
    (table,), (count,) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<H", data, 56)
    headers = (struct.unpack_from("<IIQQQQQQ", data, table + 56 * index) for index in range(count))
    return [
        Segment(kind, flags, offset, address, size, alignment)
        for kind, flags, offset, address, _, size, _, alignment in headers
    ]


def whole_pieces(found):
    """Returns the offsets of the aligned 2 MiB that lie in a text segment as a whole."""
    return {
        offset
        for segment in found
        if segment.is_text
        for offset in range(-(-segment.offset // HUGE) * HUGE, (segment.offset + segment.size) // HUGE * HUGE, HUGE)
    }


def write_copy(data, path, huge):
    """Writes a copy whose page cache has 2 MiB folios at the offsets `huge`, and 64 KiB elsewhere."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    offset = 0
    while offset < len(data):
        piece = data[offset : offset + (HUGE if offset in huge else SMALL)]
        offset += os.pwrite(file, piece, offset)
    os.close(file)


def make_copies(objects, directory, kind):
    """Writes a copy of each object; returns the pairs of copy and object."""
    made = []
    for number, path in enumerate(objects):
        data = path.read_bytes()
        copy = Path(directory, f"{number}-{kind}")
        write_copy(data, copy, whole_pieces(segments(data)) if kind == "huge" else ())
        made.append((copy, path))
    return made


def describe(path, data):
    """Prints whether the kernel can map the text of an object by 2 MiB pages."""
    found = segments(data)
    has_interpreter = any(segment.kind == PT_INTERP for segment in found)
    is_placed_by_kernel = has_interpreter and struct.unpack_from("<H", data, 16)[0] == ET_DYN
    for segment in found:
        if not segment.is_text:
            continue
        if not (pieces := len(whole_pieces([segment]))):
            word = "no whole 2 MiB"
        elif (segment.address - segment.offset) % HUGE:
            word = "no, address and offset differ by what is no multiple of 2 MiB"
        elif is_placed_by_kernel and max(other.alignment for other in found) < HUGE:
            word = "no, the kernel places such a program at a multiple of 4 KiB"
        else:
            word = f"{pieces} pages of 2 MiB"
        print(f"{path.name}: text of {segment.size / (1 << 20):.1f} MiB: {word}")


@dataclass
class Figures:
    """What a worker has used so far."""

    ticks: tuple
    faults: int


class Worker:
    """One process."""

    def __init__(self, arguments, covers):
        script = "".join('mount --bind "$1" "$2"; shift 2; ' for _ in covers) + 'exec "$@"'
        paths = [str(path) for cover in covers for path in cover]
        unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
        self.answer, self.write = arguments.answer.encode(), arguments.write.encode() + b"\n"
        self.objects = [path for _, path in covers]
        self.process = subprocess.Popen(
            [*unshare, "sh", "-ec", script, "sh", *paths, *arguments.worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def clock(self):
        # The clock of another process, as clock_getcpuclockid(3) makes its number.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def step(self):
        """Has the worker do a step, and returns the CPU time of its process meanwhile."""
        before = self.clock()
        self.process.stdin.write(self.write)
        self.process.stdin.flush()
        while self.answer not in (line := self.process.stdout.readline()):
            if not line:
                sys.exit(f"the worker has ended with status {self.process.wait()}")
        return self.clock() - before

    def figures(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return Figures((int(fields[11]), int(fields[12])), int(fields[7]))

    def memory(self):
        """Returns in MiB: Pss, that of the objects, and what of them is mapped by 2 MiB pages."""
        found, in_object = [0, 0, 0], False
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            if re.match("[0-9a-f]+-", line):
                in_object = any(line.endswith(f" {path}") for path in self.objects)
            elif match := re.match(r"(Pss|FilePmdMapped): +(\d+)", line):
                size = int(match[2]) / 1024
                if match[1] == "Pss":
                    found[0] += size
                    found[1] += size if in_object else 0
                elif in_object:
                    found[2] += size
        return found

    def end(self):
        self.process.kill()
        self.process.communicate()


def misses(pid):
    """Starts `perf stat` where the machine counts misses of the instruction TLB."""
    perf = shutil.which("perf")
    probe = perf and subprocess.run(
        [perf, "stat", "-x,", "-e", "iTLB-load-misses:u", "true"], capture_output=True, text=True
    )
    if not probe or not probe.stderr[:1].isdigit():
        return None
    return subprocess.Popen(
        [perf, "stat", "-x,", "-e", "iTLB-load-misses:u", "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )


def pair(arguments, directory, other, small_first):
    """Runs one pair of workers; returns for each kind: CPU of the median step; user and system time and
    faults of all steps; memory; misses."""
    kinds = ("small", other) if small_first else (other, "small")
    workers = {kind: Worker(arguments, make_copies(arguments.objects, directory, kind)) for kind in kinds}
    for _ in range(arguments.warm):
        for worker in workers.values():
            worker.step()
    before = {kind: worker.figures() for kind, worker in workers.items()}
    counters = {kind: misses(worker.process.pid) for kind, worker in workers.items()}
    if any(counters.values()):
        time.sleep(0.3)
    steps = {kind: [] for kind in workers}
    for index in range(arguments.slices):
        for kind in list(workers) if index % 2 else reversed(workers):
            steps[kind].append(workers[kind].step())
    result = {}
    for kind, worker in workers.items():
        then, now = before[kind], worker.figures()
        counter = None
        if counters[kind]:
            counters[kind].send_signal(2)
            counter = float(counters[kind].communicate()[1].split(",")[0])
        ticks = [(after - first) / os.sysconf("SC_CLK_TCK") for after, first in zip(now.ticks, then.ticks)]
        result[kind] = (statistics.median(steps[kind]), *ticks, now.faults - then.faults, *worker.memory(), counter)
    for worker in workers.values():
        worker.end()
    return result


def quartiles(numbers):
    if len(numbers) < 2:
        return "too few pairs"
    low, middle, high = statistics.quantiles(numbers, n=4)
    return f"{middle:.4f} ({low:.4f} – {high:.4f})"


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no pair begins")
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--warm", type=int, default=2, help="steps before anything is counted")
    parser.add_argument("--write", default="", help="the line that makes the worker do a step")
    parser.add_argument("--answer", default="done", help="the word in the line that says that it is done")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--directory", default="/var/tmp")
    parser.add_argument("objects", nargs="*", type=Path)
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:cut])
    arguments.worker = sys.argv[cut + 1 :]
    if not arguments.worker:
        parser.error("no worker after --")
    if arguments.pairs < 6:
        parser.error("fewer than 6 pairs have no quartiles")
    os.sched_setaffinity(0, {arguments.core})

    arguments.objects = [path.resolve() for path in arguments.objects]
    for path in arguments.objects:
        describe(path, path.read_bytes())
    results = {"again": [], "huge": []}
    end = time.monotonic() + arguments.limit
    for index in range(arguments.pairs + arguments.pairs // 3):
        if time.monotonic() > end:
            break
        # New copies for each pair: which pages of the memory they get matters too.
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            Path(directory).chmod(0o755)
            other = "again" if index % 4 == 0 else "huge"
            results[other].append(pair(arguments, directory, other, (index + index // 4) % 2))

    print(f"{len(results['huge'])} pairs of processes, {arguments.slices} slices each: median (quartiles)")
    for other, title in (("again", "64 KiB to 64 KiB (noise)"), ("huge", "2 MiB to 64 KiB")):
        ratios = [found[other][0] / found["small"][0] for found in results[other]]
        print(f"  CPU, {title}: {quartiles(ratios)}; {sum(ratio < 1 for ratio in ratios)} of {len(ratios)} below 1")
    for kind in ("small", "huge"):
        found = [result[kind] for result in results["huge"]]
        cpu, user, system, faults, pss, own, huge, count = zip(*found)
        shown = "not counted here" if None in count else f"{statistics.median(count):.0f}"
        print(
            f"  {kind}: CPU of a slice {statistics.median(cpu) * 1000:.1f} ms; "
            f"all slices: user {sum(user) / len(user):.3f} s, system {sum(system) / len(system):.3f} s, "
            f"{statistics.median(faults):.0f} faults; "
            f"Pss {statistics.median(pss):.1f} MiB, of the objects {statistics.median(own):.1f}, "
            f"by 2 MiB pages {statistics.median(huge):.1f}; iTLB misses: {shown}"
        )


if __name__ == "__main__":
    main()
