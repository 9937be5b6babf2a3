"""importing.py MODULE: imports it, prints a line, and waits for the end of standard input, so that the
process can be examined."""

import importlib
import sys

importlib.import_module(sys.argv[1])
print("imported", flush=True)
sys.stdin.read()
