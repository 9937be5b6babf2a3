// The first process of a machine that has nothing but this, the program, its plug-in and its
// libraries: lets the program die in each way, and prints each core in hexadecimal digits.

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    reboot(RB_POWER_OFF);
    _exit(1);
}

static char *contents(const char *path, size_t *size) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) fail(path);
    *size = (size_t)status.st_size;
    char *bytes = malloc(*size);
    for (size_t done = 0; done < *size;) {
        ssize_t count = read(file, bytes + done, *size - done);
        if (count <= 0) fail(path);
        done += (size_t)count;
    }
    close(file);
    return bytes;
}

static void write_in_place(const char *path, const char *bytes, size_t size) {
    int file = open(path, O_WRONLY | O_TRUNC);
    if (file < 0 || write(file, bytes, size) != (ssize_t)size) fail(path);
    close(file);
}

static void print(const char *way) {
    size_t size;
    unsigned char *core = (unsigned char *)contents("core", &size);
    printf("core %s %zu\n", way, size);
    for (size_t i = 0; i < size; i++) {
        printf("%02x", core[i]);
        if (i % 64 == 63) putchar('\n');
    }
    puts("\nend");
    unlink("core");
}

static void let_die(const char *way, size_t kept) {
    size_t size;
    char *bytes = contents("plug.so", &size);
    int input[2], output[2], status;
    if (pipe(input) != 0 || pipe(output) != 0) fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        char name[64];
        snprintf(name, sizeof name, "plug_%s", way);
        dup2(input[0], 0);
        dup2(output[1], 1);
        for (int file = 3; file < 16; file++) close(file);
        execl("./host", "./host", name, (char *)0);
        fail("host");
    }
    char line[6];
    if (read(output[0], line, sizeof line) != sizeof line) fail("the program is not ready");
    // Nothing is truncated if everything is kept.
    if (kept < size) {
        write_in_place("plug.so", bytes, kept);
    } else if (kept > size) {
        write_in_place("plug.so", bytes, size);
    }
    if (write(input[1], "\n", 1) != 1 || waitpid(child, &status, 0) != child) fail("wait");
    write_in_place("plug.so", bytes, size);
    char name[80];
    snprintf(name, sizeof name, "%s %s", kept > size ? "same_bytes" : kept < size ? "emptied" : "untouched", way);
    printf("died of %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    print(name);
}

int main(void) {
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_CORE, &unlimited);
    mkdir("/proc", 0755);
    mount("none", "/proc", "proc", 0, 0);
    if (chdir("/srv") != 0) fail("/srv");
    size_t size;
    free(contents("plug.so", &size));
    let_die("call", size + 1);
    let_die("data", size + 1);
    let_die("data", 0);
    let_die("wild", size);
    let_die("nowhere", size);
    puts("all");
    fflush(stdout);
    reboot(RB_POWER_OFF);
}
