/*
 * host WORD...: a program that does what the words say. It prints the result by
 * write(2) alone, so that it survives any filter that allows objects to be loaded.
 *
 *     load NAME      loads ./NAME
 *     thread NAME    the same in another thread
 *     fork           continues in a child, whose status it returns
 *     unload         unloads the object that was loaded last
 *     no_files       installs a filter that kills for openat(2)
 *     confine        installs a filter that kills for all calls that loading does not make
 *     trap           installs one that traps them to a handler of SIGSYS
 *     broker         the same for openat(2) alone, which the handler then makes itself
 *     truncate       truncates every library that it uses
 *     call           calls their functions
 *
 * Exits with 42 if all calls return the expected value, and none was trapped.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define MOST 8

int startup(void);
static int (*functions[MOST])(void) = {startup};
static const char *names[MOST] = {"./libstartup.so"};
static void *handles[MOST];
static volatile int loaded = 1, trapped;

static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0)
        _exit(3);
}

static void *load(void *name) {
    void *handle = dlopen(name, RTLD_NOW);
    if (!handle) {
        say(dlerror());
        _exit(4);
    }
    names[loaded] = name;
    handles[loaded] = handle;
    *(void **)&functions[loaded++] = dlsym(handle, "plugged");
    return NULL;
}

/* The handler's own calls of openat(2) have this argument, which openat(2) ignores. */
enum { BROKERED = 77 };

static void on_openat(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)number;
    (void)info;
    registers[REG_RAX] =
        syscall(SYS_openat, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], registers[REG_R10], 0, BROKERED);
    if (registers[REG_RAX] < 0)
        registers[REG_RAX] = -errno;
}

static void on_trap(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)number;
    (void)info;
    trapped++;
    registers[REG_RAX] = -ENOSYS;
}

static void enforce(struct sock_filter *code, unsigned short count, void (*handler)(int, siginfo_t *, void *)) {
    struct sock_fprog program = {count, code};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(5);
}

static void kill_for_openat(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    enforce(code, sizeof code / sizeof *code, on_openat);
}

static void broker(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 5 * sizeof(__u64)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, BROKERED, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    enforce(code, sizeof code / sizeof *code, on_openat);
}

static void install(unsigned action) {
    /* Loading makes these calls, and this program needs some to end. */
    static const int passing[] = {SYS_openat, SYS_read,  SYS_newfstatat, SYS_fstat, SYS_mmap,       SYS_mprotect, SYS_munmap,
                                  SYS_close,  SYS_futex, SYS_brk,        SYS_write, SYS_exit_group, SYS_rt_sigreturn,
                                  SYS_clone,  SYS_wait4, SYS_set_robust_list, SYS_rseq, SYS_getcwd, SYS_prctl};
    struct sock_filter code[64] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    unsigned short count = 1;
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
        code[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)passing[i], 0, 1);
        code[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
    enforce(code, count, on_trap);
}

int main(int argc, char **argv) {
    (void)argc;
    for (char **word = argv + 1; *word; word++) {
        if (strcmp(*word, "load") == 0) {
            load(*++word);
        } else if (strcmp(*word, "thread") == 0) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, load, *++word) || pthread_join(thread, NULL))
                _exit(6);
        } else if (strcmp(*word, "fork") == 0) {
            pid_t child = fork();
            int status = 0;
            if (child > 0)
                _exit(waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 7);
        } else if (strcmp(*word, "confine") == 0) {
            install(SECCOMP_RET_KILL_PROCESS);
        } else if (strcmp(*word, "trap") == 0) {
            install(SECCOMP_RET_TRAP);
        } else if (strcmp(*word, "unload") == 0) {
            if (dlclose(handles[--loaded]))
                _exit(11);
        } else if (strcmp(*word, "no_files") == 0) {
            kill_for_openat();
        } else if (strcmp(*word, "broker") == 0) {
            broker();
        } else if (strcmp(*word, "truncate") == 0) {
            for (int i = 0; i < loaded; i++)
                if (close(open(names[i], O_WRONLY | O_TRUNC)))
                    _exit(8);
        } else if (strcmp(*word, "call") == 0) {
            for (int i = 0; i < loaded; i++)
                if (functions[i]() != 42)
                    _exit(9);
        }
    }
    say(trapped ? "trapped\n" : "done\n");
    _exit(trapped ? 10 : 42);
}
