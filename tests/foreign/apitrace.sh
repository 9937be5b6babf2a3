# apitrace's tracer of OpenGL, which interposes dlopen and handles loads of libGL
# itself, before and behind the library. Nothing is drawn: the test is that loading
# works as without the library.
# packages: apitrace-tracers gcc libgl1 zlib1g
# needs: cc /usr/lib/x86_64-linux-gnu/apitrace/wrappers/glxtrace.so
# pinned: /glxtrace\.so
# pinned: /libz\.so
# results: 19
# quick
. "$SOURCES/interposers/load"
export TRACE_FILE=$WORK/trace
load_with /usr/lib/x86_64-linux-gnu/apitrace/wrappers/glxtrace.so
