"""Imports sopin in a process with threads: one of a library, which increments counters in
the library's data, and one that calculates with numpy, if that is installed.

argv[1] is a copy of the library, which is built from tests/fixtures/lost_stores/libcounts.c.
argv[2] says when sopin is imported: late or never. Exits with 42 if everything is pinned, the
library's file can be emptied, and no increment is lost.
"""

import ctypes
import os
import sys
import threading

path, when = sys.argv[1:]
IS_UNSTOPPABLE = "SOPIN_TEST_UNSTOPPABLE" in os.environ

try:
    import numpy
except ImportError:
    numpy = None


class Counters(ctypes.Structure):
    LOST = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_ulong))
    _fields_ = [("in_data", ctypes.c_void_p), ("in_bss", ctypes.c_void_p), ("lost", LOST)]


def is_mapped_from(address, file):
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            if start <= address < end:
                return file in line
    raise AssertionError("not mapped")


class Calculation(threading.Thread):
    """Multiplies matrices until it is told to end."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended, self.wrong = threading.Event(), threading.Event(), 0

    def run(self):
        ones = numpy.ones((64, 64)) if numpy else None
        while not self.ended.is_set():
            self.wrong += numpy is not None and float((ones @ ones).sum()) != 64.0**3
            self.begun.set()


# The library's constructor starts its thread.
counters = Counters.in_dll(ctypes.CDLL(path), "counters")
assert is_mapped_from(counters.in_data, path)
calculation = Calculation()
calculation.start()
calculation.begun.wait()
if when == "late":
    import sopin

    if IS_UNSTOPPABLE:
        assert sopin.status().count("exposed") > 3
    else:
        not_whole = [item for item in sopin.status().objects if item.reached not in ("full", "no file")]
        assert not not_whole and len(sopin.status().objects) > 5, not_whole
        assert sopin.pin_all()
    assert is_mapped_from(counters.in_data, path) == IS_UNSTOPPABLE
if not IS_UNSTOPPABLE:
    os.truncate(path, 0)
stores = ctypes.c_ulong(0)
lost = counters.lost(ctypes.byref(stores))
calculation.ended.set()
calculation.join()
assert not lost and stores.value > 100 and not calculation.wrong, (lost, stores, calculation.wrong)
# This skips finalisation, which is not tested here.
os._exit(42)
