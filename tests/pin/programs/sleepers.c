/*
 * sleepers [handles]: threads that sleep in epoll_wait until the standard input ends. Exits with
 * 42, or with 8 if one was interrupted. With `handles` it has handlers for the signals of which it
 * knows nothing otherwise, so that they do interrupt.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { THREADS = 8, INTERRUPTED = 8 };

static void do_nothing(int signal) { (void)signal; }

static void *sleep_for_ever(void *unused) {
    struct epoll_event event;
    const int epoll = epoll_create1(0);
    if (epoll < 0 || epoll_wait(epoll, &event, 1, -1) != -1 || errno != EINTR)
        perror("epoll_wait");
    else
        fprintf(stderr, "epoll_wait was interrupted\n");
    _exit(INTERRUPTED);
    return unused;
}

int main(int argc, char **argv) {
    const struct sigaction action = {.sa_handler = do_nothing};
    const int signals[] = {SIGWINCH, SIGURG, SIGCHLD};
    pthread_t thread;
    char byte;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&thread, NULL, sleep_for_ever, NULL) != 0)
            return 1;
    if (argc == 2 && strcmp(argv[1], "handles") == 0)
        for (int i = 0; i < 3; i++)
            sigaction(signals[i], &action, NULL);
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) != 0)
        ;
    return 42;
}
