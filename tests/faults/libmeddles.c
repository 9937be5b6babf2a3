/* Changes a byte of libneeded.so, which the fault tests must notice. */
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

static int meddle(struct dl_phdr_info *object, size_t size, void *unused) {
    (void)size;
    (void)unused;
    if (!strstr(object->dlpi_name, "/libneeded.so"))
        return 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
#ifdef MEDDLE_WITH_CONSTANTS
        const int concerned = !(segment->p_flags & (PF_W | PF_X)) && segment->p_offset;
#else
        const int concerned = segment->p_flags & PF_W;
#endif
        char *last = (char *)object->dlpi_addr + segment->p_vaddr + (segment->p_memsz & ~7UL) - 32;
        if (segment->p_type != PT_LOAD || !concerned)
            continue;
        mprotect((void *)((uintptr_t)last & ~4095UL), 8192 - 4096, PROT_READ | PROT_WRITE);
        *last ^= 1;
    }
    return 0;
}

__attribute__((constructor)) static void begin(void) { dl_iterate_phdr(meddle, NULL); }
