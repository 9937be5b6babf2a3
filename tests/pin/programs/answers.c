/* The library of answers.go: it stops working when its file is truncated or rewritten. */
static unsigned square(unsigned number) { return number * number; }
static unsigned next(unsigned number) { return number * 1664525u + 1013904223u; }

static unsigned (*const volatile constants[])(unsigned) = {square, next};
static unsigned (*volatile data[])(unsigned) = {next, square};

extern unsigned answer(unsigned question);
unsigned answer(unsigned question) {
    unsigned sum = 0;
    for (unsigned round = 0; round < 2000; round++)
        sum += constants[round % 2](question) ^ data[round % 2](sum + round);
    return sum;
}
