"""importing.py MODULE [older-kernel]: imports it, prints a line, and waits for the end of
standard input, so that the process can be examined. With older-kernel, a child does this."""

import importlib
import os
import sys

if sys.argv[2:] == ["older-kernel"] and (child := os.fork()):
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

importlib.import_module(sys.argv[1])
print("imported", flush=True)
sys.stdin.read()
