/* SPDX-License-Identifier: MIT
 *
 * atmsae train: from files of rows to a saved SAE, with checkpoints, signals and resume.
 */
#include "history.h"
#include "importance.h"
#include "program.h"
#include "progress.h"
#include "rows.h"
#include "run_file.h"
#include "run_folder.h"
#include "stop.h"
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PREPARE_ROWS 32768
#define CALIBRATE_ROWS 65536
#define DEFAULT_CHECKPOINT_ROWS 10000000
#define MOST_OUTLIERS 0.1 /* of the rows: sequences of ten tokens have that many beginnings */
#define LIST_BAD_ROWS " (atmsae info --check FILE lists those of a file)"
#define ALL_BAD_ROWS "all of the rows are such, so leaving them out leaves nothing to go on with: put good rows in their places" LIST_BAD_ROWS

typedef struct run {
    const setting *settings;
    atmsae_context *context;
    atmsae_source *source;
    atmsae_trainer *trainer;
    atmsae_trainer_config config; /* resolved; lends from the trainer */
    run_folder folder;
    history *history;
    importance *importance;
    metrics_file metrics;
    double fvu;     /* of the last steps; 0: no step was made */
    uint64_t saved; /* steps in the newest checkpoint */
    bool unused;    /* the source's last rows were handed out for a step that failed */
    bool bad_row;   /* because of one of them */
    bool all_bad;   /* because of all of them */
    bool diverged;  /* a number of the run itself is not finite */
    int code;       /* of the program, if something fails */
} run;

/* ---- setting up ---------------------------------------------------------------------------------------- */

static bool failed(const run *r)
{
    command_failed(r->context);
    return false;
}

static bool open_folder(run *r)
{
    const char *out = r->settings[T_OUT].text;
    const bool resume = r->settings[T_RESUME].given, force = r->settings[T_FORCE].given;
    if (resume && force) {
        program_error("--resume goes on, --force starts anew: give one of them");
        r->code = EXIT_USAGE;
        return false;
    }
    if (!run_folder_open(&r->folder, out, !resume)) return false;
    const char *found = run_folder_holds(&r->folder);
    if (resume && !run_folder_has_checkpoint(&r->folder)) {
        program_error("nothing to resume: %s has no checkpoint", out);
        return false;
    }
    if (!found || resume || force) return true;
    if (run_folder_has_checkpoint(&r->folder))
        program_error("%s holds %s already: atmsae resume %s goes on with its run, --force replaces it", out, found, out);
    else
        program_error("%s holds %s already; --force replaces it", out, found);
    return false;
}

/* The seed of the run to resume: its source must be set up before its trainer can be loaded. */
static bool checkpoint_seed(run *r, uint64_t *seed)
{
    atmsae_trainer *trainer;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    if (!run_folder_load(&r->folder, r->context, NULL, &trainer)) return false;
    const bool good = atmsae_trainer_get_config(trainer, &config) >= 0;
    if (good) *seed = config.model->seed;
    atmsae_trainer_destroy(trainer);
    return good || failed(r);
}

static bool open_source(run *r)
{
    const setting *s = r->settings;
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    setting_count(&s[T_SHUFFLE], &config.shuffle_rows);
    setting_count(&s[T_SEED], &config.seed);
    if (s[T_RESUME].given && !s[T_SEED].given && !checkpoint_seed(r, &config.seed)) return false;
    if (atmsae_source_create(r->context, &config, &r->source) < 0) return failed(r);
    const row_files files = {&s[T_INPUT], &s[T_TARGET], s[T_TENSOR].text, s[T_TARGET_TENSOR].text, s[T_BF16].given};
    return add_files(r->context, r->source, &files);
}

/* Up to `most` rows from the start of the stream, which is then rewound. */
static bool first_rows(run *r, uint64_t most, float **rows, atmsae_batch *batch)
{
    const uint64_t available = atmsae_source_rows(r->source);
    const uint64_t n = available < most ? available : most;
    *rows = program_alloc(n * row_width(r->source), sizeof **rows);
    batch_on(batch, r->source, *rows);
    return atmsae_source_rewind(r->source) >= 0 && atmsae_source_next(r->source, n, *rows, &batch->n_rows) >= 0 &&
           atmsae_source_rewind(r->source) >= 0;
}

static bool with_first_rows(run *r, uint64_t most, atmsae_status (*use)(atmsae_trainer *, const atmsae_batch *))
{
    float *rows;
    atmsae_batch batch;
    const bool good = first_rows(r, most, &rows, &batch) && use(r->trainer, &batch) >= 0;
    if (!good) {
        if (!explain_bad_row(r->source, &batch)) command_failed(r->context);
        else
            program_error(has_good_row(&batch, r->source) ? "such rows, N of them at most, are left out with --skip-bad-rows N" LIST_BAD_ROWS
                                                                           : ALL_BAD_ROWS);
    }
    free(rows);
    return good;
}

/* What was trained stays trained: a shorter length ends the run where it is. */
static bool change_length(run *r, uint64_t rows)
{
    const uint64_t old = r->config.total_rows, done = atmsae_trainer_steps_done(r->trainer) * r->config.batch_rows;
    const char *out = r->settings[T_OUT].text;
    if (rows == old) return true;
    if (rows < r->config.batch_rows && done == 0) {
        program_error("%llu rows are less than one step of %llu: raise --rows", (unsigned long long)rows, (unsigned long long)r->config.batch_rows);
        return false;
    }
    if (rows <= done) {
        program_error("%s has seen %llu rows already, and %llu were asked for: it ends here", out, (unsigned long long)done, (unsigned long long)rows);
        rows = done;
    } else {
        program_error("%s was planned for %llu rows and now gets %llu: learning rate, masking rate and sparsity follow the new length from "
                      "here on", out, (unsigned long long)old, (unsigned long long)rows);
    }
    return (atmsae_trainer_set_total_rows(r->trainer, rows) >= 0 && atmsae_trainer_get_config(r->trainer, &r->config) >= 0) || failed(r);
}

static bool resume_trainer(run *r, const run_config *asked)
{
    if (!run_folder_load(&r->folder, r->context, r->source, &r->trainer)) return false;
    if (atmsae_trainer_get_config(r->trainer, &r->config) < 0) return failed(r);
    r->saved = atmsae_trainer_steps_done(r->trainer);
    if (r->settings[T_SKIP].given && (atmsae_trainer_set_skip_bad_rows(r->trainer, r->settings[T_SKIP].count) < 0 ||
                                      atmsae_trainer_get_config(r->trainer, &r->config) < 0))
        return failed(r);
    const bool length_given = r->settings[T_ROWS].given || r->settings[T_EPOCHS].given;
    return train_same_settings(r->settings, asked, &r->config) && (!length_given || change_length(r, asked->trainer.total_rows));
}

static bool make_trainer(run *r)
{
    run_config asked;
    atmsae_trainer_config_init(&r->config, sizeof r->config);
    if (!train_configure(&asked, r->settings, atmsae_source_d(r->source), atmsae_source_d_target(r->source), atmsae_source_rows(r->source))) {
        r->code = EXIT_USAGE;
        return false;
    }
    if (r->settings[T_RESUME].given) return resume_trainer(r, &asked);
    train_advise(&asked, r->settings, atmsae_source_rows(r->source));
    return (atmsae_trainer_create(r->context, &asked.trainer, &r->trainer) >= 0 &&
            atmsae_trainer_get_config(r->trainer, &r->config) >= 0) || failed(r);
}

static row_files valid_files(const setting *s)
{
    return (row_files){&s[T_VALID], &s[T_VALID_TARGET], s[T_TENSOR].text, s[T_TARGET_TENSOR].text, s[T_BF16].given};
}

/* The files of --valid are read at the end, perhaps hours from now. */
static bool check_valid(const run *r)
{
    const row_files files = valid_files(r->settings);
    atmsae_source *valid = NULL;
    const bool good = !files.rows->given || open_rows(r->context, atmsae_trainer_model(r->trainer), &files, "valid-target", &valid);
    atmsae_source_destroy(valid);
    return good;
}

/* ---- run.json -------------------------------------------------------------------------------------------- */

/* What --max-norm has done until now. */
static void outlier_fields(const run *r, fields *out)
{
    const double of_targets = atmsae_trainer_norm_limit(r->trainer, 1);
    if (r->config.max_norm == 0) return;
    fields_real(out, "norm-limit", atmsae_trainer_norm_limit(r->trainer, 0));
    if (of_targets > 0) fields_real(out, "target-norm-limit", of_targets);
    fields_count(out, "outlier-rows", atmsae_trainer_outlier_rows(r->trainer));
}

/* What is in run.json, and on stderr if it is shown. sae: the checksum of the SAE that the run has saved, or NULL. */
static fields describe(const run *r, const char *sae, bool shown)
{
    fields all = {0}, facts = {0};
    train_settings_fields(r->settings, &r->config, &all, &facts);
    fields_count(&facts, RUN_ROWS_KEY, atmsae_source_rows(r->source));
    fields_count(&facts, "threads", atmsae_context_threads(r->context));
    fields_text(&facts, "cpu", atmsae_context_cpu(r->context));
    fields_text(&facts, "version", atmsae_version_string());
    fields_count(&facts, "bad-rows", atmsae_trainer_bad_rows(r->trainer));
    outlier_fields(r, &facts);
    if (sae) fields_text(&facts, RUN_SAE_KEY, sae);
    if (shown) {
        fields_print(&all, stderr);
        fields_print(&facts, stderr);
    }
    fields_json(&all, "facts", fields_json_text(&facts));
    fields_free(&facts);
    return all;
}

/* Settings to stderr and to DIR/run.json, with the first checkpoint of a new run. One that goes on keeps the claim to
 * an SAE that it had saved. */
static bool begin(run *r)
{
    const setting *s = r->settings;
    const bool resume = s[T_RESUME].given;
    if (!resume && !with_first_rows(r, PREPARE_ROWS, atmsae_trainer_prepare)) return false;
    char *own = resume ? run_file_read(s[T_OUT].text) : NULL, *sae = own ? run_file_sae(s[T_OUT].text) : NULL;
    fields settings = describe(r, sae, !s[T_QUIET].given);
    const bool good = resume ? run_folder_settings(&r->folder, &settings)
                             : run_folder_begin(&r->folder, r->context, &settings, r->trainer, r->source);
    fields_free(&settings);
    free(own);
    free(sae);
    return good;
}

/* Once more with the checksum of the SAE that was saved. */
static bool claim_sae(const run *r)
{
    char *sae = run_file_sae(r->settings[T_OUT].text);
    fields settings = describe(r, sae, false);
    const bool good = run_folder_settings(&r->folder, &settings);
    fields_free(&settings);
    free(sae);
    return good;
}

/* ---- training ---------------------------------------------------------------------------------------------- */

/* For looking at features only: a run does not fail for it. */
static void save_importance(const run *r)
{
    char *path = program_path(r->settings[T_OUT].text, IMPORTANCE_FILE);
    (void)importance_save(r->importance, r->trainer, path);
    free(path);
}

static void start_importance(run *r)
{
    r->importance = importance_create(r->config.model->d_sae);
    if (atmsae_trainer_steps_done(r->trainer) == 0) return;
    char *path = program_path(r->settings[T_OUT].text, IMPORTANCE_FILE);
    (void)importance_resume(r->importance, r->context, path, atmsae_trainer_steps_done(r->trainer));
    free(path);
}

static bool save_checkpoint(run *r)
{
    if (!run_folder_save(&r->folder, r->context, r->trainer, r->source)) return false;
    r->saved = atmsae_trainer_steps_done(r->trainer);
    save_importance(r);
    return true;
}

/* Steps until the end or a signal. */
static bool steps(run *r)
{
    const uint64_t batch_rows = r->config.batch_rows, total = r->config.total_rows / batch_rows;
    uint64_t every = DEFAULT_CHECKPOINT_ROWS;
    setting_count(&r->settings[T_CHECKPOINT], &every);
    float *rows = program_alloc(batch_rows * row_width(r->source), sizeof *rows);
    atmsae_batch batch;
    batch_on(&batch, r->source, rows);
    atmsae_step_stats stats = {.size = sizeof stats};
    uint64_t done = atmsae_trainer_steps_done(r->trainer), tried = done;
    progress line;
    progress_start(&line, "", r->settings[T_QUIET].given, done * batch_rows, total * batch_rows);
    atmsae_status status = ATMSAE_OK;
    bool good = true;
    while (good && done < total && !stop_asked()) {
        good = atmsae_source_next(r->source, batch_rows, rows, &batch.n_rows) >= 0;
        if (good) {
            status = atmsae_trainer_step(r->trainer, &batch, &stats);
            good = status >= 0;
            r->unused = !good;
        }
        if (!good) break;
        done++;
        if (isfinite(stats.fvu)) r->fvu = r->fvu > 0 ? 0.9 * r->fvu + 0.1 * stats.fvu : stats.fvu;
        metrics_file_add(&r->metrics, &stats);
        if (r->history) history_record(r->history, r->trainer, &stats);
        importance_record(r->importance, r->trainer, stats.step);
        progress_show(&line, done * batch_rows, &stats);
        if (every == 0 || (done - tried) * batch_rows < every || done == total) continue;
        tried = done;
        /* A full disk may have room again next time; the last one stays until then. */
        if (!save_checkpoint(r)) program_error("no checkpoint at step %llu; training goes on", (unsigned long long)done);
    }
    if (stats.rows) progress_end(&line, done * batch_rows, &stats);
    if (!good) {
        char why[MESSAGE_BYTES];
        (void)command_error(r->context, why);
        r->bad_row = explain_bad_row(r->source, &batch);
        r->diverged = status == ATMSAE_E_NONFINITE && !r->bad_row;
        if (!r->bad_row || r->settings[T_SKIP].given) program_error("step %llu: %s", (unsigned long long)done, why);
        r->all_bad = r->bad_row && !has_good_row(&batch, r->source);
    }
    free(rows);
    return good;
}

/* The state before the step that failed or did not begin. Rows that were handed out for it go back first, so that
 * they are the next ones when the run goes on. */
static bool keep_state(run *r)
{
    if (r->saved == atmsae_trainer_steps_done(r->trainer)) return true;
    if (r->unused && atmsae_source_unread(r->source) < 0) return failed(r);
    return save_checkpoint(r);
}

/* A step that failed: the steps before it are kept, with a word on how to go on. */
static void give_up(run *r)
{
    const char *out = r->settings[T_OUT].text;
    (void)keep_state(r);
    if (r->diverged) {
        program_error("%s has the run as it was after %llu steps, when it had diverged: start anew with --force", out, (unsigned long long)r->saved);
        return;
    }
    program_error("%s has the run as it was after %llu steps; once the cause is gone, atmsae resume %s goes on from there", out,
                  (unsigned long long)r->saved, out);
    if (r->all_bad) program_error(ALL_BAD_ROWS);
    else if (r->bad_row)
        program_error("to go on without such rows, N of them at most: atmsae resume %s --skip-bad-rows N" LIST_BAD_ROWS, out);
}

/* Whether the SAE does on --valid what it did in training; where it could not, that was said before. */
static void judge_validation(const run *r, const atmsae_metrics_result *result)
{
    const atmsae_model_config *m = r->config.model;
    const double target = m->target_l0, off = 100 * (result->l0 / target - 1);
    const char *hint = r->fvu > 1 ? NULL : rows_hint(result->fvu, result->l0, m->activation == ATMSAE_BATCHTOPK ? m->k : target);
    if (hint && !train_rows_are_few(m, atmsae_source_rows(r->source))) program_error("warning: --valid: %s", hint);
    else if (target > 0 && fabs(off) > 2 && fabs(off) < 50 && 2 * target < (double)m->d_sae)
        program_error("warning: --target-l0 is missed on --valid: L0 is %.4g there, and %g on the rows trained on, as the target says: more different "
                      "rows, or fewer passes over them, bring the two together", result->l0, target);
}

static bool add_validation(const run *r, fields *out)
{
    const row_files files = valid_files(r->settings);
    atmsae_metrics *metrics;
    atmsae_metrics_result result = {.size = sizeof result};
    norm_limit limit = {.limit = {atmsae_trainer_norm_limit(r->trainer, 0), atmsae_trainer_norm_limit(r->trainer, 1)}};
    if (!evaluate_files(r->context, atmsae_trainer_model(r->trainer), &files, "valid-target", &limit, &metrics)) return false;
    const bool good = atmsae_metrics_get(metrics, &result) >= 0;
    if (good) {
        metrics_fields(out, &result);
        norms_fields(out, &limit);
    }
    char *note = norms_note(&limit, NULL);
    if (note) program_error("warning: --valid: %s", note);
    else if (good) judge_validation(r, &result);
    free(note);
    atmsae_metrics_destroy(metrics);
    return good || failed(r);
}

/* What --valid measured; with --json also where the SAE is. */
static bool print_result(const run *r)
{
    const setting *s = r->settings;
    fields out = {0};
    if (s[T_JSON].given) {
        fields_text(&out, "sae", s[T_OUT].text);
        fields_count(&out, "steps", atmsae_trainer_steps_done(r->trainer));
        fields_count(&out, "bad-rows", atmsae_trainer_bad_rows(r->trainer));
        outlier_fields(r, &out);
    }
    const bool good = !s[T_VALID].given || add_validation(r, &out);
    if (good && s[T_JSON].given) fields_print_json(&out, stdout);
    else if (good) fields_print(&out, stdout);
    fields_free(&out);
    return good;
}

/* Checkpoint first: calibration reads the stream from its start, so the position is lost. */
static bool save_sae(run *r)
{
    const setting *s = r->settings;
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.model_name = s[T_MODEL_NAME].text;
    options.hook_name = s[T_HOOK_NAME].text;
    options.hook_name_out = s[T_HOOK_NAME_OUT].text;
    if (!save_checkpoint(r)) return false;
    const bool good = with_first_rows(r, CALIBRATE_ROWS, atmsae_trainer_calibrate) &&
                      (atmsae_model_save(atmsae_trainer_model(r->trainer), s[T_OUT].text, &options) >= 0 || failed(r)) && claim_sae(r);
    if (!good) program_error("the SAE is not saved; all steps are: once the cause is gone, atmsae resume %s saves it", s[T_OUT].text);
    const uint64_t bad = atmsae_trainer_bad_rows(r->trainer);
    if (bad) program_error("%llu rows with a NaN or infinite value were left out, of %llu allowed", (unsigned long long)bad,
                           (unsigned long long)r->config.skip_bad_rows);
    const uint64_t outliers = atmsae_trainer_outlier_rows(r->trainer), seen = atmsae_trainer_steps_done(r->trainer) * r->config.batch_rows;
    if ((double)outliers > MOST_OUTLIERS * (double)seen)
        program_error("warning: --max-norm %g has left out %llu of %llu rows, which is more than a few: they may be what the SAE is for",
                      r->config.max_norm, (unsigned long long)outliers, (unsigned long long)seen);
    else if (outliers && !s[T_QUIET].given)
        program_note("%llu of %llu rows were left out by --max-norm %g", (unsigned long long)outliers, (unsigned long long)seen,
                     r->config.max_norm);
    if (good && !s[T_QUIET].given) program_note("saved %s", s[T_OUT].text);
    return good;
}

static bool finish(run *r)
{
    const setting *s = r->settings;
    if (!save_sae(r)) return false;
    return (!s[T_PLOT].given || history_plot(r->history, "Adaptive Temporal Masking over a run", s[T_PLOT].text, true)) && print_result(r);
}

static int train(run *r)
{
    const setting *s = r->settings;
    if (!open_folder(r) || !train_outputs_check(s, &r->code) || !open_source(r) || !make_trainer(r) || !check_valid(r) || !begin(r) ||
        !metrics_file_open(&r->metrics, s[T_METRICS].text, s[T_RESUME].given, s[T_FORCE].given, atmsae_trainer_steps_done(r->trainer)))
        return r->code;
    if (s[T_PLOT].given) r->history = history_create(r->config.model->d_sae);
    start_importance(r);
    stop_catch();
    const bool trained = steps(r);
    const bool measured = metrics_file_close(&r->metrics); /* if not, the SAE is still wanted */
    if (!trained) return give_up(r), EXIT_FAILED;
    if (!stop_asked() || atmsae_trainer_steps_done(r->trainer) == r->config.total_rows / r->config.batch_rows)
        return finish(r) && measured ? EXIT_OK : EXIT_FAILED;
    if (!keep_state(r)) return EXIT_FAILED;
    program_error("interrupted after %llu steps; atmsae resume %s goes on (as does the same command with --resume)",
                  (unsigned long long)atmsae_trainer_steps_done(r->trainer), s[T_OUT].text);
    return measured ? EXIT_INTERRUPTED : EXIT_FAILED;
}

int run_train(const setting *settings)
{
    run r = {.settings = settings, .code = EXIT_FAILED,
             .context = command_context(&settings[T_THREADS], &settings[T_PRECISION], settings[T_QUIET].given)};
    if (!r.context) return EXIT_FAILED;
    const int code = train(&r);
    history_destroy(r.history);
    importance_destroy(r.importance);
    run_folder_close(&r.folder);
    atmsae_trainer_destroy(r.trainer);
    atmsae_source_destroy(r.source);
    atmsae_context_destroy(r.context);
    return code;
}

const command command_train = {.name = "train", .summary = "train an SAE on files of activations and save it",
                               .help = train_help, .options = train_options, .n_options = T_OPTIONS,
                               .complete = train_complete, .own_paths = true, .run = run_train};
