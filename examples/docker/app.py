"""An application: calls a plugin from a volume for each line that it reads, and prints the result."""

import ctypes
import sys

plugin = ctypes.CDLL(sys.argv[1])
print("ready", flush=True)
for _ in sys.stdin:
    print(plugin.plugin_run(), flush=True)
