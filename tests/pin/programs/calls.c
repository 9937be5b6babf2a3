/*
 * calls NAME alone|beside SECONDS: makes a blocking system call twice, so that the second one, during
 * which the process is stopped, can be compared with the first one. `beside` makes it in a second
 * thread, while the first one waits for that.
 *
 * Before each call it prints `waiting`, and afterwards `returned RESULT ERRNO MILLISECONDS`. A
 * child ends the call when a line arrives on the standard input. Where a timeout ends it, the
 * program waits for that line afterwards.
 * It exits with 42 if the calls have done what they should, and with 77 if the kernel has no such
 * call.
 *
 * calls list: prints the names, each with its flags:
 *
 *     timeout        it ends by its timeout, after SECONDS
 *     interrupted    it returns EINTR when ptrace(2) stops the task
 *     transfer       it may transfer less when it is interrupted
 *     stores         the kernel may store to the process's memory meanwhile, so that writable
 *                    ranges are left
 */
#include "calls.h"

#include <pthread.h>
#include <sys/mman.h>

int stream[2], filled[2], gate[2], sockets[2], ended[2], released[2];
struct shared *shared;
pid_t caller;
long wrong;

#include "waits.h"
#include "timeouts.h"
#include "transfers.h"

static const struct situation *all[] = {waits, timeouts, transfers};
static const size_t counts[] = {sizeof waits / sizeof *waits, sizeof timeouts / sizeof *timeouts,
                                sizeof transfers / sizeof *transfers};
enum { LISTS = sizeof all / sizeof *all };

void must(long result, const char *what) {
    if (result >= 0)
        return;
    if (errno == ENOSYS)
        _exit(77);
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    _exit(3);
}

static const struct situation *chosen(const char *name) {
    for (size_t list = 0; list < LISTS; list++)
        for (size_t i = 0; i < counts[list]; i++)
            if (strcmp(all[list][i].name, name) == 0)
                return &all[list][i];
    return NULL;
}

static void print_list(void) {
    for (size_t list = 0; list < LISTS; list++)
        for (size_t i = 0; i < counts[list]; i++) {
            const struct situation *situation = &all[list][i];
            printf("%s%s%s%s%s\n", situation->name, situation->release ? "" : " timeout",
                   situation->flags & INTERRUPTED ? " interrupted" : "", situation->flags & TRANSFER ? " transfer" : "",
                   situation->flags & STORES ? " stores" : "");
        }
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void print(const char *line) { must(write(1, line, strlen(line)), "write"); }

static void *call_twice(void *argument) {
    const struct situation *situation = argument;
    sigset_t own;
    sigemptyset(&own);
    sigaddset(&own, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &own, NULL);
    for (int round = 0; round < 2; round++) {
        char line[96];
        if (situation->prepare)
            situation->prepare();
        print("waiting\n");
        const double begin = milliseconds();
        errno = 0;
        const long result = situation->call();
        const int error = result < 0 ? errno : 0;
        if (error == ENOSYS)
            _exit(77);
        const int passed = (int)(milliseconds() - begin);
        snprintf(line, sizeof line, "returned %ld %d %d\n", result, error, passed);
        print(line);
        if (situation->finish)
            situation->finish();
        /* What the child does must not reach into the next round, and the process must not end
         * while it is pinned. */
        char byte;
        must(read(released[0], &byte, 1), "released");
    }
    return NULL;
}

/* Ends a call for each line. Ends when its parent does, because its standard input then does. */
static _Noreturn void release(const struct situation *situation) {
    char byte;
    while (read(0, &byte, 1) == 1)
        if (byte == '\n') {
            if (situation->release)
                situation->release();
            must(write(released[1], "x", 1), "released");
        }
    _exit(0);
}

static void on_signal(int number) { (void)number; }

int main(int argc, char **argv) {
    if (argc == 2) {
        print_list();
        return 0;
    }
    const struct situation *situation = argc == 4 ? chosen(argv[1]) : NULL;
    const struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    if (!situation)
        return 2;
    period.tv_sec = atoi(argv[3]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared == MAP_FAILED ? -1 : 0, "mmap");
    must(pipe(stream), "pipe");
    must(pipe(filled), "pipe");
    must(pipe(gate), "pipe");
    must(pipe(ended), "pipe");
    must(pipe(released), "pipe");
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), "socketpair");
    /* SIGUSR1 goes to the calling thread, and SIGUSR2 stays pending. */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    sigaction(SIGUSR1, &action, NULL);
    caller = getpid();
    if (situation->set_up)
        situation->set_up();
    const pid_t releaser = fork();
    must(releaser, "fork");
    if (releaser == 0)
        release(situation);
    close(0);
    if (strcmp(argv[2], "beside") == 0) {
        pthread_t thread;
        must(-pthread_create(&thread, NULL, call_twice, (void *)situation), "thread");
        pthread_join(thread, NULL);
    } else {
        call_twice((void *)situation);
    }
    if (situation->clean_up)
        situation->clean_up();
    kill(releaser, SIGKILL);
    waitpid(releaser, NULL, 0);
    if (wrong)
        fprintf(stderr, "%ld effects are wrong\n", wrong);
    return wrong ? 1 : 42;
}
