"""Loads libsopin.so into this process. `sopin enable` has every Python of an environment call start()
when it starts, so this loads nothing but the library, and prints at most one line.

It is not a part of the package `sopin`, which imports ctypes: that would take longer than all
that is done here. So do `_ctypes` and `binascii`, which in most Pythons are shared objects with others
behind them: they are imported only if something is not as expected. With `-S` Python reads
no .pth files, and so does not call it.
"""

import os
import sys

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sopin")
LIBRARY = os.path.join(DIRECTORY, "libsopin.so")
_BLOCK = 1 << 16
# The boot, and inode, size, and the times of the last modification and change of the library in
# nanoseconds, if `sopin enable` has compared it with what was installed. It sets this only where each
# change of the file gives it other times.
known = None
_was_called = False


def quick_sum() -> int:
    """Returns a sum of the library's bytes. It depends on the hash function of this CPython."""
    import _imp

    if not hasattr(_imp, "source_hash"):
        return 0
    total, block = 0, bytearray(_BLOCK)
    view = memoryview(block)
    with open(LIBRARY, "rb", 0) as file:
        while True:
            count = file.readinto(block)
            if not count:
                return total
            total = int.from_bytes(_imp.source_hash(total >> 1, view[:count]), "little")


def _is_known() -> bool:
    """Returns whether the library is the file that `sopin enable` has compared. A crash of the machine can
    leave new bytes under old times, so it has to be the same boot."""
    if known is None:
        return False
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", 0) as file:
            boot = file.read(36).decode("ascii")
        found = os.stat(LIBRARY)
    except (OSError, ValueError):
        return False
    return known == (boot, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def defect() -> "str | None":
    """Returns why the library must not be loaded. The loader does not check what it maps: it would
    end the process by a signal if the file were shorter than its headers say, or half written."""
    try:
        # The build has written these numbers beside the library, see library_sums.py.
        with open(os.path.join(DIRECTORY, "libsopin.sums"), "rb", 0) as file:
            size, checksum, *quick = file.read().split()
        if b"%016x" % quick_sum() in quick:
            return None
        # This Python may have a hash function that the build did not know.
        from binascii import crc32

        with open(LIBRARY, "rb", 0) as file:
            content = file.read()
        if len(content) == int(size) and crc32(content) == int(checksum, 16):
            return None
    except (OSError, ValueError) as error:
        return str(error)
    return f"{LIBRARY}: not as it was installed"


def _may_be_loaded() -> bool:
    """Returns whether the process may have a library already, under this or another name."""
    try:
        with open("/proc/self/maps", "rb", 0) as maps:
            return "LD_PRELOAD" in os.environ or b"libsopin" in maps.read()
    except OSError:
        return True


def _is_loaded() -> bool:
    """Returns whether the process has a library."""
    import _ctypes

    try:
        # The stubs of mypy do not know that None means the process itself.
        _ctypes.dlsym(_ctypes.dlopen(None, 0), "sopin_pin_all")  # type: ignore[arg-type]
    except OSError:
        return False
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


def _load() -> "str | None":
    """Loads the library. Returns why that was not possible."""
    import _ctypes

    try:
        _ctypes.dlopen(LIBRARY, os.RTLD_NOW | os.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None


def start() -> None:
    """Loads the library, unless the process has one already. In a virtual environment `site` reads
    each .pth file twice, and a second call does nothing."""
    global _was_called
    if _was_called:
        return
    _was_called = True
    if _may_be_loaded() and _is_loaded():
        return
    reason = None if _is_known() else defect()
    if reason is None and not _load_as_extension():
        reason = _load()
    if reason is not None and sys.stderr is not None:
        sys.stderr.write(f"sopin: {reason}; this process is not protected (reinstall the package sopin)\n")
