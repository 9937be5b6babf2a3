// The plug-in as an extension of PostgreSQL. It needs no headers: what says for which version of
// the server it was made comes from an extension that is installed.

#include "plug.h"

#ifndef INSTALLED_EXTENSION
#define INSTALLED_EXTENSION "pg_trgm.so"
#endif

struct function_info {
    int version;
};

// The server keeps the address and reads the version at each call, also of another build.
static const struct function_info *new_information(void) {
    struct function_info *information = malloc(sizeof *information);
    if (information) information->version = 1;
    return information;
}

// The call's data, as every version since 12 has them.
struct call {
    void *rest[4];
    struct {
        uintptr_t value;
        _Bool is_null;
    } arguments[1];
};

// The server looks for a function when it is called for the first time, which must be before the
// file is rewritten: then it does not die.
#define FUNCTION(way) \
    __attribute__((visibility("default"))) uintptr_t postgresql_##way(const struct call *call) { \
        return (uintptr_t)(call->arguments[0].value ? die_##way() : 42); \
    } \
    __attribute__((visibility("default"))) const struct function_info *pg_finfo_postgresql_##way(void) { \
        return new_information(); \
    }
WAYS(FUNCTION)

__attribute__((visibility("default"))) const void *Pg_magic_func(void) {
    void *installed = dlopen(INSTALLED_EXTENSION, RTLD_LAZY);
    const void *(*magic)(void) = installed ? (const void *(*)(void))dlsym(installed, "Pg_magic_func") : 0;
    return magic ? magic() : 0;
}
