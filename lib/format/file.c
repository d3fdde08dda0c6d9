/* SPDX-License-Identifier: MIT
 *
 * Whole files: reading regular ones, and writing so that a path holds the old or the new bytes,
 * whole, whatever fails in between.
 *
 * The temporary file is ".NAME.tmp" in the same folder, held by a lock: one left by a process that
 * died is recognised (nobody holds it) and removed by the next writer, so at most one stays behind.
 */
#include "format/format.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20 };

/* ---- reading ------------------------------------------------------------------------------------ */

atmsae_status ams_open_read(atmsae_context *ctx, const char *path, int *fd, uint64_t *bytes)
{
    /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
    int file;
    do
        file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (file < 0 && errno == EINTR);
    if (file < 0) return ams_fail_errno(ctx, path, "cannot open", errno);
    struct stat st;
    int error = fstat(file, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? EISDIR : S_ISREG(st.st_mode) ? 0 : ESPIPE;
    if (error) {
        close(file);
        return ams_fail_errno(ctx, path, "cannot read: a regular file is needed", error);
    }
    *fd = file;
    *bytes = (uint64_t)st.st_size;
    return ATMSAE_OK;
}

atmsae_status ams_pread(atmsae_context *ctx, const char *path, int fd, void *out, uint64_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t got = pread(fd, out, (size_t)ams_min(bytes, 1u << 30), (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ams_fail_errno(ctx, path, "cannot read", errno);
        if (got == 0)
            return ams_fail(ctx, ATMSAE_E_TRUNCATED, "%s: the file ends at byte %llu, %llu bytes early", path,
                            (unsigned long long)offset, (unsigned long long)bytes);
        out = (char *)out + got;
        bytes -= (uint64_t)got;
        offset += (uint64_t)got;
    }
    return ATMSAE_OK;
}

atmsae_status ams_read_file(atmsae_context *ctx, const char *path, uint64_t limit, char **data, uint64_t *bytes)
{
    int fd;
    uint64_t size;
    AMS_TRY(ams_open_read(ctx, path, &fd, &size));
    atmsae_status status = ATMSAE_OK;
    char *text = NULL;
    if (size > limit)
        status = ams_fail(ctx, ATMSAE_E_LIMIT, "%s: %llu bytes, at most %llu are read", path, (unsigned long long)size,
                          (unsigned long long)limit);
    else if (!(text = ams_alloc(ctx, size + 1, 1)))
        status = ams_nomem(ctx, path);
    else
        status = ams_pread(ctx, path, fd, text, size, 0);
    close(fd);
    if (status < 0) {
        ams_free(ctx, text);
        return status;
    }
    text[size] = '\0';
    *data = text;
    *bytes = size;
    return ATMSAE_OK;
}

/* ---- writing ------------------------------------------------------------------------------------ */

/* Closing is not here: Linux has closed the descriptor also where it says EINTR. */
#define AGAIN(call)                                   \
    ({                                                \
        __typeof__(call) result_;                     \
        do                                            \
            result_ = (call);                         \
        while (result_ < 0 && errno == EINTR);        \
        result_;                                      \
    })

static const ams_io system_io = {openat, flock, fallocate, write, fsync, renameat, unlinkat, close};

static atmsae_status fail_writing(ams_writer *w, const char *what, int error)
{
    return w->status = ams_fail_errno(w->ctx, w->path, what, error);
}

/* The file that `path` names when symbolic links in its last part are followed, also to a file that
 * does not exist yet. */
static atmsae_status resolve(ams_writer *w)
{
    size_t length = strlen(w->path);
    if (length >= PATH_MAX) return fail_writing(w, "cannot write", ENAMETOOLONG);
    char *link = ams_alloc(w->ctx, PATH_MAX, 1);
    w->file = ams_alloc(w->ctx, (uint64_t)2 * PATH_MAX, 1);
    if (!link || !w->file) {
        ams_free(w->ctx, link);
        return w->status = ams_nomem(w->ctx, "a path");
    }
    memcpy(w->file, w->path, length + 1);
    int error = 0;
    for (int hops = 0;; hops++) {
        struct stat st;
        error = 0;
        if (lstat(w->file, &st) < 0) {
            if (errno != ENOENT) error = errno;
            break; /* a new file; a missing folder shows when it is opened */
        }
        if (!S_ISLNK(st.st_mode)) {
            if (S_ISDIR(st.st_mode)) error = EISDIR;
            else if (!S_ISREG(st.st_mode)) error = ENOTSUP; /* a rename would destroy the device or pipe */
            break;
        }
        error = ELOOP;
        ssize_t n = readlink(w->file, link, PATH_MAX - 1);
        if (n < 0) error = errno;
        if (n < 0 || hops == 40) break;
        char *slash = strrchr(w->file, '/');
        size_t keep = link[0] == '/' || !slash ? 0 : (size_t)(slash - w->file) + 1;
        if (keep + (size_t)n >= PATH_MAX) {
            error = ENAMETOOLONG;
            break;
        }
        memcpy(w->file + keep, link, (size_t)n);
        w->file[keep + (size_t)n] = '\0';
    }
    ams_free(w->ctx, link);
    const char *what = error == ENOTSUP ? "cannot replace what is not a regular file" : "cannot write";
    return error ? fail_writing(w, what, error) : ATMSAE_OK;
}

static bool still_named(const ams_writer *w, int fd)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstatat(w->dir, w->temp, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Removes a temporary file whose writer is gone. 0: try again to create one. */
static int sweep(const ams_writer *w)
{
    int old = AGAIN(w->io->openat(w->dir, w->temp, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (old < 0) return errno == ENOENT ? 0 : errno;
    int locked = AGAIN(w->io->flock(old, LOCK_EX | LOCK_NB));
    int error = locked == 0 ? 0 : errno == EWOULDBLOCK ? EBUSY : EEXIST;
    if (!error && still_named(w, old) && AGAIN(w->io->unlinkat(w->dir, w->temp, 0)) < 0 &&
        errno != ENOENT)
        error = errno;
    (void)w->io->close(old);
    return error;
}

static atmsae_status open_temp(ams_writer *w)
{
    for (int tries = 0; tries < 100; tries++) {
        int fd = AGAIN(w->io->openat(w->dir, w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
        if (fd >= 0) {
            /* A sweeper may have come between creation and lock: it owns the file then. File systems
             * without locks are fine, as long as nobody dies there. */
            int locked = AGAIN(w->io->flock(fd, LOCK_EX | LOCK_NB));
            bool ours = locked == 0 || errno != EWOULDBLOCK;
            if (ours && still_named(w, fd)) {
                w->fd = fd;
                return ATMSAE_OK;
            }
            (void)w->io->close(fd);
            continue;
        }
        int error = errno == EEXIST ? sweep(w) : errno;
        if (error == EBUSY) return fail_writing(w, "another writer is at it", error);
        if (error == EEXIST) return fail_writing(w, "cannot tell if its .tmp file is in use; remove it", error);
        if (error) return fail_writing(w, "cannot create a temporary file", error);
    }
    return fail_writing(w, "cannot create a temporary file", EBUSY);
}

static atmsae_status end(ams_writer *w)
{
    if (w->fd >= 0) (void)w->io->close(w->fd);
    if (w->dir >= 0) (void)w->io->close(w->dir);
    ams_free(w->ctx, w->file);
    ams_free(w->ctx, w->temp);
    atmsae_status status = w->status;
    *w = (ams_writer){.dir = -1, .fd = -1, .status = status};
    return status;
}

void ams_writer_abandon(ams_writer *w)
{
    /* Unlink before close: the lock is still ours. */
    if (w->fd >= 0) (void)AGAIN(w->io->unlinkat(w->dir, w->temp, 0));
    (void)end(w);
}

atmsae_status ams_writer_begin(ams_writer *w, atmsae_context *ctx, const char *path, uint64_t bytes, bool with_crc)
{
    *w = (ams_writer){.ctx = ctx, .io = ams_context_io(ctx), .path = path, .dir = -1, .fd = -1, .with_crc = with_crc};
    if (!w->io) w->io = &system_io;
    if (resolve(w) < 0) return end(w);

    char *slash = strrchr(w->file, '/');
    w->base = slash ? slash + 1 : w->file;
    size_t temp_size = strlen(w->base) + sizeof "..tmp";
    w->temp = ams_alloc(ctx, temp_size, 1);
    if (!w->temp) {
        w->status = ams_nomem(ctx, "a path");
        return end(w);
    }
    ams_format(w->temp, temp_size, ".%s.tmp", w->base);
    if (!*w->base) {
        fail_writing(w, "cannot write: the name is empty or ends in '/'", EISDIR);
        return end(w);
    }
    if (slash && slash != w->file) *slash = '\0';
    const char *folder = !slash ? "." : slash == w->file ? "/" : w->file;
    w->dir = AGAIN(w->io->openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (w->dir < 0) {
        fail_writing(w, "cannot open its folder", errno);
        return end(w);
    }
    if (open_temp(w) < 0) return end(w);
    if (bytes > 0 && bytes <= INT64_MAX && AGAIN(w->io->fallocate(w->fd, 0, 0, (off_t)bytes)) < 0 &&
        (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
        fail_writing(w, "cannot write", errno);
        ams_writer_abandon(w);
        return w->status;
    }
    return ATMSAE_OK;
}

void ams_writer_append(ams_writer *w, const void *data, uint64_t bytes)
{
    const char *p = data;
    while (bytes > 0 && w->status == ATMSAE_OK) {
        uint64_t block = ams_min(bytes, BLOCK); /* checksum and write see the same cached bytes */
        if (w->with_crc) w->crc = ams_crc64(w->crc, p, (size_t)block);
        bytes -= block;
        while (block > 0) {
            ssize_t put = AGAIN(w->io->write(w->fd, p, (size_t)block));
            if (put <= 0) {
                fail_writing(w, "cannot write", put < 0 ? errno : EIO);
                return;
            }
            p += put;
            block -= (uint64_t)put;
        }
    }
}

atmsae_status ams_writer_sync(ams_writer *w)
{
    /* Never tried again but for a signal: after a failed fsync the kernel may have dropped the pages,
     * and a second one would report success. */
    if (w->status == ATMSAE_OK && !w->synced && AGAIN(w->io->fsync(w->fd)) < 0) fail_writing(w, "cannot sync", errno);
    w->synced = true;
    return w->status;
}

atmsae_status ams_writer_commit(ams_writer *w)
{
    if (ams_writer_sync(w) == ATMSAE_OK && AGAIN(w->io->renameat(w->dir, w->temp, w->dir, w->base)) < 0)
        fail_writing(w, "cannot put the new file in place", errno);
    if (w->status < 0) {
        ams_writer_abandon(w);
        return w->status;
    }
    if (AGAIN(w->io->fsync(w->dir)) < 0 && errno != EINVAL) /* EINVAL: folders cannot be synced there */
        fail_writing(w, "the new file is in place, but may not outlast a power cut: cannot sync its folder", errno);
    return end(w);
}

atmsae_status ams_write_file(atmsae_context *ctx, const char *path, const void *data, uint64_t bytes)
{
    ams_writer writer;
    AMS_TRY(ams_writer_begin(&writer, ctx, path, bytes, false));
    ams_writer_append(&writer, data, bytes);
    return ams_writer_commit(&writer);
}
