// The plug-in as a native add-on of Node.js. Node-API is a stable ABI, so it needs no headers.

#include "plug.h"

typedef struct env *env;
typedef struct value *value;
typedef struct info *info;

int napi_create_function(env, const char *, size_t, value (*)(env, info), void *, value *);
int napi_set_named_property(env, value, const char *, value);
int napi_create_int32(env, int, value *);

// V8 has the addresses of the functions in its own memory.
#define FUNCTION(way) \
    static value node_##way(env env, info info) { \
        (void)info; \
        int number = die_##way(); \
        value result = 0; \
        napi_create_int32(env, number, &result); \
        return result; \
    }
WAYS(FUNCTION)

__attribute__((visibility("default"))) value napi_register_module_v1(env env, value exports) {
    value function;
#define EXPORT(way) \
    if (napi_create_function(env, #way, sizeof #way - 1, node_##way, 0, &function) != 0) return 0; \
    if (napi_set_named_property(env, exports, #way, function) != 0) return 0;
    WAYS(EXPORT)
    return exports;
}
