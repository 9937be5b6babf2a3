/*
 * A program that loads plugins and keeps working when they are reinstalled.
 *
 *     cc -O2 -Wall -o host host.c $(pkg-config --cflags --libs sopin)
 *     ./host ./plugin.so
 *
 * It is linked with the library, so it needs no LD_PRELOAD: the objects with which it
 * was started, and those that it loads, are pinned before their constructors run. It
 * prints how far each object is pinned. Then it waits for a line on its standard
 * input each time before it calls the plugins' `plugin_run` again; rewrite the
 * plugins meanwhile.
 */
#include <dlfcn.h>
#include <sopin.h>
#include <stdio.h>
#include <stdlib.h>

static const char *reached_word(int reached) {
    switch (reached) {
    case SOPIN_FULL: return "full";
    case SOPIN_RELOCATED: return "relocated";
    case SOPIN_EXPOSED: return "EXPOSED";
    case SOPIN_EXCLUDED: return "excluded";
    case SOPIN_NO_FILE: return "no file";
    default: return "pending";
    }
}

static int print_object(const struct sopin_object *object, void *out) {
    /* A library older than this header has a shorter structure. */
    if (object->size < sizeof *object)
        return 0;
    fprintf(out, "%-10s %9llu  %s%s%s\n", reached_word(object->reached), (unsigned long long)object->bytes,
            object->path, object->reason ? ": " : "", object->reason ? object->reason : "");
    return 0;
}

/* Prints what could not be done. The program continues as it would without the
 * library. */
static void check(const char *what, int code) {
    if (code != SOPIN_OK)
        fprintf(stderr, "host: %s: %s\n", what, sopin_strerror(code));
}

int main(int argc, char **argv) {
    struct sopin_version_info version = {.size = sizeof version};
    struct sopin_totals totals = {.size = sizeof totals};
    int (*run[16])(void);
    int plugins = 0;

    for (; plugins < argc - 1 && plugins < 16; plugins++) {
        void *plugin = dlopen(argv[plugins + 1], RTLD_NOW | RTLD_LOCAL);
        if (!plugin || !(*(void **)&run[plugins] = dlsym(plugin, "plugin_run"))) {
            fprintf(stderr, "host: %s\n", dlerror());
            return EXIT_FAILURE;
        }
        /* The plugin is pinned already, unless it has no crti or was loaded by a
         * bare name. */
        check(argv[plugins + 1], sopin_pin_handle(plugin));
    }
    check("version", sopin_version(&version));
    check("all objects", sopin_pin_all());
    check("list", sopin_for_each(print_object, stdout));
    check("summary", sopin_summary(&totals));
    printf("libsopin %s: %zu of %zu objects full, %zu exposed, %llu bytes\n", version.text, totals.full,
           totals.objects, totals.exposed, (unsigned long long)totals.bytes);

    for (;;) {
        for (int i = 0; i < plugins; i++)
            printf("%s: %d\n", argv[i + 1], run[i]());
        fflush(stdout);
        int c;
        while ((c = getchar()) != '\n')
            if (c == EOF)
                return EXIT_SUCCESS;
    }
}
