"""Loads a copy of an extension module, calls it, writes the same bytes over its file, and calls it
again. Exits with 42 if it answers; without protection a signal ends it."""

import importlib.util
import os
import resource
import shutil
import sys
import tempfile

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
NAMES = ("_json", "_bisect", "_heapq", "_struct", "_codecs_jp")
found = next(
    (spec.origin for spec in map(importlib.util.find_spec, NAMES) if spec.has_location),
    None,
)
if found is None:
    sys.exit("this Python has its extension modules built in")
with tempfile.TemporaryDirectory() as directory:
    copy = os.path.join(directory, os.path.basename(found))
    shutil.copy(found, copy)
    name = os.path.basename(found).split(".")[0]
    spec = importlib.util.spec_from_file_location(name, copy)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    calls = {
        "_json": lambda: module.scanstring('"right"', 1)[0] == "right",
        "_bisect": lambda: module.bisect_right([1, 2, 3], 2) == 2,
        "_heapq": lambda: module.heappop([1, 2]) == 1,
        "_struct": lambda: module.pack("<H", 258) == b"\2\1",
        "_codecs_jp": lambda: module.getcodec("shift_jis").encode("right")[0] == b"right",
    }
    before = calls[name]()
    with open(copy, "rb") as file:
        content = file.read()
    with open(copy, "wb") as file:
        file.write(content)
    after = calls[name]()
os._exit(42 if before and after else 1)
