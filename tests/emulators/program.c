/*
 * A program that runs in a user-mode emulator, as containers of another architecture
 * do. Emulators report some mappings wrongly: qemu 7.2 shows text as readable only, and
 * qemu 10.0 shows its own mappings at /proc/thread-self. Text mapped with such a
 * protection could not be executed. The program must run, load libraries in its main
 * thread and in another one, and keep the relocations of those and of a startup library
 * when their files have been rewritten. Then it closes them.
 */
#include "fixture.h"

#include <pthread.h>

int sum_of_calls(int x);

static void *load_and_rewrite(void *name) {
    void *library = expect_dlopen(name, RTLD_NOW);
    int (*loaded)(int) = (int (*)(int))(uintptr_t)expect_dlsym(library, "sum_of_calls");
    expect(loaded(2) == 222);
    rewrite_same(name);
    expect(loaded(1) == 111);
    expect(dlclose(library) == 0);
    /* musl unloads nothing. */
    expect(!IS_MUSL || loaded(2) == 222);
    return NULL;
}

int main(void) {
    pthread_t thread;
    expect(sum_of_calls(2) == 222);
    rewrite_same("./libstartup.so");
    expect(sum_of_calls(1) == 111);
    expect(pthread_create(&thread, NULL, load_and_rewrite, "./libthread.so") == 0);
    expect(pthread_join(thread, NULL) == 0);
    load_and_rewrite("./libmain.so");
    return PASSED;
}
