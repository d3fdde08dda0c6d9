/* SPDX-License-Identifier: MIT
 *
 * The parts of `atmsae eval` beside reconstruction: absorption, probing, a second SAE.
 */
#ifndef EVAL_MORE_H
#define EVAL_MORE_H

#include "command.h"

/* Each adds its results to *out; false after a message. */
bool eval_absorption(atmsae_context *context, const atmsae_model *model, const char *words_file, const char *tensor,
                     const atmsae_absorption_config *config, fields *out);
/* tasks_file: NAME.tasks.json, a JSON list of task names, beside NAME.safetensors. */
bool eval_probing(atmsae_context *context, const atmsae_model *model, const char *tasks_file, fields *out);
bool eval_pair(atmsae_context *context, const atmsae_model *model, const char *other_folder, fields *out);
/* What the metrics handle tells beside metrics_fields. */
bool eval_details(atmsae_context *context, const atmsae_model *model, const atmsae_metrics *metrics, fields *out);

#endif
