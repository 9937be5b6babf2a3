/* See arm.h. Linked without crti, so that its constructor comes first. */
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

static const char *name_of(const struct dl_phdr_info *object) {
    const char *slash = strrchr(object->dlpi_name, '/');
    return object->dlpi_name[0] ? (slash ? slash + 1 : object->dlpi_name) : "main";
}

static int take(struct dl_phdr_info *object, size_t size, void *unused) {
    const uintptr_t page = 4096;
    uintptr_t relro_start = 0, relro_end = 0;
    (void)size;
    (void)unused;
    if (strcmp(object->dlpi_name, "linux-vdso.so.1") == 0)
        return 0;
    for (int i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_GNU_RELRO) {
            relro_start = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
            relro_end = (relro_start + object->dlpi_phdr[i].p_memsz) & ~(page - 1);
        }
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        struct snapshot *one = &snapshots[count];
        if (segment->p_type != PT_LOAD)
            continue;
        expect(count < sizeof snapshots / sizeof *snapshots);
        count++;
        snprintf(one->name, sizeof one->name, "%s", name_of(object));
        one->start = (object->dlpi_addr + segment->p_vaddr + 7) & ~7UL;
        one->end = (object->dlpi_addr + segment->p_vaddr + segment->p_memsz) & ~7UL;
        one->relro_start = relro_start;
        one->relro_end = relro_end;
        one->writable = segment->p_flags & PF_W;
        one->bytes = mmap(NULL, one->end - one->start + 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        expect(one->bytes != MAP_FAILED);
        memcpy(one->bytes, (const void *)one->start, one->end - one->start);
    }
    return 0;
}

static void compare(const struct snapshot *one) {
    for (uintptr_t at = one->start; at < one->end; at += 8) {
        const bool may_change = one->writable && !(one->relro_start <= at && at < one->relro_end);
        if (memcmp(one->bytes + (at - one->start), (const void *)at, 8) == 0)
            continue;
        /* This object and the library under test write to their own. */
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
    dl_iterate_phdr(take, NULL);
    if (when && strcmp(when, "startup") == 0)
        arm();
}
