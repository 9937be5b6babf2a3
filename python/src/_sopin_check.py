"""What a start of Python needs only where something is not as `sopin enable` has found it: compares the
library with what was installed, finds one that the process has, and loads it by another way.

`_ctypes` and `binascii` are shared objects with others behind them in most Pythons, so each is imported
only where it is needed.
"""

import os

from _sopin_start import LIBRARY

_BLOCK = 1 << 16


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


def defect() -> "str | None":
    """Returns why the library must not be loaded. The loader does not check what it maps: it would
    end the process by a signal if the file were shorter than its headers say, or half written."""
    try:
        # The build has written these numbers beside the library, see library_sums.py.
        with open(os.path.join(os.path.dirname(LIBRARY), "libsopin.sums"), "rb", 0) as file:
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


def is_loaded() -> bool:
    """Returns whether the process has a library."""
    import _ctypes

    try:
        # The stubs of mypy do not know that None means the process itself.
        _ctypes.dlsym(_ctypes.dlopen(None, 0), "sopin_pin_all")  # type: ignore[arg-type]
    except OSError:
        return False
    return True


def load() -> "str | None":
    """Loads the library. Returns why that was not possible."""
    import _ctypes

    try:
        _ctypes.dlopen(LIBRARY, os.RTLD_NOW | os.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None
