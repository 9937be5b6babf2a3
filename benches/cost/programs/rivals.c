/*
 * Alternatives to the library under test, which can be preloaded to compare with it.
 * RIVAL selects one:
 *
 * anonymous  copies every segment of every object into anonymous memory: the same
 *            immunity, by the most obvious means.
 * replaced   copies every object's file and renames the copy over it: the process
 *            keeps the old inode, which no process can open any more. It does so only
 *            below the directory RIVAL_MAY_REPLACE; for other files it makes and
 *            renames the copy in that directory, which costs the same and changes
 *            nothing.
 * floor      makes only the system calls and copies that the work needs, and
 *            determines and checks nothing: for each object one open, fstat and close,
 *            one mmap for each read-only range (of the same file, where a store would
 *            have another), and for each writable segment one mmap, process_vm_readv,
 *            mremap, and mprotect of its relocated part. A library that keeps text
 *            shared cannot cost less.
 *
 * Each does its work when the library does: at the first call of __gmon_start__
 * for all objects, at each later one for the object that calls.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum rival { NONE, ANONYMOUS, REPLACED, FLOOR };

struct object {
    uintptr_t base;
    const ElfW(Phdr) * headers;
    size_t header_count;
    const char *path;
};

/* The part of a loadable segment that comes from the file. */
struct range {
    uintptr_t start;
    uintptr_t end;
    int protection;
    off_t offset;
    /* The part before this address is read-only since it was relocated; `start` if
     * there is none. */
    uintptr_t relro_end;
};

static enum rival rival;
static const char *may_replace = "";
static uintptr_t page_mask;
/* The bases of the startup objects, each of which calls __gmon_start__ as well. */
static uintptr_t startup[256];
static size_t startup_count;

void __gmon_start__(void);

static void give_up(const char *what, const char *path) {
    fprintf(stderr, "rival: %s: %s: %m\n", path, what);
    _exit(97);
}

static uintptr_t page_of(uintptr_t address) { return address & page_mask; }

static uintptr_t pages_until(uintptr_t address) { return (address + ~page_mask) & page_mask; }

/* Replaces a range by a copy of its bytes in one step. */
static void move_copy_over(const struct range *range, const char *path) {
    size_t len = range->end - range->start;
    char *copy = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (copy == MAP_FAILED)
        give_up("mmap", path);
    struct iovec to = {copy, len};
    struct iovec from = {(void *)range->start, len};
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)len)
        give_up("process_vm_readv", path);
    if (!(range->protection & PROT_WRITE) && mprotect(copy, len, range->protection) != 0)
        give_up("mprotect", path);
    if (mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)range->start) == MAP_FAILED)
        give_up("mremap", path);
    if (range->relro_end > range->start && mprotect((void *)range->start, range->relro_end - range->start, PROT_READ) != 0)
        give_up("mprotect", path);
}

/* Calls `act` for each loadable segment. */
static void for_each_range(const struct object *object, void (*act)(const struct range *, void *), void *context) {
    uintptr_t relro_start = 0;
    uintptr_t relro_end = 0;
    for (size_t i = 0; i < object->header_count; i++) {
        const ElfW(Phdr) *header = &object->headers[i];
        if (header->p_type == PT_GNU_RELRO) {
            relro_start = page_of(object->base + header->p_vaddr);
            relro_end = page_of(object->base + header->p_vaddr + header->p_memsz);
        }
    }
    for (size_t i = 0; i < object->header_count; i++) {
        const ElfW(Phdr) *header = &object->headers[i];
        if (header->p_type != PT_LOAD || !(header->p_flags & PF_R) || header->p_filesz == 0)
            continue;
        struct range range = {
            .start = page_of(object->base + header->p_vaddr),
            .end = pages_until(object->base + header->p_vaddr + header->p_filesz),
            .protection = PROT_READ | (header->p_flags & PF_W ? PROT_WRITE : 0) | (header->p_flags & PF_X ? PROT_EXEC : 0),
            .offset = (off_t)page_of(header->p_offset),
        };
        range.relro_end = range.start;
        if (range.start == relro_start && relro_end > relro_start)
            range.relro_end = relro_end < range.end ? relro_end : range.end;
        act(&range, context);
    }
}

static void copy_range(const struct range *range, void *path) { move_copy_over(range, path); }

struct file {
    int fd;
    const char *path;
};

static void share_or_copy_range(const struct range *range, void *context) {
    const struct file *file = context;
    if (range->protection & PROT_WRITE) {
        move_copy_over(range, file->path);
        return;
    }
    size_t len = range->end - range->start;
    int flags = MAP_PRIVATE | MAP_FIXED;
    if (mmap((void *)range->start, len, range->protection, flags, file->fd, range->offset) == MAP_FAILED)
        give_up("mmap", file->path);
}

static void share_text(const struct object *object) {
    struct file file = {open(object->path, O_RDONLY | O_CLOEXEC), object->path};
    struct stat status;
    if (file.fd < 0 || fstat(file.fd, &status) != 0)
        give_up("open", object->path);
    for_each_range(object, share_or_copy_range, &file);
    close(file.fd);
}

static void replace_file(const struct object *object) {
    char real[4096];
    ssize_t len = readlink(object->path, real, sizeof real - 1);
    real[len < 0 ? 0 : len] = '\0';
    const char *path = len > 0 && real[0] == '/' ? real : object->path;
    int is_ours = *may_replace && strncmp(path, may_replace, strlen(may_replace)) == 0;
    char to[4096];
    char from[sizeof to + 32];
    if (is_ours)
        snprintf(to, sizeof to, "%s", path);
    else
        snprintf(to, sizeof to, "%s/elsewhere-%d", may_replace, getpid());
    snprintf(from, sizeof from, "%s.%d.new", to, getpid());
    struct stat status;
    int source = open(path, O_RDONLY | O_CLOEXEC);
    if (source < 0 || fstat(source, &status) != 0)
        give_up("open", path);
    int copy = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, status.st_mode & 0777);
    if (copy < 0)
        give_up("create", from);
    for (off_t done = 0; done < status.st_size;) {
        ssize_t copied = copy_file_range(source, NULL, copy, NULL, (size_t)(status.st_size - done), 0);
        if (copied <= 0)
            give_up("copy_file_range", from);
        done += copied;
    }
    close(copy);
    close(source);
    if (rename(from, to) != 0)
        give_up("rename", to);
    if (!is_ours)
        unlink(to);
}

static void work_on(const struct object *object) {
    if (rival == ANONYMOUS)
        for_each_range(object, copy_range, (void *)object->path);
    else if (rival == FLOOR)
        share_text(object);
    else if (rival == REPLACED)
        replace_file(object);
}

static int work_on_listed(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    (void)context;
    uintptr_t headers = (uintptr_t)info->dlpi_phdr;
    if (page_of(headers) == getauxval(AT_SYSINFO_EHDR))
        return 0;
    if (startup_count == sizeof startup / sizeof *startup)
        give_up("too many objects", info->dlpi_name);
    startup[startup_count++] = page_of(headers);
    const char *path = *info->dlpi_name ? info->dlpi_name : "/proc/self/exe";
    work_on(&(struct object){info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum, path});
    return 0;
}

static void begin(void) {
    static const char *const names[] = {[ANONYMOUS] = "anonymous", [REPLACED] = "replaced", [FLOOR] = "floor"};
    const char *wanted = getenv("RIVAL");
    for (enum rival each = ANONYMOUS; wanted && each <= FLOOR; each++)
        if (strcmp(wanted, names[each]) == 0)
            rival = each;
    if (getenv("RIVAL_MAY_REPLACE"))
        may_replace = getenv("RIVAL_MAY_REPLACE");
    page_mask = ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);
    if (rival == NONE)
        give_up("RIVAL is none of anonymous, replaced, floor", wanted ? wanted : "");
    dl_iterate_phdr(work_on_listed, NULL);
}

/* The _init of each object calls this after the object has been relocated and before
 * its constructors run. The caller holds the loader's lock except at startup. */
void __gmon_start__(void) {
    if (startup_count == 0) {
        begin();
        return;
    }
    Dl_info info;
    struct link_map *map;
    if (!dladdr1(__builtin_return_address(0), &info, (void **)&map, RTLD_DL_LINKMAP))
        return;
    uintptr_t start = (uintptr_t)info.dli_fbase;
    for (size_t i = 0; i < startup_count; i++)
        if (startup[i] == start)
            return;
    const ElfW(Ehdr) *header = info.dli_fbase;
    const ElfW(Phdr) *headers = (const void *)(start + header->e_phoff);
    work_on(&(struct object){map->l_addr, headers, header->e_phnum, map->l_name});
}
