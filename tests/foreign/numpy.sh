# numpy's test suite except for the tests that it calls slow, which numpy_slow.sh runs;
# a result for each test.
# needs: python-with-numpy
# needs-success: python-with-numpy -c 'import xdist, mesonbuild'
# pinned: /_multiarray_umath\.
# pinned: /libscipy_openblas
# results: 30000

# The tests of a module run in one process, because their results can depend on the tests
# that ran before them in that process, for instance by warnings that were given.
# numpy skips tests that need more memory than this, on every machine.
export PYTHONPATH="$SOURCES" RESULTS_FILE="$WORK/results" NPY_AVAILABLE_MEM='1 GB' OPENBLAS_NUM_THREADS=1
python-with-numpy -m pytest -q -p no:cacheprovider -p pytest_results -n 2 --dist loadfile --tb=no \
    -m 'not slow' --pyargs numpy >said 2>&1 || [ $? = 1 ] || { cat said >&2; exit 2; }
cat results
