/* Records how much of each append-only file is known to be on disk.
 *
 * Loaded into a Redis by LD_PRELOAD. After each successful fdatasync and fsync, the length that the file had when the
 * call began is written to a file of the same name in the folder that FSYNC_RECORDS names: a power failure leaves the
 * synced bytes, and none that were only written. The length is taken before the call, since the call need not cover
 * bytes that another thread writes while it runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char ENDING[] = ".incr.aof";

static void note(int fd, off_t length)
{
    char link[64], path[PATH_MAX], record[PATH_MAX], text[32];
    const char *folder = getenv("FSYNC_RECORDS");
    if (!folder)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < (ssize_t)sizeof ENDING)
        return;
    path[size] = '\0';
    if (strcmp(path + size - (sizeof ENDING - 1), ENDING) != 0)
        return;
    const char *name = strrchr(path, '/');
    if (!name || snprintf(record, sizeof record, "%s%s", folder, name) >= (int)sizeof record)
        return;
    int out = open(record, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (out < 0)
        return;
    /* All records have the same length and are written at once, so that a kill leaves the old or the new record. */
    int digits = snprintf(text, sizeof text, "%020lld\n", (long long)length);
    if (pwrite(out, text, (size_t)digits, 0) != digits)
        unlink(record);
    close(out);
}

static int synced(int fd, const char *name)
{
    int (*real)(int);
    struct stat before;
    *(void **)&real = dlsym(RTLD_NEXT, name);
    int known = fstat(fd, &before) == 0;
    int result = real(fd);
    if (result == 0 && known)
        note(fd, before.st_size);
    return result;
}

int fdatasync(int fd)
{
    return synced(fd, "fdatasync");
}

int fsync(int fd)
{
    return synced(fd, "fsync");
}
