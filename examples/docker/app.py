"""An application: prints whether it is pinned, and waits for SIGTERM."""

import ctypes
import signal
import sys

process = ctypes.CDLL(None)
if not hasattr(process, "sopin_pin_all"):
    sys.exit("not protected")
code = process.sopin_pin_all()
process.sopin_strerror.restype = ctypes.c_char_p
print("protected:", process.sopin_strerror(code).decode(), flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    signal.pause()
