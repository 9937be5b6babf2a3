"""Loads libsopin.so into this process. `sopin enable` has every Python of an environment call start()
when it starts, so this loads nothing but the library, and prints at most one line.

It is not a part of the package `sopin`, which imports ctypes: that would take longer than all
that is done here. Nearly every start needs only what is in this file, so it is short, and opens files
without objects of `io`. The rest is in `_sopin_check`, which is imported only if something is not as
expected. With `-S` Python reads no .pth files, and so does not call this.
"""

import os
import sys

LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sopin", "libsopin.so")
# The boot, and inode, size, and the times of the last modification and change of the library in
# nanoseconds, separated by blanks, if `sopin enable` has compared it with what was installed. The .pth
# file sets this only where each change of the file gives it other times.
known = None
_was_called = False
_BLOCK = 1 << 13


def _read(path: str) -> bytes:
    """Returns the text of a file in /proc."""
    text, descriptor = b"", os.open(path, os.O_RDONLY)
    try:
        part = os.read(descriptor, _BLOCK)
        while part:
            text += part
            part = os.read(descriptor, _BLOCK)
    finally:
        os.close(descriptor)
    return text


def _is_known() -> bool:
    """Returns whether the library is the file that `sopin enable` has compared. A crash of the machine can
    leave new bytes under old times, so it has to be the same boot."""
    if known is None:
        return False
    try:
        boot = _read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()
        found = os.stat(LIBRARY)
    except (OSError, ValueError):
        return False
    return known == f"{boot} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _may_be_loaded() -> bool:
    """Returns whether the process may have a library already, under this or another name."""
    try:
        return "LD_PRELOAD" in os.environ or b"libsopin" in _read("/proc/self/maps")
    except OSError:
        return True


def _load_as_extension() -> bool:
    """Loads the library by what CPython loads extension modules by. It is none, so that this raises an
    error when it is loaded. Returns whether the error is that one, and so whether it certainly is."""
    import _imp
    from _frozen_importlib import ModuleSpec

    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        _imp.create_dynamic(ModuleSpec("libsopin", None, origin=LIBRARY))
    except Exception as error:
        return isinstance(error, ImportError) and "PyInit_libsopin" in str(error)
    finally:
        sys.setdlopenflags(flags)
    return False


def start() -> None:
    """Loads the library, unless the process has one already. In a virtual environment `site` reads
    each .pth file twice, and a second call does nothing."""
    global _was_called
    if _was_called:
        return
    _was_called = True
    if _may_be_loaded():
        import _sopin_check

        if _sopin_check.is_loaded():
            return
    reason = None
    if not _is_known():
        import _sopin_check

        reason = _sopin_check.defect()
    if reason is None and not _load_as_extension():
        import _sopin_check

        reason = _sopin_check.load()
    if reason is not None and sys.stderr is not None:
        sys.stderr.write(f"sopin: {reason}; this process is not protected (reinstall the package sopin)\n")
