/*
 * An application: calls a plugin from a volume for each line that it reads, and prints the result.
 */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    char line[64];
    int (*run)(void);
    void *plugin = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!plugin || !(*(void **)&run = dlsym(plugin, "plugin_run"))) {
        fprintf(stderr, "%s\n", argc == 2 ? dlerror() : "usage: app PLUGIN");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%d\n", run());
        fflush(stdout);
    }
    return 0;
}
