"""Runs one service under one kind of rewriting after the other, and observes it.

The service is started again only if the last rewriting has harmed it. So a service
that survives must survive everything, and one that dies shows what each kind does.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from environment import Packages, Site, copy_site
from load import Load
from pin import Pin, pin_from_outside
from rewriter import Rewriter
from server import Server
from watch import Watch, Watched

WORKERS = 4
# There are more clients than workers, so that each worker finds a request when it has
# answered one.
CLIENTS = 6
ROUNDS = 3
ANSWER_SECONDS = 10

CASES = ("same bytes", "other build", "emptied", "idle")


@dataclass(frozen=True)
class Mode:
    """What protects the service."""

    settings: dict[str, str] = field(default_factory=dict)
    """The variables of the library."""
    is_preloaded: bool = True
    """Whether the service is started with the library."""
    is_pinned: bool = False
    """Whether `sopin pin` pins the service while it is busy."""
    is_watched: bool = False
    """Whether `sopin watch --pin` runs beside the service."""

    @property
    def needs_command(self) -> bool:
        """Whether it needs the command."""
        return self.is_pinned or self.is_watched


MODES = {
    "without": Mode(is_preloaded=False),
    "relocated": Mode({"SOPIN_MODE": "relocated"}),
    "full, memfd": Mode({"SOPIN_MODE": "full", "SOPIN_STORE": "off"}),
    "full": Mode({"SOPIN_MODE": "full"}),
    "full, sopin pin": Mode(is_preloaded=False, is_pinned=True),
    "full, sopin watch": Mode(is_preloaded=False, is_watched=True),
}


@dataclass
class Result:
    """The effect of one kind of rewriting on the service in one mode."""

    case: str
    mode: str
    served: int = 0
    failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    killed: dict[str, int] = field(default_factory=dict)
    master_killed: str | None = None
    first_fault: str | None = None
    unharmed: bool = False
    """Whether master and workers are the same processes as before."""
    all_answered: bool = False
    """Whether each worker has answered a request that it began after the rewriting."""
    library_said: list[str] = field(default_factory=list)
    objects_rewritten: int = 0
    objects_in_use: int = 0
    """The number of those objects that a worker had mapped."""
    copies_in_use: dict[str, int] = field(default_factory=dict)
    """The number of mappings of copies in a worker: files of the store, and memfds."""
    pin: Pin | None = None
    """What `sopin pin` has done before the rewriting. A service that goes on from one case
    to the next is pinned before the first one only."""
    watched: Watched | None = None
    """What `sopin watch --pin` has said since the service was started."""


@dataclass(frozen=True)
class Tested:
    """What the runs of all modes try."""

    library: Path
    command: Path | None
    threads: int = 1
    """How many threads a worker has."""


class Experiment:
    """The runs of one mode, which use copies of their own below `root`."""

    def __init__(self, mode: str, packages: Packages, root: Path, tested: Tested) -> None:
        self.name = mode
        self.mode = MODES[mode]
        self.root = root
        self.command = tested.command
        self.threads = tested.threads
        self.store = root / "store"
        self.settings = {"SOPIN_STORE": str(self.store)} | self.mode.settings if self.mode.is_preloaded else {}
        self.site: Site = copy_site(packages, root / "site", tested.library if self.mode.is_preloaded else None)
        self.rewriter = Rewriter(self.site, packages)

    def run(self, cases: list[str]) -> list[Result]:
        """Runs every case, one after the other.

        Raises NotPermittedError if the service has to be pinned, and this user may not do that."""
        results: list[Result] = []
        with ExitStack() as running:
            server: Server | None = None
            watch: Watch | None = None
            for case in cases:
                if server is not None and not results[-1].unharmed:
                    running.close()
                    self.rewriter.same_bytes()
                    server = None
                pin = None
                if server is None:
                    server = Server(self.site, WORKERS, self.settings, self.root / "run", self.threads)
                    running.enter_context(server)
                    pin = self.pin(server)
                    watch = self.watch(server)
                    if watch is not None:
                        running.enter_context(watch)
                result = self.run_case(case, server, pin)
                result.watched = watch and watch.look()
                results.append(result)
                print(f"{self.name}: {case}: done", file=sys.stderr)
        shutil.rmtree(self.root)
        return results

    def pin(self, server: Server) -> Pin | None:
        """Pins a busy service from outside, if the mode says so."""
        if not self.mode.is_pinned or self.command is None:
            return None
        load = self.busy(server)
        pin = pin_from_outside(self.command, self.site.root, self.store)
        everyone = {server.process.pid, *server.workers}
        if pin.pids != sorted(everyone):
            pin.complaints.append(f"pinned {pin.pids} instead of {sorted(everyone)}")
        if not load.wait_for_each(server.workers, ANSWER_SECONDS, server.is_unharmed):
            pin.complaints.append("not every worker answered after the pin")
        load.stop()
        pin.served, pin.failed, pin.failures = load.served, load.failed, dict(load.failures)
        return pin

    def watch(self, server: Server) -> Watch | None:
        """Makes a watch of the busy service, if the mode says so. What it loads from now on is
        guarded a moment later."""
        if not self.mode.is_watched or self.command is None:
            return None
        self.busy(server).stop()
        return Watch(self.command, self.site.root, self.store)

    def busy(self, server: Server) -> Load:
        """Starts to send requests, and returns when all workers serve some."""
        load = Load(server.port, self.threads)
        load.start(CLIENTS * self.threads)
        if not load.wait_for_each(server.workers, ANSWER_SECONDS, server.is_unharmed):
            raise SystemExit(f"{self.name}: not all workers were busy before: {dict(load.failures)}")
        return load

    def run_case(self, case: str, server: Server, pin: Pin | None) -> Result:
        """Rewrites the objects in one way and sends requests."""
        result = Result(case, self.name, objects_rewritten=len(self.site.shared_objects), pin=pin)
        self.look_at_mappings(server, result)
        if case == "idle":
            load = Load(server.port)
            result.all_answered = self.rewrite_while_idle(server, load)
        else:
            load = self.busy(server)
            result.all_answered = self.rewrite_under_load(case, server, load)
        server.settle()
        result.killed = server.killed_workers()
        result.master_killed = server.killed_master()
        result.first_fault = server.first_fault()
        result.unharmed = server.is_unharmed()
        result.library_said = server.library_said()
        if not result.unharmed:
            # If workers die at once, their master keeps the clients waiting.
            server.stop()
        load.stop()
        result.served, result.failed, result.failures = load.served, load.failed, dict(load.failures)
        return result

    def look_at_mappings(self, server: Server, result: Result) -> None:
        """Counts which of the objects and copies the service has mapped."""
        files = server.mapped_files()
        unused = [path.name for path in self.site.extensions if str(path) not in files]
        if unused:
            raise SystemExit(f"SQLAlchemy does not use {unused}: the demonstration would show nothing")
        result.objects_in_use = sum(str(path) in files for path in self.site.shared_objects)
        result.copies_in_use = {
            "store": sum(count for path, count in files.items() if path.startswith(f"{self.store}/")),
            "memfd": sum(count for path, count in files.items() if path.startswith("/memfd:sopin:")),
        }

    def rewrite_under_load(self, case: str, server: Server, load: Load) -> bool:
        """Rewrites while all workers serve. Returns whether all of them still do."""
        if case == "same bytes":
            for _ in range(ROUNDS):
                self.rewriter.same_bytes()
                time.sleep(0.3)
        elif case == "other build":
            self.rewriter.other_build()
            time.sleep(0.7)
            self.rewriter.same_bytes()
        else:
            self.rewriter.empty_for(1)
        return load.wait_for_each(server.workers, ANSWER_SECONDS, server.is_unharmed)

    def rewrite_while_idle(self, server: Server, load: Load) -> bool:
        """Rewrites with the bytes that the objects have, while the service sleeps. Returns
        whether each worker then answers."""
        # gunicorn's processes wake up now and then. While they are suspended, none of
        # them can run between truncation and writing.
        server.suspend()
        self.rewriter.same_bytes()
        server.resume()
        load.request_all()
        deadline = time.monotonic() + ANSWER_SECONDS
        while set(load.answered_by) != server.workers:
            if load.failed or time.monotonic() > deadline:
                return False
            load.request_all()
        return True
