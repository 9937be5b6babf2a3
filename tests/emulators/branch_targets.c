/*
 * Which objects' indirect branches the processor checks. Arguments: whether it must check
 * those of the objects that are built for it ("checked" or "unchecked"), and whether the
 * files of the libraries are truncated after they were loaded ("truncated" or "whole"),
 * which no text outlives that is still mapped from them. It never checks the branches of
 * an object that is not built for it, nor those of one with relocated text: the loader
 * takes the bit away when it has stored to the text.
 */
#include "fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/auxv.h>

typedef int (*function)(void);

static const unsigned long hwcap2_bti = 1 << 17;
static sigjmp_buf refused;

static void leave(int signal) { siglongjmp(refused, signal); }

/* Calls a function through its pointer; returns whether the processor refuses that. */
static bool refuses(function called) {
    if (sigsetjmp(refused, 1) != 0)
        return true;
    expect(called() == 7);
    return false;
}

static void *loaded(const char *library, const char *name) {
    return expect_dlsym(expect_dlopen(library, RTLD_NOW), name);
}

int not_landing(void);

int main(int count, char **arguments);

int main(int count, char **arguments) {
    static const char *const libraries[] = {"./libmarked.so", "./libplain.so", "./librelocated.so"};
    struct sigaction action = {.sa_handler = leave};
    expect(count == 3);
    bool is_checked = strcmp(arguments[1], "checked") == 0;
    expect(getauxval(AT_HWCAP2) & hwcap2_bti);
    expect(sigaction(SIGILL, &action, NULL) == 0);
    /* In the executable, which is built for it. */
    expect(refuses(not_landing) == is_checked);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        bool is_marked = i == 0;
        /* Its constructor has found this function on the stack. */
        expect(*(int *)loaded(libraries[i], "unwinds_to_main") == 1);
        function landing = (function)(uintptr_t)loaded(libraries[i], "landing");
        function other = (function)(uintptr_t)loaded(libraries[i], "not_landing");
        if (strcmp(arguments[2], "truncated") == 0)
            expect(truncate(libraries[i], 0) == 0);
        expect(!refuses(landing));
        expect(refuses(other) == (is_checked && is_marked));
    }
    return PASSED;
}
