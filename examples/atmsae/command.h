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

/* Adds the files to a source. False after a message, also where none of them has a row. */
bool add_files(atmsae_context *context, atmsae_source *source, const setting *files, const char *tensor, bool as_bf16);
/* All rows of some files, once and in order; NULL after a message. */
atmsae_source *open_files(atmsae_context *context, const setting *files, const char *tensor, bool as_bf16);
/* The same, for a model that takes rows of their width. false after a message. */
bool open_rows(atmsae_context *context, const atmsae_model *model, const setting *files, const char *tensor,
               bool as_bf16, atmsae_source **source);

/* Which rows are measured on, by their norm (norms.c). Zeroed: all of them. */
typedef struct norm_limit {
    double factor; /* > 0: the limit is so many times the median norm of the first 32768 rows */
    double limit;  /* 0: none */
    bool found;    /* what follows, and the limit that the factor makes */
    atmsae_row_norms norms; /* of the first rows, without those above the limit */
    uint64_t left_out;      /* of all rows that were measured last */
} norm_limit;
extern const option_choice max_norm_choices[];
/* Looks at the first rows of a source at its start, if that was not done yet. False after a message. */
bool norms_find(atmsae_context *context, atmsae_source *source, norm_limit *limit);
void norms_fields(fields *out, const norm_limit *limit);
/* Whether a few rows decide the result, as a text to be freed; NULL: they do not. trained: the limit of the SAE's training, if known. */
char *norms_note(const norm_limit *limit, const char *trained);

/* Reconstruction of the rows of some files that the limit leaves; the caller destroys *metrics. False after a message. */
bool evaluate_files(atmsae_context *context, const atmsae_model *model, const setting *files,
                    const char *tensor, bool as_bf16, norm_limit *limit, atmsae_metrics **metrics);
/* What an FVU or L0 out of the ordinary usually comes from; NULL: they are not. asked: L0 in training; 0: not known. */
const char *rows_hint(double fvu, double l0, double asked);
void metrics_fields(fields *out, const atmsae_metrics_result *result);

/* d_sae and k that suit d_in and the number of different rows. */
void train_default_sizes(atmsae_model_config *model, uint64_t pass_rows);
/* Settings of a model and of a run, under the names of train's options. */
void model_fields(fields *out, const atmsae_model_config *model);
void trainer_fields(fields *out, const atmsae_trainer_config *config);

#endif
