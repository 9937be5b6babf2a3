/*
 * ./libraries DIRECTORY COUNT: opens DIRECTORY/0.so, 1.so, ... and prints
 * the nanoseconds that each dlopen took, one a line.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int count = atoi(argv[2]);
    long long *took = calloc((size_t)count, sizeof *took);
    if (!took)
        return 1;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%d.so", argv[1], i);
        long long before = now();
        void *library = dlopen(path, RTLD_NOW);
        took[i] = now() - before;
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
    }
    for (int i = 0; i < count; i++)
        printf("%lld\n", took[i]);
    return 0;
}
