/* A library that stops working when its file is truncated or rewritten. */
#include "plug.h"

#define ALIGNED __attribute__((aligned(PAGE)))

static volatile unsigned long in_data[MOST_THREADS][PAGE_WORDS] ALIGNED = {[0 ... MOST_THREADS - 1] = {1}};
static volatile unsigned long at_end_of_data[MOST_THREADS] = {[0 ... MOST_THREADS - 1] = 1};
static volatile unsigned long at_start_of_bss[MOST_THREADS];
static _Atomic unsigned long shared = 1;
static volatile unsigned long by_signal = 1;
static unsigned char page[PAGE] ALIGNED = {[0 ... PAGE - 1] = 7};

static int one(void) { return 20; }
static int two(void) { return 22; }
static int (*const volatile constants[])(void) = {one, two};
static int (*volatile data[])(void) = {one, two};

/* A part of the text that lies on pages of its own. Nothing but a page fault reads it. */
__attribute__((section(".text.far"), aligned(PAGE), noinline)) static int far(void) { return data[0]() + constants[1](); }

static int call(void) { return constants[0]() + data[1]() == 42 ? far() : 0; }

extern void with_nop(void) __attribute__((visibility("hidden")));
__asm__(".pushsection .text\n\t"
        ".balign 16\n\t"
        ".type with_nop, %function\n"
        "with_nop:\n\t"
        "nop\n\t"
        "ret\n\t"
        ".size with_nop, . - with_nop\n\t"
        ".popsection");

/* The program that loads the library can make it wait in its constructor. */
extern void at_load(void) __attribute__((weak));

#ifndef WITHOUT_START_FILES
__attribute__((constructor)) static void start(void) {
    if (at_load)
        at_load();
}
#endif

extern struct plug plug;
struct plug plug = {in_data, at_end_of_data, at_start_of_bss, &shared, &by_signal, page, call, with_nop};
