/*
 * registers: waits in a loop with known values in the general and vector registers, the flags and
 * the predicates, without a system call. A child ends the loop when its standard input ends. Prints
 * `ready` first, and ends with 42, or with 8 if a register has another value.
 *
 * Where the processor has SVE, its registers are as long as the kernel makes them. A system call
 * would clear what they have beyond 128 bits, and the predicates.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { VECTORS = 32, LONGEST = 256, PREDICATES = 16, TO_ZERO = 3 << 22, NZCV = 10u << 28 };

/* The assembler's code reads and writes these by their offsets. */
static struct {
    uint64_t numbers[32];                           /* 0 */
    uint64_t flags, unused[31];                     /* 256 */
    unsigned char predicates[PREDICATES][32];       /* 512 */
    unsigned char vectors[VECTORS][LONGEST];        /* 1024 */
} before __attribute__((aligned(16))), after __attribute__((aligned(16)));

static volatile unsigned char *over;

#define EACH_8(DO, n) DO(n##0) DO(n##1) DO(n##2) DO(n##3) DO(n##4) DO(n##5) DO(n##6) DO(n##7)
#define EACH_10(DO, n) EACH_8(DO, n) DO(n##8) DO(n##9)
#define EACH_16(DO) EACH_10(DO, ) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define EACH_32(DO) EACH_10(DO, ) EACH_10(DO, 1) EACH_10(DO, 2) DO(30) DO(31)
/* x0 to x3 are used by the code itself, and x29 by the compiler. */
#define EACH_NUMBER(DO) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) EACH_10(DO, 1) EACH_8(DO, 2) DO(28) DO(30)
#define LOAD_X(n) "ldr x" #n ", [x0, #" #n "*8]\n\t"
#define SAVE_X(n) "str x" #n ", [x1, #" #n "*8]\n\t"
#define LOAD_Q(n) "ldr q" #n ", [x3, #" #n "*16]\n\t"
#define SAVE_Q(n) "str q" #n ", [x3, #" #n "*16]\n\t"
#define LOAD_Z(n) "ldr z" #n ", [x3, #" #n ", mul vl]\n\t"
#define SAVE_Z(n) "str z" #n ", [x3, #" #n ", mul vl]\n\t"
#define LOAD_P(n) "ldr p" #n ", [x4, #" #n ", mul vl]\n\t"
#define SAVE_P(n) "str p" #n ", [x4, #" #n ", mul vl]\n\t"
#define NUMBER(n) "x" #n,
#define VECTOR(n) "v" #n,

/* Registers: x0 and x1 have the addresses of `before` and `after`, x2 that of the byte. */
#define HOLD(LOAD, SAVE)                                                                                       \
    __asm__ volatile("add x3, x0, #1024\n\tadd x4, x0, #512\n\t" LOAD                                          \
                     "ldr x3, [x0, #256]\n\tmsr nzcv, x3\n\t" EACH_NUMBER(LOAD_X)                              \
                     "1:\n\tldrb w3, [x2]\n\tcbz w3, 1b\n\t"                                                   \
                     "mrs x3, nzcv\n\tstr x3, [x1, #256]\n\t" EACH_NUMBER(SAVE_X)                              \
                     "add x3, x1, #1024\n\tadd x4, x1, #512\n\t" SAVE                                          \
                     :                                                                                         \
                     : "r"(in), "r"(out), "r"(end)                                                             \
                     : EACH_NUMBER(NUMBER) EACH_32(VECTOR) "x3", "memory", "cc")

#define OPERANDS                                      \
    register void *in __asm__("x0") = &before;        \
    register void *out __asm__("x1") = &after;        \
    register volatile void *end __asm__("x2") = over

__attribute__((noinline, target("+sve"))) static void hold_long(void) {
    OPERANDS;
    HOLD(EACH_32(LOAD_Z) EACH_16(LOAD_P), EACH_32(SAVE_Z) EACH_16(SAVE_P));
}

__attribute__((noinline)) static void hold(void) {
    OPERANDS;
    HOLD(EACH_32(LOAD_Q), EACH_32(SAVE_Q));
}

int main(void) {
    const bool is_long = getauxval(AT_HWCAP) & HWCAP_SVE;
    const size_t length = is_long ? prctl(PR_SVE_GET_VL) & PR_SVE_VL_LEN_MASK : 16;
    char byte;
    over = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (over == MAP_FAILED)
        return 3;
    for (size_t i = 0; i < sizeof before.vectors; i++)
        before.vectors[i / LONGEST][i % LONGEST] = (unsigned char)(i * 37 + 11);
    for (size_t i = 0; i < sizeof before.predicates; i++)
        before.predicates[i / 32][i % 32] = (unsigned char)(i * 29 + 5);
    for (int i = 0; i < 32; i++)
        before.numbers[i] = UINT64_C(0x9E3779B97F4A7C15) * (uint64_t)(i + 1);
    before.flags = NZCV;
    if (fork() == 0) {
        while (read(0, &byte, 1) > 0)
            ;
        *over = 1;
        _exit(0);
    }
    printf("vectors of %zu bytes\n", length);
    puts("ready");
    fflush(stdout);
    __builtin_aarch64_set_fpcr(TO_ZERO);
    if (is_long)
        hold_long();
    else
        hold();
    if (__builtin_aarch64_get_fpcr() != TO_ZERO)
        return puts("the rounding mode differs"), 8;
    if (memcmp(before.vectors, after.vectors, VECTORS * length) != 0)
        return puts("a vector register differs"), 8;
    if (is_long && memcmp(before.predicates, after.predicates, PREDICATES * length / 8) != 0)
        return puts("a predicate differs"), 8;
    for (int i = 4; i < 31; i++)
        if (i != 29 && before.numbers[i] != after.numbers[i])
            return printf("x%d differs\n", i), 8;
    return after.flags == before.flags ? 42 : (puts("the flags differ"), 8);
}
