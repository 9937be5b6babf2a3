/*
 * What the host of the fault tests is given by libarm.so, which is initialised
 * before anything announces itself to the library under test.
 */
#ifndef SOPIN_FAULTS_ARM_H
#define SOPIN_FAULTS_ARM_H

/* Where the host says what is compared, one line a fact. */
enum { REPORT = 3 };

/* From now on every call of the library is seen by the supervisor, if there is
 * one. At startup libarm.so does this itself if FAULTS_AT says "startup". */
void arm(void);

/* Compares every segment of the objects that were there at startup with what it
 * was then, relocated and not yet pinned. Says "wrong OBJECT OFFSET" where
 * something differs that nothing may change, and "changed OBJECT OFFSET" where
 * writable data is another word. */
void compare_with_start(void);

#endif
