/*
 * survey STORE: compares the copy in each entry of a store with its origin, the file to
 * which the entry's link leads, as both are in the file system now, and prints one
 * line:
 *
 *   whole N short N zeros N other N unjudged N
 *
 * short: the size is not that of the origin. zeros: the size is right, and all bytes
 * that differ are 0. other: the size is right, and another byte differs. unjudged:
 * there is no link, or no file to which it leads. A directory without a copy is not
 * counted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind { WHOLE, SHORT, ZEROS, OTHER, UNJUDGED, KINDS };

static const char *const names[KINDS] = {"whole", "short", "zeros", "other", "unjudged"};

static unsigned char *contents(int directory, const char *path, size_t *size) {
    struct stat status;
    int file = openat(directory, path, O_RDONLY | O_NOFOLLOW);
    unsigned char *bytes = NULL;
    if (file >= 0 && fstat(file, &status) == 0 && S_ISREG(status.st_mode)) {
        *size = (size_t)status.st_size;
        bytes = malloc(*size + 1);
        if (bytes && pread(file, bytes, *size, 0) != status.st_size) {
            free(bytes);
            bytes = NULL;
        }
    }
    if (file >= 0)
        close(file);
    return bytes;
}

static enum kind compare(const unsigned char *copy, size_t size, const unsigned char *origin, size_t origin_size) {
    enum kind kind = WHOLE;
    if (size != origin_size)
        return SHORT;
    for (size_t i = 0; i < size; i++)
        if (copy[i] != origin[i]) {
            if (copy[i] != 0)
                return OTHER;
            kind = ZEROS;
        }
    return kind;
}

static enum kind judge(int entry, const char *name) {
    char target[4096];
    size_t size = 0;
    size_t origin_size = 0;
    ssize_t len = readlinkat(entry, ".source", target, sizeof target - 1);
    target[len < 0 ? 0 : len] = 0;
    const char *path = strchr(target, '/');
    unsigned char *origin = path ? contents(AT_FDCWD, path, &origin_size) : NULL;
    unsigned char *copy = contents(entry, name, &size);
    /* A copy that cannot be read is not the one that was made. */
    enum kind kind = !origin ? UNJUDGED : !copy ? OTHER : compare(copy, size, origin, origin_size);
    free(origin);
    free(copy);
    return kind;
}

int main(int argc, char **argv) {
    unsigned found[KINDS] = {0};
    DIR *store = argc == 2 ? opendir(argv[1]) : NULL;
    if (!store) {
        fprintf(stderr, "survey: %s\n", strerror(errno));
        return 1;
    }
    for (struct dirent *key; (key = readdir(store));) {
        int entry = *key->d_name == '.' ? -1 : openat(dirfd(store), key->d_name, O_RDONLY | O_DIRECTORY);
        DIR *files = entry < 0 ? NULL : fdopendir(entry);
        for (struct dirent *file; files && (file = readdir(files));)
            if (*file->d_name != '.')
                found[judge(entry, file->d_name)]++;
        if (files)
            closedir(files);
    }
    for (enum kind kind = 0; kind < KINDS; kind++)
        printf("%s %u%c", names[kind], found[kind], kind + 1 < KINDS ? ' ' : '\n');
    return 0;
}
