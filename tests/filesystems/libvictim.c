/*
 * A library that uses every kind of page: functions and constants on pages of their
 * own, pointers to them in RELRO and in writable data, and counters. Its result depends
 * on all of them.
 */
#ifndef PAGE
#define PAGE 4096
#endif

#define FUNCTION(n)                                                            \
    static const unsigned constant_##n __attribute__((aligned(PAGE))) = 2654435761u * (n + 1); \
    __attribute__((aligned(PAGE), noinline)) static unsigned function_##n(unsigned x) { \
        return (x ^ *(const volatile unsigned *)&constant_##n) * 16777619u + n; \
    }

FUNCTION(0)
FUNCTION(1)
FUNCTION(2)
FUNCTION(3)
FUNCTION(4)
FUNCTION(5)

typedef unsigned (*function)(unsigned);

/* These are volatile, because the compiler must not call the functions directly. */
static const function volatile read_only_after_relocation[] = {function_0, function_1, function_2};
static function volatile writable[4096] = {function_3, function_4, function_5};
static unsigned volatile calls = 1;

unsigned victim_compute(unsigned rounds);

unsigned victim_compute(unsigned rounds) {
    unsigned before = calls;
    unsigned x = 0;
    while (rounds--) {
        x = read_only_after_relocation[x % 3](x);
        x = writable[x % 3](x);
        calls++;
    }
    return x + (calls - before);
}
