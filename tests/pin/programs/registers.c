/*
 * registers: waits in a loop with known values in the general, vector and floating-point
 * registers, without a system call. A child ends the loop when its standard input ends. Prints
 * `ready` first, and ends with 42, or with 8 if a register has another value.
 *
 * It is compiled with -mno-red-zone, because the loop pushes the flags.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { VECTORS = 16, BYTES = 32, NUMBERS = 11, DIRECTION = 1 << 10 };

/* The assembler's code reads and writes these by their offsets. */
static struct {
    unsigned char vectors[VECTORS][BYTES]; /* 0 */
    uint64_t numbers[NUMBERS];             /* 512 */
    double floats[2];                      /* 600 */
    uint64_t flags;                        /* 616 */
} before __attribute__((aligned(BYTES))), after __attribute__((aligned(BYTES)));

static volatile unsigned char *over;

#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define LOAD_XMM(n) "movdqa " #n "*32(%%r14), %%xmm" #n "\n\t"
#define SAVE_XMM(n) "movdqa %%xmm" #n ", " #n "*32(%%r15)\n\t"
#define LOAD_YMM(n) "vmovdqa " #n "*32(%%r14), %%ymm" #n "\n\t"
#define SAVE_YMM(n) "vmovdqa %%ymm" #n ", " #n "*32(%%r15)\n\t"

/* Registers: r14 and r15 have the addresses of `before` and `after`, rax that of the byte. */
#define HOLD(LOAD, SAVE)                                                                                       \
    __asm__ volatile(LOAD "fldl 600(%%r14)\n\tfldl 608(%%r14)\n\t"                                             \
                          "movq 512(%%r14), %%rbx\n\tmovq 520(%%r14), %%rcx\n\tmovq 528(%%r14), %%rdx\n\t"     \
                          "movq 536(%%r14), %%rsi\n\tmovq 544(%%r14), %%rdi\n\tmovq 552(%%r14), %%r8\n\t"      \
                          "movq 560(%%r14), %%r9\n\tmovq 568(%%r14), %%r10\n\tmovq 576(%%r14), %%r11\n\t"      \
                          "movq 584(%%r14), %%r12\n\tmovq 592(%%r14), %%r13\n\t"                               \
                          "std\n"                                                                              \
                          "1:\n\tcmpb $0, (%%rax)\n\tje 1b\n\t"                                                \
                          "pushfq\n\tpopq 616(%%r15)\n\tcld\n\t"                                               \
                          "movq %%rbx, 512(%%r15)\n\tmovq %%rcx, 520(%%r15)\n\tmovq %%rdx, 528(%%r15)\n\t"     \
                          "movq %%rsi, 536(%%r15)\n\tmovq %%rdi, 544(%%r15)\n\tmovq %%r8, 552(%%r15)\n\t"      \
                          "movq %%r9, 560(%%r15)\n\tmovq %%r10, 568(%%r15)\n\tmovq %%r11, 576(%%r15)\n\t"      \
                          "movq %%r12, 584(%%r15)\n\tmovq %%r13, 592(%%r15)\n\t"                               \
                          "fstpl 608(%%r15)\n\tfstpl 600(%%r15)\n\t" SAVE                                      \
                     :                                                                                         \
                     : "a"(over), "r"(in), "r"(out)                                                            \
                     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "memory", "cc")

__attribute__((noinline, target("avx"))) static void hold_with_avx(void) {
    register void *in __asm__("r14") = &before;
    register void *out __asm__("r15") = &after;
    HOLD(EACH(LOAD_YMM), EACH(SAVE_YMM) "vzeroupper\n\t");
}

__attribute__((noinline)) static void hold(void) {
    register void *in __asm__("r14") = &before;
    register void *out __asm__("r15") = &after;
    HOLD(EACH(LOAD_XMM), EACH(SAVE_XMM));
}

int main(void) {
    const bool has_avx = __builtin_cpu_supports("avx");
    char byte;
    over = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (over == MAP_FAILED)
        return 3;
    for (size_t i = 0; i < sizeof before.vectors; i++)
        before.vectors[i / BYTES][i % BYTES] = (unsigned char)(i * 37 + 11);
    for (int i = 0; i < NUMBERS; i++)
        before.numbers[i] = UINT64_C(0x9E3779B97F4A7C15) * (uint64_t)(i + 1);
    before.floats[0] = 1.0 / 3;
    before.floats[1] = -7.5e200;
    if (fork() == 0) {
        while (read(0, &byte, 1) > 0)
            ;
        *over = 1;
        _exit(0);
    }
    puts("ready");
    fflush(stdout);
    if (has_avx)
        hold_with_avx();
    else
        hold();
    for (int i = 0; i < VECTORS; i++)
        if (memcmp(before.vectors[i], after.vectors[i], has_avx ? BYTES : BYTES / 2) != 0)
            return printf("vector register %d differs\n", i), 8;
    for (int i = 0; i < NUMBERS; i++)
        if (before.numbers[i] != after.numbers[i])
            return printf("general register %d differs\n", i), 8;
    if (before.floats[0] != after.floats[0] || before.floats[1] != after.floats[1])
        return puts("a floating-point register differs"), 8;
    return after.flags & DIRECTION ? 42 : (puts("the direction flag differs"), 8);
}
