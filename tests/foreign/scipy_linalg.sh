# All tests of scipy.linalg, with a result for each.
# needs: python-with-numpy
# needs-success: python-with-numpy -c 'import scipy, xdist'
# pinned: /_flapack\.
# pinned: /libscipy_openblas
# results: 3000

export PYTHONPATH="$SOURCES" RESULTS_FILE="$WORK/results" SCIPY_AVAILABLE_MEM=1G OPENBLAS_NUM_THREADS=1
python-with-numpy -m pytest -q -p no:cacheprovider -p pytest_results -n 2 --dist loadfile --tb=no \
    --pyargs scipy.linalg >said 2>&1 || [ $? = 1 ] || { cat said >&2; exit 2; }
cat results
