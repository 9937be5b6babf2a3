"""gunicorn as a child process, and what became of its workers."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from environment import HERE, Site
from load import ask

# The master says so of every child that it starts, and that a signal has ended.
BOOTED = re.compile(r"Booting worker with pid: (\d+)")
KILLED = re.compile(r"Worker \(pid:(\d+)\) was sent (SIG\w+)!")
FAULT = re.compile(r"\[(\d+)\]: segfault at ([0-9a-f]+) ip ([0-9a-f]+)")
# How gunicorn itself ends workers.
ORDERLY = ("SIGTERM", "SIGQUIT")
PR_SET_CHILD_SUBREAPER = 36
READY_SECONDS = 20


class Server:
    """One gunicorn with its workers."""

    def __init__(self, site: Site, workers: int, sopin: dict[str, str], library: Path | None, directory: Path) -> None:
        self.port = free_port()
        self.log = directory / "gunicorn.log"
        preloads = [str(path) for path in site.preloads]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SOPIN_", "LD_"))}
        environment |= site.variables | {
            "DEMO_BIND": f"127.0.0.1:{self.port}",
            "DEMO_WORKERS": str(workers),
            "DEMO_DATABASE": str(directory / "shop.sqlite"),
        }
        if library is not None:
            environment |= sopin
            preloads.insert(0, str(library))
        if preloads:
            environment["LD_PRELOAD"] = ":".join(preloads)
        subprocess.run([sys.executable, HERE / "app.py"], env=environment, check=True)
        command = [sys.executable, "-m", "gunicorn", "-c", HERE / "gunicorn.conf.py", "--chdir", HERE, "app:app"]
        # Workers whose master has died become children of this process.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.orphans: dict[int, str | None] = {}
        # A session of its own, so that everything in it can be ended.
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log.open("a"), stderr=subprocess.STDOUT, start_new_session=True
        )
        self.wait_until_ready(workers)

    def wait_until_ready(self, workers: int) -> None:
        """Until every worker has answered."""
        deadline = time.monotonic() + READY_SECONDS
        seen: set[int] = set()
        while len(seen) < workers:
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                raise SystemExit(f"the server did not start, see {self.log}:\n{self.log.read_text()}")
            problem, worker = ask(self.port, 1 + len(seen))
            if problem is None:
                seen.add(worker)
            else:
                time.sleep(0.02)

    def killed_workers(self) -> list[str]:
        """The signals that have ended workers so far, as the master tells, or
        the kernel once the master is dead."""
        log = self.log.read_text()
        named = [name for _, name in KILLED.findall(log) if name not in ORDERLY]
        if self.process.poll() is None:
            return named
        known = {int(pid) for pid, _ in KILLED.findall(log)}
        orphans = [int(pid) for pid in BOOTED.findall(log) if int(pid) not in known]
        for pid in orphans:
            if pid not in self.orphans:
                self.orphans[pid] = signal_of_orphan(pid)
        return named + [name for name in self.orphans.values() if name is not None]

    def first_fault(self) -> str | None:
        """The first bad access of master or workers, where the kernel's log may
        be read: data and instruction address are the same after a jump."""
        pids = {self.process.pid, *map(int, BOOTED.findall(self.log.read_text()))}
        try:
            kernel = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout
        except OSError:
            return None
        for pid, address, instruction in FAULT.findall(kernel):
            if int(pid) in pids:
                jumped = int(address, 16) == int(instruction, 16)
                return f"{'jump to' if jumped else 'access to'} 0x{int(address, 16):x}"
        return None

    def killed_master(self) -> str | None:
        """The signal that has ended the master, if one has."""
        status = self.process.poll()
        return signal.Signals(-status).name if status is not None and status < 0 else None

    def is_running(self) -> bool:
        """Whether the master is."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends master and workers."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def signal_of_orphan(pid: int) -> str | None:
    """The signal that has ended a worker without a master. The others notice
    that they have none and end by themselves."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            # The master had reaped it: then it was an orderly end.
            return None
        if ended:
            return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None
        time.sleep(0.02)
    return None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
