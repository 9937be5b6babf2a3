"""importing.py MODULE: imports it, prints a line, and stays until the end of
standard input, so that it can be looked at."""

import importlib
import sys

importlib.import_module(sys.argv[1])
print("imported", flush=True)
sys.stdin.read()
