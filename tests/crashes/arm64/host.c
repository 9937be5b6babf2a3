// Calls the function of the plug-in that the argument names after a line of input.

#include <dlfcn.h>
#include <stdio.h>

int main(int count, char **arguments) {
    void *plug = dlopen("./plug.so", RTLD_LAZY);
    int (*function)(void) = plug && count == 2 ? (int (*)(void))dlsym(plug, arguments[1]) : 0;
    if (!function) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    puts("ready");
    fflush(stdout);
    getchar();
    return function();
}
