/* The smallest library that has every kind of segment. */
static int counter = 1;
static int *const constant_pointer = &counter;
static int *pointer = &counter;

int tiny(void);

int tiny(void) { return ++*pointer + *constant_pointer; }
