/*
 * A program that does with shared objects what its argument says, and reports what it
 * observes. On stdout it prints what must be equal without the library under test. To
 * descriptor 3 it writes what is compared in other ways: segments that differ from
 * their state at startup ("wrong", "changed"), the sum of every object loaded later
 * ("sum"), and objects that are not immune to their files ("exposed").
 */
#include "../fixtures/fixture.h"
#include "arm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

int needed_check(int x);

static int check_in(void *handle) {
    int (*check)(int);
    *(void **)&check = dlsym(handle, "data_check");
    return check ? check(3) : -1;
}

static void *say_dlopen(const char *name) {
    void *handle;
    errno = 1234;
    handle = dlopen(name, RTLD_NOW);
    if (handle)
        printf("dlopen %s: errno %d, check %d\n", name, errno, check_in(handle));
    else
        printf("dlopen %s: %s\n", name, dlerror());
    fflush(stdout);
    return handle;
}

static void say_dlclose(void *handle) {
    int status;
    errno = 1234;
    status = dlclose(handle);
    printf("dlclose: %d, errno %d\n", status, errno);
}

/* Uses several parts of the C library that keep data. */
static void use_the_c_library(void) {
    char text[64], *copy;
    snprintf(text, sizeof text, "%.3f %s %d", strtod("1.25", NULL), strerror(ENOENT), abs(-3));
    copy = strdup(text);
    expect(copy);
    printf("%s; %d; %s\n", copy, needed_check(3), dlsym(RTLD_DEFAULT, "no_such_symbol") ? "found" : dlerror());
    free(copy);
    fflush(stdout);
}

static void early(void) { say_dlopen("./libearly.so"); }

static void plain(void) { say_dlopen("./libplain.so"); }

static void bare(void) {
    say_dlopen("libplain.so");
    say_dlopen("libearly.so");
    say_dlopen("libno_such.so");
}

static void in_namespace(void) {
    void *handle = dlmopen(LM_ID_NEWLM, path_beside("libearly.so"), RTLD_NOW);
    printf("dlmopen: check %d\n", handle ? check_in(handle) : -1);
}

static atomic_int stop;
static atomic_int running;

static void *keep_storing(void *unused) {
    static volatile unsigned long stores;
    unsigned long mine = 0;
    while (!atomic_load(&stop)) {
        stores++;
        mine++;
        atomic_store(&running, 1);
    }
    expect(stores == mine);
    return unused;
}

static void beside_a_thread(void) {
    pthread_t thread;
    expect(pthread_create(&thread, NULL, keep_storing, NULL) == 0);
    while (!atomic_load(&running))
        sched_yield();
    arm();
    early();
    plain();
    atomic_store(&stop, 1);
    expect(pthread_join(thread, NULL) == 0);
}

static void closing(void) {
    void *first = say_dlopen("./libearly.so"), *second = say_dlopen("./libplain.so");
    expect(first && second);
    arm();
    say_dlclose(first);
    say_dlclose(second);
    say_dlopen("./libplain.so");
    say_dlopen("./libearly.so");
}

static void forking(void) {
    int status;
    pid_t child;
    early();
    arm();
    child = fork();
    expect(child >= 0);
    if (child == 0) {
        plain();
        _exit(7);
    }
    expect(waitpid(child, &status, 0) == child);
    printf("child: %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    plain();
}

static void nothing(void) {}

static const struct activity {
    const char *name;
    void (*run)(void);
    bool arms_itself;
} activities[] = {
    {"startup", nothing, false},      {"early", early, false},     {"plain", plain, false},
    {"bare", bare, false},            {"namespace", in_namespace, false}, {"threads", beside_a_thread, true},
    {"dlclose", closing, true},       {"fork", forking, true},
};

/* Returns a word of writable data in a form that does not depend on the addresses of
 * this run. */
static uint64_t word_without_addresses(uint64_t word) {
    struct link_map *map = NULL;
    Dl_info info;
    if (word < 0x10000 || word >> 47)
        return word;
    if (dladdr1((void *)(uintptr_t)word, &info, (void **)&map, RTLD_DL_LINKMAP) && map) {
        const char *slash = strrchr(map->l_name, '/');
        uint64_t hash = 5381;
        for (const char *at = slash ? slash : map->l_name; *at; at++)
            hash = hash * 33 + (unsigned char)*at;
        return hash ^ (word - map->l_addr);
    }
    /* The word points to the loader's own memory. */
    return 0x706f696e746572;
}

static int say_later_object(struct dl_phdr_info *object, size_t size, void *sums) {
    const char *slash = strrchr(object->dlpi_name, '/');
    (void)size;
    if (!slash || (strcmp(slash, "/libearly.so") != 0 && strcmp(slash, "/libplain.so") != 0))
        return 0;
    *(uint64_t *)sums = 14695981039346656037UL;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        const uintptr_t start = (object->dlpi_addr + segment->p_vaddr) & ~7UL;
        const uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_memsz;
        if (segment->p_type != PT_LOAD)
            continue;
        for (uintptr_t at = start; at + 8 <= end; at += 8) {
            uint64_t word = *(const volatile uint64_t *)at;
            if (segment->p_flags & PF_W)
                word = word_without_addresses(word);
            *(uint64_t *)sums = (*(uint64_t *)sums ^ word) * 1099511628211UL;
        }
    }
    dprintf(REPORT, "sum %s %lx\n", slash + 1, (unsigned long)*(uint64_t *)sums);
    return 0;
}

static int say_if_exposed(struct dl_phdr_info *object, size_t size, void *directory) {
    char path[PATH_MAX];
    (void)size;
    if (strcmp(object->dlpi_name, "linux-vdso.so.1") == 0)
        return 0;
    expect(realpath(object->dlpi_name[0] ? object->dlpi_name : "./main", path));
    if (getenv("SOPIN_ONLY") && strncmp(path, directory, strlen(directory)) != 0)
        return 0;
    if (!segments_are_pinned(object, ranges_of_this_mode()))
        dprintf(REPORT, "exposed %s\n", path);
    return 0;
}

int main(int argc, char **argv) {
    char directory[PATH_MAX];
    uint64_t sum;
    expect(argc == 2 && getcwd(directory, sizeof directory));
    for (size_t i = 0; i < sizeof activities / sizeof *activities; i++) {
        if (strcmp(argv[1], activities[i].name) != 0)
            continue;
        if (!activities[i].arms_itself)
            arm();
        activities[i].run();
        use_the_c_library();
        compare_with_start();
        dl_iterate_phdr(say_later_object, &sum);
        dl_iterate_phdr(say_if_exposed, directory);
        return PASSED;
    }
    expect(!"an activity of this name");
}
