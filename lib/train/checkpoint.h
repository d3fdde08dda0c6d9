/* SPDX-License-Identifier: MIT
 *
 * What a checkpoint holds besides tensors: for checkpoint.c and checkpoint_settings.c.
 */
#ifndef AMS_CHECKPOINT_H
#define AMS_CHECKPOINT_H

#include "format/tensors.h"
#include "train/train.h"

enum { AMS_MOST_SETTINGS = 64, AMS_SETTING_TEXT = 32 };

typedef struct ams_settings {
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    uint64_t total_rows, batch_rows, steps, optimizer_steps;
    uint64_t optimizer_cooldown_from, optimizer_cooldown_steps, masker_cooldown_from, masker_cooldown_steps;
    double sparsity_warmup, log_coef;
    uint64_t skip_bad_rows, bad_rows;
    double max_norm, norm_limit[2];
    uint64_t outlier_rows;
} ams_settings;
typedef struct ams_settings_text {
    char of[AMS_MOST_SETTINGS][AMS_SETTING_TEXT];
} ams_settings_text;

void ams_settings_of(const atmsae_trainer *trainer, ams_settings *settings);
/* Fills out, with room for AMS_MOST_SETTINGS, which lends its values from *text; returns their number. */
uint64_t ams_settings_write(ams_settings *settings, ams_settings_text *text, ams_metadata_out *out);
/* Refuses a file in which a setting is missing, malformed or not known. */
atmsae_status ams_settings_read(const atmsae_tensors *file, atmsae_context *ctx, ams_settings *settings);
/* For what this library does not know, and would leave out of the run without a word. kind: "setting", "tensor". */
atmsae_status ams_fail_newer(const atmsae_tensors *file, atmsae_context *ctx, const char *kind, const char *name, const char *value);

#endif
