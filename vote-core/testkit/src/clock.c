/* Shifts the wall clock of a program that preloads this library, by the number of seconds in the file that
 * CLOCK_OFFSET_FILE names. The file is mapped, so that the clock steps as soon as the file is written. The monotonic
 * clock is not changed, as when an operator or a time server steps a real clock.
 *
 *     cc -shared -fPIC -O2 -o clock.so clock.c
 *     CLOCK_OFFSET_FILE=/tmp/offset LD_PRELOAD=./clock.so date
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Set before main, so that no thread can read the clock while the file is being mapped. */
static volatile const int64_t *offset;

__attribute__((constructor)) static void map_offset(void) {
    const char *path = getenv("CLOCK_OFFSET_FILE");
    if (path == NULL) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) abort();
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) abort();
    close(file);
    offset = mapped;
}

static time_t shift(void) { return offset == NULL ? 0 : (time_t)*offset; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (now != NULL) *now = exact.tv_sec;
    return exact.tv_sec;
}
