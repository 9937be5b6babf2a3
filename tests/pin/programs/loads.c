/*
 * loads [careless] LIBRARY: loads and unloads a library (plug.c) without end, and maps memory of
 * its own at the addresses that the library had. Everything must contain what it should: a pin
 * with an old list of mappings would put parts of the library there, or would put back what is
 * gone. With `careless` another thread does that.
 *
 * Prints `ready`, and ends with 42 when its standard input does; with 8 if something was wrong.
 */
#include "plug.h"

#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The writable pages of the library, which its `plug` names, and their size. */
enum { LENGTH = MOST_THREADS * PAGE_WORDS * sizeof(long) };

static _Atomic(char *) seen;
static atomic_bool over;

/* Replaces the pages that it saw some time ago. */
static void *replace(void *unused) {
    while (!over) {
        char *pages = seen;
        char *copy = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        usleep(500);
        if (pages && copy != MAP_FAILED)
            mremap(copy, LENGTH, LENGTH, MREMAP_MAYMOVE | MREMAP_FIXED, pages);
    }
    return unused;
}

static int fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    return 8;
}

int main(int argc, char **argv) {
    struct pollfd input = {0, POLLIN, 0};
    pthread_t other;
    unsigned long turns = 0;
    if (argc < 2 || (argc == 3 && pthread_create(&other, NULL, replace, NULL)))
        return 2;
    puts("ready");
    fflush(stdout);
    while (poll(&input, 1, 0) == 0) {
        void *handle = dlopen(argv[argc - 1], RTLD_NOW);
        const struct plug *plug = handle ? dlsym(handle, "plug") : NULL;
        if (!plug)
            return fail("dlopen");
        char *const pages = (char *)(void *)plug->in_data;
        seen = pages;
        if (plug->in_data[0][0] != 1 || plug->in_data[3][0] != 1)
            return fail("the library's data is not new");
        memset(pages, 3, LENGTH);
        for (int i = 0; i < 20; i++)
            if (plug->call() != 42)
                return fail("the library is damaged");
        for (int round = 0; round < 16; round++)
            for (int i = 0; i < LENGTH; i++)
                if (pages[i] != 3)
                    return fail("the library's data is damaged");
        if (dlclose(handle))
            return fail("dlclose");

        char *own = mmap(pages, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (own == MAP_FAILED)
            return fail("something is mapped where the library was");
        memset(own, 5, LENGTH);
        for (int round = 0; round < 4; round++)
            for (int i = 0; i < LENGTH; i++)
                if (own[i] != 5)
                    return fail("memory is damaged");
        if (munmap(own, LENGTH))
            return fail("munmap");
        turns++;
    }
    over = true;
    printf("turns %lu\n", turns);
    return turns > 0 ? 42 : fail("no turn");
}
