"""Runs `sopin watch --pin` beside the service, and reads what it says."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from pin import NotPermittedError

END_SECONDS = 30


@dataclass
class Watched:
    """What `sopin watch --pin` has said so far."""

    pids: list[int]
    """The processes that it has pinned before a file was opened for writing."""
    longest_delay_us: int
    """The longest time that a writer had to wait."""
    complaints: list[str] = field(default_factory=list)


class Watch:
    """A watch of the files below a directory, while the context lasts."""

    def __init__(self, command: Path, directory: Path, store: Path) -> None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SOPIN_")}
        self.lines: list[dict] = []
        self.process = subprocess.Popen(
            [command, "watch", "--pin", "--json", "--mapping", directory],
            env=variables | {"SOPIN_STORE": str(store)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.readers = [threading.Thread(target=self.read_lines), threading.Thread(target=self.read_errors)]
        self.errors: list[str] = []
        self.begun = threading.Event()

    def __enter__(self) -> Watch:
        """Waits until it guards. Raises NotPermittedError if this user may not let it."""
        for reader in self.readers:
            reader.start()
        self.begun.wait(END_SECONDS)
        if self.process.poll() is not None or not self.begun.is_set():
            self.end()
            raise NotPermittedError(" ".join(self.errors))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ends it as a user would."""
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        finally:
            self.process.kill()
        for reader in self.readers:
            reader.join()

    def read_lines(self) -> None:
        """Reads what it says about events."""
        for line in self.process.stdout or ():
            self.lines.append(json.loads(line))

    def read_errors(self) -> None:
        """Reads its first line on stderr, which says that it guards, and errors."""
        for line in self.process.stderr or ():
            if line.startswith("sopin: watching "):
                self.begun.set()
            else:
                self.errors.append(line.strip())
        # It has ended.
        self.begun.set()

    def look(self) -> Watched:
        """Returns what it has said so far."""
        lines = list(self.lines)
        opens = [line for line in lines if line["event"] == "open"]
        complaints = [
            f"{process['pid']} was left: {process['reason']}" for line in opens for process in line["left"]
        ]
        complaints += [
            f"{line['writer']['name']} went on: {line['reason']}" for line in lines if line["event"] == "went-on"
        ]
        if self.process.poll() is not None:
            complaints.append(f"the watch has ended: {' '.join(self.errors)}")
        return Watched(
            pids=sorted({process["pid"] for line in opens for process in line["pinned"]}),
            longest_delay_us=max((line["delay_us"] for line in opens), default=0),
            complaints=complaints,
        )
