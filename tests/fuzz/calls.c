/* SPDX-License-Identifier: MIT
 *
 * The system calls of reading, without the system: files that targets serve are read from memory, so
 * that an input costs microseconds. tests/fuzz/run links this with --wrap for each; a replay does not.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 32, FIRST = 1 << 20 }; /* descriptors above any of the system's */

static struct {
    char path[128];
    const uint8_t *data;
    size_t size;
} files[FILES];
static int n_files;

void fz_serve(const char *path, const void *data, size_t size)
{
    int i = 0;
    while (i < n_files && strcmp(files[i].path, path) != 0)
        i++;
    FZ_CHECK(i < FILES && strlen(path) < sizeof files[i].path);
    if (i == n_files) {
        memcpy(files[i].path, path, strlen(path) + 1);
        n_files++;
    }
    files[i].data = data;
    files[i].size = size;
}

static bool served(int fd) { return fd >= FIRST && fd < FIRST + n_files; }

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    for (int i = 0; i < n_files; i++)
        if (strcmp(files[i].path, path) == 0) return FIRST + i;
    int mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, int);
        va_end(list);
    }
    return __real_open(path, flags, mode);
}

int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st)
{
    if (!served(fd)) return __real_fstat(fd, st);
    *st = (struct stat){.st_mode = S_IFREG | 0600, .st_size = (off_t)files[fd - FIRST].size};
    return 0;
}

ssize_t __real_pread(int fd, void *out, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *out, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *out, size_t bytes, off_t offset)
{
    if (!served(fd)) return __real_pread(fd, out, bytes, offset);
    size_t size = files[fd - FIRST].size, at = (size_t)offset;
    if (at >= size) return 0;
    size_t n = bytes < size - at ? bytes : size - at;
    memcpy(out, files[fd - FIRST].data + at, n);
    return (ssize_t)n;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) { return served(fd) ? 0 : __real_close(fd); }

pid_t __real_getpid(void);
pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void) /* asked at every public call */
{
    static pid_t pid;
    if (!pid) pid = __real_getpid();
    return pid;
}
