/* SPDX-License-Identifier: MIT
 *
 * Measures SAEs one after another on the same inputs, and says what their results mean.
 */
#include "report.h"
#include "program.h"
#include "run_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define L0 "mean number of latents that fire on a row"
const report_key report_keys[] = {
    {"sae", NULL, NULL, 0, "the SAE's folder or file"},
    {"arch", "arch", NULL, 0, "architecture"},
    {"mask", "mask", NULL, 0, "mask it was trained with; none is known for SAEs that atmsae train did not make"},
    {"mask_r", NULL, NULL, 0, "highest masking rate r"},
    {"mask_c", NULL, NULL, 0, "threshold of importance: mean + c standard deviations"},
    {"mask_effect", NULL, NULL, 0, "what masking does: hard, or second-loss"},
    {"mask_alpha", NULL, NULL, 0, "weight of the second loss"},
    {"k", "k", "%g", 0, "latents a row asked for in training"},
    {"target_l0", NULL, "%g", 0, "L0 asked for in training"},
    {"sparsity", NULL, "%g", 0, "weight of the sparsity penalty in training"},
    {"seed", "seed", "%g", 0, "seed of the run"},
    {"d_in", NULL, "%g", 0, "numbers in a row"},
    {"d_out", NULL, "%g", 0, "of a transcoder: numbers in a target, which is what y stands for below"},
    {"d_sae", "d_sae", "%g", 0, "latents"},
    {"rows", NULL, "%g", 0, "rows measured on"},
    {"rows_left_out", NULL, "%.0f", 0, "rows that are not, because their norm is above norm_limit, or their target's above target_norm_limit"},
    {"norm_limit", NULL, "%.6g", 0, "largest norm of a row measured on, as --max-norm or --norm-limit asks"},
    {"target_norm_limit", NULL, "%.6g", 0, "the same of targets, as --max-norm or --target-norm-limit asks"},
    {"training_norm_limit", NULL, "%.6g", 0, "norm above which the run left out rows, in training with --max-norm"},
    {"training_target_norm_limit", NULL, "%.6g", 0, "the same of targets"},
    {"l0", "L0", "%.2f", 0, L0},
    {"fvu", "FVU", "%.4f", 0, "fraction of variance unexplained, 0 is perfect, 1 is as good as the mean row"},
    {"explained_variance", "EV", "%.4f", 0, "explained variance, 1 - FVU"},
    {"mse", NULL, "%.4g", 0, "mean over rows of the squared error, in squared units of the rows"},
    {"cosine", "cosine", "%.4f", 0, "mean cosine of row and reconstruction"},
    {"norm_ratio", NULL, "%.4f", 0, "mean length of reconstruction / row"},
    {"bias", NULL, "%.4f", 0, "sum |y^|^2 / sum y.y^; 1: reconstructions are not shrunk"},
    {"l1", NULL, "%.4g", 0, "mean over rows of the sum of latents"},
    {"dead", "dead", "%.0f", 0, "latents that never fired on these rows"},
    {"dense", "dense", "%.0f", 0, "latents that fired on more than 10 % of the rows"},
    {"alive", NULL, "%.4f", 0, "share of latents that fired"},
    {"over_1_percent", NULL, "%.4f", 0, "share of latents that fired on more than 1 % of the rows"},
    {"over_10_percent", NULL, "%.4f", 0, "share of latents that fired on more than 10 % of the rows"},
    {"decoder_similarity", NULL, "%.4f", 0, "mean cosine of a latent's decoder row with the nearest other"},
    {"encoder_similarity", NULL, "%.4f", 0, "the same of encoder rows"},
    {"absorption", "absorbed", "%.4f", 1, "full rate: share of words on which no latent of their class fires and a more special one "
                                             "stands in; mean over classes"},
    {"absorption_interval", "absorbed 95 %", NULL, 2, "95 % interval of absorption over words"},
    {"absorption_fraction_v060", "frac060", "%.4f", 1, "absorbed fraction of the class's direction, as of SAEBench 0.6.0; mean over classes"},
    {"absorption_fraction_v032", "frac032", "%.4f", 1, "the same as of SAEBench 0.3.2"},
    {"absorption_classes", NULL, "%.0f", 1, "classes whose probe is good enough to count"},
    {"absorption_true_positives", NULL, "%.0f", 1, "test words of these classes that the probe gets right"},
    {"absorbed", NULL, "%.0f", 1, "how many of these words are fully absorbed"},
    {"sparse_f1", "F1", "%.4f", 1, "F1 of the class's main latent alone; mean over classes"},
    {"split_f1", NULL, "%.4f", 1, "F1 of all latents of the class"},
    {"probe_f1", NULL, "%.4f", 1, "F1 of the probe on the rows themselves: as good as it gets"},
    {"main_recall", "recall", "%.4f", 1, "share of words on which their class's main latent fires"},
    {"main_recall_interval", "recall 95 %", NULL, 2, "95 % interval of main_recall over words"},
    {"main_precision", "precision", "%.4f", 1, "share of the words on which a main latent fires that are of its class"},
    {"main_f1", NULL, "%.4f", 1, "F1 of a main latent's firing as a sign of its class, over all test words"},
    {"main_rate", "fires", "%.4f", 1, "share of all test words on which a main latent fires"},
    {"gap", "gap", "%.4f", 1, "absorption gap: main recall on the other words less that on words with a latent of their own"},
    {"gap_error", "+-", "%.4f", 1, "standard error of gap over words"},
    {"own_words", NULL, "%.0f", 1, "words with a latent of their own: one of their three largest fires on at most 1 % of the words"},
    {"own_recall", NULL, "%.4f", 1, "main recall on these words"},
    {"other_recall", NULL, "%.4f", 1, "main recall on the other words"},
    {"recall", NULL, "%.4f", 1, "share of words on which any latent of their class fires"},
    {"mean_split", NULL, "%.4f", 1, "mean number of latents of a class"},
    {"probing_tasks", NULL, "%.0f", 1, "tasks probed"},
    {"probing_majority", "majority", "%.4f", 1, "accuracy of always giving the more common label: what a probe must beat; mean over tasks"},
    {"probing_top1", "top1", "%.4f", 1, "accuracy of probes on the best latent; mean over tasks"},
    {"probing_top1_auc", "top1 AUC", "%.4f", 1, "area under the ROC curve of these probes: 0.5 says nothing, 1 is perfect"},
    {"probing_top1_f1", "top1 F1", "%.4f", 1, "F1 of label 1 of these probes"},
    {"probing_top2", "top2", "%.4f", 1, "accuracy of probes on the best 2 latents"},
    {"probing_top2_auc", NULL, "%.4f", 1, "their area under the ROC curve"},
    {"probing_top2_f1", NULL, "%.4f", 1, "their F1 of label 1"},
    {"probing_top5", "top5", "%.4f", 1, "accuracy of probes on the best 5 latents"},
    {"probing_top5_auc", NULL, "%.4f", 1, "their area under the ROC curve"},
    {"probing_top5_f1", NULL, "%.4f", 1, "their F1 of label 1"},
    {"probing_all", "all", "%.4f", 1, "accuracy of probes on all latents"},
    {"probing_all_auc", NULL, "%.4f", 1, "their area under the ROC curve"},
    {"probing_all_f1", NULL, "%.4f", 1, "their F1 of label 1"},
    {"probing_raw_top1", NULL, "%.4f", 1, "accuracy of probes on the best dimension of the rows"},
    {"probing_raw_top1_auc", NULL, "%.4f", 1, "their area under the ROC curve"},
    {"probing_raw_top1_f1", NULL, "%.4f", 1, "their F1 of label 1"},
    {"probing_raw_top2", NULL, "%.4f", 1, "accuracy of probes on the best 2 dimensions"},
    {"probing_raw_top2_auc", NULL, "%.4f", 1, "their area under the ROC curve"},
    {"probing_raw_top2_f1", NULL, "%.4f", 1, "their F1 of label 1"},
    {"probing_raw_top5", NULL, "%.4f", 1, "accuracy of probes on the best 5 dimensions"},
    {"probing_raw_top5_auc", NULL, "%.4f", 1, "their area under the ROC curve"},
    {"probing_raw_top5_f1", NULL, "%.4f", 1, "their F1 of label 1"},
    {"probing_raw_all", NULL, "%.4f", 1, "accuracy of probes on all dimensions: as good as it gets"},
    {"probing_raw_all_auc", NULL, "%.4f", 1, "their area under the ROC curve"},
    {"probing_raw_all_f1", NULL, "%.4f", 1, "their F1 of label 1"},
    {"probing_top1_interval", "top1 95 %", NULL, 2, "95 % interval of probing_top1 over test texts"},
    {"probing_top2_interval", "top2 95 %", NULL, 2, "95 % interval of probing_top2"},
    {"probing_top5_interval", "top5 95 %", NULL, 2, "95 % interval of probing_top5"},
    {"probing_all_interval", "all 95 %", NULL, 2, "95 % interval of probing_all"},
    {"pair_mcc", NULL, "%.4f", 1, "mean cosine of decoder rows matched one by one with the other SAE's"},
    {"pair_shared", NULL, "%.4f", 1, "share of these pairs above 0.7"},
    {"pair_mcc_absolute", NULL, "%.4f", 1, "the same of a match by absolute cosines"},
    {"pair_mcc_encoder", NULL, "%.4f", 1, "the same of encoder rows"},
};
const size_t report_n_keys = sizeof report_keys / sizeof *report_keys;

double report_number(const report_sae *sae, const char *key)
{
    const char *value = fields_find(&sae->fields, key);
    char *stop;
    const double number = value ? strtod(value, &stop) : NAN;
    return value && stop != value && *stop == 0 ? number : NAN;
}

const char *report_cell(const report_sae *sae, const report_key *key, char *text)
{
    const char *value = fields_find(&sae->fields, key->key);
    const double number = report_number(sae, key->key);
    if (!key->format) snprintf(text, 64, "%s", value ? value : "");
    else if (isfinite(number)) snprintf(text, 64, key->format, number);
    else text[0] = 0;
    return text;
}

bool report_has(const report *self, const report_key *key)
{
    for (size_t i = 0; i < self->n; i++)
        if (fields_find(&self->sae[i].fields, key->key)) return true;
    return false;
}

/* ---- measuring ---------------------------------------------------------------------------------------- */

bool report_overwrites(const setting *settings, const char *path)
{
    return settings[R_HTML].given && path_is_input(settings[R_HTML].text, path);
}

bool report_complete(setting *s)
{
    const bool targets = s[R_TARGET_NORM_LIMIT].given;
    if (s[R_MAX_NORM].given && (s[R_NORM_LIMIT].given || targets))
        program_error("--max-norm and --%snorm-limit both say which rows to leave out: give one", s[R_NORM_LIMIT].given ? "" : "target-");
    else if (targets && !s[R_TARGET].given) program_error("--target-norm-limit is about --target, which is not given");
    else return true;
    return false;
}

bool report_open(report *self, const setting *settings, size_t n)
{
    *self = (report){.settings = settings, .n = n, .sae = program_alloc(n, sizeof *self->sae)};
    setting_real(&settings[R_MAX_NORM], &self->norms.factor);
    setting_real(&settings[R_NORM_LIMIT], &self->norms.limit[0]);
    setting_real(&settings[R_TARGET_NORM_LIMIT], &self->norms.limit[1]);
    self->context = command_context(&settings[R_THREADS], NULL, true);
    return self->context && words_open(self) && tasks_open(self);
}

void report_close(report *self)
{
    for (size_t i = 0; i < self->n; i++) {
        report_sae *s = &self->sae[i];
        free(s->method);
        free(s->level);
        fields_free(&s->fields);
        free(s->bins);
        free(s->classes);
        free(s->fate);
        free(s->top);
        free(s->probes);
        for (size_t k = 0; k < s->n_notes; k++) free(s->notes[k]);
        free(s->notes);
        history_destroy(s->history);
    }
    free(self->sae);
    words_close(&self->words);
    tasks_close(&self->tasks);
    atmsae_context_destroy(self->context);
}

/* Named bins by share of rows, and equal ones by its logarithm. */
static char *densities_json(const uint64_t *counts, uint64_t d_sae, uint64_t rows)
{
    static const char *const names[] = {"never", "under 1e-5", "1e-5 .. 1e-4", "1e-4 .. 1e-3", "1e-3 .. 1e-2", "1e-2 .. 0.1",
                                        "0.1 .. 0.5", "0.5 and more"};
    static const double limits[] = {1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5};
    enum { N = sizeof names / sizeof *names };
    uint64_t bins[N] = {0};
    for (uint64_t i = 0; i < d_sae; i++) {
        size_t bin = counts[i] > 0;
        while (bin > 0 && bin < N - 1 && (double)counts[i] / (double)rows >= limits[bin - 1]) bin++;
        bins[bin]++;
    }
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    for (size_t b = 0; b < N; b++)
        fprintf(out, "%s\"%s\": %llu", b ? ", " : "{", names[b], (unsigned long long)bins[b]);
    fputc('}', out);
    return program_text_close(out, &json);
}

static char *histogram_json(const report *self, const report_sae *sae)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    fprintf(out, "{\"low\": %g, \"high\": 0, \"latents\": [", self->low);
    for (uint64_t b = 0; b < sae->n_bins; b++) fprintf(out, "%s%llu", b ? ", " : "", (unsigned long long)sae->bins[b]);
    fputs("]}", out);
    return program_text_close(out, &json);
}

static bool measure_densities(report *self, const atmsae_metrics *metrics, uint64_t rows, report_sae *sae)
{
    self->low = fmin(-1, floor(log10(1 / (double)rows)));
    sae->n_bins = (uint64_t)(DENSITY_BINS_A_DECADE * -self->low);
    sae->bins = program_alloc(sae->n_bins, sizeof *sae->bins);
    if (atmsae_metrics_histogram(metrics, self->low, 0, sae->n_bins, sae->bins) < 0) return command_failed(self->context), false;
    fields_json(&sae->fields, "densities", densities_json(atmsae_metrics_counts(metrics), sae->d_sae, rows));
    fields_json(&sae->fields, "density_histogram", histogram_json(self, sae));
    return true;
}

static bool measure_rows(report *self, const atmsae_model *model, report_sae *sae)
{
    const setting *s = self->settings;
    atmsae_metrics *metrics;
    const row_files files = {&s[R_INPUT], &s[R_TARGET], s[R_TENSOR].text, s[R_TARGET_TENSOR].text, s[R_BF16].given};
    if (!evaluate_files(self->context, model, &files, "target", &self->norms, &metrics)) return false;
    atmsae_metrics_result result = {.size = sizeof result};
    bool good = atmsae_metrics_get(metrics, &result) >= 0 || (command_failed(self->context), false);
    if (good) {
        metrics_fields(&sae->fields, &result);
        norms_fields(&sae->fields, &self->norms);
    }
    good = good && measure_densities(self, metrics, result.rows, sae) &&
           details_measure(self->context, model, metrics, &sae->fields);
    atmsae_metrics_destroy(metrics);
    return good;
}

/* Absorption asks what latents add along the direction of a class, which is known among the inputs only. */
static bool absorption_applies(const report *self, const char *path, const atmsae_model_config *config)
{
    if (!config->transcoder || !self->words.absorption) return true;
    program_error("%s: absorption is not measured of a transcoder, whose latents add to another tensor than the words' rows: leave --words out", path);
    return false;
}

bool report_measure(report *self, size_t i, const char *path, const char *pair)
{
    report_sae *sae = &self->sae[i];
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    sae->path = sae->name = path;
    atmsae_model *model = sae_load(self->context, path);
    if (!model) return false;
    const bool known = atmsae_model_get_config(model, &config) >= 0 || (command_failed(self->context), false);
    bool good = known && absorption_applies(self, path, &config);
    if (good) {
        sae->d_sae = config.d_sae;
        fields_text(&sae->fields, "sae", path);
        run_read(self, &config, sae);
        good = measure_rows(self, model, sae) && words_measure(self, model, sae) && tasks_measure(self, model, sae) &&
               (!pair || pair_measure(self->context, model, pair, &sae->fields));
        if (good) report_notes(self, sae);
    }
    atmsae_model_destroy(model);
    return good;
}

/* ---- methods -------------------------------------------------------------------------------------------- */

/* Bytes of the folders that all paths begin with. */
static size_t common_folders(const report *self)
{
    size_t common = 0;
    for (size_t at = 1; self->n > 1; at++) {
        for (size_t i = 0; i < self->n; i++)
            if (self->sae[i].path[at - 1] == 0 || self->sae[i].path[at - 1] != self->sae[0].path[at - 1]) return common;
        if (self->sae[0].path[at - 1] == '/') common = at;
    }
    return common;
}

/* Is the setting there for several SAEs, with different values? */
static bool differs(const report *self, const char *key)
{
    const char *first = NULL;
    for (size_t i = 0; i < self->n; i++) {
        const char *value = fields_find(&self->sae[i].fields, key);
        if (first && value && strcmp(first, value) != 0) return true;
        if (value) first = value;
    }
    return false;
}

static char *method_of(const report *self, const report_sae *sae)
{
    static const char *const settings[][2] = {{"mask_r", "r"}, {"mask_c", "c"}, {"mask_alpha", "alpha"}, {"d_sae", "d_sae"}};
    const char *arch = fields_find(&sae->fields, "arch"), *mask = fields_find(&sae->fields, "mask");
    char *text = NULL;
    size_t size;
    FILE *out = program_text_open(&text, &size);
    fputs(arch ? arch : "?", out);
    const char *effect = fields_find(&sae->fields, "mask_effect");
    if (mask && strcmp(mask, "none") != 0) fprintf(out, " + %s", mask);
    if (effect && strcmp(effect, "hard") == 0) fputs(" (hard)", out);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const char *value = fields_find(&sae->fields, settings[i][0]);
        if (value && differs(self, settings[i][0])) fprintf(out, ", %s %s", settings[i][1], value);
    }
    return program_text_close(out, &text);
}

static char *level_of(const report_sae *sae)
{
    const char *level = fields_find(&sae->fields, "k");
    if (!level) level = fields_find(&sae->fields, "target_l0");
    if (!level) level = fields_find(&sae->fields, "sparsity");
    if (!level) level = sae->path;
    const size_t bytes = strlen(level) + 1;
    return memcpy(program_alloc(bytes, 1), level, bytes);
}

void report_group(report *self)
{
    const size_t common = common_folders(self);
    for (size_t i = 0; i < self->n; i++) {
        report_sae *sae = &self->sae[i];
        sae->name = sae->path + common;
        sae->method = method_of(self, sae);
        sae->level = level_of(sae);
        size_t same = 0;
        while (strcmp(self->sae[same].method, sae->method) != 0) same++;
        sae->group = same < i ? self->sae[same].group : self->n_groups++;
    }
}
