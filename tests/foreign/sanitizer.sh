# Hosts built with the sanitizers of gcc and, if it is installed, clang: threads that
# load and unload libraries, and a fault that the sanitizer has to find. Code of such a
# host runs before any constructor (DT_PREINIT_ARRAY), so the library leaves its
# writable data.
# packages: gcc clang libclang-rt-14-dev libclang-rt-19-dev
# needs: cc
# needs-success: echo 'int main(void) { return 0; }' | cc -fsanitize=address,undefined -x c -o /dev/null -
# needs-success: echo 'int main(void) { return 0; }' | cc -fsanitize=thread -x c -o /dev/null -
# exposed: /((gcc|clang)-[a-z]*|trial|libc\.so\.6|ld-linux-[^/]*|lib[a-z]*san\.so[^:]*|libm\.so\.6|libgcc_s\.so\.1|libstdc\+\+\.so\.6|libresolv\.so\.2): .*(code of the object|an object loaded together with it) may have run
# pinned: /libasan\.so
# pinned: /libtsan\.so
# pinned: /gcc-undefined:
# pinned: /libone\.so
# results: 14
# quick
cat >library.c <<'C'
int answer(void);
int answer(void) { return 42; }
C
cat >host.c <<'C'
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int race;
static void *load(void *name) {
    for (int round = 0; round < 20; round++) {
        void *library = dlopen(name, RTLD_NOW);
        int (*answer)(void) = library ? (int (*)(void))dlsym(library, "answer") : 0;
        if (!answer || answer() != 42 || dlclose(library) != 0)
            return "failed";
    }
    return "loaded";
}
static void *store(void *value) {
    race += value != 0;
    return 0;
}
static void both(void *(*work)(void *), void *one, void *other, void **results) {
    pthread_t threads[2];
    pthread_create(&threads[0], 0, work, one);
    pthread_create(&threads[1], 0, work, other);
    pthread_join(threads[0], &results[0]);
    pthread_join(threads[1], &results[1]);
}
int main(int argc, char **argv) {
    char *results[2], *text = strdup("sopin");
    const char *fault = argc > 1 ? argv[1] : "";
    both(load, "./libone.so", "./libtwo.so", (void **)results);
    void *math = dlopen("libm.so.6", RTLD_NOW);
    double (*cosine)(double) = (double (*)(double))dlsym(math, "cos");
    printf("%s, %s, cos: %.3f\n", results[0], results[1], cosine(1));
    fflush(stdout);
    if (strcmp(fault, "overflow") == 0)
        text[argc + 7] = 1;
    if (strcmp(fault, "race") == 0)
        both(store, argv, argv, (void **)results);
    if (strcmp(fault, "leak") == 0)
        text = 0;
    if (strcmp(fault, "uninitialized") == 0) {
        char *bytes = malloc(8);
        if (bytes[argc])
            puts("set");
        free(bytes);
    }
    free(text);
    dlclose(math);
    return 0;
}
C
cc -shared -fPIC -o libone.so library.c
cc -shared -fPIC -o libtwo.so library.c
# AddressSanitizer requires this if any library is preloaded.
export ASAN_OPTIONS=verify_asan_link_order=0

# try COMPILER SANITIZER FAULT WORDS: runs the host without a fault, and with one that
# the sanitizer must find.
try() {
    program=$1-$2
    echo 'int main(void) { return 0; }' >trial.c
    "$1" "-fsanitize=$2" -o trial trial.c 2>errors && ./trial 2>errors || {
        echo "$program: not here"
        return
    }
    "$1" -g -w "-fsanitize=$2" -o "$program" host.c -ldl -pthread
    "./$program" 2>errors && status=0 || status=$?
    echo "$program: ended with $status, said $(grep -vc '^libsopin' errors || true)"
    if [ "$3" ]; then
        "./$program" "$3" 2>errors && status=0 || status=$?
        echo "$program: $3: ended with $status, found: $(grep -o "$4" errors | head -n 1)"
    fi
}

for compiler in gcc clang; do
    command -v "$compiler" >trial.path || continue
    try "$compiler" address overflow heap-buffer-overflow
    try "$compiler" leak leak 'detected memory leaks'
    try "$compiler" thread race 'data race'
    try "$compiler" undefined '' ''
done
if command -v clang >trial.path; then
    try clang memory uninitialized use-of-uninitialized-value
fi
