/* A process of the stress test, with one library from the start and two that it loads
 * later. On request it prints a hash of the read-only segments of every object, and
 * which libraries are mapped from the store. */
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int victim_version(void);
int victim_is_whole(void);

static int print_object(struct dl_phdr_info *object, size_t size, void *unused) {
    uint64_t hash = 0xcbf29ce484222325;
    (void)size;
    (void)unused;
    if (strcmp(object->dlpi_name, "linux-vdso.so.1") == 0)
        return 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        const volatile unsigned char *bytes = (const volatile unsigned char *)(object->dlpi_addr + segment->p_vaddr);
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W))
            continue;
        for (size_t at = 0; at < segment->p_filesz; at++)
            hash = (hash ^ bytes[at]) * 0x100000001b3;
    }
    printf("object %016lx %s\n", (unsigned long)hash, object->dlpi_name);
    return 0;
}

static void print_entries(const char *store) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[8192];
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, " r-xp ") && strstr(line, store))
            printf("entry %s", strchr(line, '/'));
    if (maps)
        fclose(maps);
}

int main(int argc, char **argv) {
    int wanted = argc > 1 ? atoi(argv[1]) : 0, calls = 0;
    char line[16];
    for (int i = 2; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        int (*is_whole)(void) = library ? (int (*)(void))dlsym(library, "victim_is_whole") : NULL;
        if (!is_whole) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        calls += is_whole();
    }
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 2;
    dl_iterate_phdr(print_object, NULL);
    if (getenv("SOPIN_STORE"))
        print_entries(getenv("SOPIN_STORE"));
    fflush(stdout);
    return calls == argc - 2 && victim_version() == wanted && victim_is_whole() ? 42 : 3;
}
