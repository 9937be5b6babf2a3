/*
 * The states into which a host can be put:
 *
 *     nofile         no descriptor is free, but the limit may be raised
 *     nofile_hard    no descriptor is free, and the limit may not be raised
 *     as             RLIMIT_AS leaves 4 MiB
 *     data           RLIMIT_DATA leaves nothing
 *     mdwe           PR_SET_MDWE: no mapping becomes executable
 *     nondumpable    PR_SET_DUMPABLE is 0
 *     user N         the user is N
 *     chroot PATH    the root is PATH
 *     hide PATH      in its own mount, network and IPC namespaces, and PATH is empty there
 *     namespace      in its own mount namespace, where the root is read-only
 *     errno, trap, kill    seccomp filters, for all calls that this program no longer makes
 *     strict         the strict mode of seccomp
 *     protect        a page of the first library's .data is inaccessible
 *     breakpoint     the first library has a breakpoint
 *     sparse_code    a terabyte of nothing can be executed
 *     idle_policy    the first thread has SCHED_IDLE
 *     nice           the first thread has the nice value 19
 */
#ifndef SOPIN_PIN_STATES_H
#define SOPIN_PIN_STATES_H

#include "plug.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

void say(const char *text);
_Noreturn void die(int status, const char *reason);

static bool is_strict, is_protected, has_breakpoint;
static volatile sig_atomic_t hits;

static void limit(int resource, rlim_t bytes) {
    const struct rlimit limits = {bytes, bytes};
    if (setrlimit((__rlimit_resource_t)resource, &limits))
        die(3, "setrlimit");
}

static void fill_descriptors(bool is_hard) {
    struct rlimit limits;
    if (getrlimit(RLIMIT_NOFILE, &limits))
        die(3, "getrlimit");
    limits = (struct rlimit){16, is_hard ? 16 : limits.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &limits))
        die(3, "setrlimit");
    while (dup(0) >= 0)
        ;
    if (errno != EMFILE)
        die(3, "dup");
}

static rlim_t address_space(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file || fscanf(file, "%lu", &pages) != 1)
        die(3, "statm");
    fclose(file);
    return pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void hide(const char *path) {
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", path, "tmpfs", 0, NULL))
        die(3, "namespaces");
}

static void make_read_only(void) {
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL))
        die(3, "namespace");
}

/* Installs a filter for all calls but those that the conversation makes. */
static void confine(unsigned action) {
    static const unsigned passing[] = {SYS_read, SYS_write,   SYS_exit_group, SYS_exit,           SYS_futex,
                                       SYS_madvise, SYS_setitimer, SYS_rt_sigreturn, SYS_restart_syscall, SYS_rt_sigprocmask};
    struct sock_filter code[64] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    struct sock_fprog program = {1, code};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
        code[program.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, passing[i], 0, 1);
        code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
    /* All threads get the filter. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program))
        die(3, "filter");
}

static void on_trap(int number, siginfo_t *information, void *context) {
    (void)number, (void)information, (void)context;
    hits++;
#ifdef __aarch64__
    /* The instruction is executed again unless this goes on behind it. */
    ((ucontext_t *)context)->uc_mcontext.pc += 4;
#endif
}

static void set_breakpoint(struct plug *plug) {
    const struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    char *code = (char *)(uintptr_t)plug->with_nop;
    unsigned char *page = (unsigned char *)((uintptr_t)code & ~(uintptr_t)(PAGE - 1));
    if (sigaction(SIGTRAP, &action, NULL) || mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC))
        die(3, "breakpoint");
#ifdef __aarch64__
    *(uint32_t *)(void *)code = 0xd4200000;
#else
    *code = (char)0xCC;
#endif
    __builtin___clear_cache(code, code + 4);
    if (mprotect(page, PAGE, PROT_READ | PROT_EXEC))
        die(3, "breakpoint");
    has_breakpoint = true;
}

static bool takes_argument(const char *word) {
    return strcmp(word, "user") == 0 || strcmp(word, "chroot") == 0 || strcmp(word, "hide") == 0;
}

static void enter_state(const char *word, const char *argument, struct plug *plug) {
    bool failed = false;
    if (strcmp(word, "nofile") == 0) {
        fill_descriptors(false);
    } else if (strcmp(word, "nofile_hard") == 0) {
        fill_descriptors(true);
    } else if (strcmp(word, "as") == 0) {
        limit(RLIMIT_AS, address_space() + (4 << 20));
    } else if (strcmp(word, "data") == 0) {
        limit(RLIMIT_DATA, 4096);
    } else if (strcmp(word, "mdwe") == 0) {
        failed = prctl(65 /* PR_SET_MDWE */, 1 /* PR_MDWE_REFUSE_EXEC_GAIN */, 0, 0, 0);
    } else if (strcmp(word, "nondumpable") == 0) {
        failed = prctl(PR_SET_DUMPABLE, 0);
    } else if (strcmp(word, "user") == 0) {
        failed = setgid((gid_t)atoi(argument)) || setuid((uid_t)atoi(argument));
    } else if (strcmp(word, "chroot") == 0) {
        failed = chroot(argument) || chdir("/");
    } else if (strcmp(word, "hide") == 0) {
        hide(argument);
    } else if (strcmp(word, "namespace") == 0) {
        make_read_only();
    } else if (strcmp(word, "errno") == 0) {
        confine(SECCOMP_RET_ERRNO | EPERM);
    } else if (strcmp(word, "trap") == 0) {
        confine(SECCOMP_RET_TRAP);
    } else if (strcmp(word, "kill") == 0) {
        confine(SECCOMP_RET_KILL_PROCESS);
    } else if (strcmp(word, "strict") == 0) {
        failed = prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
        is_strict = true;
    } else if (strcmp(word, "protect") == 0) {
        failed = mprotect(plug->page, PAGE, PROT_NONE);
        is_protected = true;
    } else if (strcmp(word, "breakpoint") == 0) {
        set_breakpoint(plug);
    } else if (strcmp(word, "sparse_code") == 0) {
        failed = mmap(NULL, 1UL << 40, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ==
                 MAP_FAILED;
    } else if (strcmp(word, "idle_policy") == 0) {
        failed = sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    } else if (strcmp(word, "nice") == 0) {
        failed = setpriority(PRIO_PROCESS, 0, 19);
    } else {
        failed = true;
    }
    if (failed)
        die(77, word);
}

/* Returns whether the inaccessible page has its bytes, and the breakpoint still is one. */
static bool state_is_as_it_was(struct plug *plug) {
    if (is_protected) {
        if (mprotect(plug->page, PAGE, PROT_READ))
            die(3, "mprotect");
        for (int i = 0; i < PAGE; i++)
            if (plug->page[i] != 7)
                return false;
    }
    plug->with_nop();
    return hits == has_breakpoint;
}

#endif
