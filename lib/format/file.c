/* SPDX-License-Identifier: MIT
 *
 * Whole files: reading regular ones, and writing so that a path holds the old or the new bytes,
 * whole, whatever fails in between.
 *
 * The temporary file is ".NAME.tmp" in the same folder, held by a lock: one left by a process that
 * died is recognised (nobody holds it) and removed by the next writer, so at most one stays behind.
 * It is never more readable than the file that it will replace, whose access rights it gets.
 */
#include "format/format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, MOST_SIGNALS = 100 };

/* A call that a signal ended is made again, but not for ever: where signals come faster than the call can
 * end it would never do so. (Closing is not here: Linux has closed the descriptor also where it says EINTR.) */
#define AGAIN(call)                                                            \
    ({                                                                         \
        __typeof__(call) result_;                                              \
        int signals_ = 0;                                                      \
        do                                                                     \
            result_ = (call);                                                  \
        while (result_ < 0 && errno == EINTR && ++signals_ < MOST_SIGNALS);    \
        result_;                                                               \
    })

/* ---- reading ------------------------------------------------------------------------------------ */

atmsae_status ams_open_read(atmsae_context *ctx, const char *path, int *fd, uint64_t *bytes)
{
    /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
    int file = AGAIN(open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
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
        ssize_t got = AGAIN(pread(fd, out, (size_t)ams_min(bytes, 1u << 30), (off_t)offset));
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

atmsae_status ams_file_crc(atmsae_context *ctx, const char *path, int fd, uint64_t bytes, uint64_t *crc)
{
    char *block = ams_alloc(ctx, ams_min(BLOCK, bytes), 1);
    if (!block) return ams_nomem(ctx, path);
    atmsae_status status = ATMSAE_OK;
    *crc = 0;
    for (uint64_t at = 0; at < bytes && status == ATMSAE_OK; at += BLOCK) {
        uint64_t n = ams_min(BLOCK, bytes - at);
        status = ams_pread(ctx, path, fd, block, n, at);
        if (status == ATMSAE_OK) *crc = ams_crc64(*crc, block, (size_t)n);
    }
    ams_free(ctx, block);
    return status;
}

/* ---- writing: the temporary file ---------------------------------------------------------------- */

static const ams_io system_io = {openat, flock, fallocate, write, fsync, renameat, unlinkat, close};

static atmsae_status fail_writing(ams_writer *w, const char *what, int error)
{
    return w->status = ams_fail_errno(w->ctx, w->path, what, error);
}

static bool is_named(const ams_writer *w, int fd, const char *name)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstatat(w->dir, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Opens and locks a file that an earlier writer may have left: 0, and -1 for one that is not there. EBUSY: it is in
 * use; EEXIST: it is no file of a writer, or nobody can tell. */
static int lock_left(const ams_writer *w, const char *name, int *fd)
{
    const int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    struct stat st;
    *fd = AGAIN(w->io->openat(w->dir, name, O_WRONLY | flags)); /* which locks need on some network file systems */
    if (*fd < 0 && errno == EACCES) *fd = AGAIN(w->io->openat(w->dir, name, O_RDONLY | flags));
    if (*fd < 0) return errno == ENOENT ? 0 : errno == ELOOP || errno == ENXIO || errno == EISDIR ? EEXIST : errno;
    int locked = AGAIN(w->io->flock(*fd, LOCK_EX | LOCK_NB)), error = errno;
    if (locked == 0 && fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) return 0;
    (void)w->io->close(*fd);
    *fd = -1;
    return locked < 0 && error == EWOULDBLOCK ? EBUSY : EEXIST;
}

/* Removes a temporary file whose writer is gone. 0: try again to create one. */
static int sweep(const ams_writer *w)
{
    int old, error = lock_left(w, w->temp, &old);
    if (old < 0) return error;
    if (is_named(w, old, w->temp) && AGAIN(w->io->unlinkat(w->dir, w->temp, 0)) < 0 && errno != ENOENT) error = errno;
    (void)w->io->close(old);
    return error;
}

/* EBUSY, EEXIST: what has the name `name`, which only writers use. */
static atmsae_status fail_opening(ams_writer *w, const char *name, int error)
{
    if (error == EBUSY) return fail_writing(w, "another writer is at it", error);
    if (error != EEXIST) return fail_writing(w, "cannot create a temporary file", error);
    return w->status = ams_fail(w->ctx, ATMSAE_E_IO, "%s: cannot tell if %s, beside it, is a file of another writer, or of somebody else; "
                                "remove it if not", w->path, name);
}

static atmsae_status open_temp(ams_writer *w, mode_t mode)
{
    for (int tries = 0; tries < 100; tries++) {
        int fd = AGAIN(w->io->openat(w->dir, w->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
        if (fd >= 0) {
            /* A sweeper may have come between creation and lock: it owns the file then. File systems
             * without locks are fine, as long as nobody dies there. */
            int locked = AGAIN(w->io->flock(fd, LOCK_EX | LOCK_NB));
            bool ours = locked == 0 || errno != EWOULDBLOCK;
            if (ours && is_named(w, fd, w->temp)) {
                w->fd = fd;
                return ATMSAE_OK;
            }
            (void)w->io->close(fd);
            continue;
        }
        int error = errno == EEXIST ? sweep(w) : errno;
        if (error) return fail_opening(w, w->temp, error);
    }
    return fail_opening(w, w->temp, EBUSY);
}

/* Gives the temporary file, which only its owner may read so far, the access rights of the file that it is
 * to replace: group, owner, access control list and mode, as far as the caller may. Where group or list
 * cannot be kept, the mode's bits for the group would mean others than they did: it gets those of all. */
static void keep_access(const ams_writer *w, const struct stat *old)
{
    static const char acl[] = "system.posix_acl_access";
    mode_t mode = old->st_mode & 0777;
    struct stat now = {0};
    char list[4096];
    bool kept = fstat(w->fd, &now) == 0 && (now.st_gid == old->st_gid || fchown(w->fd, (uid_t)-1, old->st_gid) == 0);
    if (now.st_uid != old->st_uid) (void)!fchown(w->fd, old->st_uid, (gid_t)-1); /* else it is the caller's now */
    ssize_t n = getxattr(w->file, acl, list, sizeof list);
    if (n > 0 || (n < 0 && errno == ERANGE)) kept = n > 0 && fsetxattr(w->fd, acl, list, (size_t)n, 0) == 0 && kept;
    else (void)fremovexattr(w->fd, acl); /* one that the folder gives new files */
    if (!kept) mode = (mode & 0707) | (mode & 07) << 3;
    (void)fchmod(w->fd, mode);
}

/* ---- writing: from the first byte to its place --------------------------------------------------- */

void ams_writer_end(ams_writer *w)
{
    /* Unlink before close: the lock is still ours. */
    if (w->fd >= 0 && !w->placed && !w->kept) (void)AGAIN(w->io->unlinkat(w->dir, w->temp, 0));
    if (w->fd >= 0) (void)w->io->close(w->fd);
    if (w->left >= 0) (void)w->io->close(w->left);
    if (w->dir >= 0) (void)w->io->close(w->dir);
    ams_free(w->ctx, w->file);
    ams_free(w->ctx, w->names);
    *w = (ams_writer){.dir = -1, .fd = -1, .left = -1, .status = w->status, .placed = w->placed};
}

static atmsae_status open_folder(ams_writer *w)
{
    char *slash = strrchr(w->file, '/');
    w->base = slash ? slash + 1 : w->file;
    if (!*w->base) return fail_writing(w, "cannot write: the name is empty or ends in '/'", EISDIR);
    if (slash) *slash = '\0';
    const char *folder = !slash ? "." : slash == w->file ? "/" : w->file;
    w->dir = AGAIN(w->io->openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int error = errno;
    if (slash) *slash = '/';
    return w->dir < 0 ? fail_writing(w, "cannot open its folder", error) : ATMSAE_OK;
}

/* ".NAME.tmp"; where that is longer than names may be, one of NAME's checksum. Then the staged name. */
static atmsae_status make_names(ams_writer *w)
{
    size_t size = strlen(w->base) + 32;
    w->names = ams_alloc(w->ctx, 2, size);
    if (!w->names) return w->status = ams_nomem(w->ctx, "a path");
    w->temp = w->names;
    w->staged = w->names + size;
    long most = fpathconf(w->dir, _PC_NAME_MAX);
    if (ams_format(w->names, size, ".%s.tmp", w->base) > most && most > 0)
        ams_format(w->names, size, ".%016llx.tmp", (unsigned long long)ams_crc64(0, w->base, strlen(w->base)));
    ams_staged_name(w->names + size, size, w->base);
    return ATMSAE_OK;
}

static atmsae_status begin(ams_writer *w)
{
    struct stat old;
    w->status = ams_path_resolve(w->ctx, w->path, true, &w->file, &old);
    AMS_TRY(w->status);
    bool there = old.st_mode != 0;
    if (S_ISDIR(old.st_mode)) return fail_writing(w, "cannot write", EISDIR);
    if (there && !S_ISREG(old.st_mode)) /* a rename would destroy the device or pipe */
        return fail_writing(w, "cannot replace what is not a regular file", ENOTSUP);
    AMS_TRY(open_folder(w));
    AMS_TRY(make_names(w));
    AMS_TRY(open_temp(w, there ? 0600 : 0666));
    if (there) keep_access(w, &old);
    return ATMSAE_OK;
}

atmsae_status ams_writer_begin(ams_writer *w, atmsae_context *ctx, const char *path, bool with_crc)
{
    *w = (ams_writer){.ctx = ctx, .io = ams_context_io(ctx), .path = path, .dir = -1, .fd = -1, .left = -1,
                      .with_crc = with_crc};
    if (!w->io) w->io = &system_io;
    atmsae_status status = begin(w);
    if (status < 0) ams_writer_end(w);
    return status;
}

void ams_writer_reserve(ams_writer *w, uint64_t bytes)
{
    /* Not again after a signal, which undoes all of the work on some file systems. */
    if (w->status == ATMSAE_OK && bytes > 0 && bytes <= INT64_MAX && w->io->fallocate(w->fd, 0, 0, (off_t)bytes) < 0 &&
        (errno == ENOSPC || errno == EFBIG || errno == EDQUOT))
        fail_writing(w, "cannot write", errno);
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

atmsae_status ams_writer_sync_folder(ams_writer *w)
{
    if (w->status == ATMSAE_OK && AGAIN(w->io->fsync(w->dir)) < 0 && errno != EINVAL) /* EINVAL: folders cannot be synced there */
        fail_writing(w, w->placed ? "the new file is in place, but may not outlast a power cut: cannot sync its folder" : "cannot sync its folder",
                     errno);
    return w->status;
}

/* From `from` to `to`. What a file system on a network answers to a request that it had to repeat may be an error
 * though the file, `fd`, has its new name. */
static atmsae_status move(ams_writer *w, int fd, const char *from, const char *to)
{
    if (w->status < 0 || AGAIN(w->io->renameat(w->dir, from, w->dir, to)) == 0) return w->status;
    int error = errno;
    return is_named(w, fd, to) ? ATMSAE_OK : fail_writing(w, "cannot put the new file in place", error);
}

atmsae_status ams_writer_stage(ams_writer *w)
{
    ams_writer_sync(w);
    ams_writer_sync_folder(w); /* first: the staged name may be in use by a rename that is not on the disk yet */
    AMS_TRY(move(w, w->fd, w->temp, w->staged));
    w->temp = w->staged;
    return ams_writer_sync_folder(w);
}

atmsae_status ams_writer_place(ams_writer *w)
{
    ams_writer_sync(w);
    AMS_TRY(move(w, w->fd, w->temp, w->base));
    w->placed = true;
    return ams_writer_sync_folder(w);
}

atmsae_status ams_writer_commit(ams_writer *w)
{
    ams_writer_place(w);
    ams_writer_end(w);
    return w->status;
}

atmsae_status ams_writer_claim_staged(ams_writer *w, bool *there)
{
    int error = w->status < 0 ? 0 : lock_left(w, w->staged, &w->left);
    *there = w->left >= 0;
    return error ? fail_opening(w, w->staged, error) : w->status;
}

atmsae_status ams_writer_place_staged(ams_writer *w)
{
    AMS_TRY(move(w, w->left, w->staged, w->base));
    return ams_writer_sync_folder(w);
}

atmsae_status ams_write_file(atmsae_context *ctx, const char *path, const void *data, uint64_t bytes)
{
    ams_writer writer;
    AMS_TRY(ams_writer_begin(&writer, ctx, path, false));
    ams_writer_reserve(&writer, bytes);
    ams_writer_append(&writer, data, bytes);
    return ams_writer_commit(&writer);
}
