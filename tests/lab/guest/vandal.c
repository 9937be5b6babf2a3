/*
 * vandal STORE: tries to change each copy in a store as its owner may: opens it for
 * writing, truncates it by its name, and asks whether fs-verity protects it. Prints one
 * line:
 *
 *   entries N verity N write-refused N truncate-refused N truncated N
 *
 * refused: with EPERM, the error of fs-verity. Any other error is printed on standard
 * error and does not count as refused.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static unsigned entries, with_verity, write_refused, truncate_refused, truncated;

static void attack(int directory, const char *name, const char *path) {
    int flags = 0;
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW);
    entries++;
    if (file < 0 || ioctl(file, FS_IOC_GETFLAGS, &flags) != 0)
        perror(path);
    else if (flags & FS_VERITY_FL)
        with_verity++;
    if (file >= 0)
        close(file);

    file = openat(directory, name, O_WRONLY | O_NOFOLLOW);
    if (file >= 0)
        close(file);
    else if (errno == EPERM)
        write_refused++;
    else
        perror(path);

    if (truncate(path, 0) == 0)
        truncated++;
    else if (errno == EPERM)
        truncate_refused++;
    else
        perror(path);
}

int main(int argc, char **argv) {
    DIR *store = argc == 2 ? opendir(argv[1]) : NULL;
    if (!store) {
        fprintf(stderr, "vandal: %s\n", strerror(errno));
        return 1;
    }
    for (struct dirent *key; (key = readdir(store));) {
        int entry = *key->d_name == '.' ? -1 : openat(dirfd(store), key->d_name, O_RDONLY | O_DIRECTORY);
        DIR *files = entry < 0 ? NULL : fdopendir(entry);
        for (struct dirent *file; files && (file = readdir(files));) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s/%s", argv[1], key->d_name, file->d_name);
            if (*file->d_name != '.')
                attack(entry, file->d_name, path);
        }
        if (files)
            closedir(files);
    }
    printf("entries %u verity %u write-refused %u truncate-refused %u truncated %u\n", entries, with_verity,
           write_refused, truncate_refused, truncated);
    return 0;
}
