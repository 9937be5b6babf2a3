"""Calls the function of the plug-in that a line names. It ends at the end of the input."""

import sys

sys.path.insert(0, ".")
import plug  # noqa: E402

print("ready", flush=True)
for line in sys.stdin:
    name, _, attribute = line.strip().partition(".")
    function = getattr(plug, name)
    print(getattr(function, attribute) if attribute else function(), flush=True)
