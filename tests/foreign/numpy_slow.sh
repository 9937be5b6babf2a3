# The tests that numpy's test suite calls slow, with a result for each test.
# needs: python-with-numpy
# needs-success: python-with-numpy -c 'import xdist, mesonbuild'
# pinned: /_multiarray_umath\.
# pinned: /libscipy_openblas
# results: 2500

# The settings are those of numpy.sh.
export PYTHONPATH="$SOURCES" RESULTS_FILE="$WORK/results" NPY_AVAILABLE_MEM='1 GB' OPENBLAS_NUM_THREADS=1
python-with-numpy -m pytest -q -p no:cacheprovider -p pytest_results -n 2 --dist loadfile --tb=no \
    -m slow --pyargs numpy >said 2>&1 || [ $? = 1 ] || { cat said >&2; exit 2; }
cat results
