# MangoHud's overlay, which interposes dlsym, before and behind the library. Without a
# display it has nothing to draw: what counts is that loading works as without it.
# packages: mangohud gcc libgl1 zlib1g
# needs: cc /usr/lib/x86_64-linux-gnu/mangohud/libMangoHud_dlsym.so
# pinned: /libMangoHud_dlsym\.so
# pinned: /libMangoHud\.so
# pinned: /libz\.so
# pinned: /libGLX?\.so
# results: 19
# quick
cat >host.c <<'C'
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
C
cc -g -o host host.c -ldl
overlay=/usr/lib/x86_64-linux-gnu/mangohud/libMangoHud_dlsym.so:/usr/lib/x86_64-linux-gnu/mangohud/libMangoHud.so
own=${LD_PRELOAD:-}
z=$(ldconfig -p | sed -n 's/.*libz\.so\.1 .*x86-64.* => //p' | head -n 1)
export MANGOHUD=1
for preload in "$overlay${own:+:$own}" "${own:+$own:}$overlay"; do
    LD_PRELOAD=$preload ./host libGL.so.1 libz.so.1 "$z" libabsent.so ./libabsent.so 2>errors
    echo "said: $(grep -vc libsopin: errors || true)"
done
