/*
 * supervisor CALLS REPORT NUMBER STEP ERRNO [ALWAYS]... -- PROGRAM ARGUMENT...
 *
 * Runs the program, which arms itself (arm.h), and makes the STEPth call of the library
 * with this NUMBER fail with ERRNO (no call if STEP is 0). ALWAYS is
 * NUMBER:ERRNO:INDEX:MASK:VALUE: every call of that number fails whose argument with
 * that index has that value in the bits of the mask. Writes every call's number and
 * first three arguments to CALLS; REPORT becomes the program's descriptor 3, and
 * FAULTS_PRELOAD its LD_PRELOAD. A filter kills the program for any call of the number
 * FAULTS_KILL. Ends as the program did: with its status, or by its signal.
 */
#include "../fixtures/supervision.h"

#include <signal.h>

struct always {
    int number;
    int error;
    unsigned index;
    uint64_t mask;
    uint64_t value;
};

static bool applies(const struct always *rule, const struct supervised_call *call) {
    return call->number == rule->number && (call->arguments[rule->index] & rule->mask) == rule->value;
}

static void become(char **command, const char *report, int socket) {
    const int descriptor = open(report, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    const char *preload = getenv("FAULTS_PRELOAD");
    char number[16];
    /* The number is above 3, so that the next line does not close it. */
    const int kept = fcntl(socket, F_DUPFD, 10);
    expect(descriptor >= 0 && kept >= 0 && (descriptor == 3 || dup2(descriptor, 3) == 3));
    snprintf(number, sizeof number, "%d", kept);
    expect(setenv("FAULTS_SOCKET", number, 1) == 0);
    expect(unsetenv("FAULTS_PRELOAD") == 0 && (!preload || setenv("LD_PRELOAD", preload, 1) == 0));
    if (getenv("FAULTS_KILL")) {
        struct program filter = {.length = 0};
        emit(&filter, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
        emit(&filter, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)atoi(getenv("FAULTS_KILL")), 0, 1);
        emit(&filter, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
        enforce(&filter, 0);
    }
    /* SIGALRM ends the program if it hangs. */
    alarm(20);
    execv(command[0], command);
    expect(!"executed");
}

int main(int argc, char **argv) {
    struct always rules[8];
    size_t rule_count = 0;
    int sockets[2], failing, step, error, status, at = 6;
    struct supervised_call call;
    FILE *calls;
    pid_t child;
    expect(argc > 7);
    failing = atoi(argv[3]);
    step = atoi(argv[4]);
    error = atoi(argv[5]);
    for (; strcmp(argv[at], "--") != 0; at++) {
        struct always *rule = &rules[rule_count++];
        expect(rule_count < sizeof rules / sizeof *rules);
        expect(sscanf(argv[at], "%d:%d:%u:%lx:%lx", &rule->number, &rule->error, &rule->index, &rule->mask,
                      &rule->value) == 5);
    }
    calls = fopen(argv[1], "we");
    expect(calls && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
    child = fork();
    expect(child >= 0);
    if (child == 0)
        become(argv + at + 1, argv[2], sockets[1]);
    expect(close(sockets[1]) == 0);
    const bool is_armed = begin_supervision(sockets[0]);
    while (is_armed && next_call(&call)) {
        const struct always *rule = NULL;
        for (size_t i = 0; i < rule_count && !rule; i++)
            rule = applies(&rules[i], &call) ? &rules[i] : NULL;
        fprintf(calls, "%d %lx %lx %lx\n", call.number, (unsigned long)call.arguments[0],
                (unsigned long)call.arguments[1], (unsigned long)call.arguments[2]);
        if (call.number == failing && --step == 0)
            let_fail(&call, error);
        else if (rule)
            let_fail(&call, rule->error);
        else
            let_go_on(&call);
    }
    expect(waitpid(child, &status, 0) == child && fclose(calls) == 0);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}
