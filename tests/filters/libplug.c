/* A library that stops working when its file is rewritten, because its table is
 * relocated. */
static int one(void) { return 20; }
static int two(void) { return 22; }
static int (*const volatile table[])(void) = {one, two};
static int (*volatile data[])(void) = {one, two};

int NAME(void) { return table[0]() + data[1](); }
