# CPython's own tests of modules that concern processes, threads and extensions.
# needs: python3
# needs-success: python3 -c 'import test.test_importlib'
# results: 1500
python3 "$SOURCES/run_cpython_tests.py" test.test_import test.test_importlib test.test_threading test.test_subprocess \
    test.test_faulthandler test.test_ssl test.test_decimal
