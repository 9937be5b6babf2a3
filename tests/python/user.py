"""A program of a user, for mypy --strict."""

from __future__ import annotations

import os
from pathlib import Path

import sopin

pinned: bool = sopin.pin(Path("/usr/lib/libz.so.1")) or sopin.pin("libz.so.1") or sopin.pin_all()
sopin.start(period_seconds=2.5)
sopin.start()
state: sopin.Status = sopin.status()
exposed: list[str] = [f"{item.path} {item.base:#x} {item.reason or ''}" for item in state.objects if item.bytes == 0]
full: int = state.count("full")
try:
    sopin.pin(os.fsencode("/x"))
except sopin.Error as error:
    code: int = error.code
sopin.stop()
