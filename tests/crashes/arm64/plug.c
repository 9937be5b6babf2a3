// The plug-in of the program for aarch64. The linker leaves words empty there that the loader
// relocates, so the first lost pointer of a call is 0.

#include "../programs/plug.h"

#define FUNCTION(way) \
    __attribute__((visibility("default"))) int plug_##way(void) { return die_##way(); }
WAYS(FUNCTION)
