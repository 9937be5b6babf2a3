/* A library whose thread reads the clock all the time and keeps the longest time between two
 * readings: for so long the thread did not run. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static _Atomic long longest_ns;

static long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void *read_the_clock(void *unused) {
    for (long before = now_ns(), now;; before = now) {
        now = now_ns();
        if (now - before > atomic_load_explicit(&longest_ns, memory_order_relaxed))
            atomic_store_explicit(&longest_ns, now - before, memory_order_relaxed);
    }
    return unused;
}

/* Starts the thread; returns 0, or the error. */
int gaps_start(void) {
    pthread_t thread;
    return pthread_create(&thread, NULL, read_the_clock, NULL);
}

/* Forgets what was kept. */
void gaps_forget(void) {
    atomic_store(&longest_ns, 0);
}

long gaps_longest_ns(void) {
    return atomic_load(&longest_ns);
}
