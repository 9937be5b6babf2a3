"""Lets gunicorn serve for a long time while all its shared objects are rewritten in
place, again and again, and checks for problems that only show after such a time:
requests that fail, workers that die, and growing memory, mappings or descriptors.

Ends with status 1 if it finds any.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path

import environment
from environment import Packages
from experiment import ANSWER_SECONDS, CLIENTS, WORKERS
from load import Load
from rewriter import Rewriter
from server import Server

# The interpreter's memory depends on what it has served last. A leak of the library
# would be a page or a mapping for each rewriting, of which there are thousands.
PSS_SLACK_KIB = 1024
MAPPINGS_SLACK = 4
# The service answers so many requests before it is measured for the first time.
WARM_UP_REQUESTS = 400
IDLE_SECONDS = 20
STATES = ("same bytes", "other build", "same bytes", "emptied")


@dataclass
class Footprint:
    """The resources of a process."""

    pss_kib: int
    mappings: int
    descriptors: int


@dataclass
class Soak:
    """The results."""

    minutes: float
    rewritten: int = 0
    """How many times a file was written in place."""
    served: int = 0
    failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    unharmed: bool = False
    all_answered: bool = False
    library_said: list[str] = field(default_factory=list)
    before: dict[int, Footprint] = field(default_factory=dict)
    after: dict[int, Footprint] = field(default_factory=dict)


def footprint(pid: int) -> Footprint:
    """Returns the footprint of one process, from proc(5)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    return Footprint(int(pss.split()[1]), len(maps.splitlines()), len(os.listdir(f"/proc/{pid}/fd")))


def footprints(server: Server) -> dict[int, Footprint]:
    """Returns the footprints of master and workers, once none has a connection open."""
    pids = (server.process.pid, *sorted(server.workers))
    deadline = time.monotonic() + IDLE_SECONDS
    last = None
    while time.monotonic() < deadline:
        found = {pid: footprint(pid) for pid in pids}
        held = {pid: (one.mappings, one.descriptors) for pid, one in found.items()}
        if held == last:
            return found
        last = held
        time.sleep(0.5)
    raise SystemExit("the service does not become idle")


def warm_up(server: Server) -> None:
    """Sends requests until every worker has served many."""
    load = Load(server.port)
    while any(load.answered_by[worker] < WARM_UP_REQUESTS / WORKERS for worker in server.workers):
        load.request_all()
        if load.failed:
            raise SystemExit(f"requests fail before anything was rewritten: {dict(load.failures)}")


def rewrite(rewriter: Rewriter, how: str) -> int:
    """Rewrites all objects once. Returns how many times a file was written."""
    if how == "emptied":
        rewriter.empty_for(0.2)
        return 2 * len(rewriter.originals)
    if how == "other build":
        rewriter.other_build()
    else:
        rewriter.same_bytes()
    return len(rewriter.originals)


def soak(root: Path, packages: Packages, library: Path, minutes: float) -> Soak:
    """Serves and rewrites copies below `root`, and returns the results."""
    result = Soak(minutes)
    shutil.rmtree(root / "soak", ignore_errors=True)
    site = environment.copy_site(packages, root / "soak" / "site", library)
    rewriter = Rewriter(site, packages)
    settings = {"SOPIN_MODE": "full", "SOPIN_STORE": str(root / "soak" / "store")}
    # The store accepts the files when they are this old.
    time.sleep(3)
    with Server(site, WORKERS, settings, root / "soak" / "run") as server:
        warm_up(server)
        result.before = footprints(server)
        load = Load(server.port)
        load.start(CLIENTS)
        end = time.monotonic() + minutes * 60
        for how in cycle(STATES):
            result.rewritten += rewrite(rewriter, how)
            if time.monotonic() >= end or not server.is_running():
                break
        result.all_answered = load.wait_for_each(server.workers, ANSWER_SECONDS, server.is_running)
        load.stop()
        server.settle()
        result.unharmed = server.is_unharmed()
        result.library_said = server.library_said()
        if result.unharmed:
            result.after = footprints(server)
        result.served, result.failed, result.failures = load.served, load.failed, dict(load.failures)
    shutil.rmtree(root / "soak")
    return result


def broken_promises(result: Soak) -> list[str]:
    """Returns descriptions of what was wrong."""
    wrong = []
    if result.failed:
        wrong.append(f"requests failed: {result.failures}")
    if not result.unharmed:
        wrong.append("processes were lost")
    if not result.all_answered:
        wrong.append("not every worker answered afterwards")
    wrong += result.library_said
    for pid, after in result.after.items():
        before = result.before[pid]
        if after.mappings > before.mappings + MAPPINGS_SLACK:
            wrong.append(f"process {pid} has {after.mappings} mappings, and had {before.mappings}")
        if after.descriptors > before.descriptors:
            wrong.append(f"process {pid} has {after.descriptors} descriptors, and had {before.descriptors}")
        if after.pss_kib > before.pss_kib + PSS_SLACK_KIB:
            wrong.append(f"process {pid} has a Pss of {after.pss_kib} KiB, and had {before.pss_kib}")
    return wrong


def total(footprints: dict[int, Footprint]) -> str:
    """Returns the sums over all processes, in words."""
    pss = sum(one.pss_kib for one in footprints.values()) / 1024
    mappings = sum(one.mappings for one in footprints.values())
    return f"Pss {pss:.1f} MiB, {mappings} mappings, {sum(one.descriptors for one in footprints.values())} descriptors"


def main() -> int:
    """Runs the soak and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, help="the libsopin.so to try")
    parser.add_argument("--root", type=Path, required=True, help="directory for packages and copies, made if missing")
    parser.add_argument("--packages", type=Path, help="directory with installed packages and other-builds of them")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    if not arguments.library.is_file():
        parser.error(f"{arguments.library} does not exist; run make first")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    root: Path = arguments.root.resolve()
    with environment.alone(root):
        installed: Path | None = arguments.packages
        packages = Packages.below(installed) if installed else environment.prepare(root)
        result = soak(root, packages, arguments.library.resolve(), arguments.minutes)
    print(f"{result.rewritten} files rewritten in place in {arguments.minutes:g} minutes")
    fate = "the same as before" if result.unharmed else "lost"
    print(f"{result.served} requests served, {result.failed} failed; master and workers: {fate}")
    print(f"before: {total(result.before)}\nafter:  {total(result.after)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="ascii")
    wrong = broken_promises(result)
    for line in wrong:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
