"""late.py MODULE GAPS [LIBRARY]: imports the module, starts the thread of the library GAPS, and
loads LIBRARY, which pins everything that is there, with the thread stopped. Prints the longest time
in ms for which the thread did not run meanwhile, and the number of objects before. Without LIBRARY it
waits for as long as that takes."""

import ctypes
import importlib
import os
import sys
import time

importlib.import_module(sys.argv[1])
gaps = ctypes.CDLL(sys.argv[2])
gaps.gaps_longest_ns.restype = ctypes.c_long
assert gaps.gaps_start() == 0
with open("/proc/self/maps") as maps:
    objects = len({line.split()[-1] for line in maps if ".so" in line or "/bin/" in line})
time.sleep(0.1)
gaps.gaps_forget()
if len(sys.argv) > 3:
    sopin = ctypes.CDLL(sys.argv[3])
    # What this cannot pin is an error.
    assert sopin.sopin_pin_all() == 0
else:
    time.sleep(0.2)
print(gaps.gaps_longest_ns() / 1e6, objects, flush=True)
os._exit(0)
