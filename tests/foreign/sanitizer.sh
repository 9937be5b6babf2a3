# A host built with AddressSanitizer and one with UndefinedBehaviorSanitizer. Code of
# the first runs before any constructor (DT_PREINIT_ARRAY), so its writable data stays.
# packages: gcc
# needs: cc
# needs-success: echo 'int main(void) { return 0; }' | cc -fsanitize=address,undefined -x c -o /dev/null -
# exposed: /(asan|libc\.so\.6|ld-linux-[^/]*|libasan\.so[^:]*|libm\.so\.6|libgcc_s\.so\.1): .*code of the object may have run
# pinned: /libasan\.so
# pinned: /ubsan:
# results: 3
# quick
cat >host.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    void *math = dlopen("libm.so.6", RTLD_NOW);
    double (*cosine)(double) = (double (*)(double))dlsym(math, "cos");
    char *text = strdup("sopin");
    printf("cos: %.3f\n", cosine(1));
    fflush(stdout);
    if (argc > 1)
        text[atoi(argv[1])] = 1;
    free(text);
    dlclose(math);
    return 0;
}
C
cc -g -fsanitize=address -o asan host.c -ldl
cc -g -fsanitize=undefined -o ubsan host.c -ldl
# With any preloaded library AddressSanitizer asks for this.
export ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0
./asan
./ubsan
./asan 9 2>errors || echo "an overflow is found: $(grep -o 'heap-buffer-overflow' errors | head -n 1)"
