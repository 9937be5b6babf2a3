/*
 * sopin.h - what a program can ask libsopin.so, which makes its shared objects
 * immune to being rewritten on disk.
 *
 * Link with -lsopin (pkg-config sopin), or, in a process that may or may not be
 * preloaded, look the functions up by dlsym(RTLD_DEFAULT, "sopin_pin_all").
 * All functions may be called from any thread at any time, from constructors
 * and from the library's own visitor too. None changes errno, and none prints
 * what SOPIN_LOG does not ask for. In a signal handler they may fail with
 * SOPIN_EBUSY. In a child made by _Fork(3) or clone(2) by a program with threads
 * call nothing here, as you would not call dlopen(3) there.
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
     * What was asked for is done.
     */
    SOPIN_OK = 0,
    /**
     * An argument is null, a structure smaller than the first version of this
     * header had it, a path empty, a handle none.
     */
    SOPIN_EINVAL = -1,
    /**
     * No object that is loaded has this path or handle.
     */
    SOPIN_ENOENT = -2,
    /**
     * SOPIN_MODE=off: nothing is ever pinned.
     */
    SOPIN_EOFF = -3,
    /**
     * Waiting might never end: a signal handler or an allocator has called from
     * inside a pin, or another thread has been forking for a tenth of a second
     * and may be waiting for what this one has interrupted. Try again later.
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
     * SOPIN_EXCLUDE or SOPIN_ONLY say to leave the object alone.
     */
    SOPIN_EEXCLUDED = -7,
    /**
     * The system refuses what everything needs: memory, or /proc.
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
     * Nothing yet: another thread is loading it, nothing proves that the loader
     * has relocated it, or the mode is off.
     */
    SOPIN_PENDING = 0,
    /**
     * Every range is out of the file's reach.
     */
    SOPIN_FULL = 1,
    /**
     * Writable and relocated ranges are out of the file's reach.
     */
    SOPIN_RELOCATED = 2,
    /**
     * Writable or relocated ranges still map the file.
     */
    SOPIN_EXPOSED = 3,
    /**
     * The settings say to leave the object alone.
     */
    SOPIN_EXCLUDED = 4,
    /**
     * It maps no file: the vDSO, or an object that the program has remapped.
     */
    SOPIN_NO_FILE = 5,
};

/**
 * The version of the library, as opposed to that of this header.
 */
struct sopin_version_info {
    /**
     * Bytes of this structure. Set it before the call; see sopin_version().
     */
    size_t size;
    /**
     * As in 1.2.3: 1.
     */
    uint32_t major;
    /**
     * As in 1.2.3: 2.
     */
    uint32_t minor;
    /**
     * As in 1.2.3: 3.
     */
    uint32_t patch;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The same as text, for example "1.2.3". Never freed.
     */
    const char *text;
};

/**
 * An object, as sopin_for_each() describes it. Texts live until the visitor
 * returns.
 */
struct sopin_object {
    /**
     * Bytes of this structure in the version of the library: a member beyond
     * them does not exist.
     */
    size_t size;
    /**
     * The path of the file that it was loaded from, as in /proc/PID/maps (with
     * " (deleted)" behind the path of a file that has been unlinked), or what the
     * loader calls it where that cannot be found out.
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
     * Why not more was reached, for people, for example
     * "mmap: ENOMEM (Cannot allocate memory)"; null if there is nothing to say.
     */
    const char *reason;
    /**
     * Bytes of the ranges that have been replaced.
     */
    uint64_t bytes;
};

/**
 * Called by sopin_for_each() for one object. Anything but 0 ends the walk.
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
     * All objects, those counted below included.
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
 * library fills in what both know and sets `size` to how many bytes that is. It
 * never writes beyond the `size` that it was given.
 *
 * Returns 0 or SOPIN_EINVAL.
 *
 * # Safety
 * `version` must be null or point to `size` writable bytes.
 */
int sopin_version(struct sopin_version_info *version);

/**
 * Pins every object that is loaded, as far as that is possible now: objects
 * that were loaded before the library or that it could not pin whole are tried
 * again. Code of such an object may have run, so that something may be storing
 * to its data: only its read-only and its RELRO ranges are pinned. What another
 * thread is just loading is pinned by that thread.
 *
 * Returns 0 if every object that is not excluded is pinned as the mode says,
 * SOPIN_EEXPOSED or SOPIN_EPARTIAL if one is not, SOPIN_EOFF, SOPIN_EBUSY or
 * SOPIN_ESYSTEM. What could be pinned is pinned in any case.
 */
int sopin_pin_all(void);

/**
 * Pins the object that was loaded from `path`, as sopin_pin_all() would: the
 * one that the loader knows by that name, or whose file is or was the one at
 * that path, symbolic links followed. A path without a slash is compared with
 * the objects' file names. Nothing is loaded.
 *
 * Returns 0 if the object is pinned as the mode says, SOPIN_ENOENT if no object
 * is it, SOPIN_EINVAL, SOPIN_EEXPOSED, SOPIN_EPARTIAL, SOPIN_EEXCLUDED,
 * SOPIN_EOFF, SOPIN_EBUSY or SOPIN_ESYSTEM.
 *
 * # Safety
 * `path` must be null or a string.
 */
int sopin_pin_path(const char *path);

/**
 * Pins the object of a `handle` of dlopen(3) or dlmopen(3) that is open, and
 * the objects that it needs, as sopin_pin_all() would. A handle proves more
 * than a path: that the loader is done with the object.
 *
 * Returns as sopin_pin_path(), about the object itself, not those it needs.
 *
 * # Safety
 * `handle` must be null or open, and nobody may close it during the call.
 */
int sopin_pin_handle(void *handle);

/**
 * Calls `visitor` with `data` for every object of the process: first the
 * loader's list in its order, then objects in namespaces of dlmopen(3) that the
 * library knows. No lock is held during a call, so the visitor may do anything,
 * load objects, call functions of this library and throw C++ exceptions
 * included; it sees the objects as they were when sopin_for_each() was called.
 *
 * Returns 0, also if the visitor has ended the walk, SOPIN_EINVAL, SOPIN_EBUSY
 * or SOPIN_ESYSTEM.
 *
 * # Safety
 * `visitor` must be null or a function that accepts `data`.
 */
int sopin_for_each(sopin_visitor visitor, void *data);

/**
 * Sums up what sopin_for_each() tells.
 *
 * Returns 0, SOPIN_EINVAL, SOPIN_EBUSY or SOPIN_ESYSTEM.
 *
 * # Safety
 * As for sopin_version().
 */
int sopin_summary(struct sopin_totals *totals);

/**
 * The meaning of what a function here has returned, in English. Never null,
 * never freed.
 */
const char *sopin_strerror(int code);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SOPIN_H */

