/*
 * stamp TEMPLATE DIRECTORY COUNT FIRST: makes DIRECTORY with COUNT libraries, each with
 * a table of its own that begins with FIRST plus its number, and returns when they are
 * on the disk. They are complete after a reset, because the store is tested and not its
 * sources.
 */
#include "lab.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned char bytes[4 << 20];

static int failed(const char *what) {
    perror(what);
    return 1;
}

static unsigned char *find_table(size_t size) {
    static const uint32_t blank[] = BLANK_TABLE;
    for (size_t offset = 0; offset + TABLE_WORDS * sizeof(uint32_t) <= size; offset += PAGE)
        if (memcmp(bytes + offset, blank, sizeof blank) == 0)
            return bytes + offset;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    int template = open(argv[1], O_RDONLY);
    ssize_t size = template < 0 ? -1 : read(template, bytes, sizeof bytes);
    if (size < 0)
        return failed(argv[1]);
    unsigned char *table = find_table((size_t)size);
    if (!table) {
        fprintf(stderr, "%s: no table\n", argv[1]);
        return 1;
    }
    if (mkdir(argv[2], 0755) != 0 || chdir(argv[2]) != 0)
        return failed(argv[2]);
    unsigned count = (unsigned)strtoul(argv[3], NULL, 10);
    unsigned first = (unsigned)strtoul(argv[4], NULL, 10);
    for (unsigned number = 0; number < count; number++) {
        /* An odd multiplier maps different numbers to different words. */
        uint32_t word = (first + number) * 2654435761u;
        for (size_t i = 0; i < TABLE_WORDS; i++, word = next_word(word))
            memcpy(table + i * sizeof word, &word, sizeof word);
        char name[32];
        snprintf(name, sizeof name, "libobject%02u.so", number);
        int copy = open(name, O_WRONLY | O_CREAT | O_EXCL, 0755);
        if (copy < 0 || write(copy, bytes, (size_t)size) != size || fsync(copy) != 0 || close(copy) != 0)
            return failed(name);
    }
    int directory = open(".", O_RDONLY | O_DIRECTORY);
    int parent = open("..", O_RDONLY | O_DIRECTORY);
    if (directory < 0 || parent < 0 || fsync(directory) != 0 || fsync(parent) != 0)
        return failed(argv[2]);
    return 0;
}
