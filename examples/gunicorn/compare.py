"""Runs the same service under the same rewriting without and with sopin.

Busy: all workers serve while every shared object under them is rewritten.
Idle: nothing runs while the objects are rewritten with the bytes they had;
then one request is made (the original report: relocations are gone, and a
worker jumps to a small address).

Ends with status 1 if the promise is broken: a protected worker died or a
request failed; or if the unprotected service survived, which would mean that
the demonstration shows nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import environment
from load import Load, ask
from rewriter import Rewriter
from server import Server
from shop import CUSTOMERS

WORKERS = 4
ROUNDS = 3


@dataclass
class Result:
    """What one run has shown."""

    case: str
    mode: str
    served: int = 0
    failed: int = 0
    killed: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    master_killed: str | None = None
    first_fault: str | None = None
    server_survived: bool = True

    @property
    def is_unharmed(self) -> bool:
        """Nobody died and nothing failed."""
        return not self.killed and self.failed == 0 and self.server_survived


def modes(library: Path, store: Path) -> dict[str, tuple[Path | None, dict[str, str]]]:
    """Name of a mode, the library to preload and its settings."""
    return {
        "without": (None, {}),
        "relocated": (library, {"SOPIN_MODE": "relocated"}),
        "full": (library, {"SOPIN_MODE": "full", "SOPIN_STORE": str(store)}),
    }


def busy(mode: str, server: Server, rewriter: Rewriter) -> Result:
    """Rewrites under load: the same bytes, another build, no bytes for a second."""
    load = Load(server.port)
    load.start()
    time.sleep(0.5)
    for _ in range(ROUNDS):
        rewriter.same_bytes()
        time.sleep(0.3)
    rewriter.other_build()
    time.sleep(1)
    rewriter.same_bytes()
    rewriter.empty_for(1)
    time.sleep(0.5)
    load.stop()
    return finish(Result("busy", mode, load.served, load.failed, failures=dict(load.failures)), server)


def idle(mode: str, server: Server, rewriter: Rewriter) -> Result:
    """Rewrites with the same bytes while nothing happens, then asks each worker."""
    rewriter.same_bytes()
    result = Result("idle", mode)
    failures: Counter[str] = Counter()
    for number in range(1, CUSTOMERS + 1):
        problem, _ = ask(server.port, number)
        if problem is None:
            result.served += 1
        else:
            result.failed += 1
            failures[problem] += 1
    result.failures = dict(failures)
    return finish(result, server)


def finish(result: Result, server: Server) -> Result:
    """Adds what the master knows."""
    # It reaps its children once a second at the latest.
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and result.failed and server.is_running() and not server.killed_workers():
        time.sleep(0.05)
    result.killed = dict(Counter(server.killed_workers()))
    result.master_killed = server.killed_master()
    result.first_fault = server.first_fault()
    result.server_survived = server.is_running()
    return result


def run(case: str, mode: str, root: Path, library: Path, packages: environment.Packages) -> Result:
    """One case in one mode, on a copy of its own."""
    preload, settings = modes(library, root / "store")[mode]
    with tempfile.TemporaryDirectory(prefix=f"{case}-{mode}-", dir=root) as scratch:
        directory = Path(scratch)
        site = environment.copy_site(packages, directory / "site")
        rewriter = Rewriter(site, packages)
        server = Server(site, WORKERS, settings, preload, directory)
        try:
            return (busy if case == "busy" else idle)(mode, server, rewriter)
        finally:
            server.stop()


def table(results: list[Result]) -> str:
    """The results, aligned."""
    rows = [("", "sopin", "served", "failed", "workers killed")]
    for result in results:
        killed = ", ".join(f"{count} by {name}" for name, count in sorted(result.killed.items())) or "none"
        if result.master_killed:
            killed += f"; the master by {result.master_killed}"
        elif not result.server_survived:
            killed += "; the master gave up"
        if result.first_fault:
            killed += f" ({result.first_fault})"
        rows.append((result.case, result.mode, str(result.served), str(result.failed), killed))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = (
        f"{case:<{widths[0]}}  {mode:<{widths[1]}}  {served:>{widths[2]}}  {failed:>{widths[3]}}  {killed}"
        for case, mode, served, failed, killed in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def broken_promises(results: list[Result]) -> list[str]:
    """What should have been otherwise."""
    wrong = []
    for result in results:
        what = f"{result.case}, {result.mode}"
        if result.mode == "without" and not result.killed and not result.master_killed:
            wrong.append(f"{what}: nobody was killed, so nothing was shown")
        # Text follows the file in mode relocated: only an idle service survives.
        is_promised = result.mode == "full" or (result.mode, result.case) == ("relocated", "idle")
        if is_promised and not result.is_unharmed:
            wrong.append(f"{what}: killed {result.killed}, failed {result.failures}")
        if is_promised and result.served == 0:
            wrong.append(f"{what}: nothing was served")
    return wrong


def main() -> int:
    """Sets up, runs every case, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, help="the libsopin.so to show")
    parser.add_argument("--root", type=Path, required=True, help="directory for packages and copies, made if missing")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    if not arguments.library.is_file():
        parser.error(f"{arguments.library} does not exist; run make first")
    root: Path = arguments.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    packages = environment.prepare(root)
    begin = time.monotonic()
    results = []
    for case, mode in [(case, mode) for case in ("busy", "idle") for mode in ("without", "relocated", "full")]:
        results.append(run(case, mode, root, arguments.library.resolve(), packages))
        print(f"{case}, {mode}: done", file=sys.stderr)
    print(f"gunicorn, {WORKERS} sync workers, Flask + SQLAlchemy + SQLite; every shared object rewritten in place\n")
    print(table(results))
    print(f"\n{time.monotonic() - begin:.0f} seconds")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    wrong = broken_promises(results)
    for line in wrong:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
