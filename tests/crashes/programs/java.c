// The plug-in as a JNI library. The functions use nothing of the virtual machine.

#include "plug.h"

// The machine looks for a function when its method is called for the first time, which must be before
// the file is rewritten: then it does not die.
#define FUNCTION(way) \
    __attribute__((visibility("default"))) int Java_Host_##way(void *environment, void *class, unsigned char dies) { \
        (void)environment; \
        (void)class; \
        return dies ? die_##way() : 42; \
    }
WAYS(FUNCTION)
