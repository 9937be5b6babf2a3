# numpy's and scipy.linalg's own tests, a result for each of them.
# needs: python-with-numpy
# pinned: /_multiarray_umath\.
# pinned: /libscipy_openblas
# results: 500
python-with-numpy -m pytest -q -p no:cacheprovider -rA --tb=no --pyargs numpy.linalg \
    scipy.linalg.tests.test_basic scipy.linalg.tests.test_cython_blas >said || true
grep -E '^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)' said | sed 's/ - .*//' | sort
