/*
 * killer [unfiltered] N PROGRAM ARGUMENT...: runs a program and kills it by SIGKILL when it has entered or left
 * ptrace(2) for the Nth time, so that it dies between two of its requests. 0 kills nothing.
 *
 * A filter makes the kernel report these calls alone. If it reported all, each stop of a process
 * would take several times as long. With `unfiltered` it does, because under a filter a program may
 * not suspend that of another one.
 *
 * Prints `exposed` if the program was killed when it had set the registers of a task at the entry of a
 * system call, and had not returned yet from letting the task go on: the program lets the task stop at
 * the entry, then at the exit. Then prints how often the program entered or left ptrace(2). Ends with
 * the program's exit status, or with 137 if it was killed.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Has the kernel report each ptrace(2) of this process and its program to the tracer. */
static int report_calls(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

enum { NONE = -1, GET_SYSCALL_INFO = 0x420e, OF_EXIT = 2 };

/* Returns the request with which a task enters ptrace(2), or NONE for another call or the exit. */
static long long request_of(pid_t task) {
    /* `struct ptrace_syscall_info`: what it is about, two addresses, the number and the arguments. */
    unsigned long long words[16] = {0};
    if (syscall(SYS_ptrace, GET_SYSCALL_INFO, task, sizeof words, words) < 0)
        return NONE;
    return (words[0] & 0xff) != OF_EXIT && words[3] == SYS_ptrace ? (long long)words[4] : NONE;
}

int main(int argc, char **argv) {
    const bool is_filtered = argc < 2 || strcmp(argv[1], "unfiltered") != 0;
    if (!is_filtered) {
        argc--;
        argv++;
    }
    const long nth = argc > 2 ? atol(argv[1]) : -1;
    const long options =
        PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL;
    /* Only one thread of the program is expected to call ptrace(2). */
    pid_t inside = 0;
    long count = 0, resumed = 0;
    long long request = NONE;
    bool is_exposed = false;
    int status;
    if (nth < 0)
        return 2;
    const pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        if (!is_filtered || report_calls() == 0)
            execvp(argv[2], argv + 2);
        _exit(127);
    }
    if (waitpid(child, &status, WUNTRACED) != child || ptrace(PTRACE_SEIZE, child, NULL, options) ||
        kill(child, SIGCONT))
        return 126;
    for (;;) {
        const pid_t task = waitpid(-1, &status, __WALL);
        if (task < 0)
            return 126;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (task != child)
                continue;
            printf("%ld\n", count);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        const int event = status >> 16;
        int signal = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
        const bool is_at_call = signal == (SIGTRAP | 0x80);
        const bool may_enter = event == PTRACE_EVENT_SECCOMP || (is_at_call && !is_filtered && !inside);
        const long long next = may_enter ? request_of(task) : NONE;
        const bool enters = next != NONE, leaves = is_at_call && inside == task;
        if (enters || leaves) {
            inside = enters ? task : 0;
            if (enters) {
                request = next;
                resumed += request == PTRACE_SYSCALL;
            } else if (request == PTRACE_SETREGSET && resumed % 2 == 1) {
                is_exposed = true;
            }
            if (++count == nth) {
                if (is_exposed)
                    printf("exposed\n");
                kill(child, SIGKILL);
            }
            if (leaves && request == PTRACE_SYSCALL && resumed % 2 == 0)
                is_exposed = false;
        }
        /* A group stop stays one. */
        if (event == PTRACE_EVENT_STOP && signal != SIGTRAP) {
            ptrace(PTRACE_LISTEN, task, NULL, NULL);
            continue;
        }
        if (event || is_at_call)
            signal = 0;
        ptrace(task == inside || !is_filtered ? PTRACE_SYSCALL : PTRACE_CONT, task, NULL, (long)signal);
    }
}
