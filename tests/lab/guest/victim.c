/*
 * victim check|hold DIRECTORY: loads every library of DIRECTORY, compares the mapped
 * read-only segments of every object with the object's file, byte by byte, and computes
 * with each library. `hold` then prints `ready` and repeats the computation until its
 * standard input ends. Prints `objects N wrong BYTES`, and exits with 42 if every byte
 * and every result was right, with 1 otherwise.
 */
#include "lab.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_LIBRARIES 256

typedef uint32_t (*lab_function)(void);

static struct {
    lab_function compute;
    uint32_t expected;
} libraries[MOST_LIBRARIES];
static unsigned loaded;

struct comparison {
    unsigned objects;
    unsigned long wrong;
};

static uint32_t expected_of(uint32_t first) {
    uint32_t x = sum_of_table(first);
    for (uint32_t n = 0; n < FUNCTIONS; n++)
        x = mixed(n, x);
    return x;
}

static int load(const char *directory) {
    struct dirent **names;
    int count = scandir(directory, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]->d_name);
        if (!strstr(names[i]->d_name, ".so"))
            continue;
        void *library = loaded < MOST_LIBRARIES ? dlopen(path, RTLD_NOW) : NULL;
        lab_function first = library ? (lab_function)dlsym(library, "lab_first") : NULL;
        lab_function compute = library ? (lab_function)dlsym(library, "lab_compute") : NULL;
        if (!first || !compute) {
            fprintf(stderr, "%s: %s\n", path, dlerror());
            return 0;
        }
        libraries[loaded].compute = compute;
        libraries[loaded++].expected = expected_of(first());
    }
    return loaded > 0;
}

static int computes(void) {
    for (unsigned i = 0; i < loaded; i++)
        if (libraries[i].compute() != libraries[i].expected) {
            fprintf(stderr, "library %u: a wrong result\n", i);
            return 0;
        }
    return 1;
}

static unsigned long differing(const unsigned char *a, const unsigned char *b, size_t size) {
    unsigned long different = 0;
    if (memcmp(a, b, size) != 0)
        for (size_t i = 0; i < size; i++)
            different += a[i] != b[i];
    return different;
}

/* Compares an object with its file. The file is read, because a mapping could be pinned
 * itself. */
static int compare(struct dl_phdr_info *object, size_t size, void *argument) {
    struct comparison *all = argument;
    const char *path = *object->dlpi_name ? object->dlpi_name : "/proc/self/exe";
    struct stat status;
    (void)size;
    /* The vDSO has no file. */
    int file = strchr(path, '/') ? open(path, O_RDONLY) : -1;
    if (file < 0 || fstat(file, &status) != 0)
        return 0;
    unsigned char *bytes = malloc((size_t)status.st_size);
    if (!bytes || pread(file, bytes, (size_t)status.st_size, 0) != status.st_size) {
        perror(path);
        exit(1);
    }
    close(file);
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W)
            continue;
        const unsigned char *mapped = (const unsigned char *)(object->dlpi_addr + segment->p_vaddr);
        unsigned long wrong = differing(mapped, bytes + segment->p_offset, segment->p_filesz);
        if (wrong > 0)
            fprintf(stderr, "%s: segment %u: %lu wrong bytes\n", path, i, wrong);
        all->wrong += wrong;
    }
    free(bytes);
    all->objects++;
    return 0;
}

static int told_to_end(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) != 0;
}

int main(int argc, char **argv) {
    struct comparison all = {0, 0};
    if (argc != 3 || !load(argv[2]))
        return 2;
    dl_iterate_phdr(compare, &all);
    int right = computes();
    if (strcmp(argv[1], "hold") == 0) {
        puts("ready");
        fflush(stdout);
        while (right && !told_to_end())
            right = computes();
    }
    printf("objects %u wrong %lu\n", all.objects, all.wrong);
    return right && all.wrong == 0 ? 42 : 1;
}
