/*
 * restartable: spends nearly all its time in a critical section of rseq(2). The kernel restarts
 * the section when it preempts it, and forgets it when the task leaves it. A tracer that makes the
 * task do something else in between and then lets the section go on makes it one that is no longer
 * restarted. So the section looks, when it is about to commit, whether the kernel still knows it.
 *
 * Prints `ready`; when its standard input ends (a child waits for that), it prints how many
 * sections were finished and restarted, and ends with 42, or with 8 if one went on unprotected.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <unistd.h>

static unsigned long finished, unprotected, restarted;
static volatile unsigned char *over;

/* The descriptor of the section, which is from 1 to 2 and has its abort handler at 4. */
#define DESCRIPTOR                        \
    ".pushsection __rseq_cs, \"aw\"\n\t"  \
    ".balign 32\n"                        \
    "3:\n\t"                              \
    ".long 0, 0\n\t"                      \
    ".quad 1f, 2f - 1f, 4f\n\t"           \
    ".popsection\n\t"

#ifdef __aarch64__
#define INCREMENT(name) "ldr x3, %[" name "]\n\tadd x3, x3, #1\n\tstr x3, %[" name "]\n"

static void run(struct rseq *area) {
    __asm__ volatile(
        DESCRIPTOR
        "adrp x2, 3b\n\t"
        "add x2, x2, :lo12:3b\n\t"
        "str x2, %[descriptor]\n"
        "1:\n\t"
        "mov w1, #60000\n"
        "5:\n\t"
        "subs w1, w1, #1\n\t"
        "b.ne 5b\n\t"
        "ldr x3, %[descriptor]\n\t"
        "cmp x2, x3\n\t"
        "b.ne 6f\n\t"
        INCREMENT("finished")
        "2:\n\t"
        "b 7f\n"
        "6:\n\t"
        INCREMENT("unprotected") "\t"
        "b 7f\n\t"
        ".inst 0xd428bc00\n"
        "4:\n\t"
        INCREMENT("restarted")
        "7:\n\t"
        : [descriptor] "+Q"(area->rseq_cs), [finished] "+Q"(finished), [unprotected] "+Q"(unprotected),
          [restarted] "+Q"(restarted)
        :
        : "x1", "x2", "x3", "cc", "memory");
}
#else
static void run(struct rseq *area) {
    __asm__ volatile(
        DESCRIPTOR
        "leaq 3b(%%rip), %%rdx\n\t"
        "movq %%rdx, %[descriptor]\n"
        "1:\n\t"
        "movl $60000, %%ecx\n"
        "5:\n\t"
        "decl %%ecx\n\t"
        "jnz 5b\n\t"
        "cmpq %%rdx, %[descriptor]\n\t"
        "jne 6f\n\t"
        "incq %[finished]\n"
        "2:\n\t"
        "jmp 7f\n"
        "6:\n\t"
        "incq %[unprotected]\n\t"
        "jmp 7f\n\t"
        ".byte 0x0f, 0xb9, 0x3d\n\t"
        ".long 0x53053053\n"
        "4:\n\t"
        "incq %[restarted]\n"
        "7:\n\t"
        : [descriptor] "+m"(area->rseq_cs), [finished] "+m"(finished), [unprotected] "+m"(unprotected),
          [restarted] "+m"(restarted)
        :
        : "rcx", "rdx", "cc", "memory");
}
#endif

int main(void) {
    char byte;
    over = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct rseq *area = (struct rseq *)(void *)((char *)__builtin_thread_pointer() + __rseq_offset);
    if (over == MAP_FAILED || __rseq_size == 0)
        return 77;
    if (fork() == 0) {
        while (read(0, &byte, 1) > 0)
            ;
        *over = 1;
        _exit(0);
    }
    puts("ready");
    fflush(stdout);
    while (!*over)
        run(area);
    printf("%lu finished, %lu restarted, %lu unprotected\n", finished, restarted, unprotected);
    return unprotected ? 8 : finished ? 42 : 9;
}
