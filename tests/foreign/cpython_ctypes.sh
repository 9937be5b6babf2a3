# CPython's tests of ctypes, sqlite3 and hashlib, with a result for each test.
# needs: python3
# needs-success: python3 -c 'import test.test_ctypes'
# pinned: /_ctypes\.
# pinned: /_ctypes_test\.
# pinned: /_sqlite3\.
# results: 200
# quick
python3 "$SOURCES/run_cpython_tests.py" test.test_ctypes test.test_sqlite3 test.test_hashlib
