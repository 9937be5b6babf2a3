/*
 * Shared by the programs inside a machine: the form of the libraries that the victim
 * loads. `libobject.c` is compiled once. `stamp` writes copies of it, each with a table
 * of its own, so that no two libraries have the same bytes, and a block that still
 * contains another library is not mistaken for the right one.
 */
#ifndef LAB_H
#define LAB_H

#include <stdint.h>

#define PAGE 4096
#define TABLE_WORDS 16384
/* The beginning of the compiled library's table, by which `stamp` finds it. */
#define BLANK_TABLE {0x6c61622d, 0x7461626c, 0x65206f66, 0x20736f70, 0x696e2121}
#define FUNCTIONS 16

/* Returns the result of library function `n`. */
static inline uint32_t mixed(uint32_t n, uint32_t x) {
    return (x ^ (2654435761u * (n + 1))) * 16777619u + n;
}

/* Returns the next word of a table by xorshift, which never makes 0 of another
 * number. */
static inline uint32_t next_word(uint32_t word) {
    word ^= word << 13;
    word ^= word >> 17;
    return word ^ word << 5;
}

/* Returns the sum of a table that begins with this word, which is not 0. */
static inline uint32_t sum_of_table(uint32_t first) {
    uint32_t sum = 0;
    uint32_t word = first;
    for (uint32_t i = 0; i < TABLE_WORDS; i++, word = next_word(word))
        sum = sum * 31 + word;
    return sum;
}

#endif
