/* A file system that fails on request: loaded with LD_PRELOAD, it counts the calls that change files below one folder,
   and kills the process at one of them, or lets it and those after it fail. Armed by fault_arm; see ../faulty.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char under[4096], only[64], until[4096];
static long at, times, bytes_left;
static int error, log_fd = -1;
static volatile long count;

/* under: the folder. only: names of calls, blanks between, or empty for all. at: the number of the call, from 1; 0: none.
   error: an errno; 0 to be killed; -N to be sent signal N, once, and continue. times: how many calls fail, 0 for all from there. bytes: how many may be written
   before the disk is full, -1 for any number. until: once this file is there nothing fails. log: the file for a record of calls. */
void fault_arm(const char *folder, const char *calls, long first, int number, long how_many, long bytes,
               const char *switch_off, const char *log) {
    snprintf(under, sizeof under, "%s", folder);
    snprintf(only, sizeof only, "%s", calls);
    snprintf(until, sizeof until, "%s", switch_off);
    at = first; error = number; times = how_many; bytes_left = bytes; count = 0;
    log_fd = *log ? open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
}

long fault_count(void) { return count; }

static void path_of(int fd, const char *name, char *path) {
    char link[64];
    path[0] = 0;
    if (name && name[0] == '/') { snprintf(path, 4096, "%s", name); return; }
    if (fd == AT_FDCWD) { if (!getcwd(path, 4096)) path[0] = 0; }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, 4095);
        path[n < 0 ? 0 : n] = 0;
    }
    if (name) { size_t n = strlen(path); snprintf(path + n, 4096 - n, "/%s", name); }
}

/* 0: continue; otherwise the errno to fail with. */
static int fails(const char *call, int fd, const char *name) {
    char path[4096];
    if (!under[0] || (only[0] && !strstr(only, call))) return 0;
    int saved = errno;
    path_of(fd, name, path);
    errno = saved;
    if (strncmp(path, under, strlen(under))) return 0;
    long now = __sync_add_and_fetch(&count, 1);
    if (log_fd >= 0) dprintf(log_fd, "%ld %s %s\n", now, call, path + strlen(under));
    if (!at || now < at) return 0;
    if (!error) { kill(getpid(), SIGKILL); for (;;) pause(); }
    if (error < 0) { if (now == at) kill(getpid(), -error); errno = saved; return 0; }
    if (times && now >= at + times) return 0;
    if (until[0] && !access(until, F_OK)) { errno = saved; return 0; }
    return error;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define FAIL(call, fd, name) do { int e = fails(call, fd, name); if (e) { errno = e; return -1; } } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (fd > 2 && fd != log_fd && under[0]) {
        FAIL("write", fd, NULL);
        if (bytes_left >= 0) {
            char path[4096];
            path_of(fd, NULL, path);
            if (!strncmp(path, under, strlen(under)) && (!until[0] || access(until, F_OK))) {
                if (!bytes_left) { errno = ENOSPC; return -1; }
                if ((long)size > bytes_left) size = bytes_left;
                bytes_left -= size;
            }
        }
    }
    return real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int); FAIL("write", fd, NULL); return real(fd, parts, n);
}
int fsync(int fd) { REAL(int, "fsync", int); FAIL("fsync", fd, NULL); return real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); FAIL("fsync", fd, NULL); return real(fd); }
int ftruncate64(int fd, off64_t n) { REAL(int, "ftruncate64", int, off64_t); FAIL("write", fd, NULL); return real(fd, n); }
int rename(const char *a, const char *b) {
    REAL(int, "rename", const char *, const char *); FAIL("rename", AT_FDCWD, a); return real(a, b);
}
int unlink(const char *a) { REAL(int, "unlink", const char *); FAIL("unlink", AT_FDCWD, a); return real(a); }
int unlinkat(int fd, const char *a, int flags) {
    REAL(int, "unlinkat", int, const char *, int); FAIL("unlink", fd, a); return real(fd, a, flags);
}
int rmdir(const char *a) { REAL(int, "rmdir", const char *); FAIL("unlink", AT_FDCWD, a); return real(a); }
int mkdir(const char *a, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t); FAIL("mkdir", AT_FDCWD, a); return real(a, mode);
}
#define OPEN(name, fd, args, ...) \
    mode_t mode = 0; \
    if (flags & O_CREAT) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); \
                           FAIL("open", fd, path); } \
    return real args;
int open(const char *path, int flags, ...) {
    REAL(int, "open", const char *, int, ...); OPEN("open", AT_FDCWD, (path, flags, mode))
}
int open64(const char *path, int flags, ...) {
    REAL(int, "open64", const char *, int, ...); OPEN("open64", AT_FDCWD, (path, flags, mode))
}
int openat(int fd, const char *path, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...); OPEN("openat", fd, (fd, path, flags, mode))
}
int openat64(int fd, const char *path, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...); OPEN("openat64", fd, (fd, path, flags, mode))
}
