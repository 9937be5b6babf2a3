/*
 * The library of which the victim loads many copies: 16 functions on pages of their
 * own, a read-only table of 64 KiB, pointers in RELRO and in writable data. Its result
 * depends on all of them.
 */
#include "lab.h"

/* The table is volatile, because `stamp` replaces its contents and the compiler must
 * not compute with them. */
const volatile uint32_t lab_table[TABLE_WORDS] __attribute__((aligned(PAGE))) = BLANK_TABLE;

typedef uint32_t (*function)(uint32_t);

#define FUNCTION(n) \
    __attribute__((aligned(PAGE), noinline)) static uint32_t function_##n(uint32_t x) { return mixed(n, x); }

FUNCTION(0)
FUNCTION(1)
FUNCTION(2)
FUNCTION(3)
FUNCTION(4)
FUNCTION(5)
FUNCTION(6)
FUNCTION(7)
FUNCTION(8)
FUNCTION(9)
FUNCTION(10)
FUNCTION(11)
FUNCTION(12)
FUNCTION(13)
FUNCTION(14)
FUNCTION(15)

static const function volatile read_only_after_relocation[] = {function_0, function_1, function_2, function_3,
                                                                function_4, function_5, function_6, function_7};
static function volatile writable[] = {function_8,  function_9,  function_10, function_11,
                                       function_12, function_13, function_14, function_15};

uint32_t lab_first(void);
uint32_t lab_compute(void);

/* Returns the word from which the victim computes the expected sum of the table. */
uint32_t lab_first(void) {
    return lab_table[0];
}

uint32_t lab_compute(void) {
    uint32_t x = 0;
    for (uint32_t i = 0; i < TABLE_WORDS; i++)
        x = x * 31 + lab_table[i];
    for (uint32_t n = 0; n < FUNCTIONS / 2; n++)
        x = read_only_after_relocation[n](x);
    for (uint32_t n = 0; n < FUNCTIONS / 2; n++)
        x = writable[n](x);
    return x;
}
