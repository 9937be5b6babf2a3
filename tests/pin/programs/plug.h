/* What a library of these tests offers to the program that loads it. */
#ifndef SOPIN_PIN_PLUG_H
#define SOPIN_PIN_PLUG_H

/* The bytes of a page, or of several where the kernel has smaller ones. */
#ifdef __aarch64__
#define PAGE 65536
#else
#define PAGE 4096
#endif

enum { MOST_THREADS = 4, PAGE_WORDS = PAGE / sizeof(long) };

struct plug {
    /* Counters that thread I increments without atomic operations. The first are a page apart, so
     * that every thread has its own page. All begin with 1, except in .bss. */
    volatile unsigned long (*in_data)[PAGE_WORDS];
    volatile unsigned long *at_end_of_data;
    volatile unsigned long *at_start_of_bss;
    /* A counter that all threads increment by one atomic operation. */
    _Atomic unsigned long *shared;
    /* A counter that the handler of a signal increments. */
    volatile unsigned long *by_signal;
    /* A page of its own in .data, in which all bytes are 7. */
    unsigned char *page;
    /* Returns 42 if the relocated tables and the text are as they were. */
    int (*call)(void);
    /* A function that begins with a no-operation, on x86-64 of one byte. */
    void (*with_nop)(void);
};

#endif
