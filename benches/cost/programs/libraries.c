/*
 * ./libraries DIRECTORY COUNT [older-kernel]: opens DIRECTORY/0.so, 1.so, ... and prints
 * the nanoseconds that each dlopen took, one a line. With older-kernel, a child does
 * this, and it fails unless the kernel refuses PROCMAP_QUERY.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCMAP_QUERY 0xc0686611UL

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Goes on in a child; the parent ends as that does. */
static void go_on_in_child(void) {
    int status;
    pid_t child = fork();
    if (child > 0) {
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
            exit(1);
        exit(WEXITSTATUS(status));
    }
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (child < 0 || maps < 0 || ioctl(maps, PROCMAP_QUERY, NULL) == 0 || errno != ENOTTY) {
        perror("PROCMAP_QUERY");
        exit(1);
    }
    close(maps);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4)
        return 2;
    if (argc == 4)
        go_on_in_child();
    int count = atoi(argv[2]);
    long long *took = calloc((size_t)count, sizeof *took);
    if (!took)
        return 1;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%d.so", argv[1], i);
        long long before = now();
        void *library = dlopen(path, RTLD_NOW);
        took[i] = now() - before;
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
    }
    for (int i = 0; i < count; i++)
        printf("%lld\n", took[i]);
    return 0;
}
