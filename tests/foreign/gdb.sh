# A host under gdb and strace.
# packages: gdb strace gcc
# needs: gdb strace cc
# pinned: /strace:
# pinned: /libm\.so\.6:
# results: 4
cat >host.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
static int inner(int x) { return x + 1; }
int outer(int x) { return inner(x) * 2; }
int main(void) {
    void *math = dlopen("libm.so.6", RTLD_NOW);
    printf("outer: %d %d\n", outer(20), math != 0);
    return 0;
}
C
cc -g -O0 -o host host.c -ldl
gdb -nx -batch -ex 'set startup-with-shell off' -ex 'break inner' -ex run -ex bt -ex 'info symbol cos' -ex finish \
    -ex continue ./host 2>&1 | grep -E '^#|outer:|exited|Value returned' | sed 's/0x[0-9a-f]*/ADDRESS/g; s/process [0-9]*/process/'
strace -f -o trace ./host
grep -c 'exited with 0' trace
