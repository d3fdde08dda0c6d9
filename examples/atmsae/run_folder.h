/* SPDX-License-Identifier: MIT
 *
 * The folder of a run for the command that writes it: its lock, its checkpoints, its run.json.
 *
 * A new run takes the place of an older one by its first checkpoint, which is saved before the first step. Until then
 * all that the older run left stands; afterwards the folder is the new run's, and only the older SAE stays until a
 * new one is saved. The order, in which a kill at any point leaves one run or the other:
 *
 *     run.json.next                   the new settings
 *     checkpoint.safetensors.next     from here on the new run counts
 *     - checkpoint.previous.., importance..; run.json.next to run.json; checkpoint...next to checkpoint
 *
 * What a kill interrupts in the last line, run_folder_open ends.
 */
#ifndef RUN_FOLDER_H
#define RUN_FOLDER_H

#include "output.h"

#include <atmsae/atmsae.h>
#include <stdbool.h>

typedef struct run_folder {
    char *path, *settings, *checkpoint, *previous; /* of the folder, run.json, the newest checkpoint and the one before */
    bool unreadable; /* the newest checkpoint cannot be read and could not be moved away */
} run_folder;

/* All of these: false after a message. */

/* Locks the folder until the process ends, then ends what a kill interrupted. make: for a new run, also in a new folder;
 * else one goes on, and no link may lead out of the folder. */
bool run_folder_open(run_folder *self, const char *path, bool make);
void run_folder_close(run_folder *self);
/* What a new run would replace, in words: "an SAE", "the checkpoint of a run", ..; or NULL. */
const char *run_folder_holds(const run_folder *self);
bool run_folder_has_checkpoint(const run_folder *self);
/* The newest checkpoint, or the one before it where the newest cannot be read; it is then kept as .broken. source may
 * be NULL. */
bool run_folder_load(run_folder *self, atmsae_context *context, atmsae_source *source, atmsae_trainer **trainer);
/* Makes the folder this run's. */
bool run_folder_begin(run_folder *self, atmsae_context *context, const fields *settings, const atmsae_trainer *trainer, const atmsae_source *source);
/* A checkpoint; the one that it replaces becomes the one before. */
bool run_folder_save(run_folder *self, atmsae_context *context, const atmsae_trainer *trainer, const atmsae_source *source);
/* run.json of a run whose folder this is. */
bool run_folder_settings(const run_folder *self, const fields *settings);

#endif
