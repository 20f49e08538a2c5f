/* What a process believes of its clock and its disk, decided by a file that somebody else writes: loaded before the C library
 * by LD_PRELOAD, with the file's path in SHOAL_FAULTS. A file of zeros changes nothing. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Laid out as in faults/mod.rs. */
struct faults {
    int64_t clock_offset_s; /* added to the clock of the wall */
    int64_t flush_errno;    /* what a flush fails with; 0 = it does not */
    int64_t flush_delay_ms; /* how long it takes before that */
};

static const struct faults none;
static const volatile struct faults *faults = &none;

__attribute__((constructor)) static void open_faults(void) {
    const char *path = getenv("SHOAL_FAULTS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) faults = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += faults->clock_offset_s;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

static int flush(const char *name, int file) {
    int64_t delay = faults->flush_delay_ms, error = faults->flush_errno;
    if (delay > 0) {
        struct timespec pause = {delay / 1000, (delay % 1000) * 1000000};
        nanosleep(&pause, NULL);
    }
    if (error != 0) {
        errno = (int)error;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return flush("fsync", file); }

int fdatasync(int file) { return flush("fdatasync", file); }
