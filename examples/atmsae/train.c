/* SPDX-License-Identifier: MIT
 *
 * atmsae train: from files of rows to a saved SAE, with checkpoints, signals and resume.
 */
#include "history.h"
#include "importance.h"
#include "program.h"
#include "progress.h"
#include "train.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define PREPARE_ROWS 32768
#define CALIBRATE_ROWS 65536
#define DEFAULT_CHECKPOINT_ROWS 10000000
#define CHECKPOINT "checkpoint.safetensors"
#define PREVIOUS "checkpoint.previous.safetensors"

typedef struct run {
    const setting *settings;
    atmsae_context *context;
    atmsae_source *source;
    atmsae_trainer *trainer;
    atmsae_trainer_config config; /* resolved; lends from the trainer */
    history *history;
    importance *importance;
    metrics_file metrics;
    char *checkpoint, *previous;  /* paths of the newest and the one before it */
    int folder;                   /* locked while the run goes on */
    bool resumed;
    int code;                     /* of the program, if something fails */
} run;

/* ---- signals ----------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    if (interrupted) _exit(EXIT_INTERRUPTED);
    interrupted = 1;
}

/* A signal that the parent had us ignore (a shell does so for jobs in the background) stays ignored. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL);
    if (sigaction(SIGTERM, NULL, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(SIGTERM, &action, NULL);
}

/* ---- setting up ---------------------------------------------------------------------------------------- */

static bool failed(const run *r)
{
    command_failed(r->context);
    return false;
}

static bool exists(const char *folder, const char *name)
{
    char *path = program_path(folder, name);
    const bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* One run a folder. The kernel lets go of the lock when its process ends, however it does. File
 * systems without locks go without. */
static bool lock_folder(run *r, const char *out)
{
    r->folder = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->folder >= 0 && (flock(r->folder, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)) return true;
    if (r->folder >= 0) fprintf(stderr, "atmsae: %s: another atmsae train is at work in this folder\n", out);
    else fprintf(stderr, "atmsae: %s: %s\n", out, strerror(errno));
    return false;
}

static bool check_folder(run *r)
{
    const char *out = r->settings[T_OUT].text;
    const bool resume = r->settings[T_RESUME].given, force = r->settings[T_FORCE].given;
    r->checkpoint = program_path(out, CHECKPOINT);
    r->previous = program_path(out, PREVIOUS);
    if (resume && force) {
        fprintf(stderr, "atmsae: --resume goes on, --force starts anew: give one of them\n");
        r->code = EXIT_USAGE;
        return false;
    }
    if (resume && access(r->previous, R_OK) != 0 && access(r->checkpoint, R_OK) != 0) {
        fprintf(stderr, "atmsae: nothing to resume: %s: %s\n", r->checkpoint, strerror(errno));
        return false;
    }
    const char *found = exists(out, "sae_weights.safetensors")                ? "an SAE"
                        : exists(out, CHECKPOINT) || exists(out, PREVIOUS) ? "the checkpoint of a run"
                                                                              : NULL;
    if (found && !resume && !force) {
        fprintf(stderr, "atmsae: %s holds %s already: atmsae resume %s goes on with its run, --force replaces it\n", out, found, out);
        return false;
    }
    if (program_make_folder(out)) return lock_folder(r, out);
    fprintf(stderr, "atmsae: %s: %s\n", out, strerror(errno));
    return false;
}

static bool is_damage(atmsae_status status)
{
    return status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_LIMIT;
}

static bool set_aside(const run *r)
{
    char *broken = program_path(r->settings[T_OUT].text, CHECKPOINT ".broken");
    const bool moved = rename(r->checkpoint, broken) == 0;
    if (moved) fprintf(stderr, "atmsae: it is kept as %s; going on from %s\n", broken, r->previous);
    else fprintf(stderr, "atmsae: %s: %s\n", broken, strerror(errno));
    free(broken);
    return moved;
}

/* The newest checkpoint, or the one before it where the newest is damaged or not there (save_checkpoint
 * says when that is). */
static bool load_checkpoint(const run *r, atmsae_source *source, atmsae_trainer **trainer)
{
    if (access(r->checkpoint, F_OK) == 0) {
        const atmsae_status status = atmsae_trainer_load(r->context, r->checkpoint, source, trainer);
        if (status >= 0) return true;
        failed(r);
        if (!is_damage(status) || access(r->previous, R_OK) != 0 || !set_aside(r)) return false;
    }
    return atmsae_trainer_load(r->context, r->previous, source, trainer) >= 0 || failed(r);
}

/* The seed of the run to resume: its source must be set up before its trainer can be loaded. */
static bool checkpoint_seed(run *r, uint64_t *seed)
{
    atmsae_trainer *trainer;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    if (!load_checkpoint(r, NULL, &trainer)) return false;
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
    for (size_t i = 0; i < s[T_INPUT].n; i++)
        if (atmsae_source_add_file(r->source, s[T_INPUT].texts[i], s[T_TENSOR].text, s[T_BF16].given) < 0)
            return failed(r);
    return true;
}

/* Up to `most` rows from the start of the stream, which is then rewound. */
static bool first_rows(run *r, uint64_t most, float **rows, atmsae_batch *batch)
{
    const uint64_t available = atmsae_source_rows(r->source);
    const uint64_t n = available < most ? available : most;
    *rows = program_alloc(n * atmsae_source_d(r->source), sizeof **rows);
    atmsae_batch_init(batch, sizeof *batch);
    batch->x = *rows;
    return atmsae_source_rewind(r->source) >= 0 && atmsae_source_next(r->source, n, *rows, &batch->n_rows) >= 0 &&
           atmsae_source_rewind(r->source) >= 0;
}

static bool with_first_rows(run *r, uint64_t most, atmsae_status (*use)(atmsae_trainer *, const atmsae_batch *))
{
    float *rows;
    atmsae_batch batch;
    const bool good = first_rows(r, most, &rows, &batch) && use(r->trainer, &batch) >= 0;
    free(rows);
    return good || failed(r);
}

static bool resume_trainer(run *r, const run_config *asked)
{
    if (!load_checkpoint(r, r->source, &r->trainer)) return false;
    if (atmsae_trainer_get_config(r->trainer, &r->config) < 0) return failed(r);
    if (!train_same_settings(r->settings, asked, &r->config)) return false;
    r->resumed = true;
    const bool length_given = r->settings[T_ROWS].given || r->settings[T_EPOCHS].given;
    const uint64_t old = r->config.total_rows, rows = length_given ? asked->trainer.total_rows : old;
    if (rows == old) return true;
    fprintf(stderr, "atmsae: %s was planned for %llu rows and now gets %llu: learning rate, masking rate and "
            "sparsity follow the new length from here on\n", r->settings[T_OUT].text, (unsigned long long)old, (unsigned long long)rows);
    if (atmsae_trainer_set_total_rows(r->trainer, rows) < 0 || atmsae_trainer_get_config(r->trainer, &r->config) < 0)
        return failed(r);
    return true;
}

/* The file that a path leads to: a symbolic link stays, for the next one. */
static bool remove_file(const char *path)
{
    char *real = realpath(path, NULL);
    const bool gone = real ? unlink(real) == 0 : errno == ENOENT;
    if (!gone) fprintf(stderr, "atmsae: %s: cannot remove it: %s\n", path, strerror(errno));
    free(real);
    return gone;
}

static bool make_trainer(run *r)
{
    run_config asked;
    atmsae_trainer_config_init(&r->config, sizeof r->config);
    if (!train_configure(&asked, r->settings, atmsae_source_d(r->source), atmsae_source_rows(r->source))) {
        r->code = EXIT_USAGE;
        return false;
    }
    if (r->settings[T_RESUME].given) return resume_trainer(r, &asked);
    train_advise(&asked, atmsae_source_rows(r->source));
    if (atmsae_trainer_create(r->context, &asked.trainer, &r->trainer) < 0 ||
        atmsae_trainer_get_config(r->trainer, &r->config) < 0)
        return failed(r);
    if (!with_first_rows(r, PREPARE_ROWS, atmsae_trainer_prepare)) return false;
    /* --force: what is there belongs to another run, which --resume must not find. */
    return remove_file(r->checkpoint) && remove_file(r->previous);
}

/* ---- run.json -------------------------------------------------------------------------------------------- */

/* Written aside and renamed, since atmsae resume needs a whole one. */
static bool write_settings(const fields *settings, const char *path)
{
    const size_t size = strlen(path) + sizeof ".tmp";
    char *aside = program_alloc(size, 1);
    snprintf(aside, size, "%s.tmp", path);
    FILE *file = fopen(aside, "w");
    if (file) fields_print_json(settings, file);
    const bool written = file && fflush(file) == 0 && !ferror(file) && fsync(fileno(file)) == 0;
    const bool closed = file && fclose(file) == 0;
    const bool good = written && closed && rename(aside, path) == 0;
    if (!good) {
        fprintf(stderr, "atmsae: %s: %s\n", path, strerror(errno));
        (void)unlink(aside);
    }
    free(aside);
    return good;
}

/* Settings to stderr and to DIR/run.json. */
static bool announce(const run *r)
{
    fields settings = {0}, facts = {0};
    train_settings_fields(r->settings, &r->config, &settings, &facts);
    fields_count(&facts, "input-rows", atmsae_source_rows(r->source));
    fields_count(&facts, "threads", atmsae_context_threads(r->context));
    fields_text(&facts, "cpu", atmsae_context_cpu(r->context));
    fields_text(&facts, "version", atmsae_version_string());
    if (!r->settings[T_QUIET].given) {
        fields_print(&settings, stderr);
        fields_print(&facts, stderr);
    }
    fields_json(&settings, "facts", fields_json_text(&facts));
    char *path = program_path(r->settings[T_OUT].text, RUN_FILE);
    const bool good = write_settings(&settings, path);
    fields_free(&settings);
    fields_free(&facts);
    free(path);
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
    if (!r->resumed) return;
    char *path = program_path(r->settings[T_OUT].text, IMPORTANCE_FILE);
    (void)importance_resume(r->importance, r->context, path, atmsae_trainer_steps_done(r->trainer));
    free(path);
}

/* The checkpoint that gets replaced lives on under a second name, so that two whole ones are there
 * from the second save on. Without links (FAT, some network file systems) it is moved there instead. */
static bool save_checkpoint(const run *r)
{
    char *spare = program_path(r->settings[T_OUT].text, PREVIOUS ".tmp");
    (void)unlink(spare); /* of a run that was killed */
    const bool linked = linkat(AT_FDCWD, r->checkpoint, AT_FDCWD, spare, AT_SYMLINK_FOLLOW) == 0;
    if (!linked && (errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS)) (void)rename(r->checkpoint, r->previous);
    const bool good = atmsae_trainer_save(r->trainer, r->source, r->checkpoint) >= 0 || failed(r);
    if (linked && !(good && rename(spare, r->previous) == 0)) (void)unlink(spare);
    free(spare);
    if (good) save_importance(r);
    return good;
}

/* Steps until the end or a signal. */
static bool steps(run *r)
{
    const uint64_t batch_rows = r->config.batch_rows, total = r->config.total_rows / batch_rows;
    uint64_t every = DEFAULT_CHECKPOINT_ROWS;
    setting_count(&r->settings[T_CHECKPOINT], &every);
    float *rows = program_alloc(batch_rows * atmsae_source_d(r->source), sizeof *rows);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.x = rows;
    atmsae_step_stats stats = {.size = sizeof stats};
    uint64_t done = atmsae_trainer_steps_done(r->trainer), saved = done * batch_rows;
    progress line;
    progress_start(&line, "", r->settings[T_QUIET].given, done * batch_rows, total * batch_rows);
    bool good = true;
    while (good && done < total && !interrupted) {
        good = atmsae_source_next(r->source, batch_rows, rows, &batch.n_rows) >= 0 &&
               atmsae_trainer_step(r->trainer, &batch, &stats) >= 0;
        if (!good) {
            if (stats.rows) progress_end(&line, done * batch_rows, &stats);
            fprintf(stderr, "atmsae: step %llu: %s\n", (unsigned long long)done, atmsae_last_error(r->context));
            break;
        }
        done++;
        metrics_file_add(&r->metrics, &stats);
        if (r->history) history_record(r->history, r->trainer, &stats);
        importance_record(r->importance, r->trainer, stats.step);
        progress_show(&line, done * batch_rows, &stats);
        if (every == 0 || done * batch_rows - saved < every || done == total) continue;
        saved = done * batch_rows;
        /* A full disk may have room again next time; the last one stays until then. */
        if (!save_checkpoint(r)) fprintf(stderr, "atmsae: no checkpoint at step %llu; training goes on\n", (unsigned long long)done);
    }
    if (good && stats.rows) progress_end(&line, done * batch_rows, &stats);
    free(rows);
    return good;
}

static bool add_validation(const run *r, fields *out)
{
    const setting *s = r->settings;
    atmsae_metrics *metrics;
    atmsae_metrics_result result = {.size = sizeof result};
    if (!evaluate_files(r->context, atmsae_trainer_model(r->trainer), &s[T_VALID], s[T_TENSOR].text,
                        s[T_BF16].given, &metrics))
        return false;
    const bool good = atmsae_metrics_get(metrics, &result) >= 0;
    if (good) metrics_fields(out, &result);
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
    }
    const bool good = !s[T_VALID].given || add_validation(r, &out);
    if (good && s[T_JSON].given) fields_print_json(&out, stdout);
    else if (good) fields_print(&out, stdout);
    fields_free(&out);
    return good;
}

/* Checkpoint first: calibration reads the stream from its start, so the position is lost. */
static bool finish(run *r)
{
    const setting *s = r->settings;
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.model_name = s[T_MODEL_NAME].text;
    options.hook_name = s[T_HOOK_NAME].text;
    if (!save_checkpoint(r) || !with_first_rows(r, CALIBRATE_ROWS, atmsae_trainer_calibrate)) return false;
    if (atmsae_model_save(atmsae_trainer_model(r->trainer), s[T_OUT].text, &options) < 0) return failed(r);
    if (!s[T_QUIET].given) fprintf(stderr, "saved %s\n", s[T_OUT].text);
    if (s[T_PLOT].given && !history_plot(r->history, "Adaptive Temporal Masking over a run", s[T_PLOT].text, true)) return false;
    return print_result(r);
}

static int train(run *r)
{
    const setting *s = r->settings;
    if (!check_folder(r) || !open_source(r) || !make_trainer(r) || !announce(r) ||
        !metrics_file_open(&r->metrics, s[T_METRICS].text, r->resumed, atmsae_trainer_steps_done(r->trainer)))
        return r->code;
    if (s[T_PLOT].given) r->history = history_create(r->config.model->d_sae);
    start_importance(r);
    catch_signals();
    const bool trained = steps(r);
    const bool measured = metrics_file_close(&r->metrics, s[T_METRICS].text); /* if not, the SAE is still wanted */
    if (!trained) return EXIT_FAILED;
    if (!interrupted || atmsae_trainer_steps_done(r->trainer) == r->config.total_rows / r->config.batch_rows)
        return finish(r) && measured ? EXIT_OK : EXIT_FAILED;
    if (!save_checkpoint(r)) return EXIT_FAILED;
    fprintf(stderr, "atmsae: interrupted after %llu steps; atmsae resume %s goes on (as does the same command with --resume)\n",
            (unsigned long long)atmsae_trainer_steps_done(r->trainer), s[T_OUT].text);
    return measured ? EXIT_INTERRUPTED : EXIT_FAILED;
}

int run_train(const setting *settings)
{
    run r = {.settings = settings, .code = EXIT_FAILED, .folder = -1,
             .context = command_context(&settings[T_THREADS], &settings[T_PRECISION], settings[T_QUIET].given)};
    if (!r.context) return EXIT_FAILED;
    const int code = train(&r);
    history_destroy(r.history);
    importance_destroy(r.importance);
    free(r.checkpoint);
    free(r.previous);
    atmsae_trainer_destroy(r.trainer);
    atmsae_source_destroy(r.source);
    atmsae_context_destroy(r.context);
    if (r.folder >= 0) close(r.folder);
    return code;
}

const command command_train = {.name = "train", .summary = "train an SAE on files of activations and save it",
                               .help = train_help, .options = train_options, .n_options = T_OPTIONS,
                               .complete = train_complete, .run = run_train};
