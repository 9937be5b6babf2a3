/*
 * jail RULES PROGRAM [ARGUMENT...]: runs a program under a seccomp filter.
 *
 * RULES is a file of lines; of two rules for one call, the earlier one has priority:
 *
 *     default ACTION
 *     ACTION NAME [INDEX OPERATOR VALUE [SECOND]]
 *
 * ACTION is `allow`, `kill` or the number of an error; OPERATOR is one of libseccomp's,
 * for instance SCMP_CMP_EQ. A name that this machine's libseccomp does not know is
 * ignored. JAIL_PRELOAD becomes the program's LD_PRELOAD, and not the jail's own.
 *
 * JAIL_ROOT is a directory to enter first: an overlay whose lower directory is this
 * system's root, made as an engine of containers makes it, in which the program is
 * process 1.
 */
#include <err.h>
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Directories of layers below "overlay2", named as Docker names them. */
#define ID(digits) digits digits digits digits digits digits digits digits
#define IMAGE ID("11111111") "/diff"
#define CONTAINER ID("22222222")

static uint32_t action_of(const char *word) {
    if (strcmp(word, "allow") == 0)
        return SCMP_ACT_ALLOW;
    return strcmp(word, "kill") == 0 ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO((unsigned)atoi(word));
}

static enum scmp_compare operator_of(const char *word) {
    static const char *const names[] = {"", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"};
    for (unsigned i = 1; i < sizeof names / sizeof *names; i++)
        if (strcmp(word + strlen("SCMP_CMP_"), names[i]) == 0)
            return (enum scmp_compare)i;
    errx(2, "operator %s", word);
}

static void add(scmp_filter_ctx filter, char *line) {
    char action[32], name[64], operator[32] = "";
    unsigned index = 0;
    unsigned long long value = 0, second = 0;
    int words = sscanf(line, "%31s %63s %u %31s %llu %llu", action, name, &index, operator, &value, &second);
    int number = words < 2 ? __NR_SCMP_ERROR : seccomp_syscall_resolve_name(name), error;
    if (number == __NR_SCMP_ERROR)
        return;
    if (words == 2) {
        error = seccomp_rule_add(filter, action_of(action), number, 0);
    } else {
        struct scmp_arg_cmp compared = {index, operator_of(operator), value, second};
        error = seccomp_rule_add_array(filter, action_of(action), number, 1, &compared);
    }
    /* libseccomp refuses a rule whose action is the default one, and such a rule is not
     * needed. */
    if (error && error != -EACCES && error != -EEXIST && error != -EDOM)
        errx(2, "%s: %s", line, strerror(-error));
}

static void enter(const char *root) {
    char lower[512], options[2048];
    int status;
    if (unshare(CLONE_NEWPID))
        err(2, "pid namespace");
    const pid_t first = fork();
    if (first < 0)
        err(2, "fork");
    if (first > 0) {
        if (waitpid(first, &status, 0) != first || WIFSIGNALED(status))
            exit(3);
        exit(WEXITSTATUS(status));
    }
    snprintf(lower, sizeof lower, "%s/overlay2/" IMAGE, root);
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("/", lower, NULL, MS_BIND, NULL))
        err(2, "%s", lower);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/overlay2/" CONTAINER "/diff,workdir=%s/overlay2/" CONTAINER "/work", lower, root, root);
    snprintf(lower, sizeof lower, "%s/merged", root);
    char *here = getcwd(NULL, 0);
    if (mount("overlay", lower, "overlay", 0, options) || chroot(lower) || chdir("/") ||
        mount("proc", "/proc", "proc", 0, NULL) || chdir(here))
        err(2, "%s", lower);
    free(here);
}

int main(int argc, char **argv) {
    char line[512];
    scmp_filter_ctx filter = NULL;
    FILE *rules = argc > 2 ? fopen(argv[1], "re") : NULL;
    if (!rules)
        err(2, "%s", argv[1]);
    if (getenv("JAIL_ROOT"))
        enter(getenv("JAIL_ROOT"));
    while (fgets(line, sizeof line, rules)) {
        char action[32];
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "default %31s", action) == 1)
            filter = seccomp_init(action_of(action));
        else
            add(filter, line);
    }
    fclose(rules);
    if (getenv("JAIL_PRELOAD"))
        setenv("LD_PRELOAD", getenv("JAIL_PRELOAD"), 1);
    /* systemd and the engines set this attribute to 0 as well. */
    if (!filter || seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0) || seccomp_load(filter))
        errx(2, "the filter cannot be installed");
    execv(argv[2], argv + 2);
    return 127;
}
