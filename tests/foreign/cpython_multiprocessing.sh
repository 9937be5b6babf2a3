# CPython's own tests of multiprocessing, for every way of starting a process.
# needs: python3
# needs-success: python3 -c 'import test._test_multiprocessing, test.test_multiprocessing_main_handling'
# results: 900

# The standard library's test modules for each method; some distributions leave them
# out.
for method in fork forkserver spawn; do
    cat >"test_multiprocessing_with_$method.py" <<P
import test._test_multiprocessing
test._test_multiprocessing.install_tests_in_module_dict(globals(), '$method')
P
done
export PYTHONPATH="$WORK"
# The tests run at the same time, because they wait most of the time. A command that a
# shell starts in the background ignores SIGINT.
jobs=
for module in test_multiprocessing_with_fork test_multiprocessing_with_forkserver test_multiprocessing_with_spawn \
    test.test_multiprocessing_main_handling; do
    env --default-signal=INT,QUIT python3 "$SOURCES/run_cpython_tests.py" "$module" \
        >"$module.results" 2>"$module.errors" &
    jobs="$jobs $!"
done
for job in $jobs; do wait "$job" || failed=yes; done
[ -z "${failed:-}" ] || { cat ./*.errors >&2; exit 2; }
cat ./*.results
