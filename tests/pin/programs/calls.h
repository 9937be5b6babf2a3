/* What the tables of blocking calls have in common. */
#ifndef SOPIN_PIN_CALLS_H
#define SOPIN_PIN_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { INTERRUPTED = 1, TRANSFER = 2, STORES = 4 };

struct situation {
    const char *name;
    void (*set_up)(void);  /* once, before the child is made */
    void (*prepare)(void); /* before each call */
    long (*call)(void);
    void (*finish)(void);  /* after each call */
    void (*release)(void); /* in the child; NULL: a timeout ends the call */
    void (*clean_up)(void);
    unsigned flags;
};

/* Memory that the calling process and the child share. */
struct shared {
    atomic_int word;
};

/* Two pipes, of which the second is full where a call needs that; what holds back other
 * children, and what says that they are ready, or that a call was ended; and two connected
 * sockets. */
extern int stream[2], filled[2], gate[2], ended[2], released[2], sockets[2];
extern struct shared *shared;
extern pid_t caller;
extern long wrong;

/* Ends the program if a call has failed: with 77 if the kernel does not have it. */
void must(long result, const char *what);

#endif
