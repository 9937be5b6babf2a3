/*
 * Threads that do not execute the program's instructions:
 *
 *     worker         a worker of io_uring(7), which reads from a pipe that stays empty
 *     fault          a thread that is in write(2), which reads a page that userfaultfd(2) provides
 *                    only later; it does not stop before
 */
#ifndef SOPIN_PIN_IN_KERNEL_H
#define SOPIN_PIN_IN_KERNEL_H

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void say(const char *text);
_Noreturn void die(int status, const char *reason);

#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>

/* Returns the number of threads, among which are those that the kernel has made. */
static unsigned long threads_in_all(void) {
    struct stat status;
    if (stat("/proc/self/task", &status))
        die(3, "task");
    return status.st_nlink;
}

static void start_worker(void) {
    static char byte;
    struct io_uring_params params;
    int ends[2];
    memset(&params, 0, sizeof params);
    const int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0 || pipe2(ends, O_CLOEXEC))
        die(77, "io_uring_setup");
    char *queue = mmap(NULL, params.sq_off.array + params.sq_entries * sizeof(unsigned), PROT_READ | PROT_WRITE,
                       MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, params.sq_entries * sizeof *entry, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
                                      IORING_OFF_SQES);
    if (queue == MAP_FAILED || entry == MAP_FAILED)
        die(3, "ring");
    memset(entry, 0, sizeof *entry);
    entry->opcode = IORING_OP_READ;
    entry->flags = IOSQE_ASYNC;
    entry->fd = ends[0];
    entry->addr = (uintptr_t)&byte;
    entry->len = 1;
    ((unsigned *)(void *)(queue + params.sq_off.array))[0] = 0;
    const unsigned long before = threads_in_all();
    __atomic_store_n((unsigned *)(void *)(queue + params.sq_off.tail), 1U, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1)
        die(77, "io_uring_enter");
    /* Before Linux 5.12 a worker is a thread of the kernel, and not one of the process. */
    for (int i = 0; threads_in_all() == before; i++) {
        if (i == 2000)
            die(77, "no worker");
        usleep(1000);
    }
}
#else
static void start_worker(void) { die(77, "no header"); }
#endif

#if __has_include(<linux/userfaultfd.h>)
#include <linux/userfaultfd.h>

static int faults = -1;
static int sink[2];
static char *absent;
static pthread_t faulting;

static void *write_absent(void *unused) {
    (void)unused;
    if (write(sink[1], absent, 1) != 1)
        die(9, "write");
    return NULL;
}

static void start_fault(void) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffd_msg message;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api))
        die(77, "userfaultfd");
    absent = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {.range = {(uintptr_t)absent, page}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (absent == MAP_FAILED || ioctl(faults, UFFDIO_REGISTER, &range) || pipe2(sink, O_CLOEXEC) ||
        pthread_create(&faulting, NULL, write_absent, NULL))
        die(3, "fault");
    /* The thread waits when the kernel has reported its fault. */
    if (read(faults, &message, sizeof message) != sizeof message || message.event != UFFD_EVENT_PAGEFAULT)
        die(3, "fault");
}

static void resolve_fault(void) {
    struct uffdio_zeropage page = {.range = {(uintptr_t)absent, (size_t)sysconf(_SC_PAGESIZE)}};
    if (ioctl(faults, UFFDIO_ZEROPAGE, &page) || pthread_join(faulting, NULL))
        die(3, "resolve");
}
#else
static void start_fault(void) { die(77, "no header"); }
static void resolve_fault(void) { die(3, "no fault"); }
#endif

#endif
