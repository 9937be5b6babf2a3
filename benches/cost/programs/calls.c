/*
 * ./calls MILLIONS: calls a function of a library that it is linked with, through
 * the PLT, and prints the nanoseconds that all calls took.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int tiny(void);

int main(int argc, char **argv) {
    long calls = argc > 1 ? 1000000 * atol(argv[1]) : 0;
    struct timespec before;
    struct timespec after;
    int sum = 0;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (long i = 0; i < calls; i++)
        sum ^= tiny();
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("%lld\n", (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec);
    /* The sum is used, so the compiler cannot omit a call. */
    return sum == 1 << 30;
}
