/*
 * Threads that the kernel does not interrupt, because a file system does not answer:
 *
 *     unanswered N   threads that look for a file of a FUSE file system, whose server answers after N
 *                    milliseconds; it is mounted in a mount namespace of the process's own
 */
#ifndef SOPIN_PIN_UNANSWERED_H
#define SOPIN_PIN_UNANSWERED_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

_Noreturn void die(int status, const char *reason);

#if __has_include(<linux/fuse.h>)
#include <linux/fuse.h>

enum { LOOKING = 100 };

static void answer(int server, const struct fuse_in_header *request, int error, const void *bytes, size_t len) {
    static char buffer[256];
    const struct fuse_out_header header = {(uint32_t)(sizeof header + len), error, request->unique};
    memcpy(buffer, &header, sizeof header);
    memcpy(buffer + sizeof header, bytes, len);
    /* The thread may have ended. */
    if (write(server, buffer, sizeof header + len) < 0 && errno != ENOENT)
        _exit(1);
}

/* The server. The kernel reports the end of the thread that has made this process. */
static _Noreturn void serve(int server, int asked, long milliseconds) {
    static char buffer[1 << 18];
    const struct fuse_in_header *request = (const void *)buffer;
    const struct fuse_init_out started = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(server, buffer, sizeof buffer) > 0) {
        if (request->opcode == FUSE_INIT) {
            answer(server, request, 0, &started, sizeof started);
        } else if (request->opcode == FUSE_LOOKUP) {
            if (milliseconds && write(asked, "", 1) != 1)
                _exit(1);
            usleep((useconds_t)milliseconds * 1000);
            milliseconds = 0;
            answer(server, request, -ENOENT, "", 0);
        }
    }
    _exit(0);
}

static void *look(void *unused) {
    struct stat status;
    (void)unused;
    if (stat("unanswered/file", &status) == 0)
        die(5, "stat");
    for (;;)
        pause();
}

static void start_unanswered(long milliseconds) {
    char options[64], byte;
    int asked[2];
    const int server = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", server);
    if (server < 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mkdir("unanswered", 0755) || mount("none", "unanswered", "fuse", 0, options))
        die(77, "fuse");
    if (pipe(asked))
        die(3, "pipe");
    const pid_t child = fork();
    if (child == 0)
        serve(server, asked[1], milliseconds);
    /* The end of the server ends the file system, because this process has not got it any more. */
    if (child < 0 || close(server))
        die(3, "server");
    for (int i = 0; i < LOOKING; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, look, NULL))
            die(3, "thread");
    }
    if (read(asked[0], &byte, 1) != 1)
        die(3, "asked");
}
#else
static void start_unanswered(long milliseconds) { die(77, milliseconds ? "no header" : ""); }
#endif

#endif
