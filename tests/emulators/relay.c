/*
 * Starts itself by its name, as a shell starts programs: two that write and two that copy what
 * those write, by fork and exec and by posix_spawn, and one child without exec. Prints three
 * words.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Starts the program with this word; `from` and `to` become its standard input and output. */
static pid_t start(int from, int to, int spare, char *word) {
    char *arguments[] = {"relay", word, NULL};
    pid_t child;
    if (strcmp(word, "two") == 0) {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, to, 1);
        posix_spawn_file_actions_addclose(&actions, spare);
        return posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ) == 0 ? child : -1;
    }
    child = fork();
    if (child == 0) {
        dup2(from, 0);
        dup2(to, 1);
        close(spare);
        execvp(arguments[0], arguments);
        _exit(127);
    }
    return child;
}

static int succeeds(pid_t child) {
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int count, char **arguments) {
    char *words[] = {"one", "two"};
    pid_t child;
    int character;
    if (count == 2 && strcmp(arguments[1], "copy") != 0)
        return puts(arguments[1]) < 0;
    if (count == 2) {
        while ((character = getchar()) != EOF)
            putchar(character);
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        int ends[2];
        pid_t writes, copies;
        if (pipe(ends) != 0)
            return 1;
        writes = start(0, ends[1], ends[0], words[i]);
        copies = start(ends[0], 1, ends[1], "copy");
        close(ends[0]);
        close(ends[1]);
        if (!succeeds(writes) || !succeeds(copies))
            return 1;
    }
    child = fork();
    if (child == 0) {
        puts("three");
        exit(0);
    }
    return !succeeds(child);
}
