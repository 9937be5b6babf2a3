// The functions that every plug-in of the crashing programs has. Each dies in one way. Some die
// only after the file of the plug-in was rewritten in place. Those must reach the way of dying
// without the GOT, which is the first to revert, and return a number otherwise.

#ifndef PLUG_H
#define PLUG_H

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

// The name of each way, in all plug-ins.
#define WAYS(way) \
    way(call) way(data) way(lazy) way(nowhere) way(nothing) way(wild) way(stray) way(aborted) way(trap) \
        way(overflow) way(freed) way(twice) way(exhausted) way(mapped) way(raised)

// The compiler must not know what is in it.
#define HIDE(variable) __asm__ volatile("" : "+r"(variable))

// Another build of the same source. Its other code traps wherever a function was.
#ifdef OTHER_BUILD
#if defined(__x86_64__)
// An instruction that does not exist any more in 64 bits, of one byte, so that it traps at every address.
__asm__(".text\n.fill 16384, 1, 0x06\n");
#else
__asm__(".text\n.fill 8192, 4, 0\n");
#endif
#endif

extern const char sopin_first_byte[] __asm__("__ehdr_start") __attribute__((visibility("hidden")));

static __attribute__((noinline)) int collect_rows(int number) {
    HIDE(number);
    return number + 41;
}

static const int row_count = 42;
// The linker stores the addresses in the file without the load base, and the loader adds that.
static int (*const collectors[])(int) = {collect_rows, collect_rows};
static const int *const counts[] = {&row_count, &row_count};

static __attribute__((noinline, used)) int die_call(void) {
    int (*const *table)(int) = collectors;
    HIDE(table);
    return table[1](1);
}

static __attribute__((noinline, used)) int die_data(void) {
    const int *const *table = counts;
    HIDE(table);
    return *table[1];
}

// Nothing else calls this function, so the loader has not bound it.
static __attribute__((noinline, used)) int die_lazy(void) { return getpgrp() > 0 ? 42 : 0; }

static __attribute__((noinline, used)) int die_nowhere(void) {
    int (*function)(void) = 0;
    HIDE(function);
    return function() + 1;
}

static __attribute__((noinline, used)) int die_nothing(void) {
    const int *number = 0;
    HIDE(number);
    return number[2];
}

// An address like those that the file has, although the file was never rewritten.
static __attribute__((noinline, used)) int die_wild(void) {
    uintptr_t address = (uintptr_t)collect_rows - (uintptr_t)sopin_first_byte;
    HIDE(address);
    return ((int (*)(int))address)(1) + 1;
}

static __attribute__((noinline, used)) int die_stray(void) {
    uintptr_t address = (uintptr_t)&row_count - (uintptr_t)sopin_first_byte;
    HIDE(address);
    return *(const int *)address;
}

static __attribute__((noinline, used)) int die_aborted(void) { abort(); }

static __attribute__((noinline, used)) int die_trap(void) { __builtin_trap(); }

static __attribute__((noinline)) int descend(int depth) {
    volatile char frame[4096];
    frame[depth % 4096] = 1;
    HIDE(depth);
    return depth < 0 ? 0 : descend(depth + 1) + frame[(depth + 1) % 4096];
}

static __attribute__((noinline, used)) int die_overflow(void) { return descend(0); }

struct handler {
    int (*function)(int);
    long rest[5];
};

// The memory of the object belongs to a text when the object is used.
static __attribute__((noinline, used)) int die_freed(void) {
    struct handler *handler = (struct handler *)malloc(sizeof *handler);
    if (!handler) return 0;
    handler->function = collect_rows;
    struct handler *used = handler;
    HIDE(used);
    free(handler);
    char *text = (char *)malloc(sizeof *handler);
    if (text) memset(text, 'A', sizeof *handler);
    HIDE(text);
    return used->function(1) + 1;
}

static __attribute__((noinline, used)) int die_twice(void) {
    void *memory = malloc(2000);
    void *guard = malloc(16);
    void *again = memory;
    HIDE(again);
    free(memory);
    free(again);
    free(guard);
    return 0;
}

// No memory is left, and the program does not look at what malloc has returned.
static __attribute__((noinline, used)) int die_exhausted(void) {
    struct rlimit limit = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_AS, &limit);
    for (int i = 0; i < 1000000; i++) {
        char *memory = (char *)malloc(1 << 24);
        HIDE(memory);
        memory[64] = 1;
    }
    return 0;
}

// A file that the program has mapped itself, which is no object.
static __attribute__((noinline, used)) int die_mapped(void) {
    int file = open("records", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, 65536) != 0) return 0;
    volatile char *records = (volatile char *)mmap(0, 65536, PROT_READ, MAP_SHARED, file, 0);
    if (records == MAP_FAILED || ftruncate(file, 100) != 0) return 0;
    return records[32768] + 1;
}

static __attribute__((noinline, used)) int die_raised(void) { return raise(SIGSEGV) + 1; }

#ifdef __cplusplus
}
#endif

#endif
