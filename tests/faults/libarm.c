/* Implements arm.h. It is linked without crti, so that its constructor runs first. */
#include "arm.h"
#include "../fixtures/supervision.h"

struct snapshot {
    char name[64];
    uintptr_t start;
    uintptr_t end;
    uintptr_t relro_start;
    uintptr_t relro_end;
    bool writable;
    unsigned char *bytes;
};

static struct snapshot snapshots[64];
static size_t count;
static bool is_armed;

/* Takes snapshots of the object that begins at `base` and maps this file. */
static void take(uintptr_t base, const char *path) {
    const uintptr_t page = 4096;
    const ElfW(Ehdr) *header = (const ElfW(Ehdr) *)base;
    const ElfW(Phdr) *segments = (const ElfW(Phdr) *)(base + header->e_phoff);
    const uintptr_t bias = header->e_type == ET_EXEC ? 0 : base;
    uintptr_t relro_start = 0, relro_end = 0;
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_GNU_RELRO) {
            relro_start = bias + segments[i].p_vaddr;
            relro_end = (relro_start + segments[i].p_memsz) & ~(page - 1);
        }
    for (int i = 0; i < header->e_phnum; i++) {
        struct snapshot *one = &snapshots[count];
        if (segments[i].p_type != PT_LOAD)
            continue;
        expect(count < sizeof snapshots / sizeof *snapshots);
        count++;
        snprintf(one->name, sizeof one->name, "%s", strrchr(path, '/') + 1);
        one->start = (bias + segments[i].p_vaddr + 7) & ~7UL;
        one->end = (bias + segments[i].p_vaddr + segments[i].p_memsz) & ~7UL;
        one->relro_start = relro_start;
        one->relro_end = relro_end;
        one->writable = segments[i].p_flags & PF_W;
        one->bytes = mmap(NULL, one->end - one->start + 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        expect(one->bytes != MAP_FAILED);
        memcpy(one->bytes, (const void *)one->start, one->end - one->start);
    }
}

/* Takes snapshots of all objects without asking the loader. An object that asks could
 * have found the data of other objects, so the library would pin nothing whole that is
 * loaded with it. */
static void take_all(void) {
    struct {
        uintptr_t base;
        char path[PATH_MAX];
    } *objects = calloc(32, sizeof *objects);
    size_t found = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    struct vma vma;
    expect(objects && maps);
    while (next_vma(maps, &vma))
        if (vma.path[0] == '/' && vma.offset == 0 && (vma.prot & PROT_READ) &&
            memcmp((const void *)vma.start, ELFMAG, SELFMAG) == 0) {
            expect(found < 32);
            objects[found].base = vma.start;
            strcpy(objects[found++].path, vma.path);
        }
    fclose(maps);
    while (found > 0) {
        found--;
        take(objects[found].base, objects[found].path);
    }
    free(objects);
}

static void compare(const struct snapshot *one) {
    for (uintptr_t at = one->start; at < one->end; at += 8) {
        const bool may_change = one->writable && !(one->relro_start <= at && at < one->relro_end);
        if (memcmp(one->bytes + (at - one->start), (const void *)at, 8) == 0)
            continue;
        /* This object and the library under test store to their own data. */
        if (!may_change)
            dprintf(REPORT, "wrong %s %lx\n", one->name, (unsigned long)(at - one->start));
        else if (strcmp(one->name, "libarm.so") != 0 && strcmp(one->name, "libsopin.so") != 0)
            dprintf(REPORT, "changed %s %lx\n", one->name, (unsigned long)(at - one->start));
    }
}

void compare_with_start(void) {
    for (size_t i = 0; i < count; i++)
        compare(&snapshots[i]);
}

void arm(void) {
    const char *socket = getenv("FAULTS_SOCKET");
    if (socket && !is_armed) {
        is_armed = true;
        be_supervised(atoi(socket));
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *when = getenv("FAULTS_AT");
    take_all();
    if (when && strcmp(when, "startup") == 0)
        arm();
}
