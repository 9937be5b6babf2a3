"""Keeps this process alive while its shared objects are rewritten on disk.

    import sopin            # first, before anything with compiled extensions
    sopin.start()

    sopin.pin("/usr/lib/python3/dist-packages/numpy/core/_multiarray_umath.so")
    sopin.pin_all()
    for item in sopin.status().objects: print(item)

Copy this file to a directory in which Python finds it. It uses only ctypes and works
in two ways:

* In a process that was started with LD_PRELOAD=libsopin.so (or by `sopin run`) it
  uses the library that is loaded. Everything is pinned already.
* Otherwise importing it loads the library with RTLD_GLOBAL: whatever is
  imported later is pinned before its constructors run. The writable data of objects
  that are already loaded is copied while all threads have stopped. Where they cannot
  be stopped, it stays in the file, and the rest is pinned. So import it first, or
  better use LD_PRELOAD.

It searches for the library in the process; then at $SOPIN_LIBRARY, if that is set,
and nowhere else; then for libsopin.so.0 as the dynamic loader does; then in
/usr/local/lib, where `make install` puts it. If there is none, it raises ImportError.

It reports what could not be pinned by warnings.warn, once for each object and
reason. The settings are the library's own: SOPIN_MODE, SOPIN_LOG and the others.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from typing import NamedTuple

__all__ = ["Error", "Object", "Status", "NotPinned", "pin", "pin_all", "start", "status", "stop"]

_EINVAL, _ENOENT, _EOFF, _EBUSY, _EEXPOSED, _EPARTIAL, _EEXCLUDED = range(-1, -8, -1)
_REACHED = ("pending", "full", "relocated", "exposed", "excluded", "no file")
_MODES = {1: "full", 2: "relocated", 3: "off"}


class Error(Exception):
    """A request that the library has refused; `code` is a SOPIN_E* number of sopin.h."""

    def __init__(self, code: int) -> None:
        super().__init__(_library.sopin_strerror(code).decode())
        self.code = code


class NotPinned(UserWarning):
    """An object, or a part of it, still follows its file."""


class Object(NamedTuple):
    """A shared object of this process."""

    path: str
    base: int
    reached: str
    """One of full, relocated, exposed, excluded, pending, and "no file"."""
    bytes: int
    """The number of bytes that have been replaced."""
    reason: str | None
    """The reason, if the object could not be pinned further."""


class Status(NamedTuple):
    """The library's report about this process."""

    version: str
    mode: str
    """One of full, relocated and off."""
    objects: list[Object]

    def count(self, reached: str) -> int:
        """Returns how many objects have reached this level."""
        return sum(item.reached == reached for item in self.objects)


class _Version(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("patch", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("text", ctypes.c_char_p),
    ]


class _Totals(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("mode", ctypes.c_int),
        ("reserved", ctypes.c_int),
        ("counts", ctypes.c_size_t * 7),
        ("bytes", ctypes.c_uint64),
    ]


class _Object(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("path", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("reached", ctypes.c_int),
        ("error", ctypes.c_int),
        ("reason", ctypes.c_char_p),
        ("bytes", ctypes.c_uint64),
    ]


_Visitor = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Object), ctypes.c_void_p)


def _find_library() -> ctypes.CDLL:
    process = ctypes.CDLL(None)
    if hasattr(process, "sopin_pin_all"):
        return process
    chosen = os.environ.get("SOPIN_LIBRARY")
    candidates = [chosen] if chosen else ["libsopin.so.0", "/usr/local/lib/libsopin.so.0"]
    failures = []
    for candidate in candidates:
        try:
            return ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            failures.append(str(error))
    raise ImportError("libsopin.so: " + "; ".join(failures))


def _prepare(library: ctypes.CDLL) -> ctypes.CDLL:
    for name in ("version", "pin_all", "pin_path", "for_each", "summary"):
        getattr(library, "sopin_" + name).restype = ctypes.c_int
    library.sopin_version.argtypes = [ctypes.POINTER(_Version)]
    library.sopin_pin_all.argtypes = []
    library.sopin_pin_path.argtypes = [ctypes.c_char_p]
    library.sopin_for_each.argtypes = [_Visitor, ctypes.c_void_p]
    library.sopin_summary.argtypes = [ctypes.POINTER(_Totals)]
    library.sopin_strerror.argtypes = [ctypes.c_int]
    library.sopin_strerror.restype = ctypes.c_char_p
    return library


_library = _prepare(_find_library())
_warned = set()


def _check(code: int) -> None:
    if code != 0:
        raise Error(code)


def status() -> Status:
    """Returns the library's report, with the objects in the loader's order."""
    objects: list[Object] = []

    @_Visitor
    def visit(pointer, _):
        item = pointer.contents
        reached = _REACHED[item.reached] if item.reached < len(_REACHED) else str(item.reached)
        reason = item.reason.decode(errors="replace") if item.reason else None
        objects.append(Object(os.fsdecode(item.path), item.base or 0, reached, item.bytes, reason))
        return 0

    version = _Version(size=ctypes.sizeof(_Version))
    totals = _Totals(size=ctypes.sizeof(_Totals))
    _check(_library.sopin_version(ctypes.byref(version)))
    _check(_library.sopin_summary(ctypes.byref(totals)))
    _check(_library.sopin_for_each(visit, None))
    return Status(version.text.decode(), _MODES.get(totals.mode, str(totals.mode)), objects)


def _warn(stacklevel: int) -> None:
    """Warns about every object that is not pinned as the mode says."""
    state = status()
    for item in state.objects:
        partial = item.reached == "relocated" and state.mode == "full"
        if (item.reached == "exposed" or partial) and (item.path, item.reason) not in _warned:
            _warned.add((item.path, item.reason))
            warnings.warn(f"{item.path}: {item.reached}: {item.reason}", NotPinned, stacklevel=stacklevel + 1)


def _conclude(code: int, stacklevel: int) -> bool:
    if code == 0:
        return True
    if code in (_EEXPOSED, _EPARTIAL):
        _warn(stacklevel + 1)
        return False
    if code in (_EOFF, _EEXCLUDED):
        return False
    raise Error(code)


def pin(filename) -> bool:
    """Pins the object that was loaded from this file, as far as that is possible now.

    Returns True if it is pinned as SOPIN_MODE says. Returns False if the settings say
    to leave it, or, with a warning, if a part of it could not be pinned. Raises
    FileNotFoundError if no such object is loaded.
    """
    code = _library.sopin_pin_path(os.fsencode(filename))
    if code == _ENOENT:
        raise FileNotFoundError(f"{filename}: not loaded")
    return _conclude(code, 2)


def pin_all() -> bool:
    """Pins every object that is loaded. Returns True if all are pinned as SOPIN_MODE says.

    Otherwise returns False, with a warning for each that is not. All other threads are
    stopped while the writable data of objects is copied whose code may have run. Where
    they cannot be stopped, that data stays in the file.
    """
    return _conclude(_library.sopin_pin_all(), 2)


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
                _conclude(_library.sopin_pin_all(), 2)
            except Error as error:
                # A fork may be under way; the next round will pin.
                if error.code != _EBUSY:
                    warnings.warn(f"sopin: {error}", NotPinned, stacklevel=1)

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
    _conclude(_library.sopin_pin_all(), 2)
    _periodic.period = period_seconds
    if _periodic.thread is None:
        _periodic.start()


def stop() -> None:
    """Ends the thread of start(). Pinned objects stay pinned."""
    if _periodic.thread is not None:
        _periodic.end.set()
        _periodic.thread.join()
        _periodic.thread = None
