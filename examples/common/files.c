/* SPDX-License-Identifier: MIT
 *
 * See files.h.
 */
#include "files.h"
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LINKS = 40, MOST_TRIES = 100, BLOCK = 1 << 20 };

/* The error is errno; what, if not NULL, says more. */
static bool failed(const char *path, const char *what)
{
    const int error = errno;
    program_error("%s: %s%s%s", path, what ? what : "", what ? ": " : "", strerror(error));
    return false;
}

static bool refused(const char *path, const char *why)
{
    program_error("%s: %s", path, why);
    return false;
}

/* ---- where a path leads ------------------------------------------------------------------------------- */

/* Ends the path at its last slash: "a/b" becomes "a" and "b", "/b" becomes "/" and "b", "b" becomes "." and "b". */
static const char *cut(char *path, char **base)
{
    char *slash = strrchr(path, '/');
    *base = slash ? slash + 1 : path;
    if (slash && slash != path) *slash = 0;
    return !slash ? "." : slash == path ? "/" : path;
}

static char *copy(const char *text)
{
    const size_t bytes = strlen(text) + 1;
    return memcpy(program_alloc(bytes, 1), text, bytes);
}

/* The rule of Linux for folders in which everybody may write, like /tmp (fs.protected_symlinks): a link that somebody
 * else put there is not followed, lest the file that it names be written on his word. */
static bool may_follow(const char *path)
{
    struct stat link, folder;
    char *parent = copy(path), *base;
    const bool known = lstat(path, &link) == 0 && stat(cut(parent, &base), &folder) == 0;
    free(parent);
    const mode_t shared = S_ISVTX | S_IWOTH;
    return known && ((folder.st_mode & shared) != shared || link.st_uid == geteuid() || link.st_uid == folder.st_uid);
}

/* Goes along the symbolic links at the end of a path, also to a file that is not there yet. NULL with errno set. */
static char *follow(const char *path)
{
    char *at = copy(path), *link = program_alloc(PATH_MAX, 1), *base;
    int error = 0;
    for (int hops = 0; !error; hops++) {
        const ssize_t n = readlink(at, link, PATH_MAX - 1);
        if (n < 0) {
            if (errno != EINVAL && errno != ENOENT) error = errno; /* not: no link; nothing there */
            break;
        }
        link[n] = 0;
        error = hops == MOST_LINKS ? ELOOP : may_follow(at) ? 0 : EACCES;
        if (error) break;
        char *parent = at;
        at = link[0] == '/' ? copy(link) : program_path(cut(parent, &base), link);
        free(parent);
    }
    free(link);
    if (!error) return at;
    free(at);
    errno = error;
    return NULL;
}

/* Where the path leads, or would lead, from the root on and without links: the file need not be there, but its folder.
 * NULL: nowhere that is known. */
static char *lead(const char *path)
{
    char *real = realpath(path, NULL), *to = real || errno != ENOENT ? NULL : follow(path), *base;
    if (!to) return real;
    char *folder = realpath(cut(to, &base), NULL);
    if (folder) real = program_path(folder, base);
    free(folder);
    free(to);
    return real;
}

bool file_same(const char *a, const char *b)
{
    struct stat x, y;
    if (stat(a, &x) == 0 || stat(b, &y) == 0) /* no new file is one that is there */
        return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    char *to_a = lead(a), *to_b = lead(b);
    const bool same = to_a && to_b && strcmp(to_a, to_b) == 0;
    free(to_a);
    free(to_b);
    return same;
}

bool file_within(const char *folder, const char *path)
{
    char *root = realpath(folder, NULL), *real = lead(path);
    const size_t length = root ? strlen(root) : 0;
    const bool within = root && real && strncmp(real, root, length) == 0 && (real[length] == '/' || real[length] == 0);
    free(root);
    free(real);
    return within;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* program_alloc ends the program where there is no memory. */
static file_writer *staged_writers;

static void unlink_staged(void)
{
    for (const file_writer *w = staged_writers; w; w = w->next) (void)unlinkat(w->folder, w->temp, 0);
}

static void enlist(file_writer *self)
{
    static bool registered;
    if (!registered) registered = atexit(unlink_staged) == 0;
    self->next = staged_writers;
    staged_writers = self;
}

static void release(file_writer *self)
{
    for (file_writer **at = &staged_writers; *at; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            break;
        }
    if (self->folder >= 0) close(self->folder);
    free(self->target);
    free(self->temp);
    self->target = self->temp = NULL;
    self->file = NULL;
    self->folder = -1;
}

static bool is_standard_output(const char *path)
{
    return strcmp(path, "-") == 0 || strcmp(path, "/dev/stdout") == 0;
}

/* What is written to as it is: pipes and devices like the terminal. */
static bool is_stream(const char *path)
{
    struct stat info;
    return is_standard_output(path) || (stat(path, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)));
}

/* Finds the folder and the file in it, if it is there, and whether it may be replaced. */
static bool find_target(file_writer *self)
{
    struct stat info;
    self->target = follow(self->path);
    if (!self->target) return failed(self->path, NULL);
    const char *folder = cut(self->target, &self->base);
    if (!*self->base) return refused(self->path, *self->path ? "is a folder, not the name of a file" : "an empty name of a file");
    self->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (self->folder < 0) return failed(self->path, "cannot open its folder");
    if (fstatat(self->folder, self->base, &info, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT || failed(self->path, NULL);
    if (S_ISDIR(info.st_mode)) return refused(self->path, "is a folder, not a file");
    if (!S_ISREG(info.st_mode)) return refused(self->path, "is there already and no regular file");
    if (!self->replace) return refused(self->path, "is there already; --force replaces it");
    self->mode = S_IFREG | (info.st_mode & 0777);
    return true;
}

static bool still_named(const file_writer *self, int fd)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstatat(self->folder, self->temp, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Removes the temporary file of a process that is gone: nobody holds its lock. 0: try again to make one. */
static int sweep(const file_writer *self)
{
    const int old = openat(self->folder, self->temp, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (old < 0) return errno == ENOENT ? 0 : errno;
    int error = flock(old, LOCK_EX | LOCK_NB) == 0 ? 0 : errno == EWOULDBLOCK ? EBUSY : errno;
    if (!error && still_named(self, old) && unlinkat(self->folder, self->temp, 0) != 0 && errno != ENOENT) error = errno;
    close(old);
    return error;
}

/* A new file under the temporary name, locked: a sweeper that comes between the two owns it. File systems without
 * locks go without. */
static int open_temporary(const file_writer *self)
{
    for (int tries = 0; tries < MOST_TRIES; tries++) {
        const int fd = openat(self->folder, self->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, self->mode ? 0600 : 0666);
        if (fd >= 0) {
            if ((flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) && still_named(self, fd)) return fd;
            close(fd);
            continue;
        }
        errno = errno == EEXIST ? sweep(self) : errno;
        if (errno) return -1;
    }
    errno = EBUSY;
    return -1;
}

static bool begin_stream(file_writer *self)
{
    if (is_standard_output(self->path)) self->file = stdout;
    if (self->file) return true;
    /* Without O_NONBLOCK, opening a pipe would wait for its reader. */
    const int fd = open(self->path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return errno == ENXIO ? refused(self->path, "a pipe that nobody reads") : failed(self->path, NULL);
    if (fcntl(fd, F_SETFL, 0) == 0) self->file = fdopen(fd, "wb");
    if (self->file) return true;
    failed(self->path, NULL);
    close(fd);
    return false;
}

static bool begin_file(file_writer *self)
{
    /* The name, as far as it fits between the dot and .tmp. */
    const size_t size = NAME_MAX + 1;
    if (!find_target(self)) return false;
    self->temp = program_alloc(size, 1);
    snprintf(self->temp, size, ".%.*s.tmp", NAME_MAX - 5, self->base);
    const int fd = open_temporary(self);
    if (fd < 0) return failed(self->path, errno == EBUSY ? "another program is writing it" : "cannot make a temporary file beside it");
    self->file = fdopen(fd, "wb");
    if (self->file) return enlist(self), true;
    failed(self->path, NULL);
    (void)unlinkat(self->folder, self->temp, 0);
    close(fd);
    return false;
}

bool file_begin(file_writer *self, const char *path, bool replace)
{
    *self = (file_writer){.path = path, .folder = -1, .replace = replace};
    if (is_stream(path) ? begin_stream(self) : begin_file(self)) return true;
    release(self);
    return false;
}

bool file_may_write(const char *path, bool replace)
{
    file_writer probe = {.path = path, .folder = -1, .replace = replace};
    if (is_stream(path)) return true;
    const bool good = find_target(&probe) && (faccessat(probe.folder, ".", W_OK | X_OK, AT_EACCESS) == 0 || failed(path, "its folder"));
    release(&probe);
    return good;
}

/* By a rename; a link refuses a file that came meanwhile. Where there are no links (FAT, some network file systems) a
 * rename has to do. */
static bool put_in_place(const file_writer *self)
{
    if (!self->replace) {
        if (linkat(self->folder, self->temp, self->folder, self->base, 0) == 0) return unlinkat(self->folder, self->temp, 0) == 0;
        if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS) return false;
    }
    return renameat(self->folder, self->temp, self->folder, self->base) == 0;
}

static bool flushed(FILE *file)
{
    /* Of an error that came earlier errno is gone: one byte more fails for the same reason. */
    const bool earlier = ferror(file) != 0;
    if (earlier) (void)fputc(0, file);
    if (fflush(file) != 0) return false;
    if (earlier) errno = EIO;
    return !earlier;
}

bool file_end(file_writer *self, bool good)
{
    const bool staged = self->target != NULL;
    if (self->file == stdout) {
        release(self); /* main flushes it and reports */
        return good;
    }
    if (good) {
        good = flushed(self->file) && (!staged || ((!self->mode || fchmod(fileno(self->file), self->mode & 0777) == 0) &&
                                                   fsync(fileno(self->file)) == 0 && put_in_place(self)));
        if (!good) failed(self->path, NULL);
        if (!good && staged) (void)unlinkat(self->folder, self->temp, 0);
        if (good && staged && fsync(self->folder) != 0 && errno != EINVAL) /* EINVAL: it cannot be synced there */
            good = failed(self->path, "is in place, but may not outlast a power cut");
    } else if (staged) {
        (void)unlinkat(self->folder, self->temp, 0);
    }
    (void)fclose(self->file); /* after the removal: the lock is still ours */
    release(self);
    return good;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static char *read_all(int fd, const char *path, size_t bytes)
{
    char *text = program_alloc(bytes + 1, 1);
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = read(fd, text + done, bytes - done < BLOCK ? bytes - done : BLOCK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) failed(path, "cannot read");
        else if (n == 0) refused(path, "ended early: it changes while it is read");
        else if (memchr(text + done, 0, (size_t)n)) refused(path, "has bytes of value 0, and so is no text");
        else {
            done += (size_t)n;
            continue;
        }
        free(text);
        return NULL;
    }
    return text;
}

char *file_read(const char *path, size_t most, size_t *size)
{
    struct stat info;
    char *text = NULL;
    /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &info) != 0) failed(path, "cannot open");
    else if (!S_ISREG(info.st_mode)) refused(path, S_ISDIR(info.st_mode) ? "is a folder, not a text file" : "cannot read: no regular file");
    else if ((uintmax_t)info.st_size > most) program_error("%s: %llu bytes, at most %zu are read", path, (unsigned long long)info.st_size, most);
    else text = read_all(fd, path, *size = (size_t)info.st_size);
    if (fd >= 0) close(fd);
    return text;
}
