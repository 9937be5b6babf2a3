/*
 * intruder stop PID: stops every thread of a process by ptrace(2) and lets it go on, without any
 * repair of interrupted calls.
 *
 * intruder hold PID: attaches to a process, prints `held`, and holds it until its input ends.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(pid_t task) {
    int status = 0;
    if (ptrace(PTRACE_SEIZE, task, NULL, NULL) || ptrace(PTRACE_INTERRUPT, task, NULL, NULL) ||
        waitpid(task, &status, __WALL) != task || !WIFSTOPPED(status)) {
        fprintf(stderr, "%d: %s\n", (int)task, strerror(errno));
        exit(1);
    }
}

int main(int argc, char **argv) {
    pid_t tasks[64];
    int count = 0;
    char path[64], byte;
    if (argc != 3)
        return 2;
    snprintf(path, sizeof path, "/proc/%s/task", argv[2]);
    DIR *directory = opendir(path);
    if (!directory)
        return 1;
    for (struct dirent *entry; (entry = readdir(directory)) && count < 64;)
        if (entry->d_name[0] != '.')
            stop(tasks[count++] = atoi(entry->d_name));
    if (strcmp(argv[1], "hold") == 0) {
        puts("held");
        fflush(stdout);
        while (read(0, &byte, 1) > 0)
            ;
    }
    for (int i = 0; i < count; i++)
        ptrace(PTRACE_DETACH, tasks[i], NULL, NULL);
    return 0;
}
