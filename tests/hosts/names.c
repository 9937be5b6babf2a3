/*
 * A C process that looks up users and converts text. The C library loads NSS and iconv
 * modules itself, which no hook of dlopen sees. The test makes it use copies of the
 * machine's modules (LD_LIBRARY_PATH, GCONV_PATH), so that they may be rewritten. The
 * protocol is that of science.py.
 */
#include <errno.h>
#include <iconv.h>
#include <nss.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Single-byte and stateful character sets, each in a module of its own. */
static const char *const character_sets[] = {"ISO-8859-15", "KOI8-U", "IBM850", "EUC-JP"};
enum { CHARACTER_SETS = sizeof character_sets / sizeof character_sets[0] };

/* A character set that is opened and closed in every round, so that modules are loaded
 * and unloaded meanwhile. */
static const char coming_and_going[] = "IBM037";

static iconv_t converters[CHARACTER_SETS];

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    fflush(NULL);
    _exit(1);
}

static iconv_t open_converter(const char *to) {
    iconv_t converter = iconv_open(to, "ASCII");
    if (converter == (iconv_t)-1)
        fail(to);
    return converter;
}

/* Adds every converted byte to a sum. */
static unsigned long convert(iconv_t converter, unsigned long sum) {
    char text[] = "Sphinx of black quartz, judge my vow 0123456789";
    char converted[4 * sizeof text];
    char *from = text;
    char *to = converted;
    size_t from_left = sizeof text;
    size_t to_left = sizeof converted;
    if (iconv(converter, &from, &from_left, &to, &to_left) == (size_t)-1)
        fail("iconv");
    for (const char *byte = converted; byte < to; byte++)
        sum = sum * 31 + (unsigned char)*byte;
    return sum;
}

static unsigned long compute(void) {
    unsigned long sum = 0;
    for (int round = 0; round < 50; round++) {
        /* The result may be NULL: the module was called in any case. */
        const struct passwd *root = getpwnam("root");
        sum = sum * 31 + (root ? root->pw_uid + 1 : 0);
        for (int i = 0; i < CHARACTER_SETS; i++)
            sum = convert(converters[i], sum);
        iconv_t converter = open_converter(coming_and_going);
        sum = convert(converter, sum);
        iconv_close(converter);
    }
    return sum;
}

static int told_to_end(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

int main(int argc, char **argv) {
    const char *work = argc > 1 ? argv[1] : "once";
    /* The program uses libnss_compat.so.2 instead of the modules that this machine is
     * configured for. */
    if (__nss_configure_lookup("passwd", "compat") != 0)
        fail("__nss_configure_lookup");
    for (int i = 0; i < CHARACTER_SETS; i++)
        converters[i] = open_converter(character_sets[i]);

    unsigned long first = compute();
    puts("ready");
    fflush(stdout);
    if (strcmp(work, "idle") == 0) {
        getchar();
        if (compute() != first)
            fail("another result");
    }
    while (strcmp(work, "busy") == 0 && !told_to_end()) {
        if (compute() != first)
            fail("another result");
        puts("tick");
        fflush(stdout);
    }
    printf("result %lu\n", first);
    return 42;
}
