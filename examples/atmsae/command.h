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
    bool (*listed)(const option *);     /* which options --help and the like show; NULL: all */
    bool (*complete)(setting *settings); /* fills in what follows from other settings; NULL: nothing does. False
                                            after a message: a usage error */
    bool own_paths; /* it calls paths_allowed itself, because it makes folders first */
    int (*run)(const setting *settings);
} command;

extern const command command_train, command_resume, command_eval, command_compare, command_info, command_convert, command_synth, command_bench, command_features;

/* Generated from the tables: a man page, and what a shell sources to complete words ("bash", "zsh" or
 * "fish"). c NULL: the page of the program itself. */
void manual_print(FILE *out, const command *const *commands, size_t n, const command *c);
bool completion_print(FILE *out, const command *const *commands, size_t n, const char *shell);
extern const char *const exit_codes[4][2]; /* number, meaning */

enum { MESSAGE_BYTES = 5000 };
/* A message of the library with the command's options in place of the library's settings, in `text`. */
const char *in_options(const command *c, const char *message, char text[MESSAGE_BYTES]);
/* The context's last error, so worded. */
const char *command_error(const atmsae_context *context, char text[MESSAGE_BYTES]);
/* Prints it; returns EXIT_FAILED. */
int command_failed(const atmsae_context *context);
/* A context whose log goes to stderr. precision NULL: the default. NULL after a message. */
atmsae_context *command_context(const setting *threads, const setting *precision, bool quiet);

/* Most bytes of a file that are read as text (files.h): JSON of settings, and lists with a line a row. */
#define MOST_JSON_BYTES ((size_t)16 << 20)
#define MOST_LIST_BYTES ((size_t)8 << 30)

/* Whether the files that a command's options name may be written: none is one of those that it reads, be it through
 * links or as a part of an SAE's folder, and none is there without --force (or --resume). False after a message. */
bool paths_allowed(const option *options, size_t n, const setting *settings);
/* Whether an output, a file or an SAE's folder, is or contains what is read; true after a message. */
bool path_is_input(const char *output, const char *input);

/* Files of rows and, for a transcoder, of the target of each row. */
typedef struct row_files {
    const setting *rows, *targets; /* targets NULL, or not given: none */
    const char *tensor, *target_tensor; /* NULL: see atmsae_source_add_file */
    bool as_bf16;
} row_files;
/* Adds the files to a source. False after a message, also where none of them has a row. */
bool add_files(atmsae_context *context, atmsae_source *source, const row_files *files);
/* All rows of some files, once and in order; NULL after a message. */
atmsae_source *open_files(atmsae_context *context, const row_files *files);
/* The same, for a model that takes rows of their width and gives targets of theirs. asks: the option for targets, which
 * a transcoder must have and an SAE must not; NULL: only latents are wanted. false after a message. */
bool open_rows(atmsae_context *context, const atmsae_model *model, const row_files *files, const char *asks, atmsae_source **source);

/* Which rows are measured on, by their norm and that of their targets (norms.c). Zeroed: all of them. Arrays: of rows, and of
 * targets, where there are any. */
typedef struct norm_limit {
    double factor;   /* > 0: the limits are so many times the median norms of the first 32768 rows, and of their targets */
    double limit[2]; /* 0: none */
    bool found;      /* what follows, and the limits that the factor makes */
    atmsae_row_norms norms[2]; /* of the first rows, without those above a limit */
    uint64_t left_out;         /* of all rows that were measured last */
} norm_limit;
extern const option_choice max_norm_choices[];
/* Looks at the first rows of a source at its start, if that was not done yet. False after a message. */
bool norms_find(atmsae_context *context, atmsae_source *source, norm_limit *limit);
/* Gives rows of a batch on the source weight 0 where they, or their targets, are above a limit. weights: room for those of all
 * rows; *left_out: how many have 0. False where the library has failed. */
bool norms_apply(atmsae_context *context, const atmsae_source *source, const norm_limit *limit, atmsae_batch *batch, float *weights,
                 uint64_t *left_out);
void norms_fields(fields *out, const norm_limit *limit);
/* Whether a few rows decide the result, as a text to be freed; NULL: they do not. sae: its results, with the limits of its
 * training if these are known, or NULL. */
char *norms_note(const norm_limit *limit, const fields *sae);

/* Reconstruction of the rows of some files that the limit leaves; the caller destroys *metrics. False after a message. */
bool evaluate_files(atmsae_context *context, const atmsae_model *model, const row_files *files, const char *asks, norm_limit *limit,
                    atmsae_metrics **metrics);
/* What an FVU or L0 out of the ordinary usually comes from; NULL: they are not. asked: L0 in training; 0: not known. */
const char *rows_hint(double fvu, double l0, double asked);
void metrics_fields(fields *out, const atmsae_metrics_result *result);

/* d_sae and k that suit d_in and the number of different rows. */
void train_default_sizes(atmsae_model_config *model, uint64_t pass_rows);
/* Settings of a model and of a run, under the names of train's options. */
void model_fields(fields *out, const atmsae_model_config *model);
void trainer_fields(fields *out, const atmsae_trainer_config *config);

#endif
