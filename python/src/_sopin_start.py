"""Loads libsopin.so into this process. `sopin enable` has every Python of an environment call start()
when it starts, so this imports next to nothing, and prints at most one line.

It is not a part of the package `sopin`, which imports ctypes: that would take longer than all
that is done here. With `-S` Python reads no .pth files, and so does not call it.
"""

import os
import sys

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sopin")
LIBRARY = os.path.join(DIRECTORY, "libsopin.so")
_was_called = False


def defect() -> "str | None":
    """Returns why the library must not be loaded. The loader does not check what it maps: it would
    end the process by a signal if the file were shorter than its headers say, or half written."""
    from binascii import crc32

    try:
        with open(LIBRARY, "rb", 0) as file:
            content = file.read()
        # The build has written both numbers beside the library.
        with open(os.path.join(DIRECTORY, "libsopin.crc32"), encoding="ascii") as file:
            size, checksum = file.read().split()
        if len(content) == int(size) and crc32(content) == int(checksum, 16):
            return None
    except (OSError, ValueError) as error:
        return str(error)
    return f"{LIBRARY}: not as it was installed"


def start() -> None:
    """Loads the library, unless the process has one already. In a virtual environment `site` reads
    each .pth file twice, and a second call does nothing."""
    global _was_called
    if _was_called:
        return
    _was_called = True
    import _ctypes

    try:
        # The stubs of mypy do not know that None means the process itself.
        _ctypes.dlsym(_ctypes.dlopen(None, 0), "sopin_pin_all")  # type: ignore[arg-type]
        return
    except OSError:
        pass
    reason = defect()
    try:
        if reason is None:
            _ctypes.dlopen(LIBRARY, os.RTLD_NOW | os.RTLD_GLOBAL)
    except OSError as error:
        reason = str(error)
    if reason is not None and sys.stderr is not None:
        sys.stderr.write(f"sopin: {reason}; this process is not protected (reinstall the package sopin)\n")
