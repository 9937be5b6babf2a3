/*
 * zero [FILE PAGES [split]]
 *
 * Has an object that lies in a private mapping of /dev/zero, or of a sparse file with so many pages of
 * text, each second of which cannot be executed with `split`: its first page has the headers of an
 * object, and the list of the loader names it. Its text was never written to, so that it seems to be
 * that of the file. Prints `ready`, and ends with 42 when its input ends.
 */
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TEXT_PAGES = 16, DYNAMIC = 1024 };

/* The beginning of the object. */
struct beginning {
    ElfW(Ehdr) header;
    ElfW(Phdr) segments[3];
};

static struct link_map entry;

static ElfW(Phdr) segment(unsigned type, unsigned flags, size_t offset, size_t size) {
    return (ElfW(Phdr)){.p_type = type,
                        .p_flags = flags,
                        .p_offset = offset,
                        .p_vaddr = offset,
                        .p_filesz = size,
                        .p_memsz = size,
                        .p_align = 8};
}

int main(int argc, char **argv) {
    static char device[] = "/dev/zero";
    char *name = argc > 2 ? argv[1] : device;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t pages = argc > 2 ? strtoul(argv[2], NULL, 10) : TEXT_PAGES, size = (1 + pages) * page;
    const int zero = open(name, argc > 2 ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0600);
    const int program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    char *base = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, zero, 0), byte;
    struct beginning *beginning = (struct beginning *)(void *)base;
    struct link_map *last = _r_debug.r_map;
    if (zero < 0 || base == MAP_FAILED || (argc > 2 && ftruncate(zero, (off_t)size)) ||
        mprotect(base, page, PROT_READ | PROT_WRITE))
        return 3;
    /* The header of this program is right for this machine. */
    if (read(program, &beginning->header, sizeof beginning->header) != sizeof beginning->header)
        return 3;
    beginning->header.e_type = ET_DYN;
    beginning->header.e_phoff = sizeof beginning->header;
    beginning->header.e_phnum = 3;
    beginning->segments[0] = segment(PT_LOAD, PF_R, 0, page);
    beginning->segments[1] = segment(PT_LOAD, argc > 3 ? PF_R : PF_R | PF_X, page, pages * page);
    beginning->segments[2] = segment(PT_DYNAMIC, PF_R, DYNAMIC, sizeof(ElfW(Dyn)));
    if (mprotect(base, page, PROT_READ))
        return 3;
    for (size_t at = page; argc > 3 && at < size; at += 2 * page)
        if (mprotect(base + at, page, PROT_READ))
            return 3;
    while (last->l_next)
        last = last->l_next;
    entry = (struct link_map){
        .l_addr = (uintptr_t)base, .l_name = name, .l_ld = (void *)(base + DYNAMIC), .l_prev = last};
    last->l_next = &entry;
    if (write(1, "ready\n", 6) != 6)
        return 3;
    while (read(0, &byte, 1) > 0)
        ;
    for (size_t at = page; at < (1 + TEXT_PAGES) * page; at++)
        if (base[at])
            return 9;
    /* The loader must not see its list at the end. */
    _exit(42);
}
