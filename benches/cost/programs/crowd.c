/*
 * ./crowd COUNT PROGRAM [ARGUMENT...]: starts PROGRAM so many times. Each must write a character when it
 * has started, and read its standard input to the end. Then writes a line and waits for the end of
 * its own standard input, after which those programs end too.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    int started[2], held[2];
    long count = argc > 2 ? atol(argv[1]) : 0;
    char buffer[4096];

    if (pipe2(started, O_CLOEXEC) || pipe2(held, O_CLOEXEC))
        fail("pipe2");
    for (long made = 0; made < count; made++) {
        pid_t child = vfork();
        if (child < 0)
            fail("vfork");
        if (child == 0) {
            if (dup2(held[0], STDIN_FILENO) >= 0 && dup2(started[1], STDOUT_FILENO) >= 0)
                execv(argv[2], argv + 2);
            _exit(127);
        }
    }
    close(started[1]);
    for (long left = count; left > 0;) {
        ssize_t got = read(started[0], buffer, sizeof buffer);
        if (got <= 0)
            fail("a program that did not start");
        left -= got;
    }
    if (write(STDOUT_FILENO, "\n", 1) != 1)
        fail("write");
    while (read(STDIN_FILENO, buffer, sizeof buffer) > 0)
        ;
    close(held[1]);
    while (wait(NULL) > 0)
        ;
    return 0;
}
