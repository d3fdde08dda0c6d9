/* SPDX-License-Identifier: MIT
 *
 * What main.c knows of each command, and what the commands share.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include "options.h"
#include "output.h"

#include <atmsae/atmsae.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

typedef struct command {
    const char *name;
    const char *summary; /* one line */
    const char *help;    /* what it does, with examples */
    const option *options;
    size_t n_options;
    int (*run)(const setting *settings);
} command;

extern const command command_train, command_eval, command_info, command_convert;

/* Prints the context's last error; returns EXIT_FAILED. */
int command_failed(const atmsae_context *context);
/* A context whose log goes to stderr. precision NULL: the default. NULL after a message. */
atmsae_context *command_context(const setting *threads, const setting *precision, bool quiet);

/* Reconstruction of all rows of some files. false after a message. counts, if not NULL, is lent
 * by *metrics, which the caller then destroys. */
bool evaluate_files(atmsae_context *context, const atmsae_model *model, const setting *files,
                    const char *tensor, bool as_bf16, atmsae_metrics **metrics);
void metrics_fields(fields *out, const atmsae_metrics_result *result);

/* Settings of a model and of a run, under the names of train's options. */
void model_fields(fields *out, const atmsae_model_config *model);
void trainer_fields(fields *out, const atmsae_trainer_config *config);

#endif
