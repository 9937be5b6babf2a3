"""Imports what a data-serving Python process has under it, about 200 shared
objects, then prints one line: shared objects, kB of Rss, kB of Pss, and kB held
by the copies that libsopin.so made (memfds count as nobody's Rss until they are
touched).
"""

import importlib
import os
import pkgutil
import re

import numpy  # noqa: F401
import pandas  # noqa: F401
import scipy
import sqlalchemy.dialects.sqlite  # noqa: F401

for module in pkgutil.iter_modules(scipy.__path__):
    if not module.name.startswith("_") and module.name != "conftest":
        importlib.import_module(f"scipy.{module.name}")

with open("/proc/self/smaps_rollup") as rollup:
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB", rollup.read(), re.MULTILINE))

objects = set()
copies = {}
with open("/proc/self/maps") as maps:
    for line in maps:
        span, mode, _, _, inode, *path = line.split(maxsplit=5)
        if path and path[0].startswith("/memfd:sopin:") and inode not in copies:
            start, end = span.split("-")
            # The kernel's names there have no leading zeroes.
            copies[inode] = os.stat(f"/proc/self/map_files/{int(start, 16):x}-{int(end, 16):x}").st_blocks // 2
        elif path and path[0].startswith("/") and "x" in mode:
            objects.add(path[0])

print(len(objects), sizes["Rss"], sizes["Pss"], sum(copies.values()))
