/*
 * Threads that sleep in calls to which a stop does harm:
 *
 *     ticks          a thread that waits for events for 50 ms, again and again
 *     sleeps         the same for a minute
 *     writes         a thread that writes more than a pipe takes, which takes about 100 ms, and then sleeps
 *                    for 20 ms, again and again; `stop` prints how often it has written a part only
 *     gauge          a thread that sleeps for 1 ms, again and again; `stop` prints how many milliseconds
 *                    that has taken at most
 */
#ifndef SOPIN_PIN_SLEEPERS_H
#define SOPIN_PIN_SLEEPERS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

void say(const char *text);
_Noreturn void die(int status, const char *reason);

enum { TOO_LARGE = 128 << 10 };

static atomic_ulong parts;
static int pipe_to_reader[2];

static void *wait_for_events(void *timeout) {
    struct epoll_event event;
    const int events = epoll_create1(EPOLL_CLOEXEC);
    while (epoll_wait(events, &event, 1, (int)(long)timeout) == 0)
        ;
    die(5, "epoll_wait");
}

static void rest(long milliseconds) {
    const struct timespec time = {0, milliseconds * 1000000};
    nanosleep(&time, NULL);
}

/* The other end of the pipe, which reads only after the writer has waited for a while. */
static _Noreturn void read_late(void) {
    static char bytes[TOO_LARGE];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int file = 0; file < 3; file++)
        close(file);
    for (;;) {
        ssize_t count = read(pipe_to_reader[0], bytes, 1);
        rest(100);
        for (ssize_t left = TOO_LARGE - 1; count > 0 && left > 0; left -= count)
            count = read(pipe_to_reader[0], bytes, (size_t)left);
        if (count <= 0)
            _exit(0);
    }
}

static void *write_again_and_again(void *unused) {
    static const char bytes[TOO_LARGE];
    (void)unused;
    for (;;) {
        for (ssize_t left = TOO_LARGE, count; left > 0; left -= count) {
            count = write(pipe_to_reader[1], bytes, (size_t)left);
            if (count <= 0)
                die(5, "write");
            parts += count < left;
        }
        rest(20);
    }
}

static atomic_ulong longest;

static unsigned long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (unsigned long)time.tv_sec * 1000 + (unsigned long)time.tv_nsec / 1000000;
}

static void *measure(void *unused) {
    (void)unused;
    unsigned long before = now();
    for (;;) {
        rest(1);
        const unsigned long after = now();
        if (after < before)
            die(5, "clock_gettime");
        if (after - before > longest)
            longest = after - before;
        before = after;
    }
}

static void start_sleeper(void *(*sleep)(void *), long timeout) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleep, (void *)timeout))
        die(3, "thread");
}

static void start_writer(void) {
    if (pipe(pipe_to_reader))
        die(3, "pipe");
    const pid_t reader = fork();
    if (reader < 0)
        die(3, "fork");
    if (reader == 0)
        read_late();
    close(pipe_to_reader[0]);
    start_sleeper(write_again_and_again, 0);
}

static void say_parts(void) {
    static char line[64];
    snprintf(line, sizeof line, "parts %lu\nlongest %lu\n", (unsigned long)parts, (unsigned long)longest);
    say(line);
}

#endif
