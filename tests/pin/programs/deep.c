/*
 * deep LIBRARY: loads libdeep.so (tests/fixtures/store/libdeep.c), prints `ready` below two
 * functions of it, and runs a third one until its standard input ends. Then it exits with 42.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static int (*spin)(void);

static int spin_below(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (write(1, "ready\n", 6) != 6)
        return 1;
    while (poll(&input, 1, 0) == 0)
        spin();
    return 40;
}

int main(int argc, char **argv) {
    void *library = dlopen(argc > 1 ? argv[1] : "", RTLD_NOW);
    int (*outer)(int (*)(void));
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    spin = (int (*)(void))dlsym(library, "deep_spin");
    outer = (int (*)(int (*)(void)))dlsym(library, "deep_outer");
    return outer(spin_below);
}
