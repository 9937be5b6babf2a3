/*
 * Executes a program under an emulator, as a kernel does to which the emulator has been
 * made known (binfmt_misc). START is what comes before the program's own arguments. It is
 * linked statically, so that the preloaded library for the emulated program does not
 * concern it.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef START
/* scripts/lint only checks that the file compiles. */
#define START "/bin/false"
#endif

static char *const start[] = {START};

enum { FIXED = sizeof start / sizeof *start, MOST = 32 };

int main(int count, char **arguments) {
    char *all[FIXED + MOST] = {0};
    if (count > MOST)
        return 1;
    memcpy(all, start, sizeof start);
    memcpy(all + FIXED, arguments + 1, (size_t)(count - 1) * sizeof *arguments);
    execv(all[0], all);
    perror(all[0]);
    return 127;
}
