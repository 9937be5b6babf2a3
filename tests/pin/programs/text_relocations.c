/* A library with relocations in its text (DT_TEXTREL). Otherwise it is as plug.c. */
#include "plug.h"

static volatile unsigned long in_data[MOST_THREADS][PAGE_WORDS] = {[0 ... MOST_THREADS - 1] = {1}};
static volatile unsigned long at_end_of_data[MOST_THREADS] = {[0 ... MOST_THREADS - 1] = 1};
static volatile unsigned long at_start_of_bss[MOST_THREADS];
static _Atomic unsigned long shared = 1;
static volatile unsigned long by_signal = 1;
static unsigned char page[PAGE_WORDS * sizeof(long)] __attribute__((aligned(4096)));
static volatile int value = 42;

/* The address in the instruction has 64 bits, and the loader relocates it. */
static int call(void) {
    volatile int *address;
    __asm__("movabsq $%p1, %0" : "=r"(address) : "i"(&value));
    return *address;
}

__attribute__((naked)) static void with_nop(void) { __asm__("nop\n\tret"); }

extern struct plug plug;
struct plug plug = {in_data, at_end_of_data, at_start_of_bss, &shared, &by_signal, page, call, with_nop};
