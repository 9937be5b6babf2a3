/*
 * sopin.h - the interface of libsopin.so, which protects the shared objects of a
 * process from being rewritten on disk.
 *
 * Link with -lsopin (pkg-config sopin). A program that may or may not be preloaded
 * can look the functions up by dlsym(RTLD_DEFAULT, "sopin_pin_all").
 *
 * Any thread may call any function at any time, also from a constructor and from a
 * visitor. No function changes errno, and none prints more than SOPIN_LOG asks for.
 * In a signal handler a function may fail with SOPIN_EBUSY. A program with threads
 * must not call these functions in a child made by _Fork(3) or clone(2), as it must
 * not call dlopen(3) there.
 *
 * Generated from src/api.rs by cbindgen. Do not edit.
 */

#ifndef SOPIN_H
#define SOPIN_H

#include <stddef.h>
#include <stdint.h>

/**
 * What the functions return.
 */
enum sopin_error {
    /**
     * Success.
     */
    SOPIN_OK = 0,
    /**
     * An argument is null, a path is empty, a handle is not one, or a structure
     * is smaller than in the first version of this header.
     */
    SOPIN_EINVAL = -1,
    /**
     * No loaded object has this path or handle.
     */
    SOPIN_ENOENT = -2,
    /**
     * SOPIN_MODE=off: the library pins nothing.
     */
    SOPIN_EOFF = -3,
    /**
     * The call might wait for ever: a signal handler or an allocator made it from
     * inside a pin, or another thread has been forking for a tenth of a second
     * and may be waiting for what this thread has interrupted. Try again later.
     */
    SOPIN_EBUSY = -4,
    /**
     * Writable or relocated ranges still map the file, because something may be
     * storing to them, or for the reason that sopin_for_each() gives.
     */
    SOPIN_EEXPOSED = -5,
    /**
     * Read-only ranges still map the file although the mode is full; writable
     * and relocated ranges do not.
     */
    SOPIN_EPARTIAL = -6,
    /**
     * SOPIN_EXCLUDE or SOPIN_ONLY excludes the object.
     */
    SOPIN_EEXCLUDED = -7,
    /**
     * The system does not provide memory or /proc, which every call needs.
     */
    SOPIN_ESYSTEM = -8,
};

/**
 * What to pin: SOPIN_MODE.
 */
enum sopin_mode {
    /**
     * Everything that the process can read or execute.
     */
    SOPIN_MODE_FULL = 1,
    /**
     * Writable and relocated ranges.
     */
    SOPIN_MODE_RELOCATED = 2,
    /**
     * Nothing.
     */
    SOPIN_MODE_OFF = 3,
};

/**
 * What was reached for an object.
 */
enum sopin_reached {
    /**
     * Nothing yet: another thread is loading the object, nothing proves that the
     * loader has relocated it, or the mode is off.
     */
    SOPIN_PENDING = 0,
    /**
     * No change of the file can change any range of the object.
     */
    SOPIN_FULL = 1,
    /**
     * No change of the file can change writable or relocated ranges. Read-only
     * ranges still map the file.
     */
    SOPIN_RELOCATED = 2,
    /**
     * Writable or relocated ranges still map the file.
     */
    SOPIN_EXPOSED = 3,
    /**
     * The settings exclude the object.
     */
    SOPIN_EXCLUDED = 4,
    /**
     * The object maps no file: the vDSO, or an object that the program has remapped.
     */
    SOPIN_NO_FILE = 5,
};

/**
 * The version of the library that is loaded. The header may be of another version.
 */
struct sopin_version_info {
    /**
     * Bytes of this structure. Set it before the call; see sopin_version().
     */
    size_t size;
    /**
     * 1 in version 1.2.3.
     */
    uint32_t major;
    /**
     * 2 in version 1.2.3.
     */
    uint32_t minor;
    /**
     * 3 in version 1.2.3.
     */
    uint32_t patch;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The same as text, for example "1.2.3". Valid until the process ends; do not
     * free it.
     */
    const char *text;
};

/**
 * An object, as sopin_for_each() describes it. Its texts are valid until the
 * visitor returns.
 */
struct sopin_object {
    /**
     * Bytes of this structure in the version of the library: a member beyond
     * them does not exist.
     */
    size_t size;
    /**
     * The path of the file that the object was loaded from, as in /proc/PID/maps
     * (with " (deleted)" behind the path of a file that has been unlinked), or the
     * loader's name for the object where the library cannot find out the path.
     */
    const char *path;
    /**
     * Load bias: what the loader has added to the addresses in the file.
     */
    const void *base;
    /**
     * What was reached, an enum sopin_reached.
     */
    int reached;
    /**
     * errno of the system call that failed, or 0.
     */
    int error;
    /**
     * The reason why not more was reached, as text for people, for example
     * "mmap: ENOMEM (Cannot allocate memory)"; null if there is none.
     */
    const char *reason;
    /**
     * Bytes of the ranges that have been replaced.
     */
    uint64_t bytes;
};

/**
 * A function that sopin_for_each() calls for each object. Any result but 0 ends the
 * iteration.
 */
typedef int (*sopin_visitor)(const struct sopin_object *object, void *data);

/**
 * Sums over the objects of the process.
 */
struct sopin_totals {
    /**
     * Bytes of this structure. Set it before the call; see sopin_version().
     */
    size_t size;
    /**
     * The enum sopin_mode in force.
     */
    int mode;
    /**
     * Zero.
     */
    int reserved;
    /**
     * All objects, including those that are counted below.
     */
    size_t objects;
    /**
     * Objects that are SOPIN_PENDING.
     */
    size_t pending;
    /**
     * Objects that are SOPIN_FULL.
     */
    size_t full;
    /**
     * Objects that are SOPIN_RELOCATED.
     */
    size_t relocated;
    /**
     * Objects that are SOPIN_EXPOSED.
     */
    size_t exposed;
    /**
     * Objects that are SOPIN_EXCLUDED.
     */
    size_t excluded;
    /**
     * Objects that are SOPIN_NO_FILE.
     */
    size_t no_file;
    /**
     * Bytes of all ranges that have been replaced.
     */
    uint64_t bytes;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Gets the version of the library.
 *
 * This and other structures that the caller provides carry their size, so that
 * programs and libraries of different versions understand each other: the
 * library fills in the members that both know and sets `size` to their number of
 * bytes. It never writes beyond the `size` that the caller has set.
 *
 * Returns 0 or SOPIN_EINVAL.
 *
 * # Safety
 * `version` must be null or point to `size` writable bytes.
 */
int sopin_version(struct sopin_version_info *version);

/**
 * Pins every loaded object as far as that is possible now. It tries objects again
 * that were loaded before the library or that the library could not pin whole. Code
 * of such an object may have run, and something may be storing to its data. So it
 * replaces the object's writable ranges while all other threads have stopped, in
 * stops of about 10 ms, and leaves these ranges where it cannot stop the threads. A
 * thread that is just loading an object pins that object itself.
 *
 * Returns 0 if every object that is not excluded is pinned as the mode says,
 * SOPIN_EEXPOSED or SOPIN_EPARTIAL if one is not, SOPIN_EOFF, SOPIN_EBUSY or
 * SOPIN_ESYSTEM. In each case it has pinned what it could.
 */
int sopin_pin_all(void);

/**
 * Pins the object that was loaded from `path`, as sopin_pin_all() does: the object
 * that the loader knows by that name, or whose file is or was the one at that path,
 * symbolic links followed. It compares a path without a slash with the objects' file
 * names. It loads nothing.
 *
 * Returns 0 if the object is pinned as the mode says, SOPIN_ENOENT if there is no
 * such object, SOPIN_EINVAL, SOPIN_EEXPOSED, SOPIN_EPARTIAL, SOPIN_EEXCLUDED,
 * SOPIN_EOFF, SOPIN_EBUSY or SOPIN_ESYSTEM.
 *
 * # Safety
 * `path` must be null or a string.
 */
int sopin_pin_path(const char *path);

/**
 * Pins the object of an open `handle` of dlopen(3) or dlmopen(3), and the objects
 * that it needs, as sopin_pin_all() does. A handle proves more than a path: the loader
 * has finished loading the object.
 *
 * Returns what sopin_pin_path() returns, about the object itself and not about those
 * that it needs.
 *
 * # Safety
 * `handle` must be null or open, and no thread may close it during the call.
 */
int sopin_pin_handle(void *handle);

/**
 * Calls `visitor` with `data` for every object of the process: first the loader's list
 * in its order, then objects in namespaces of dlmopen(3) that the library knows. The
 * library holds no lock during a call of the visitor, so the visitor may load objects,
 * call functions of this library, throw C++ exceptions and do anything else. It sees
 * the objects as they were when sopin_for_each() was called.
 *
 * Returns 0, also if the visitor has ended the iteration, SOPIN_EINVAL, SOPIN_EBUSY
 * or SOPIN_ESYSTEM.
 *
 * # Safety
 * `visitor` must be null or a function that accepts `data`.
 */
int sopin_for_each(sopin_visitor visitor, void *data);

/**
 * Sums up what sopin_for_each() reports.
 *
 * Returns 0, SOPIN_EINVAL, SOPIN_EBUSY or SOPIN_ESYSTEM.
 *
 * # Safety
 * As for sopin_version().
 */
int sopin_summary(struct sopin_totals *totals);

/**
 * Returns the meaning of a result of these functions, in English. The text is never
 * null and is valid until the process ends; do not free it.
 */
const char *sopin_strerror(int code);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SOPIN_H */

