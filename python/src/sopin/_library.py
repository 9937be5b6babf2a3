"""Finds the library, loads it and calls its C interface (sopin.h). Imports ctypes only."""

from __future__ import annotations

import ctypes
import os
import warnings
from typing import NamedTuple

import _sopin_check
import _sopin_start

_EINVAL, _ENOENT, _EOFF, _EBUSY, _EEXPOSED, _EPARTIAL, _EEXCLUDED = range(-1, -8, -1)
_REACHED = ("pending", "full", "relocated", "exposed", "excluded", "no file")
_MODES = {1: "full", 2: "relocated", 3: "off"}

PATH = os.environ.get("SOPIN_LIBRARY") or _sopin_start.LIBRARY
"""The library that is loaded if the process has none."""


class Error(Exception):
    """A request that the library has refused; `code` is a SOPIN_E* number of sopin.h."""

    def __init__(self, code: int) -> None:
        super().__init__(_needed().sopin_strerror(code).decode())
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

    # `object`, because NamedTuple has a method of this name already.
    def count(self, reached: object) -> int:
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


def _of_process() -> ctypes.CDLL | None:
    process = ctypes.CDLL(None)
    return process if hasattr(process, "sopin_pin_all") else None


was_loaded = _of_process() is not None
"""Whether the process had the library before this import."""
_library: ctypes.CDLL | None = None
_failure = ""
_warned: set[tuple[str, str | None]] = set()


def _load() -> ctypes.CDLL:
    defect = _sopin_check.defect() if PATH == _sopin_start.LIBRARY else None
    if defect is not None:
        raise OSError(defect)
    return ctypes.CDLL(PATH, mode=ctypes.RTLD_GLOBAL)


try:
    _library = _prepare(_of_process() or _load())
except (OSError, AttributeError) as error:
    _failure = f"libsopin.so: {error}"
    warnings.warn(f"{_failure}; this process is not protected", NotPinned, stacklevel=3)


def _needed() -> ctypes.CDLL:
    if _library is None:
        raise ImportError(_failure)
    return _library


def is_loaded() -> bool:
    """Returns whether the process has the library now."""
    return _library is not None


def _check(code: int) -> None:
    if code != 0:
        raise Error(code)


def status() -> Status:
    """Returns the library's report, with the objects in the loader's order."""
    library = _needed()
    objects: list[Object] = []

    @_Visitor
    def visit(pointer, _):  # type: ignore[no-untyped-def]
        item = pointer.contents
        reached = _REACHED[item.reached] if item.reached < len(_REACHED) else str(item.reached)
        reason = item.reason.decode(errors="replace") if item.reason else None
        objects.append(Object(os.fsdecode(item.path), item.base or 0, reached, item.bytes, reason))
        return 0

    version = _Version(size=ctypes.sizeof(_Version))
    totals = _Totals(size=ctypes.sizeof(_Totals))
    _check(library.sopin_version(ctypes.byref(version)))
    _check(library.sopin_summary(ctypes.byref(totals)))
    _check(library.sopin_for_each(visit, None))
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


def pin(filename: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bool:
    """Pins the object that was loaded from this file, as far as that is possible now.

    Returns True if it is pinned as SOPIN_MODE says. Returns False if the settings say
    to leave it, or, with a warning, if a part of it could not be pinned. Raises
    FileNotFoundError if no such object is loaded.
    """
    code = _needed().sopin_pin_path(os.fsencode(filename))
    if code == _ENOENT:
        raise FileNotFoundError(f"{os.fsdecode(filename)}: not loaded")
    return _conclude(code, 2)


def pin_all() -> bool:
    """Pins every object that is loaded. Returns True if all are pinned as SOPIN_MODE says.

    Otherwise returns False, with a warning for each that is not. All other threads are
    stopped while the writable data of objects is copied whose code may have run. Where
    they cannot be stopped, that data stays in the file.
    """
    return _conclude(_needed().sopin_pin_all(), 2)


def pin_now(stacklevel: int) -> bool:
    """Does the same for a caller in this package; warnings name the caller's caller."""
    return _conclude(_needed().sopin_pin_all(), stacklevel + 1)


def may_pin_later(error: Error) -> bool:
    """Returns whether the next attempt can succeed, because a fork is under way now."""
    return error.code == _EBUSY
