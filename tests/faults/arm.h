/*
 * The functions that libarm.so offers to the host of the fault tests. libarm.so is
 * initialised before any object announces itself to the library under test.
 */
#ifndef SOPIN_FAULTS_ARM_H
#define SOPIN_FAULTS_ARM_H

/* The descriptor to which the host reports what is compared, one fact a line. */
enum { REPORT = 3 };

/* Makes the supervisor, if there is one, see every call of the library from now on. At
 * startup libarm.so does this itself if FAULTS_AT is "startup". */
void arm(void);

/* Compares every segment of the startup objects with its snapshot from startup, when it
 * was relocated and not yet pinned. Reports "wrong OBJECT OFFSET" where bytes differ
 * that must not change, and "changed OBJECT OFFSET" where a word of writable data
 * differs. */
void compare_with_start(void);

#endif
