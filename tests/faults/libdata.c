/*
 * An object with every kind of range: text, constants, pointers in RELRO and in
 * writable data, data and .bss over several pages. Only the pointers depend on the
 * address at which it is loaded.
 */
#define PAGE 4096

static int once(int x) { return x; }
static int ten_times(int x) { return 10 * x; }
static int hundred_times(int x) { return 100 * x; }

typedef int (*operation)(int);

static const operation volatile read_only[600] = {[0 ... 299] = once, [300 ... 599] = ten_times};
static operation volatile writable[1200] = {[0 ... 1199] = hundred_times};
static const volatile unsigned char constants[2 * PAGE] = {[0 ... 2 * PAGE - 1] = 7};
static volatile unsigned char data[3 * PAGE] = {[0 ... 3 * PAGE - 1] = 9};
static volatile unsigned char zeros[2 * PAGE];
static volatile int calls = 1;

int DATA_CHECK(int x);

/* Returns 111 x if every pointer and every byte is right. Each call stores once. */
int DATA_CHECK(int x) {
    int wrong = 0;
    for (int i = 0; i < 600; i++)
        wrong += read_only[i] != (i < 300 ? once : ten_times);
    for (int i = 0; i < 1200; i++)
        wrong += writable[i] != hundred_times;
    for (int i = 0; i < 2 * PAGE; i++)
        wrong += (constants[i] != 7) + (zeros[i] != 0);
    for (int i = 0; i < 3 * PAGE; i++)
        wrong += data[i] != 9;
    calls++;
    return wrong ? -wrong : read_only[0](x) + read_only[599](x) + writable[x](x);
}
