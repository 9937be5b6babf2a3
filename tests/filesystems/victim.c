/*
 * ./victim WORK LIBRARY: loads the library and computes with it. `busy` repeats this
 * and prints `tick` each time, until a line arrives on standard input; `idle` repeats
 * it once after a line has arrived. If every result equals the first one, the program
 * exits with 42.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef unsigned (*compute_function)(unsigned);

static int told_to_end(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    void *library = dlopen(argv[2], RTLD_NOW);
    compute_function compute = library ? (compute_function)dlsym(library, "victim_compute") : NULL;
    if (!compute) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    unsigned first = compute(100000);
    puts("ready");
    fflush(stdout);
    if (strcmp(argv[1], "idle") == 0) {
        getchar();
        if (compute(100000) != first)
            return 1;
    }
    while (strcmp(argv[1], "busy") == 0 && !told_to_end()) {
        if (compute(100000) != first)
            return 1;
        puts("tick");
        fflush(stdout);
    }
    printf("result %u\n", first);
    return 42;
}
