/* Loads and unloads the libraries that it is given. */
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW);
        printf("%s: %s, glXSwapBuffers %d, zlibVersion %d\n", argv[i], library ? "loaded" : dlerror(),
               library && dlsym(library, "glXSwapBuffers"), library && dlsym(library, "zlibVersion"));
        if (library)
            printf("closed: %d\n", dlclose(library));
    }
    return 0;
}
