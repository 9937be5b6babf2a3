"""The thread that pins again and again, for the few objects that do not announce themselves."""

from __future__ import annotations

import os
import threading
import warnings

from . import _library


class _Periodic:
    """A thread that pins periodically."""

    def __init__(self) -> None:
        self.period = 0.0
        self.end = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        self.end.clear()
        self.thread = threading.Thread(target=self.run, name="sopin", daemon=True)
        self.thread.start()

    def run(self) -> None:
        end = self.end
        while not end.wait(self.period):
            try:
                _library.pin_now(2)
            except _library.Error as error:
                if not _library.may_pin_later(error):
                    warnings.warn(f"sopin: {error}", _library.NotPinned, stacklevel=1)

    def start_in_child(self) -> None:
        """Starts the thread again, because fork(2) copies only the thread that calls it."""
        if self.thread is not None:
            self.end = threading.Event()
            self.start()


_periodic = _Periodic()
os.register_at_fork(after_in_child=lambda: _periodic.start_in_child())


def start(period_seconds: float = 10) -> None:
    """Pins everything now, then again every so many seconds in a daemon thread, also in forked children.

    The library itself pins most objects when they are loaded later; the thread is for
    the few that do not announce themselves. Calling start() again changes the period.
    """
    if not period_seconds > 0:
        raise ValueError("period_seconds must be positive")
    _library.pin_now(2)
    _periodic.period = period_seconds
    if _periodic.thread is None:
        _periodic.start()


def stop() -> None:
    """Ends the thread of start(). Pinned objects stay pinned."""
    if _periodic.thread is not None:
        _periodic.end.set()
        _periodic.thread.join()
        _periodic.thread = None
