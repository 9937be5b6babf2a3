"""gunicorn as a child process, and what happened to its workers."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

from environment import HERE, Site
from kernel_log import KernelLog
from load import Load

# The master logs every child that it starts, that ends, and that a signal has ended.
BOOTED = re.compile(r"Booting worker with pid: (\d+)")
ENDED = re.compile(r"Worker \(pid:(\d+)\) (?:was sent|exited)")
KILLED = re.compile(r"Worker \(pid:(\d+)\) was sent (SIG\w+)!")
# gunicorn itself ends workers with these signals.
ORDERLY = ("SIGTERM", "SIGQUIT")
PR_SET_CHILD_SUBREAPER = 36
READY_SECONDS = 20
SETTLE_SECONDS = 5


class Server:
    """One gunicorn with its workers, from readiness to the end of the `with`."""

    def __init__(self, site: Site, workers: int, settings: dict[str, str], directory: Path, threads: int = 1) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = directory / "gunicorn.log"
        self.log.unlink(missing_ok=True)
        self.kernel_log = KernelLog()
        self.workers: frozenset[int] = frozenset()
        self.orphans: dict[int, str | None] = {}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SOPIN_", "LD_"))}
        environment |= site.variables | settings
        database = directory / "shop.sqlite"
        environment |= {
            "DEMO_BIND": f"127.0.0.1:{self.port}",
            "DEMO_WORKERS": str(workers),
            "DEMO_THREADS": str(threads),
            "DEMO_DATABASE": str(database),
        }
        # The service only reads it, so a service that was killed has not changed it.
        if not database.exists():
            subprocess.run([sys.executable, HERE / "app.py"], env=environment, check=True)
        # Workers whose master has died become children of this process.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        command = [sys.executable, "-m", "gunicorn", "-c", HERE / "gunicorn.conf.py", "--chdir", HERE, "app:app"]
        with self.log.open("ab") as log:
            # gunicorn has a session of its own, so that everything in it can be ended.
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self.wait_until_ready(workers)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self, workers: int) -> None:
        """Waits until every worker has answered."""
        deadline = time.monotonic() + READY_SECONDS
        load = Load(self.port)
        while len(load.answered_by) < workers:
            if time.monotonic() > deadline or not self.is_running():
                raise SystemExit(f"the server did not start:\n{self.log.read_text()}")
            if load.request(1):
                load.request_all()
            else:
                time.sleep(0.02)
        self.workers = frozenset(load.answered_by)

    def is_running(self) -> bool:
        """Returns whether the master is running."""
        return self.process.poll() is None

    def is_unharmed(self) -> bool:
        """Returns whether master and workers are the same processes that became ready."""
        return self.is_running() and set(self.booted()) == self.workers and all(map(is_alive, self.workers))

    def booted(self) -> list[int]:
        """Returns every worker that was ever started."""
        return [int(pid) for pid in BOOTED.findall(self.log.read_text())]

    def settle(self) -> None:
        """Waits until the master has logged why its dead workers died."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and self.is_running():
            told = {int(pid) for pid in ENDED.findall(self.log.read_text())}
            if all(is_alive(worker) or worker in told for worker in self.workers):
                return
            time.sleep(0.02)

    def killed_workers(self) -> dict[str, int]:
        """Returns how many workers each signal has ended so far. The log of the master
        says so, or wait(2) once the master is dead."""
        told = KILLED.findall(self.log.read_text())
        if not self.is_running():
            known = {int(pid) for pid, _ in told}
            unknown = [pid for pid in self.booted() if pid not in known and pid not in self.orphans]
            self.orphans |= signals_of_orphans(unknown)
        names = [name for _, name in told if name not in ORDERLY]
        return dict(Counter([*names, *(name for name in self.orphans.values() if name is not None)]))

    def killed_master(self) -> str | None:
        """Returns the signal that has ended the master, if one has."""
        status = self.process.poll()
        return signal.Signals(-status).name if status is not None and status < 0 else None

    def first_fault(self) -> str | None:
        """Returns the first bad access of master or workers, if the kernel has logged it."""
        return self.kernel_log.first_fault({self.process.pid, *self.booted()})

    def library_said(self) -> list[str]:
        """Returns the lines of libsopin.so. At its default level, they name exposed objects."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("libsopin:")]

    def mapped_files(self) -> Counter[str]:
        """Returns the files that one of the workers has mapped, with the number of mappings."""
        with open(f"/proc/{min(self.workers)}/maps", encoding="utf-8") as maps:
            rows = [line.rstrip("\n").split(maxsplit=5) for line in maps]
        return Counter(row[5] for row in rows if len(row) == 6)

    def suspend(self) -> None:
        """Stops master and workers, so that none of them runs until `resume`."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + SETTLE_SECONDS
        while any(state_of(pid) != "T" for pid in (self.process.pid, *self.workers)):
            if time.monotonic() > deadline:
                raise SystemExit("the server could not be stopped")
            time.sleep(0.01)

    def resume(self) -> None:
        """Lets them continue."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ends master and workers. Does nothing if they have ended, because the number
        of their process group may belong to other processes by then."""
        if self.is_running() or any(is_ours(pid, self.process.pid) for pid in self.booted()):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        signals_of_orphans([pid for pid in self.booted() if pid not in self.orphans])
        self.kernel_log.close()


def state_of(pid: int) -> str | None:
    """Returns the state of a process as in proc_pid_stat(5); None if it does not exist."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            # The name before it may contain blanks and parentheses.
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    """Returns whether the process exists and has not ended."""
    return state_of(pid) not in ("Z", "X", None)


def is_ours(pid: int, group: int) -> bool:
    """Returns whether the process exists and is in this process group."""
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def signals_of_orphans(pids: list[int]) -> dict[int, str | None]:
    """Returns the signals that have ended workers without a master. Other workers notice
    that their master has died and exit; and a worker that the master has reaped without
    logging a signal has ended normally."""
    deadline = time.monotonic() + SETTLE_SECONDS
    found: dict[int, str | None] = {}
    while len(found) < len(pids) and time.monotonic() < deadline:
        for pid in pids:
            if pid in found:
                continue
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found[pid] = None
                continue
            if ended:
                found[pid] = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None
        if len(found) < len(pids):
            time.sleep(0.02)
    return found


def free_port() -> int:
    """Returns a port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
