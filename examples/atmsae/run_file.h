/* SPDX-License-Identifier: MIT
 *
 * The folder of a run for those who only look: which settings made the SAE in it.
 *
 * run.json is written when a run begins, the SAE when it ends, so the two need not be of one run: an older SAE lies
 * here until the new one is saved. What ties them is the checksum of the weights, which the library writes to the
 * SAE's cfg.json and train, when it has saved the SAE, to run.json.
 */
#ifndef RUN_FILE_H
#define RUN_FILE_H

#include <atmsae/atmsae.h>
#include <stdbool.h>

#define RUN_FILE "run.json"
#define CHECKPOINT_FILE "checkpoint.safetensors"
#define PREVIOUS_FILE "checkpoint.previous.safetensors"
#define SAE_CONFIG_FILE "cfg.json"
#define SAE_WEIGHTS_FILE "sae_weights.safetensors"
#define SAE_STAGED_FILE "sae_weights.staged.safetensors" /* the new weights while a save is under way (doc/formats.md) */
#define RUN_SAE_KEY "weights-crc64" /* in run.json, as is the next */
#define RUN_ROWS_KEY "input-rows"

/* The number or plain string behind "key": in a JSON text, as a string to be freed; NULL if there is none. */
char *json_value(const char *json, const char *key);
/* The checksum in the cfg.json of an SAE's folder, to be freed; NULL if it has none. */
char *run_file_sae(const char *folder);
/* Whether the folder's run.json is one that train has written. */
bool run_file_is_own(const char *folder);
/* The text of the folder's run.json, to be freed, if it is of the SAE in the folder; else NULL, if there is one after a
 * note that says so. */
char *run_file_read(const char *folder);

/* Loads an SAE; NULL after a message, which also says how to get one if a checkpoint is all there is. */
atmsae_model *sae_load(atmsae_context *context, const char *path);
/* Only the second part of the message, if it applies. */
void sae_hint(atmsae_context *context, const char *path);

#endif
