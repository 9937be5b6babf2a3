/* A library with 8 MiB of writable data to which nothing stores. Otherwise it is as plug.c. */
#include "plug.c"

enum { UNTOUCHED = 8 << 20 };

__attribute__((used)) static volatile unsigned char untouched[UNTOUCHED] ALIGNED = {[0 ... UNTOUCHED - 1] = 5};
