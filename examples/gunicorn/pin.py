"""Runs `sopin pin` on the running service, and reads what it has done."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# A service of five processes takes some tenths of a second.
PIN_SECONDS = 60


class NotPermittedError(Exception):
    """This user may not trace the service. The text says what to do."""


@dataclass
class Pin:
    """What `sopin pin` has done to a busy service, and what its clients noticed."""

    pids: list[int]
    objects: int
    """How many objects all processes have together."""
    longest_stop_us: int
    served: int = 0
    failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


def pin_from_outside(command: Path, directory: Path, store: Path) -> Pin:
    """Pins every process of this user that maps a file below a directory.

    Raises NotPermittedError if this user may not."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SOPIN_")}
    ran = subprocess.run(
        [command, "pin", "--json", "--mapping", directory, "--user", str(os.getuid())],
        env=variables | {"SOPIN_STORE": str(store)},
        capture_output=True,
        encoding="utf-8",
        timeout=PIN_SECONDS,
        check=False,
    )
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        raise SystemExit(f"sopin pin ended with {ran.returncode}: {ran.stderr}") from None
    refused = report["not_pinned"]
    if refused and all(process["error"] == "denied" for process in refused):
        raise NotPermittedError(f"{refused[0]['reason']}; {refused[0]['way_out']}")
    pinned = report["processes"]
    complaints = [f"{process['pid']} was not pinned: {process['reason']}" for process in refused]
    for process in pinned:
        left = (thing for thing in process["objects"] if thing["after"] != "full")
        complaints += [f"{process['pid']}: {thing['path']} is {thing['after']}: {thing['reason']}" for thing in left]
    return Pin(
        pids=sorted(process["pid"] for process in pinned),
        objects=sum(process["objects_in_all"] for process in pinned),
        longest_stop_us=max((process["longest_stop_us"] for process in pinned), default=0),
        complaints=complaints,
    )
