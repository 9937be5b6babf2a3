/*
 * service PLUGIN DIRECTORY: a service that calls a plugin each time it is asked to.
 *
 * It is asked by a line in the FIFO DIRECTORY/ask, and answers with a line in DIRECTORY/answer: its
 * process number, the plugin's result, and its user number. FIFOs can be written to where the file
 * system is read-only, too. It must not outlive a plugin that was harmed, so it has no handler.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int (*run)(void);
    void *plugin = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!plugin || !(*(void **)&run = dlsym(plugin, "plugin_run"))) {
        fprintf(stderr, "service: %s\n", argc == 3 ? dlerror() : "usage: service PLUGIN DIRECTORY");
        return 1;
    }
    if (chdir(argv[2])) {
        perror(argv[2]);
        return 1;
    }
    for (;;) {
        char line[64];
        int ask = open("ask", O_RDONLY | O_CLOEXEC);
        if (ask < 0 || read(ask, line, sizeof line) < 0) {
            perror("ask");
            return 1;
        }
        close(ask);
        int length = snprintf(line, sizeof line, "%d %d %d\n", getpid(), run(), getuid());
        int answer = open("answer", O_WRONLY | O_CLOEXEC);
        if (answer < 0 || write(answer, line, (size_t)length) != length) {
            perror("answer");
            return 1;
        }
        close(answer);
    }
}
