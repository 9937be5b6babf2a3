"""Imports the copy of _json at argv[1], waits for a line, and uses the copy again.

argv[2] says when it imports sopin: first, late or never. Exits with 42.
"""

import importlib.util
import os
import sys


def load(path):
    spec = importlib.util.spec_from_file_location("_json", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


path, when = sys.argv[1:]
if when == "first":
    import sopin  # noqa: F401
extension = load(path)
with open("/proc/self/maps") as maps:
    assert path in maps.read()
assert extension.scanstring('"once"', 1) == ("once", 6)
if when == "late":
    import warnings

    import sopin

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_pinned = sopin.pin(path)
        sopin.start()
    reasons = [str(item.message) for item in caught]
    if "SOPIN_TEST_UNSTOPPABLE" in os.environ:
        assert not is_pinned
        assert any(path in reason and "code of the object may have run" in reason for reason in reasons), reasons
    else:
        assert is_pinned and not reasons, reasons
print("ready", flush=True)
sys.stdin.readline()
assert extension.scanstring('"twice"', 1) == ("twice", 7)
assert extension.make_scanner is extension.__dict__["make_scanner"]
# This skips finalisation, which is not tested here.
os._exit(42)
