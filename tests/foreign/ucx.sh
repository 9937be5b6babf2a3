# A threaded host with a plug-in that needs UCX, whose libraries need Debian's libnuma.so.1.
# packages: libucx0 libnuma1 gcc
# needs: cc /usr/lib/x86_64-linux-gnu/libucp.so.0 /usr/lib/x86_64-linux-gnu/libnuma.so.1
# pinned: /libucp\.so
# pinned: /libucs\.so
# pinned: /plugin\.so
# pinned: /libnuma\.so
# results: 3
cat >plugin.c <<'C'
int numa_available(void);
const char *ucp_get_version_string(void);
static int one(void) { return 1; }
static int (*volatile table[])(void) = {one};
int answer(void);
int answer(void) { return numa_available() * 0 + (ucp_get_version_string()[0] == '1') + table[0](); }
C
cat >host.c <<'C'
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *idle(void *nothing) {
    pause();
    return nothing;
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, idle, NULL);
    void *plugin = dlopen("./plugin.so", RTLD_NOW);
    int (*answer)(void) = plugin ? (int (*)(void))dlsym(plugin, "answer") : NULL;
    if (!answer)
        return puts(dlerror());
    printf("answer: %d\n", answer());
    fflush(stdout);
    getchar();
    printf("answer: %d\n", answer());
    fflush(stdout);
    _exit(0);
}
C
cc -shared -fPIC -o plugin.so plugin.c -l:libucp.so.0 -l:libnuma.so.1
cc -o host host.c -ldl -pthread
echo | ./host
