/* A worker of measure.py that shows what can be measured at all: it calls functions that lie one page apart, in an
 * order without a pattern, 32 MiB of text in all. Build it at fixed addresses: cc -O2 -no-pie. */
#include <stdio.h>

enum { FUNCTIONS = 8192, PAGE = 4096 };

/* Each function lies at another cache line of its page. */
__asm__(".text\n.balign 4096\n.globl far_functions\nfar_functions:\n"
        ".set number, 0\n"
        ".rept 8192\n"
        ".org far_functions + number * 4096 + (number * 7 % 64) * 64, 0xcc\nret\n"
        ".set number, number + 1\n"
        ".endr\n");
extern const char far_functions[];

int main(void)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        unsigned number = 1;
        for (int call = 0; call < 1000 * 1000; call++) {
            /* Visits all numbers, since 4 divides 1664524 and the addend is odd. */
            number = (number * 1664525 + 1013904223) % FUNCTIONS;
            ((void (*)(void))(far_functions + number * PAGE + number * 7 % 64 * 64))();
        }
        puts("done");
        fflush(stdout);
    }
    return 0;
}
