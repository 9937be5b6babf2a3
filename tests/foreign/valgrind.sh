# A host under valgrind, which loads programs itself and observes every access.
# packages: valgrind gcc
# needs: valgrind cc
# pinned: /host:
# pinned: /vgpreload_memcheck
# results: 2
cat >host.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    void *math = dlopen("libm.so.6", RTLD_NOW);
    double (*cosine)(double) = (double (*)(double))dlsym(math, "cos");
    char *leak = malloc(100);
    printf("cos: %.3f\n", cosine(1));
    dlclose(math);
    return leak == NULL;
}
C
cc -g -o host host.c -ldl
valgrind --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=none --log-file=valgrind.log ./host
grep -o 'ERROR SUMMARY: [0-9]* errors' valgrind.log
grep -o 'definitely lost: [0-9]* bytes' valgrind.log
