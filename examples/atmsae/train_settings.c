/* SPDX-License-Identifier: MIT
 *
 * What the options of atmsae train mean for the library, and the settings of a run as a file.
 */
#include "program.h"
#include "train.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool refuse(const char *message)
{
    program_error("%s", message);
    return false;
}

/* ---- what follows from other settings ------------------------------------------------------------------- */

/* "dir/acts-0.npy": "acts-0-sae", in the current folder. */
static void default_out(setting *out, const char *first_input)
{
    const char *slash = strrchr(first_input, '/'), *name = slash ? slash + 1 : first_input, *dot = strrchr(name, '.');
    const size_t length = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    out->owned = program_alloc(length + sizeof "-sae", 1);
    memcpy(out->owned, name, length);
    memcpy(out->owned + length, "-sae", sizeof "-sae");
    out->text = out->owned;
    out->given = true;
}

/* Rows that the caller names do not go with the targets of a file of settings, unless they are the same rows in
 * another place, as of a run that goes on. */
static bool targets_belong(const setting *s, int rows, int targets)
{
    if (!s[targets].from_file || !s[rows].given || s[rows].from_file || s[T_RESUME].given) return true;
    program_error("--%s is of the file's --%s: give it for these rows too", train_options[targets].name, train_options[rows].name);
    return false;
}

bool train_complete(setting *s)
{
    if (s[T_FILES].given) {
        if (s[T_INPUT].given && !s[T_INPUT].from_file) return refuse("files are given both with and without --input");
        free(s[T_INPUT].texts);
        s[T_INPUT] = s[T_FILES];
        s[T_FILES] = (setting){0};
    }
    if (!targets_belong(s, T_INPUT, T_TARGET) || !targets_belong(s, T_VALID, T_VALID_TARGET)) return false;
    if (s[T_HOOK_NAME_OUT].given && !s[T_TARGET].given) return refuse("--hook-name-out is of transcoders, which --target makes");
    if (s[T_INPUT].given && !s[T_OUT].given) default_out(&s[T_OUT], s[T_INPUT].texts[0]);
    return train_outputs_complete(s);
}

/* ---- what they mean for the library ----------------------------------------------------------------------- */

/* Was the option given, and does it apply? What a file says of another case is left out, so that one option
 * given beside a file can change the case. False from *good: refused. */
static bool applies(const setting *s, int i, bool fits, const char *with, bool *good)
{
    if (!s[i].given || fits) return s[i].given;
    program_error("--%s%s goes with %s only", train_options[i].name, s[i].from_file ? ", of the file, is left out: it" : "", with);
    *good = *good && s[i].from_file;
    return false;
}

/* A quarter of the default widths vanish for tiny SAEs: only those that increase are taken. */
static void default_prefixes(run_config *run)
{
    run->model.prefixes = run->prefixes;
    for (uint64_t part = 16; part >= 2; part /= 2) {
        const uint64_t width = run->model.d_sae / part, n = run->model.n_prefixes;
        if (width > (n ? run->prefixes[n - 1] : 0)) run->prefixes[run->model.n_prefixes++] = width;
    }
}

#define ROWS_A_LATENT 20
#define PASSES_MOST 10
#define ROWS_ENOUGH 2000000
#define STEPS_ENOUGH 500
#define STEPS_LEAST 200
#define BATCH_LEAST 256

void train_default_sizes(atmsae_model_config *model, uint64_t pass_rows)
{
    const uint64_t widest = 8 * model->d_in, eighth = model->d_in / 8, fitting = pass_rows / ROWS_A_LATENT;
    model->d_sae = fitting < model->d_in ? model->d_in : fitting < widest ? fitting : widest;
    if (eighth < 32) model->k = eighth < 2 ? 1 : (double)eighth;
}

static bool configure_model(run_config *run, const setting *s, uint64_t d_in, uint64_t d_target, uint64_t pass_rows)
{
    atmsae_model_config *model = &run->model;
    model->d_in = d_in;
    model->d_out = d_target;
    model->transcoder = d_target > 0;
    train_default_sizes(model, pass_rows);
    if (s[T_MASK].given && s[T_MASK].choice == ATMSAE_MASK_PAPER) model->activation = ATMSAE_RELU;
    setting_choice(&s[T_ARCH], &model->activation);
    const bool matryoshka = model->activation == ARCH_MATRYOSHKA;
    if (matryoshka) model->activation = ATMSAE_BATCHTOPK;
    bool good = true;
    if (applies(s, T_FORM, model->activation == ATMSAE_JUMPRELU, "--arch jumprelu", &good)) model->activation = s[T_FORM].choice;
    const bool top = model->activation == ATMSAE_TOPK || model->activation == ATMSAE_BATCHTOPK;
    if (applies(s, T_K, top, "--arch topk, batchtopk and matryoshka", &good)) model->k = s[T_K].real;
    if (applies(s, T_TARGET_L0, !top, "--arch standard, jumprelu and gated", &good)) model->target_l0 = s[T_TARGET_L0].real;
    if (applies(s, T_SPARSITY, !top, "--arch standard, jumprelu and gated", &good)) model->sparsity_coef = s[T_SPARSITY].real;
    setting_count(&s[T_D_SAE], &model->d_sae);
    const uint64_t quarter = (model->d_sae + 3) / 4;
    if (!s[T_K].given && model->k > (double)model->d_sae) model->k = (double)quarter;
    setting_count(&s[T_SEED], &model->seed);
    setting_real(&s[T_BANDWIDTH], &model->bandwidth);
    if (applies(s, T_INIT_THRESHOLD, model->target_l0 == 0, "runs of a fixed --sparsity (--target-l0 starts thresholds itself)", &good))
        model->init_threshold = s[T_INIT_THRESHOLD].real;
    setting_real(&s[T_AUX], &model->aux_coef);
    setting_choice(&s[T_INPUT_NORM], &model->input_norm);
    setting_choice(&s[T_B_DEC], &model->b_dec_init);
    if (applies(s, T_PREFIXES, matryoshka, "--arch matryoshka", &good)) {
        model->prefixes = s[T_PREFIXES].counts;
        model->n_prefixes = s[T_PREFIXES].n;
    } else if (matryoshka) {
        default_prefixes(run);
    }
    return good;
}

/* Small inputs are gone through again and in smaller steps, so that there are steps enough to learn in. */
static bool configure_length(run_config *run, const setting *s, uint64_t pass_rows)
{
    atmsae_trainer_config *trainer = &run->trainer;
    if (s[T_ROWS].given && s[T_EPOCHS].given && s[T_ROWS].from_file == s[T_EPOCHS].from_file)
        return refuse("--rows and --epochs both say how long to train: give one");
    const uint64_t most = pass_rows < ROWS_ENOUGH / PASSES_MOST ? PASSES_MOST * pass_rows : ROWS_ENOUGH;
    const bool epochs = s[T_EPOCHS].given && !(s[T_ROWS].given && s[T_EPOCHS].from_file);
    trainer->total_rows = epochs             ? (uint64_t)(s[T_EPOCHS].real * (double)pass_rows)
                          : s[T_ROWS].given  ? s[T_ROWS].count
                          : pass_rows > most ? pass_rows
                                             : most;
    while (trainer->batch_rows > BATCH_LEAST && trainer->total_rows / trainer->batch_rows < STEPS_ENOUGH)
        trainer->batch_rows /= 2;
    setting_count(&s[T_BATCH], &trainer->batch_rows);
    if (trainer->total_rows >= trainer->batch_rows || s[T_RESUME].given) return true; /* a run that goes on has steps already */
    program_error("%llu rows are less than one step of %llu: lower --batch or raise --rows",
                  (unsigned long long)trainer->total_rows, (unsigned long long)trainer->batch_rows);
    return false;
}

bool train_configure(run_config *run, const setting *s, uint64_t d_in, uint64_t d_target, uint64_t pass_rows)
{
    memset(run, 0, sizeof *run);
    atmsae_model_config_init(&run->model, sizeof run->model);
    atmsae_optimizer_config_init(&run->optimizer, sizeof run->optimizer);
    atmsae_tracker_config_init(&run->tracker, sizeof run->tracker);
    atmsae_masker_config_init(&run->masker, sizeof run->masker);
    atmsae_trainer_config_init(&run->trainer, sizeof run->trainer);
    run->trainer.model = &run->model;
    run->trainer.optimizer = &run->optimizer;
    run->trainer.tracker = &run->tracker;
    run->trainer.masker = &run->masker;
    if (!configure_model(run, s, d_in, d_target, pass_rows)) return false;
    setting_real(&s[T_LR], &run->optimizer.lr);
    setting_count(&s[T_DEAD_WINDOW], &run->tracker.dead_window);
    setting_choice(&s[T_MASK], &run->masker.kind);
    if (run->masker.kind == ATMSAE_MASK_PAPER) run->masker.effect = ATMSAE_EFFECT_HARD; /* as published */
    setting_choice(&s[T_EFFECT], &run->masker.effect);
    setting_choice(&s[T_MASK_PER], &run->masker.per_row);
    const bool second = run->masker.effect == ATMSAE_EFFECT_SECOND_LOSS;
    bool good = true;
    if (applies(s, T_ALPHA, second, "--mask-effect second-loss", &good)) run->masker.alpha = s[T_ALPHA].real;
    if (!good) return false;
    setting_real(&s[T_R], &run->masker.r);
    setting_real(&s[T_C], &run->masker.c);
    setting_count(&s[T_SKIP], &run->trainer.skip_bad_rows);
    setting_real(&s[T_MAX_NORM], &run->trainer.max_norm);
    run->masker.seed = run->model.seed;
    return configure_length(run, s, pass_rows);
}

bool train_rows_are_few(const atmsae_model_config *model, uint64_t pass_rows) { return pass_rows / ROWS_A_LATENT < model->d_sae; }

/* Rows that the SAE is measured on and was trained on are no test of it. */
static void look_at_valid(const setting *s)
{
    for (size_t i = 0; i < s[T_VALID].n; i++)
        for (size_t j = 0; j < s[T_INPUT].n; j++) {
            if (!file_same(s[T_VALID].texts[i], s[T_INPUT].texts[j])) continue;
            program_error("warning: --valid %s is trained on too, so what is measured on it flatters: keep some rows apart for --valid",
                          s[T_VALID].texts[i]);
            return;
        }
}

void train_advise(const run_config *run, const setting *s, uint64_t pass_rows)
{
    const uint64_t steps = run->trainer.total_rows / run->trainer.batch_rows, d_sae = run->model.d_sae, fitting = pass_rows / ROWS_A_LATENT;
    const bool few = train_rows_are_few(&run->model, pass_rows);
    if (few && fitting >= run->model.d_in)
        program_error("warning: %llu rows are few for %llu latents, which will fit these rows rather than what "
                      "rows have in common: lower --d-sae to %llu",
                      (unsigned long long)pass_rows, (unsigned long long)d_sae, (unsigned long long)fitting);
    else if (few)
        program_error("warning: %llu rows are few for %llu latents, which will fit these rows rather than what rows have in common: give %llu "
                      "rows or more", (unsigned long long)pass_rows, (unsigned long long)d_sae, (unsigned long long)(ROWS_A_LATENT * d_sae));
    if (steps < STEPS_LEAST)
        program_error("warning: %llu steps are too few to learn in, %d are the least: raise --rows to %llu",
                      (unsigned long long)steps, STEPS_LEAST, (unsigned long long)(STEPS_LEAST * run->trainer.batch_rows));
    look_at_valid(s);
}

/* ---- settings as a file ------------------------------------------------------------------------------------ */

/* Paths are made absolute, so that the file works from any folder. */
static char *absolute(const char *path)
{
    char *folder = path[0] == '/' ? NULL : getcwd(NULL, 0);
    char *whole = folder ? program_path(folder, path) : program_path(path, "");
    if (!folder) whole[strlen(path)] = 0;
    free(folder);
    return whole;
}

/* Outputs in the run's folder by their place in it, so that it can be moved, and its settings serve another run. */
static void output_field(fields *out, const char *name, const char *path, const char *folder)
{
    char *whole = absolute(path), *root = absolute(folder);
    size_t length = strlen(root);
    while (length > 1 && root[length - 1] == '/') length--;
    const bool inside = strncmp(whole, root, length) == 0 && whole[length] == '/';
    fields_text(out, name, inside ? whole + length + 1 : whole);
    free(whole);
    free(root);
}

static void path_field(fields *out, const char *name, const setting *s)
{
    char **paths = program_alloc(s->n + 1, sizeof *paths);
    for (size_t i = 0; i < s->n; i++) paths[i] = absolute(s->texts[i]);
    if (s->n) {
        fields_json(out, name, json_strings((const char *const *)paths, s->n));
    } else {
        paths[0] = absolute(s->text);
        fields_text(out, name, paths[0]);
    }
    for (size_t i = 0; i < s->n + (s->n == 0); i++) free(paths[i]);
    free(paths);
}

void train_settings_fields(const setting *s, const atmsae_trainer_config *config, fields *settings, fields *facts)
{
    fields all = {0};
    trainer_fields(&all, config);
    for (size_t i = 0; i < T_OPTIONS; i++) {
        const option *o = &train_options[i];
        if (!o->name || i == T_EPOCHS) continue;
        const field *f = fields_get(&all, o->name);
        const bool path = i == T_INPUT || i == T_TARGET || i == T_VALID || i == T_VALID_TARGET || i == T_OUT;
        if (f) fields_copy(settings, f);
        else if (i == T_SHUFFLE) fields_count(settings, o->name, s[i].given ? s[i].count : 65536);
        else if (!s[i].given || i == T_FORCE || i == T_RESUME || i == T_QUIET || i == T_JSON) continue;
        else if (path) path_field(settings, o->name, &s[i]);
        else if (o->file == OPTION_WRITTEN) output_field(settings, o->name, s[i].text, s[T_OUT].text);
        else if (o->kind == OPTION_FLAG) fields_flag(settings, o->name, true);
        else if (o->kind == OPTION_COUNT) fields_count(settings, o->name, s[i].count);
        else if (o->kind == OPTION_REAL) fields_real(settings, o->name, s[i].real);
        else fields_text(settings, o->name, s[i].text);
    }
    for (size_t i = 0; i < all.n; i++)
        if (!option_find(train_options, T_OPTIONS, all.all[i].name)) fields_copy(facts, &all.all[i]);
    fields_free(&all);
}

bool train_same_settings(const setting *s, const run_config *asked, const atmsae_trainer_config *loaded)
{
    fields want = {0}, have = {0};
    trainer_fields(&want, &asked->trainer);
    trainer_fields(&have, loaded);
    bool same = true;
    for (size_t i = 0; i < T_OPTIONS && same; i++) {
        if (!s[i].given || !train_options[i].name || i == T_ROWS || i == T_EPOCHS) continue;
        const char *a = fields_find(&want, train_options[i].name), *b = fields_find(&have, train_options[i].name);
        same = !a || (b && strcmp(a, b) == 0);
        if (!same)
            program_error("--%s is %s, but the run to resume has %s; leave it out to resume, or start "
                          "anew with --force", train_options[i].name, a, b ? b : "none");
    }
    fields_free(&want);
    fields_free(&have);
    return same;
}
