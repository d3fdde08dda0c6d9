/* SPDX-License-Identifier: MIT
 *
 * See run_folder.h.
 */
#include "run_folder.h"
#include "command.h"
#include "files.h"
#include "importance.h"
#include "program.h"
#include "run_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT ".next"

static bool failed(const char *path, const char *what)
{
    const int error = errno;
    program_error("%s: %s%s", path, what, strerror(error));
    return false;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Where a path leads, or the path itself where that is nowhere, and an ending: checkpoints that are symbolic links stay
 * links, and are replaced where they lead. */
static char *beside(const char *path, const char *ending)
{
    char *real = realpath(path, NULL);
    const char *name = real ? real : path;
    const size_t size = strlen(name) + strlen(ending) + 1;
    char *whole = program_alloc(size, 1);
    snprintf(whole, size, "%s%s", name, ending);
    free(real);
    return whole;
}

static bool remove_file(const char *path)
{
    char *real = beside(path, "");
    const bool gone = unlink(real) == 0 || errno == ENOENT || failed(path, "cannot remove it: ");
    free(real);
    return gone;
}

/* ---- a new run in the place of an older one -------------------------------------------------------------- */

/* Both steps may have been done: then there is nothing to rename. */
static bool move(const char *from, const char *to)
{
    char *real = beside(to, "");
    const bool moved = rename(from, real) == 0 || (errno == ENOENT && exists(real)) || failed(from, "cannot rename it: ");
    free(real);
    return moved;
}

static int lock = -1; /* of the folder; a process works in one */

static bool take_over(const run_folder *self, const char *settings, const char *checkpoint)
{
    char *importances = program_path(self->path, IMPORTANCE_FILE);
    const bool good = remove_file(self->previous) && remove_file(importances) && move(settings, self->settings) &&
                      move(checkpoint, self->checkpoint);
    (void)fsync(lock);
    free(importances);
    return good;
}

/* What a writer that was killed has left under the name that it gives to what it writes. */
static void sweep(const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t folder = slash ? (size_t)(slash - path) + 1 : 0, size = strlen(path) + 6;
    char *temporary = program_alloc(size, 1);
    snprintf(temporary, size, "%.*s.%s.tmp", (int)folder, path, path + folder);
    (void)unlink(temporary);
    free(temporary);
}

/* The checkpoint of a new run decides: without it, the older run stands, and what was prepared goes. */
static bool settle(const run_folder *self)
{
    char *settings = beside(self->settings, NEXT), *checkpoint = beside(self->checkpoint, NEXT);
    const bool good = exists(checkpoint) ? take_over(self, settings, checkpoint) : !exists(settings) || remove_file(settings);
    sweep(settings);
    sweep(checkpoint);
    free(settings);
    free(checkpoint);
    return good;
}

static bool write_settings(const fields *settings, const char *path)
{
    file_writer out;
    if (!file_begin(&out, path, true)) return false;
    fields_print_json(settings, out.file);
    return file_end(&out, true);
}

bool run_folder_begin(run_folder *self, atmsae_context *context, const fields *settings, const atmsae_trainer *trainer, const atmsae_source *source)
{
    /* The names of the second stage are this process's alone: the folder is locked. */
    char *next_settings = beside(self->settings, NEXT), *next = beside(self->checkpoint, NEXT);
    const bool first = !run_folder_holds(self);
    const char *const to_settings = first ? self->settings : next_settings, *const to_checkpoint = first ? self->checkpoint : next;
    bool good = write_settings(settings, to_settings);
    if (good && atmsae_trainer_save(trainer, source, to_checkpoint) < 0) {
        command_failed(context);
        good = false;
        /* What cannot be synced may be in place all the same, and must not count without its settings. */
        if (!exists(to_checkpoint) || remove_file(to_checkpoint)) (void)unlink(to_settings);
    }
    good = good && (first || take_over(self, next_settings, next));
    free(next_settings);
    free(next);
    return good;
}

bool run_folder_settings(const run_folder *self, const fields *settings)
{
    return write_settings(settings, self->settings);
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

/* One run a folder. The kernel lets go of the lock when its process ends, however it does. File systems without locks
 * go without. */
static bool lock_folder(const char *path)
{
    if (lock >= 0) return true;
    const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return failed(path, "");
    if (flock(folder, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) {
        lock = folder;
        return true;
    }
    close(folder);
    program_error("%s: another atmsae train is at work in this folder", path);
    return false;
}

/* A folder in the place of a file would show only when the SAE is saved. Links that are there before a run are the
 * user's; in a folder that a run goes on in they may be those of whoever made it, and lead to anything. The names of
 * what is prepared are never links. */
static bool may_be_written(const run_folder *self, const char *path, bool goes_on)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return errno = EISDIR, failed(path, "");
    if (!goes_on || file_within(self->path, path)) return true;
    program_error("%s: is a symbolic link that leads out of the folder, and a run that goes on writes only within: put the file "
                  "itself there, or remove the link", path);
    return false;
}

static bool all_may_be_written(const run_folder *self, bool goes_on)
{
    static const char *const names[] = {SAE_WEIGHTS_FILE, SAE_STAGED_FILE, SAE_CONFIG_FILE, CHECKPOINT_FILE, PREVIOUS_FILE, RUN_FILE, IMPORTANCE_FILE};
    static const char *const prepared[] = {CHECKPOINT_FILE NEXT, RUN_FILE NEXT};
    bool good = true;
    for (size_t i = 0; good && i < sizeof names / sizeof *names; i++) {
        char *path = program_path(self->path, names[i]);
        good = may_be_written(self, path, goes_on);
        free(path);
    }
    for (size_t i = 0; good && i < sizeof prepared / sizeof *prepared; i++) {
        char *path = program_path(self->path, prepared[i]);
        struct stat info;
        good = lstat(path, &info) != 0 || S_ISREG(info.st_mode);
        if (!good) program_error("%s: is no file of a run; remove it", path);
        free(path);
    }
    return good;
}

bool run_folder_open(run_folder *self, const char *path, bool make)
{
    *self = (run_folder){.path = program_path(path, ""), .settings = program_path(path, RUN_FILE),
                         .checkpoint = program_path(path, CHECKPOINT_FILE), .previous = program_path(path, PREVIOUS_FILE)};
    self->path[strlen(path)] = 0;
    if (make && !program_make_folder(path)) return failed(path, "");
    return lock_folder(path) && all_may_be_written(self, !make) && settle(self);
}

void run_folder_close(run_folder *self)
{
    free(self->path);
    free(self->settings);
    free(self->checkpoint);
    free(self->previous);
    *self = (run_folder){0};
}

bool run_folder_has_checkpoint(const run_folder *self)
{
    return exists(self->checkpoint) || exists(self->previous);
}

const char *run_folder_holds(const run_folder *self)
{
    static const struct {
        const char *name, *what;
    } files[] = {
        {SAE_WEIGHTS_FILE, "an SAE"}, {CHECKPOINT_FILE, "the checkpoint of a run"}, {PREVIOUS_FILE, "the checkpoint of a run"},
        {SAE_STAGED_FILE, "an SAE's " SAE_STAGED_FILE}, {SAE_CONFIG_FILE, "a " SAE_CONFIG_FILE}, {IMPORTANCE_FILE, "an " IMPORTANCE_FILE},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = program_path(self->path, files[i].name);
        const bool there = exists(path);
        free(path);
        if (there) return files[i].what;
    }
    /* A run that was killed before its first checkpoint has left its settings alone. */
    return exists(self->settings) && !run_file_is_own(self->path) ? "a " RUN_FILE " that is none of a run" : NULL;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------- */

/* Of what cannot be loaded: is it the file that cannot be read? It may as well be the rows. */
static bool is_damaged(const run_folder *self, atmsae_context *context, atmsae_status status, const atmsae_source *source)
{
    const bool may_be = status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_LIMIT || status == ATMSAE_E_IO ||
                        status == ATMSAE_E_UNSUPPORTED; /* another program's file */
    if (!may_be) return false;
    atmsae_trainer *alone = NULL;
    const bool whole = source && atmsae_trainer_load(context, self->checkpoint, NULL, &alone) >= 0;
    atmsae_trainer_destroy(alone);
    return !whole;
}

static void set_aside(run_folder *self)
{
    char *broken = program_path(self->path, CHECKPOINT_FILE ".broken");
    self->unreadable = rename(self->checkpoint, broken) != 0;
    if (self->unreadable) failed(broken, "cannot move it there: ");
    program_error("it is kept as %s; going on from %s", self->unreadable ? self->checkpoint : broken, self->previous);
    free(broken);
}

bool run_folder_load(run_folder *self, atmsae_context *context, atmsae_source *source, atmsae_trainer **trainer)
{
    bool newest_fails = false;
    if (exists(self->checkpoint) && !self->unreadable) {
        const atmsae_status status = atmsae_trainer_load(context, self->checkpoint, source, trainer);
        if (status >= 0) return true;
        command_failed(context);
        if (!exists(self->previous) || !is_damaged(self, context, status, source)) return false;
        newest_fails = true;
    }
    if (atmsae_trainer_load(context, self->previous, source, trainer) < 0) return command_failed(context), false;
    if (newest_fails) set_aside(self);
    return true;
}

/* The checkpoint that gets replaced lives on under a second name, so that two whole ones are there from the second
 * save on. Without links (FAT, some network file systems) it is moved there instead. One that cannot be read must not
 * take the place of the one before. */
bool run_folder_save(run_folder *self, atmsae_context *context, const atmsae_trainer *trainer, const atmsae_source *source)
{
    char *spare = program_path(self->path, PREVIOUS_FILE ".tmp");
    (void)unlink(spare); /* of a run that was killed */
    const bool linked = !self->unreadable && linkat(AT_FDCWD, self->checkpoint, AT_FDCWD, spare, AT_SYMLINK_FOLLOW) == 0;
    if (!linked && !self->unreadable && (errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS))
        (void)rename(self->checkpoint, self->previous);
    const bool good = atmsae_trainer_save(trainer, source, self->checkpoint) >= 0;
    if (!good) command_failed(context);
    if (linked && !(good && rename(spare, self->previous) == 0)) (void)unlink(spare);
    if (good) self->unreadable = false;
    free(spare);
    return good;
}
