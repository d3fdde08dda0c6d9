/* SPDX-License-Identifier: MIT
 *
 * Between the parts of `atmsae eval` (one SAE) and `atmsae compare` (several): what is measured, the options that
 * say so, and the page that shows it.
 */
#ifndef REPORT_H
#define REPORT_H

#include "command.h"
#include "history.h"
#include "words.h"

#include <atmsae/eval.h>

/* ---- options ---------------------------------------------------------------------------------------- */

enum { R_SAE, R_INPUT, R_TENSOR, R_TARGET, R_TARGET_TENSOR, R_BF16, R_WORDS, R_WORDS_TENSOR, R_WORDS_TEXT, R_MIN_PROBE_F1, R_MIN_F1_GAIN, R_MAX_SPLIT, R_PROBE,
       R_PROBING, R_MAX_NORM, R_NORM_LIMIT, R_TARGET_NORM_LIMIT, R_JSON, R_HTML, R_FORCE, R_THREADS, R_OPTIONS };

extern const option_choice probe_choices[];

/* Entries of an option table, from R_INPUT on. */
#define REPORT_OPTIONS                                                                                              \
    [R_INPUT] = {.name = "input", .kind = OPTION_TEXTS, .file = OPTION_READ, .required = true, .value = "FILE",                          \
                 .help = "rows to measure on, .npy or .safetensors; take rows that were not trained on"},           \
    [R_TENSOR] = {.name = "tensor", .kind = OPTION_TEXT, .value = "NAME",                                           \
                  .help = "tensor to read from --input .safetensors files",                                         \
                  .preset = "\"activations\", or the only one of rows"},                                       \
    [R_TARGET] = {.name = "target", .kind = OPTION_TEXTS, .file = OPTION_READ, .value = "FILE",                     \
                  .help = "of a transcoder: the rows that it is to give, one for each of --input, in files as those"}, \
    [R_TARGET_TENSOR] = {.name = "target-tensor", .kind = OPTION_TEXT, .value = "NAME",                             \
                         .help = "tensor to read from --target files", .preset = "as for --tensor"},                \
    [R_BF16] = {.name = "bf16", .kind = OPTION_FLAG, .help = "16-bit integers in .npy files of rows hold bf16"},    \
    [R_WORDS] = {.group = "absorption", .name = "words", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "FILE",                      \
                 .help = ".safetensors with rows [n, d_in], `letter` (classes from 0) and `is_train` (1: the "      \
                         "probe may be fitted on it); turns the measure on"},                                       \
    [R_WORDS_TENSOR] = {.name = "words-tensor", .kind = OPTION_TEXT, .value = "NAME", .preset = "prompted",         \
                        .help = "tensor with the rows of the words"},                                               \
    [R_WORDS_TEXT] = {.name = "words-text", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "FILE",                                   \
                      .help = "the words themselves, one a line, for the lists of top and absorbed words",          \
                      .preset = "NAME.words.txt beside NAME.safetensors, if it is there"},                          \
    [R_MIN_PROBE_F1] = {.name = "absorption-min-f1", .kind = OPTION_REAL, .value = "F1", .max = 0.999,              \
                        .preset = "0.6", .help = "count only classes whose probe scores more than this on test words"}, \
    [R_MIN_F1_GAIN] = {.name = "absorption-f1-gain", .kind = OPTION_REAL, .value = "F1", .max = 1, .preset = "0.03", \
                       .help = "another latent joins those of a class for more F1 than this"},                      \
    [R_MAX_SPLIT] = {.name = "absorption-max-split", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 64,       \
                     .preset = "10", .help = "most latents of a class"},                                            \
    [R_PROBE] = {.name = "absorption-probe", .kind = OPTION_CHOICE, .value = "NAME", .choices = probe_choices,       \
                 .preset = "saebench", .help = "which probe finds a class's direction; the figures of saebench agree with " \
                                               "SAEBench, free is 0.1's, whose intercept has no penalty"},          \
    [R_PROBING] = {.group = "probing", .name = "probing", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "NAME.tasks.json",          \
                   .help = "a JSON list of task names, beside NAME.safetensors with `activations` [n, d_in], "      \
                           "`labels` [n, tasks] (1, 0, -1: not part of the task) and `is_train` [n]"},              \
    [R_MAX_NORM] = {.group = "rows left out", .name = "max-norm", .kind = OPTION_REAL, .value = "X|auto", .min = 1,                                 \
                    .choices = max_norm_choices,                                                                    \
                    .help = "leave out --input rows whose norm is above X times the median norm of the first 32768, and those whose "  \
                            "--target is above X times the targets' median; auto: 10"}, \
    [R_NORM_LIMIT] = {.name = "norm-limit", .kind = OPTION_REAL, .value = "N", .above_min = true,                   \
                      .help = "leave out --input rows whose norm is above N, such as the norm-limit of a run with --max-norm"}, \
    [R_TARGET_NORM_LIMIT] = {.name = "target-norm-limit", .kind = OPTION_REAL, .value = "N", .above_min = true,     \
                             .help = "leave out rows whose --target has a norm above N, such as the run's target-norm-limit"}, \
    [R_JSON] = {.group = "output", .name = "json", .kind = OPTION_FLAG, .help = "one JSON object on stdout"},       \
    [R_HTML] = {.name = "html", .kind = OPTION_TEXT, .file = OPTION_WRITTEN, .value = "FILE",                                               \
                .help = "a page with tables and pictures, which needs no other file"},                              \
    [R_FORCE] = {.name = "force", .kind = OPTION_FLAG,                                                              \
                 .help = "replace a page that is there already; what the command reads is never replaced"},         \
    [R_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096,                    \
                   .help = "threads that compute", .preset = "one for each CPU that it may use"}

/* ---- what is measured ----------------------------------------------------------------------------------- */

enum { TOP_WORDS = 12, PROBE_COLUMNS = 4, DENSITY_BINS_A_DECADE = 4 };
extern const char *const probe_columns[PROBE_COLUMNS]; /* "top1", "top2", "top5", "all" */

/* Labelled words and the probe fitted on them. */
typedef struct word_set {
    words words;
    char *text, **word; /* [n] the words; NULL: not known */
    uint64_t n_train;
    bool all_equal;     /* all rows are the same */
    atmsae_absorption *absorption;
} word_set;

/* Labelled texts, and what can be read from their dimensions. */
typedef struct task_set {
    size_t n;
    char *text, **name; /* [n] */
    atmsae_probing *probing;
    atmsae_probing_task *task; /* [n] */
    atmsae_probing_entry *raw; /* [n, PROBE_COLUMNS] */
} task_set;

/* The words of the highest values of one latent. */
typedef struct top_words {
    uint64_t class, latent, n;
    uint64_t row[TOP_WORDS];
    float value[TOP_WORDS];
} top_words;

typedef struct report_sae {
    const char *path, *name; /* name: the path without what all have in common */
    char *method, *level;    /* architecture and mask; the setting that fixes L0 */
    size_t group;            /* of SAEs of the same method */
    fields fields;           /* all results, as eval prints them */
    uint64_t d_sae, n_bins, *bins; /* latents by log10 of their density, from report.low on */
    atmsae_absorption_entry *classes; /* [n_classes] NULL: not measured, as below */
    uint8_t *fate;           /* [words] ATMSAE_ROW_.. */
    top_words *top;
    size_t n_top;
    atmsae_probing_entry *probes; /* [tasks, PROBE_COLUMNS] */
    history *history;
    char **notes;            /* [n_notes] lines that explain the results; "notes" of fields */
    size_t n_notes;
} report_sae;

typedef struct report {
    atmsae_context *context;
    const setting *settings;
    word_set words;
    task_set tasks;
    norm_limit norms;        /* of the rows measured on */
    double low;              /* the bins of densities go from 10^low to 1 */
    size_t n, n_groups;
    report_sae *sae;         /* [n] */
} report;

/* Of command: options that exclude each other. */
bool report_complete(setting *settings);
/* Opens what all SAEs share; measures one; all after another. False after a message. */
bool report_open(report *self, const setting *settings, size_t n);
bool report_measure(report *self, size_t i, const char *path, const char *pair);
/* Names, methods and groups, when all are measured. */
void report_group(report *self);
void report_close(report *self);

/* Whether the page would replace a file that is read, but that no option names; true after a message. */
bool report_overwrites(const setting *settings, const char *path);

/* Parts of report_open and report_measure, each in a file of its own. */
bool words_open(report *self);
bool words_measure(const report *self, const atmsae_model *model, report_sae *sae);
bool top_words_measure(const report *self, const atmsae_model *model, report_sae *sae);
void words_close(word_set *self);
bool tasks_open(report *self);
bool tasks_measure(const report *self, const atmsae_model *model, report_sae *sae);
void tasks_close(task_set *self);
bool pair_measure(atmsae_context *context, const atmsae_model *model, const char *other_folder, fields *out);
bool details_measure(atmsae_context *context, const atmsae_model *model, const atmsae_metrics *metrics, fields *out);
/* Of the run that made the SAE: its settings, importances and masks, where atmsae train left them. */
void run_read(const report *self, const atmsae_model_config *config, report_sae *sae);

/* Adds the notes, when the rest is measured; whether no SAE before number i has the same note. */
void report_notes(const report *self, report_sae *sae);
bool note_is_new(const report *self, size_t i, size_t note);
/* Why a class or a task takes no part, which the caller frees; NULL if it does. */
char *class_reason(const report *self, const atmsae_absorption_entry *c);
char *task_reason(const atmsae_probing_task *task);

/* ---- how sure results are ----------------------------------------------------------------------------- */

/* Shares of words (or texts) of several classes (or tasks), whose mean is a result. Zeroed: none yet. */
typedef struct shares {
    double n, sum, below, above; /* sums over classes; below, above: of squares of what an interval adds */
} shares;
void share_add(shares *self, double share, uint64_t n); /* of n words; NaN or n = 0: left out */
/* The mean's 95 % interval, "[low, high]" or null. */
void fields_interval(fields *out, const char *name, const shares *s);

/* Results that have an interval, and the field that holds it. */
typedef struct noisy_key {
    const char *key, *interval;
    bool low_is_good;
} noisy_key;
extern const noisy_key noisy_keys[];
extern const size_t n_noisy_keys;
bool report_interval(const report_sae *sae, const noisy_key *key, double *low, double *high); /* false: none */
/* "absorption: a is lowest, but within noise of b", which the caller frees; NULL for one SAE or no values. */
char *order_text(const report *self, const noisy_key *key);
void orders_json(FILE *out, const report *self);

/* "a" .. "z" for at most 26 classes, else the number; into text [24]. */
const char *class_name(const report *self, uint64_t class, char *text);
/* The word of a row, or "#17" into text [24]. */
const char *word_name(const report *self, uint64_t row, char *text);

/* ---- showing it ------------------------------------------------------------------------------------------ */

/* What a key of the results means, and how it stands in a table of SAEs. */
typedef struct report_key {
    const char *key;
    const char *heading; /* of a column; NULL: it has none */
    const char *format;  /* of its numbers there; NULL: a text */
    int table;           /* of REPORT_TABLES that has the column: rows; words and texts; their intervals */
    const char *help;
} report_key;
enum { REPORT_TABLES = 3 };
extern const report_key report_keys[];
extern const size_t report_n_keys;

/* A result of an SAE as a column shows it; "" if there is none. text [64]. */
const char *report_cell(const report_sae *sae, const report_key *key, char *text);
bool report_has(const report *self, const report_key *key); /* for any SAE */
/* A result as a number; NaN if there is none. */
double report_number(const report_sae *sae, const char *key);

/* --html, if it is given. False after a message. */
bool report_page(const report *self);
/* The page's charts. */
void chart_pareto(FILE *f, const report *self);
void chart_densities(FILE *f, const report *self);
void chart_classes(FILE *f, const report *self);
void chart_probing(FILE *f, const report *self);
void chart_training(FILE *f, const report *self);

#endif
