/* SPDX-License-Identifier: MIT
 *
 * Paths: the file that one means, where symbolic links in its last part are followed, and names beside it.
 */
#include "format/format.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

char *ams_path_join(atmsae_context *ctx, const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = ams_alloc(ctx, size, 1);
    if (path) ams_format(path, size, "%s/%s", dir, name);
    else (void)ams_nomem(ctx, dir);
    return path;
}

bool ams_ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

bool ams_path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

void ams_staged_name(char *out, size_t size, const char *name)
{
    const char *dot = strrchr(name, '.');
    int stem = dot && dot != name ? (int)(dot - name) : (int)strlen(name);
    ams_format(out, size, "%.*s" AMS_STAGED "%s", stem, name, name + stem);
}

/* In a folder where anyone may make files, does this one belong to the caller or to the folder's owner?
 * (In all other folders: true.) Linux looks at the same where fs.protected_symlinks and protected_regular
 * are set, which following links by hand would go around: somebody else's link would lead a save to a file
 * that only the caller may write to. */
static bool is_trusted(char *file, const struct stat *st)
{
    struct stat folder;
    char *slash = strrchr(file, '/'), first = '\0';
    if (slash) {
        first = slash[1];
        slash[1] = '\0';
    }
    int found = stat(slash ? file : ".", &folder);
    if (slash) slash[1] = first;
    if (found < 0 || !(folder.st_mode & S_ISVTX) || !(folder.st_mode & S_IWOTH)) return true;
    return st->st_uid == geteuid() || st->st_uid == folder.st_uid;
}

static atmsae_status refuse(atmsae_context *ctx, const char *path, const char *file, const struct stat *st)
{
    return ams_fail(ctx, ATMSAE_E_IO, "%s: Permission denied: %s is a %s of user %lu in a folder that anyone may write to; remove it, or "
                    "name a place that is yours", path, file, S_ISLNK(st->st_mode) ? "symbolic link" : "file", (unsigned long)st->st_uid);
}

/* One step along a link; 0 or an errno. `link`: room of PATH_MAX. */
static int follow(char *file, char *link)
{
    ssize_t n = readlink(file, link, PATH_MAX - 1);
    if (n < 0) return errno;
    char *slash = strrchr(file, '/');
    size_t keep = link[0] == '/' || !slash ? 0 : (size_t)(slash - file) + 1;
    if (keep + (size_t)n >= PATH_MAX) return ENAMETOOLONG;
    memcpy(file + keep, link, (size_t)n);
    file[keep + (size_t)n] = '\0';
    return 0;
}

static atmsae_status resolve(atmsae_context *ctx, const char *path, bool writing, char *file, char *link, struct stat *st)
{
    for (int hops = 0;; hops++) {
        int error = lstat(file, st) < 0 ? errno : 0;
        if (error == ENOENT) { /* a new file; a missing folder shows when it is opened */
            *st = (struct stat){0};
            return ATMSAE_OK;
        }
        if (error) return ams_fail_errno(ctx, path, "cannot open", error);
        bool link_here = S_ISLNK(st->st_mode);
        if ((link_here || writing) && !is_trusted(file, st)) return refuse(ctx, path, file, st);
        if (!link_here) return ATMSAE_OK;
        error = hops == 40 ? ELOOP : follow(file, link);
        if (error) return ams_fail_errno(ctx, path, "cannot open", error);
    }
}

atmsae_status ams_path_resolve(atmsae_context *ctx, const char *path, bool writing, char **out, struct stat *st)
{
    size_t length = strlen(path);
    *out = NULL;
    if (length >= PATH_MAX) return ams_fail_errno(ctx, path, "cannot open", ENAMETOOLONG);
    char *link = ams_alloc(ctx, PATH_MAX, 1), *file = ams_alloc(ctx, (uint64_t)2 * PATH_MAX, 1);
    atmsae_status status = link && file ? ATMSAE_OK : ams_nomem(ctx, "a path");
    if (status == ATMSAE_OK) {
        memcpy(file, path, length + 1);
        status = resolve(ctx, path, writing, file, link, st);
    }
    ams_free(ctx, link);
    if (status < 0) {
        ams_free(ctx, file);
        return status;
    }
    *out = file;
    return ATMSAE_OK;
}
