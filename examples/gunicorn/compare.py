"""Runs the same service under the same rewriting without and with sopin, pinned by
`sopin pin` while it runs, and with `sopin watch --pin` beside it.

While all workers serve, every shared object that they use is rewritten in place:
with the same bytes, with another build of the same packages, and with zero length
for a second. Then it is rewritten with the same bytes while the service is idle (the
original report: relocations are lost, and a worker jumps to a small address).

Ends with status 1 if the promise is broken, because a protected process died or a
request failed; or if the unprotected service survived, because then the
demonstration has shown nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import environment
from environment import Packages
from experiment import CASES, MODES, WORKERS, Experiment, Result, Tested
from pin import NotPermittedError


def table(results: list[Result]) -> str:
    """Returns the results as an aligned table, with the modes of a case next to each other."""
    rows = [("rewritten", "sopin", "served", "failed", "workers killed")]
    for case in CASES:
        label = case
        for result in (result for result in results if result.case == case):
            rows.append((label, result.mode, str(result.served), str(result.failed), fate(result)))
            label = ""
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = (
        f"{case:<{widths[0]}}  {mode:<{widths[1]}}  {served:>{widths[2]}}  {failed:>{widths[3]}}  {killed}"
        for case, mode, served, failed, killed in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def fate(result: Result) -> str:
    """Returns what happened to the processes, in words."""
    words = ", ".join(f"{count} by {name}" for name, count in sorted(result.killed.items())) or "none"
    if result.master_killed:
        words += f"; the master by {result.master_killed}"
    elif not result.unharmed and not result.killed:
        words += ", but some ended"
    if result.first_fault:
        words += f" ({result.first_fault})"
    return words


def broken_promises(results: list[Result]) -> list[str]:
    """Returns descriptions of what was wrong."""
    wrong = []
    for result in results:
        complaints = []
        # In mode relocated, text follows the file, so only an idle service survives.
        if result.mode.startswith("full") or (result.mode, result.case) == ("relocated", "idle"):
            if not result.unharmed:
                complaints.append(f"processes were lost: {fate(result)}")
            if result.failed:
                complaints.append(f"requests failed: {result.failures}")
            if not result.all_answered:
                complaints.append("not every worker answered afterwards")
            complaints += result.library_said
        if result.pin is not None:
            complaints += result.pin.complaints
            if result.pin.failed:
                complaints.append(f"requests failed during the pin: {result.pin.failures}")
        if result.watched is not None:
            complaints += result.watched.complaints
            if not result.watched.pids:
                complaints.append("the watch has pinned nothing")
        elif result.mode.startswith("full") and not any(result.copies_in_use.values()):
            complaints.append("nothing was mapped from copies")
        if result.mode == "without" and not result.killed and not result.master_killed:
            complaints.append("no process was killed, so nothing was shown")
        wrong += [f"{result.case}, {result.mode}: {complaint}" for complaint in complaints]
    return wrong


def compare(root: Path, packages: Packages, tested: Tested, modes: list[str], cases: list[str]) -> list[Result]:
    """Runs every mode, one after the other."""
    runs = root / "runs"
    # A run that was killed may have left them.
    shutil.rmtree(runs, ignore_errors=True)
    # All copies are made first, because the store does not accept files that have just
    # been made.
    experiments = [
        Experiment(mode, packages, runs / mode.replace(", ", "-").replace(" ", "-"), tested) for mode in modes
    ]
    results: list[Result] = []
    for experiment in experiments:
        try:
            results += experiment.run(cases)
        except NotPermittedError as reason:
            print(f"{experiment.name}: not shown: {reason}", file=sys.stderr)
    return results


def main() -> int:
    """Sets up, runs everything, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, help="the libsopin.so to show")
    parser.add_argument("--command", type=Path, help="the sopin that pins the service in two modes")
    parser.add_argument("--root", type=Path, required=True, help="directory for packages and copies, made if missing")
    parser.add_argument("--packages", type=Path, help="directory with installed packages and other-builds of them")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--threads", type=int, default=1, help="threads of a worker (default: 1)")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="only these")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="only these")
    arguments = parser.parse_args()
    if not arguments.library.is_file():
        parser.error(f"{arguments.library} does not exist; run make first")
    command: Path | None = arguments.command and arguments.command.resolve()
    modes = arguments.modes or [name for name, mode in MODES.items() if command or not mode.needs_command]
    if any(MODES[name].needs_command for name in modes) and not (command and command.is_file()):
        parser.error("a mode needs --command, and the file must exist")
    tested = Tested(arguments.library.resolve(), command, arguments.threads)
    # SIGTERM has the same effect as an interrupt from the keyboard: the server is ended
    # too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    root: Path = arguments.root.resolve()
    with environment.alone(root):
        installed = arguments.packages
        packages = Packages.below(installed) if installed else environment.prepare(root)
        begin = time.monotonic()
        results = compare(root, packages, tested, modes, arguments.cases)
        seconds = time.monotonic() - begin
    if not results:
        return 1
    most = max(results, key=lambda result: result.objects_in_use)
    kind_of_worker = "sync workers" if tested.threads == 1 else f"gthread workers of {tested.threads} threads"
    print(
        f"gunicorn, {WORKERS} {kind_of_worker}, Flask + SQLAlchemy + SQLite; {most.objects_rewritten} shared objects "
        f"rewritten in place,\n{most.objects_in_use} of them in use\n"
    )
    print(table(results))
    print(f"\n{seconds:.0f} seconds")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    wrong = broken_promises(results)
    for line in wrong:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
