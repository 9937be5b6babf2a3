"""As deep.c, with frames of Python around those of the library."""

import ctypes
import select
import sys

library = ctypes.CDLL(sys.argv[1])


@ctypes.CFUNCTYPE(ctypes.c_int)
def wait_in_python():
    print("ready", flush=True)
    select.select([sys.stdin], [], [])
    return 40


def python_outer():
    sys.exit(library.deep_outer(wait_in_python))


python_outer()
