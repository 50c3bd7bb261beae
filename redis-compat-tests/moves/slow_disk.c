/* A disk that takes its time: loaded into a server with LD_PRELOAD, its fsync and fdatasync sleep before they are done.
 * SLOW_DISK_MS says how long, as long as there is a file SLOW_DISK_WHILE: a cluster forms fast, and is slow afterwards. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_as_told(void) {
    const char *told = getenv("SLOW_DISK_MS"), *file = getenv("SLOW_DISK_WHILE");
    long ms = told && file && access(file, F_OK) == 0 ? strtol(told, NULL, 10) : 0;
    struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&left, &left) != 0) {}
}

int fsync(int file) {
    wait_as_told();
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    wait_as_told();
    return (int)syscall(SYS_fdatasync, file);
}
