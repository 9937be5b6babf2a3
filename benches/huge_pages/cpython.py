"""A worker of measure.py: the standard library's json, re and ast, and the compiler."""

import ast
import json
import re
import sys

SOURCE = open(json.decoder.__file__).read()
RECORDS = [{"number": index, "words": [str(index)] * 5, "inner": {"third": index / 3}} for index in range(300)]

for _ in sys.stdin:
    for _ in range(2):
        json.loads(json.dumps(RECORDS))
        re.findall(r"(\w+)\s*=\s*([^,\n]+)", SOURCE)
        ast.unparse(ast.parse(SOURCE))
        compile(SOURCE, "source", "exec")
        sorted(str(index) for index in range(2000))
    print("done", flush=True)
