/*
 * A plugin for host.c:
 *
 *     cc -O2 -Wall -shared -fPIC -o plugin.so plugin.c
 */
static int six(void) { return 6; }

/* A relocated pointer in writable data, which rewriting the file would revert. */
static int (*volatile factor)(void) = six;

int plugin_run(void);
int plugin_run(void) { return 7 * factor(); }
