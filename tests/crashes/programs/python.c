// The plug-in as an extension module of CPython. What it uses of Python.h belongs to the stable
// ABI, so it needs no headers.

#include "plug.h"

typedef struct object object;

struct method {
    const char *name;
    object *(*function)(object *, object *);
    int flags;
    const char *documentation;
};

enum { WITHOUT_ARGUMENTS = 4, API_VERSION = 1013 };

struct module {
    long count;
    void *type;
    void *initialize;
    long index;
    void *copy;
    const char *name;
    const char *documentation;
    long size;
    struct method *methods;
    void *rest[4];
};

object *PyModule_Create2(struct module *, int);
object *PyLong_FromLong(long);

#define FUNCTION(way) \
    static object *python_##way(object *self, object *none) { \
        (void)self; \
        (void)none; \
        return PyLong_FromLong(die_##way()); \
    }
WAYS(FUNCTION)

// Is called through the table of methods, which the linker has in the file.
static object *distill_params(object *self, object *none) {
    (void)self;
    (void)none;
    return PyLong_FromLong(42);
}

#define METHOD(way) {#way, python_##way, WITHOUT_ARGUMENTS, 0},
static struct method methods[] = {
    WAYS(METHOD){"distill_params", distill_params, WITHOUT_ARGUMENTS, "Returns parameters."}, {0, 0, 0, 0}};

static struct module definition = {1, 0, 0, 0, 0, "plug", 0, -1, 0, {0}};

__attribute__((visibility("default"))) object *PyInit_plug(void) {
    // The interpreter reads the function from the table at each call. Only `distill_params` is called
    // through the one in the file.
    enum { COUNT = sizeof methods / sizeof methods[0] };
    struct method *copy = malloc(sizeof methods);
    if (!copy) return 0;
    memcpy(copy, methods, sizeof methods);
    copy[COUNT - 2] = (struct method){0, 0, 0, 0};
    definition.methods = copy;
    object *module = PyModule_Create2(&definition, API_VERSION);
    int PyModule_AddFunctions(object *, struct method *);
    return module && PyModule_AddFunctions(module, &methods[COUNT - 2]) == 0 ? module : 0;
}
