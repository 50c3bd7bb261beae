/* A disk that fails now and then: loaded into a server with LD_PRELOAD. And a record of what was done to its files, from
 * which disk.py knows what of it has been synced.
 *
 *   FAULTY_DISK_DIRECTORY   absolute; only files in it are recorded, and fail
 *   FAULTY_DISK_RECORD      the record is appended to this file, which is elsewhere
 *   FAULTY_DISK_WHILE       operations fail as long as this file is there
 *   FAULTY_DISK_SEED        what chance decides
 *   FAULTY_DISK_SYNC        one in so many syncs fails, with EIO; what it should have covered is not synced
 *   FAULTY_DISK_WRITE       one in so many writes fails: with ENOSPC or EIO, or after a part of it
 *   FAULTY_DISK_NAME        one in so many openings for writing, renamings, removals and ftruncate fails
 *
 * 0, or nothing: none does. A write is done and recorded in one step, so the record has the order in which things
 * happened. What a kill leaves out of it is the last step, which nobody has been told of.
 *
 *   record | what u8 | file i32 | at i64 | length i64 | bytes |          all in the machine's order, no padding
 *   O      | opened: file is what bytes names from here on; at: 1 created, 2 truncated
 *   W T    | written at a place; cut to a length
 *   B S F  | a sync has begun, has succeeded, has failed
 *   R U    | renamed ("from\0to"), removed
 *   X      | a fault: file is the letter of what failed, at its errno; 0: a part was written
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char is_ours[FILES_MAX];
static const char *directory, *condition;
static int record_file = -1;
static uint64_t chance;
static long sync_rate, write_rate, name_rate;

static long rate(const char *name) {
    const char *told = getenv(name);
    return told ? strtol(told, NULL, 10) : 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *record = getenv("FAULTY_DISK_RECORD");
    directory = getenv("FAULTY_DISK_DIRECTORY");
    condition = getenv("FAULTY_DISK_WHILE");
    chance = (uint64_t)rate("FAULTY_DISK_SEED") * 2 + 1;
    sync_rate = rate("FAULTY_DISK_SYNC");
    write_rate = rate("FAULTY_DISK_WRITE");
    name_rate = rate("FAULTY_DISK_NAME");
    if (directory && record) {
        record_file = (int)syscall(SYS_openat, AT_FDCWD, record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (record_file < 0) abort();
    }
}

static int ours(int file) { return file >= 0 && file < FILES_MAX && is_ours[file]; }

/* The part of a path behind the directory ("" is the directory itself), or NULL. */
static const char *name_in(const char *path, char *room, size_t size) {
    if (record_file < 0) return NULL;
    if (path[0] != '/') {
        if (syscall(SYS_getcwd, room, size) < 0) return NULL;
        size_t length = strlen(room);
        while (path[0] == '.' && path[1] == '/') path += 2;
        if ((size_t)snprintf(room + length, size - length, "/%s", path) >= size - length) return NULL;
        path = room;
    }
    size_t length = strlen(directory);
    if (strncmp(path, directory, length) != 0) return NULL;
    if (path[length] == '\0') return "";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static void note(char what, int file, int64_t at, const void *bytes, int64_t length) {
    struct __attribute__((packed)) { char what; int32_t file; int64_t at, length; } head = {what, file, at, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)bytes, (size_t)length}};
    /* Without its record a run says nothing. */
    if (syscall(SYS_writev, record_file, parts, 2) != (long)sizeof head + length) abort();
}

static uint64_t drawn(void) {
    chance += 0x9e3779b97f4a7c15u;
    uint64_t mixed = chance;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

static int fails(long one_in) {
    if (one_in <= 0 || !condition || access(condition, F_OK) != 0) return 0;
    return drawn() % (uint64_t)one_in == 0;
}

/* Whether a change of names fails; errno is set. */
static int name_fails(char what) {
    if (!fails(name_rate)) return 0;
    int error = what == 'U' || drawn() % 2 ? EIO : ENOSPC;
    note('X', what, error, NULL, 0);
    errno = error;
    return 1;
}

static int open_file(const char *path, int flags, mode_t mode) {
    char room[4096];
    const char *name = name_in(path, room, sizeof room);
    if (!name) {
        int file = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
        if (file >= 0 && file < FILES_MAX) is_ours[file] = 0;
        return file;
    }
    pthread_mutex_lock(&lock);
    int file = -1, is_written = (flags & O_ACCMODE) != O_RDONLY;
    if (!is_written || !name_fails('O')) {
        int is_new = (flags & O_CREAT) && access(path, F_OK) != 0;
        file = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
        if (file >= FILES_MAX) abort();
        if (file >= 0) {
            is_ours[file] = 1;
            note('O', file, is_new | (flags & O_TRUNC ? 2 : 0), name, (int64_t)strlen(name));
        }
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return file;
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file(path, flags, mode);
}

int close(int file) {
    if (file >= 0 && file < FILES_MAX) is_ours[file] = 0;
    return (int)syscall(SYS_close, file);
}

/* at < 0: where the file stands. */
static ssize_t write_file(int file, const void *bytes, size_t length, off_t at) {
    pthread_mutex_lock(&lock);
    ssize_t written = -1;
    int error = 0;
    if (length > 0 && fails(write_rate)) {
        uint64_t kind = drawn() % 3;
        error = kind == 0 ? ENOSPC : kind == 1 ? EIO : 0;
        if (error == 0 && length > 1) length = 1 + drawn() % (length - 1);
        note('X', 'W', error, NULL, 0);
    }
    if (error == 0) {
        off_t place = at < 0 ? (off_t)syscall(SYS_lseek, file, 0, SEEK_CUR) : at;
        written = syscall(SYS_pwrite64, file, bytes, length, place);
        error = errno;
        if (written > 0) note('W', file, place, bytes, written);
        if (written > 0 && at < 0) syscall(SYS_lseek, file, place + written, SEEK_SET);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

ssize_t write(int file, const void *bytes, size_t length) {
    return ours(file) ? write_file(file, bytes, length, -1) : syscall(SYS_write, file, bytes, length);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off_t at) {
    return ours(file) ? write_file(file, bytes, length, at) : syscall(SYS_pwrite64, file, bytes, length, at);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) { return pwrite64(file, bytes, length, at); }

/* Of several pieces the first is written: a write may always be short. */
ssize_t writev(int file, const struct iovec *pieces, int count) {
    if (ours(file) && count > 0) return write_file(file, pieces[0].iov_base, pieces[0].iov_len, -1);
    return syscall(SYS_writev, file, pieces, count);
}

ssize_t pwritev64(int file, const struct iovec *pieces, int count, off_t at) {
    if (ours(file) && count > 0) return write_file(file, pieces[0].iov_base, pieces[0].iov_len, at);
    return syscall(SYS_pwritev, file, pieces, count, (long)at, 0L);
}

ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t at) { return pwritev64(file, pieces, count, at); }

int ftruncate64(int file, off_t length) {
    if (!ours(file)) return (int)syscall(SYS_ftruncate, file, length);
    pthread_mutex_lock(&lock);
    int outcome = name_fails('T') ? -1 : (int)syscall(SYS_ftruncate, file, length), error = errno;
    if (outcome == 0) note('T', file, length, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return outcome;
}

int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

/* Others write meanwhile: what is recorded behind the beginning is not covered. */
static int sync_file(int file, long call) {
    if (!ours(file)) return (int)syscall(call, file);
    pthread_mutex_lock(&lock);
    int is_broken = fails(sync_rate);
    note('B', file, 0, NULL, 0);
    if (is_broken) note('X', 'S', EIO, NULL, 0);
    pthread_mutex_unlock(&lock);
    int outcome = is_broken ? -1 : (int)syscall(call, file), error = is_broken ? EIO : errno;
    pthread_mutex_lock(&lock);
    note(outcome == 0 ? 'S' : 'F', file, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return outcome;
}

int fsync(int file) { return sync_file(file, SYS_fsync); }

int fdatasync(int file) { return sync_file(file, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    char room[2][4096];
    const char *before = name_in(from, room[0], sizeof room[0]), *after = name_in(to, room[1], sizeof room[1]);
    if (!before || !after) return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    pthread_mutex_lock(&lock);
    int outcome = name_fails('R') ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), error = errno;
    if (outcome == 0) {
        char names[8192];
        int length = snprintf(names, sizeof names, "%s%c%s", before, 0, after);
        note('R', 0, 0, names, length);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return outcome;
}

int unlink(const char *path) {
    char room[4096];
    const char *name = name_in(path, room, sizeof room);
    if (!name) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    int outcome = name_fails('U') ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0), error = errno;
    if (outcome == 0) note('U', 0, 0, name, (int64_t)strlen(name));
    pthread_mutex_unlock(&lock);
    errno = error;
    return outcome;
}
