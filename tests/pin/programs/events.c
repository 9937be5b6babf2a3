/*
 * events KIND: does something that changes its tasks or its memory, again and again:
 *
 *     exits MILLISECONDS   ends with 42 after that time
 *     execs N              executes itself, N times
 *     forks                makes a child, which ends
 *     vforks               makes a child by vfork(2), which executes another program
 *     threads              makes a thread, which ends
 *     all                  the last three in threads of their own
 *     endures              waits
 *
 * Prints `ready`. It ends with 42 when its standard input ends, or with 8 if a child ended in
 * another way than it should.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_ulong turns;
static atomic_bool over, failed;

static void await(pid_t child, int expected) {
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != expected) {
        fprintf(stderr, "child %d: status %x\n", (int)child, (unsigned)status);
        failed = true;
    }
}

static void make_child(void) {
    const pid_t child = fork();
    if (child == 0)
        _exit(7);
    await(child, 7);
}

static void make_program(void) {
    const pid_t child = vfork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
        _exit(1);
    }
    await(child, 7);
}

static void *end(void *argument) { return argument; }

static void make_thread(void) {
    pthread_t thread;
    void *result = NULL;
    if (pthread_create(&thread, NULL, end, &turns) || pthread_join(thread, &result) || result != &turns)
        failed = true;
}

static void wait_a_little(void) { usleep(1000); }

static void *repeat(void *argument) {
    void (*const *kind)(void) = argument;
    while (!over && !failed) {
        (*kind)();
        turns++;
    }
    return NULL;
}

static void (*const kinds[])(void) = {make_child, make_program, make_thread, wait_a_little};
static const char *const names[] = {"forks", "vforks", "threads", "endures"};

static void execute_again(char **argv) {
    static char rest[16];
    const int left = atoi(argv[2]);
    if (left == 0)
        exit(42);
    snprintf(rest, sizeof rest, "%d", left - 1);
    argv[2] = rest;
    /* The other threads end by execve(2). */
    pthread_t thread;
    pthread_create(&thread, NULL, repeat, (void *)&kinds[3]);
    usleep(3000);
    execv("/proc/self/exe", argv);
    exit(1);
}

int main(int argc, char **argv) {
    struct pollfd input = {0, POLLIN, 0};
    pthread_t threads[3];
    int count = 0;
    if (argc < 2)
        return 2;
    if (strcmp(argv[1], "execs") != 0 || atoi(argv[2]) % 100 == 0) {
        puts("ready");
        fflush(stdout);
    }
    if (strcmp(argv[1], "execs") == 0)
        execute_again(argv);
    if (strcmp(argv[1], "exits") == 0) {
        usleep((useconds_t)atoi(argv[2]) * 1000);
        return 42;
    }
    for (size_t i = 0; i < 4; i++)
        if (strcmp(argv[1], names[i]) == 0 || (i < 3 && strcmp(argv[1], "all") == 0))
            pthread_create(&threads[count++], NULL, repeat, (void *)&kinds[i]);
    while (poll(&input, 1, -1) < 0)
        ;
    over = true;
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    printf("turns %lu\n", (unsigned long)turns);
    return failed ? 8 : turns ? 42 : 9;
}
