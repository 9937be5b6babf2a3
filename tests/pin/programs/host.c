/*
 * host WORD...: the program that most trials pin. The words put it into a state (states.h,
 * in_kernel.h, unanswered.h), and
 *
 *     load PATH      loads a library (plug.c)
 *     threads N      starts N threads that increment the counters of the newest library
 *     alarm          lets SIGALRM do the same a thousand times a second
 *     leader_exits   goes on in another thread, and ends the first one
 *     ticks, sleeps, writes, gauge    start threads that sleep (sleepers.h)
 *     busy           computes while it waits for lines, and makes few system calls
 *
 * Then it prints `ready` and does what the lines of its standard input say. It prints the word in
 * the past tense when that is done.
 *
 *     load PATH      as above
 *     late PATH      loads libsopin.so
 *     begin PATH     loads in another thread a library that waits in its constructor; `open` ends it
 *     unload         unloads the newest library
 *     call           calls the functions of all libraries
 *     fork           lets a child do so
 *     resolve        lets the thread of `fault` go on
 *     recorded PATH  checks that libsopin.so has recorded every object as pinned, and this one
 *     replace        replaces pages of the newest library carelessly, as a control
 *     stop           compares the counters, calls all functions and ends with 42
 *
 * It prints by write(2) alone, and allocates nothing after `ready` unless it loads something.
 */
#include "../../../include/sopin.h"
#include "in_kernel.h"
#include "plug.h"
#include "sleepers.h"
#include "states.h"
#include "unanswered.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 2048, UNROLLED = 64 };

/* The true numbers of stores, in memory that belongs to no object. */
struct library {
    void *handle;
    struct plug *plug;
    unsigned long stores[MOST_THREADS];
    unsigned long signals;
};

static struct library *libraries;
static atomic_int loaded;
static atomic_bool over;
static bool is_busy;
static pthread_t workers[MOST_THREADS];
static int threads;
static int gate[2] = {-1, -1};

void say(const char *text) {
    if (write(1, text, strlen(text)) < 0)
        die(3, "write");
}

_Noreturn void die(int status, const char *reason) {
    if (write(2, reason, strlen(reason)) < 0 || write(2, "\n", 1) < 0)
        status = 3;
    /* Strict mode does not permit exit_group(2). */
    syscall(SYS_exit, status);
    __builtin_unreachable();
}

static void add(void *handle, struct plug *plug) {
    libraries[loaded].handle = handle;
    libraries[loaded].plug = plug;
    if (!plug || loaded == MOST - 1)
        die(4, "a library without plug, or too many");
    loaded++;
}

#ifdef STATIC
extern struct plug plug;

static void load(const char *path) { die(4, path); }
#else
static void load(const char *path) {
    void *handle = dlopen(path, RTLD_NOW);
    if (!handle)
        die(4, dlerror());
    add(handle, dlsym(handle, "plug"));
}

struct sought {
    const char *path;
    bool is_listed;
};

static int check_record(const struct sopin_object *object, void *sought) {
    struct sought *one = sought;
    if (object->reached == SOPIN_NO_FILE)
        return 0;
    if (object->reached != SOPIN_FULL || object->bytes == 0 || object->error || object->reason)
        die(10, object->path);
    one->is_listed = one->is_listed || strcmp(object->path, one->path) == 0;
    return 0;
}

static void check_records(const char *path) {
    __typeof__(sopin_for_each) *for_each;
    struct sought sought = {path, false};
    *(void **)&for_each = dlsym(RTLD_DEFAULT, "sopin_for_each");
    if (!for_each || for_each(check_record, &sought) || !sought.is_listed)
        die(10, path);
}
#endif

/* Called by the constructors of the libraries. */
extern void at_load(void);
void at_load(void) {
    char byte;
    if (gate[0] >= 0 && read(gate[0], &byte, 1) != 1)
        die(5, "gate");
}

static void *load_in_thread(void *path) {
    load(path);
    return NULL;
}

static void *work(void *argument) {
    const long thread = (long)argument;
    while (!over) {
        struct library *library = &libraries[loaded - 1];
        struct plug *plug = library->plug;
        /* Long sequences of stores leave little time for anything else. */
        for (int round = 0; round < UNROLLED; round++) {
            plug->in_data[thread][0]++;
            plug->at_end_of_data[thread]++;
            plug->at_start_of_bss[thread]++;
            atomic_fetch_add_explicit(plug->shared, 1, memory_order_relaxed);
        }
        library->stores[thread] += UNROLLED;
    }
    return NULL;
}

static void on_alarm(int number) {
    struct library *library = &libraries[loaded - 1];
    (void)number;
    for (int round = 0; round < UNROLLED; round++)
        (*library->plug->by_signal)++;
    library->signals += UNROLLED;
}

static void start_alarm(void) {
    const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    const struct itimerval every = {{0, 1000}, {0, 1000}};
    if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &every, NULL))
        die(3, "alarm");
}

static void start_threads(int number) {
    sigset_t alarm;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    for (threads = 0; threads < number && threads < MOST_THREADS; threads++)
        if (pthread_create(&workers[threads], NULL, work, (void *)(long)threads))
            die(3, "thread");
    /* The C library has finished their start, for which it blocks signals and makes calls. */
    for (int thread = 0; thread < threads; thread++)
        while (*(volatile unsigned long *)&libraries[loaded - 1].stores[thread] == 0)
            usleep(100);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
}

/* Returns the number of functions that returned something else than they should. */
static int call_all(void) {
    int wrong = 0;
    for (int i = 0; i < loaded; i++)
        wrong += libraries[i].plug->call() != 42;
    return wrong;
}

static void fork_one(void) {
    int status = 0;
    const pid_t child = fork();
    if (child == 0)
        die(call_all() ? 9 : 42, "child");
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 42)
        die(7, "the child died");
}

/*
 * Does what a pin must not do: copies the writable pages and moves the copy over them while
 * threads go on storing. The control shows that the counters notice it.
 */
static void replace(void) {
    const struct plug *plug = libraries[loaded - 1].plug;
    char *pages = (char *)(void *)plug->in_data;
    const size_t length = MOST_THREADS * PAGE_WORDS * sizeof(long);
    char *copy = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        die(3, "mmap");
    memcpy(copy, pages, length);
    /* The others need time to store, on a busy machine too. */
    usleep(20000);
    if (mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, pages) != pages)
        die(3, "mremap");
}

/* Returns the number of counters that lack a store. */
static int compare(void) {
    int wrong = 0;
    for (int i = 0; i < loaded; i++) {
        const struct library *library = &libraries[i];
        const struct plug *plug = library->plug;
        unsigned long sum = 1;
        for (int thread = 0; thread < threads; thread++) {
            const unsigned long stores = library->stores[thread];
            sum += stores;
            wrong += plug->in_data[thread][0] != stores + 1;
            wrong += plug->at_end_of_data[thread] != stores + 1;
            wrong += plug->at_start_of_bss[thread] != stores;
        }
        wrong += *plug->shared != sum;
        wrong += *plug->by_signal != library->signals + 1;
    }
    return wrong;
}

static _Noreturn void stop(void) {
    static const struct itimerval never;
    static char line[64];
    unsigned long stores = 0;
    if (is_strict)
        die(call_all() == 0 && state_is_as_it_was(libraries[0].plug) ? 42 : 9, "strict");
    over = true;
    setitimer(ITIMER_REAL, &never, NULL);
    for (int i = 0; i < threads; i++)
        pthread_join(workers[i], NULL);
    for (int i = 0; i < loaded; i++)
        stores += libraries[i].stores[0] + libraries[i].signals;
    snprintf(line, sizeof line, "stores %lu\n", stores);
    say(line);
    say_parts();
    if (compare())
        die(8, "stores are lost");
    if (call_all() || (loaded && !state_is_as_it_was(libraries[0].plug)))
        die(9, "another result");
    _exit(42);
}

static void obey(char *line) {
    static pthread_t loader;
    if (strncmp(line, "load ", 5) == 0) {
        load(line + 5);
        say("loaded\n");
    } else if (strncmp(line, "begin ", 6) == 0) {
        static char path[4096];
        strncpy(path, line + 6, sizeof path - 1);
        if (pipe(gate) || pthread_create(&loader, NULL, load_in_thread, path))
            die(3, "begin");
        say("begun\n");
    } else if (strcmp(line, "open") == 0) {
        if (write(gate[1], "", 1) != 1 || pthread_join(loader, NULL))
            die(3, "open");
        say("opened\n");
#ifndef STATIC
    } else if (strcmp(line, "unload") == 0) {
        if (dlclose(libraries[--loaded].handle))
            die(4, "dlclose");
        say("unloaded\n");
    } else if (strncmp(line, "late ", 5) == 0) {
        if (!dlopen(line + 5, RTLD_NOW | RTLD_GLOBAL))
            die(4, dlerror());
        say("loaded\n");
    } else if (strncmp(line, "recorded ", 9) == 0) {
        check_records(line + 9);
        say("checked\n");
#endif
    } else if (strcmp(line, "call") == 0) {
        if (call_all())
            die(9, "another result");
        say("called\n");
    } else if (strcmp(line, "fork") == 0) {
        fork_one();
        say("forked\n");
    } else if (strcmp(line, "resolve") == 0) {
        resolve_fault();
        say("resolved\n");
    } else if (strcmp(line, "replace") == 0) {
        replace();
        say("replaced\n");
    } else if (strcmp(line, "stop") == 0) {
        stop();
    }
}

/* Reads a byte of the input. */
static bool next(char *byte) {
    ssize_t count;
    while ((count = read(0, byte, 1)) < 0 && is_busy && errno == EAGAIN)
        for (volatile int i = 0; i < 1 << 20; i++)
            ;
    return count == 1;
}

static void *converse(void *unused) {
    static char line[4096];
    size_t length = 0;
    (void)unused;
    say("ready\n");
    while (length < sizeof line - 1 && next(line + length)) {
        if (line[length++] != '\n')
            continue;
        line[length - 1] = '\0';
        obey(line);
        length = 0;
    }
    die(6, "no word stop");
}

int main(int argc, char **argv) {
    bool leader_exits = false;
    libraries = mmap(NULL, MOST * sizeof *libraries, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)argc;
#ifdef STATIC
    add(NULL, &plug);
#endif
    for (char **word = argv + 1; *word; word++) {
        if (strcmp(*word, "load") == 0)
            load(*++word);
        else if (strcmp(*word, "threads") == 0)
            start_threads(atoi(*++word));
        else if (strcmp(*word, "alarm") == 0)
            start_alarm();
        else if (strcmp(*word, "leader_exits") == 0)
            leader_exits = true;
        else if (strcmp(*word, "worker") == 0)
            start_worker();
        else if (strcmp(*word, "fault") == 0)
            start_fault();
        else if (strcmp(*word, "unanswered") == 0)
            start_unanswered(atol(*++word));
        else if (strcmp(*word, "ticks") == 0)
            start_sleeper(wait_for_events, 50);
        else if (strcmp(*word, "sleeps") == 0)
            start_sleeper(wait_for_events, 60000);
        else if (strcmp(*word, "writes") == 0)
            start_writer();
        else if (strcmp(*word, "gauge") == 0)
            start_sleeper(measure, 0);
        else if (strcmp(*word, "busy") == 0)
            is_busy = fcntl(0, F_SETFL, O_NONBLOCK) == 0;
        else
            enter_state(*word, word[1], loaded ? libraries[0].plug : NULL), word += takes_argument(*word);
    }
    if (leader_exits) {
        pthread_t other;
        if (pthread_create(&other, NULL, converse, NULL))
            die(3, "thread");
        pthread_exit(NULL);
    }
    converse(NULL);
}
