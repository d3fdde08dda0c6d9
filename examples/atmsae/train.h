/* SPDX-License-Identifier: MIT
 *
 * Between the parts of atmsae train.
 */
#ifndef TRAIN_H
#define TRAIN_H

#include "command.h"
#include "files.h"

enum {
    T_FILES, T_INPUT, T_TENSOR, T_TARGET, T_TARGET_TENSOR, T_BF16, T_VALID, T_VALID_TARGET, T_OUT, T_FORCE, T_RESUME, T_CHECKPOINT, T_METRICS, T_PLOT,
    T_QUIET, T_JSON, T_THREADS, T_PRECISION, T_MODEL_NAME, T_HOOK_NAME, T_HOOK_NAME_OUT,
    T_ARCH, T_FORM, T_D_SAE, T_K, T_PREFIXES, T_SPARSITY, T_TARGET_L0, T_BANDWIDTH, T_INIT_THRESHOLD, T_AUX, T_INPUT_NORM,
    T_B_DEC, T_SEED,
    T_MASK, T_R, T_C, T_EFFECT, T_ALPHA, T_MASK_PER,
    T_ROWS, T_EPOCHS, T_BATCH, T_LR, T_DEAD_WINDOW, T_SHUFFLE, T_SKIP, T_MAX_NORM,
    T_OPTIONS
};

/* Matryoshka is BatchTopK with prefixes. */
enum { ARCH_MATRYOSHKA = 100 };

extern const option train_options[T_OPTIONS];
extern const char train_help[];
bool train_complete(setting *s); /* of command, like: */
int run_train(const setting *settings);

/* All configurations of one run; `trainer` points to the others. */
typedef struct run_config {
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    atmsae_trainer_config trainer;
    uint64_t prefixes[4]; /* the default ones of matryoshka */
} run_config;

/* What the options ask for, given the widths of the rows and of their targets (0: none) and their number in one
 * pass. False after a message: the options contradict each other. */
bool train_configure(run_config *run, const setting *s, uint64_t d_in, uint64_t d_target, uint64_t pass_rows);
/* Too few to learn from for so many latents. */
bool train_rows_are_few(const atmsae_model_config *model, uint64_t pass_rows);
/* Says what of a run cannot turn out well although nothing is wrong with any one setting. */
void train_advise(const run_config *run, const setting *s, uint64_t pass_rows);
/* The settings, resolved, under the names of the options: as a file that --config takes they make the
 * same run again. facts: what else there is to say. */
void train_settings_fields(const setting *s, const atmsae_trainer_config *config, fields *settings, fields *facts);
/* False after a message if an option that was given differs from what the checkpoint's run had;
 * --rows and --epochs may. */
bool train_same_settings(const setting *s, const run_config *asked, const atmsae_trainer_config *loaded);

/* --metrics and --plot. The first belongs to `complete`: their endings, and where a relative path of a file leads. The
 * second, once the folder is there: may they be written? *code is set for a usage error. False after a message. */
bool train_outputs_complete(setting *s);
bool train_outputs_check(const setting *s, int *code);

/* One line a step in a .csv or .jsonl file. */
typedef struct metrics_file {
    file_writer writer;
    bool json;
} metrics_file;

/* Whether a run can go on in the file: it holds metrics, or nothing, or is not there. False after a message. */
bool metrics_file_goes_on(const char *path);
/* Opens the file: anew, or keeping the lines of steps below first_step where a run resumes. path
 * NULL: nothing is written. False after a message. */
bool metrics_file_open(metrics_file *self, const char *path, bool resume, bool replace, uint64_t first_step);
void metrics_file_add(metrics_file *self, const atmsae_step_stats *stats);
/* False after a message if anything could not be written. */
bool metrics_file_close(metrics_file *self);

#endif
