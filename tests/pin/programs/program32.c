/* A 32-bit program without a C library: prints `ready`, and ends with 42 when its input does. */
static long call(long number, long first, const void *second, long third) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory");
    return result;
}

void _start(void);
void _start(void) {
    char byte;
    call(4, 1, "ready\n", 6);
    while (call(3, 0, &byte, 1) > 0)
        ;
    call(1, 42, 0, 0);
}
