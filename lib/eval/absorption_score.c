/* SPDX-License-Identifier: MIT
 *
 * Feature absorption, full-rate form: scores a model with the data and probe of a handle.
 *
 * For each class: latents are ranked by the signed weight of an L1 probe; a class-balanced logistic
 * regression on the best k = 1, 2, ... of them tells how many are needed (the split latents); then
 * each test row that the full probe recognises is judged by the rule in absorption_rule.c.
 */
#include "eval/absorption.h"
#include "eval/latents.h"
#include "eval/logistic.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

#define L1_PENALTY 0.01 /* SAEBench's */
#define SPARSE_C 1.0    /* scikit-learn's default, as in SAEBench */

typedef struct scoring {
    const atmsae_absorption *a;
    const float *w_dec;
    ams_latents latents;
    uint64_t max_split;     /* min(config, F) */
    double *work;           /* [workers, work_each] */
    uint64_t work_each, solver_work;
    float *features;        /* [workers, n, max_split] */
    atmsae_absorption_class *classes;
    double *lasso_reached, *logistic_reached; /* [n_classes] */
} scoring;

/* Writes latent `i` into column k of the feature matrix. */
static void gather(const scoring *s, float *features, uint64_t k, uint64_t i)
{
    const ams_latents *l = &s->latents;
    for (uint64_t r = 0; r < l->n_rows; r++)
        features[r * s->max_split + k] = 0;
    for (uint64_t e = l->column_start[i], end = e + l->column_count[i]; e < end; e++)
        features[l->row[e] * s->max_split + k] = l->column_value[e];
}

static double sparse_test_f1(const scoring *s, const float *features, uint64_t k, int32_t class, const double *w)
{
    const atmsae_absorption *a = s->a;
    uint64_t hits = 0, wrong = 0, missed = 0;
    for (uint64_t r = a->n_train; r < a->n_train + a->n_test; r++) {
        bool said = ams_logistic_score(w, features + r * s->max_split, k) > 0, is = a->label[r] == class;
        hits += said && is;
        wrong += said && !is;
        missed += !said && is;
    }
    return ams_f1(hits, wrong, missed);
}

/* How many of the ranked latents the class needs: stops at the first that gains too little F1. */
static uint64_t count_split(scoring *s, float *features, int32_t class, const uint32_t *ranked, double *work,
                            atmsae_absorption_class *c)
{
    const atmsae_absorption *a = s->a;
    double w[AMS_MAX_SPLIT + 1], best = 0;
    for (uint64_t k = 1; k <= s->max_split; k++) {
        gather(s, features, k - 1, ranked[k - 1]);
        ams_logistic problem = {.x = features, .n = a->n_train, .d = k, .ld = s->max_split, .label = a->label,
                                .c = SPARSE_C / (a->unit * a->unit), .balanced = true};
        double reached = ams_logistic_fit(&problem, class, work, w);
        s->logistic_reached[class] = fmax(s->logistic_reached[class], reached);
        double f1 = sparse_test_f1(s, features, k, class, w);
        if (k == 1) c->sparse_f1 = f1;
        else if (!(f1 > best + a->config.min_f1_gain)) return k - 1;
        best = f1;
    }
    return s->max_split;
}

static void find_cosines(const scoring *s, uint64_t class, double *cosine)
{
    uint64_t d = s->a->d;
    const double *w = s->a->probe + class * (d + 1);
    double norm = 0;
    for (uint64_t j = 0; j < d; j++)
        norm += w[j] * w[j];
    norm = sqrt(norm);
    for (uint64_t i = 0; i < s->latents.d_sae; i++) {
        double along = ams_logistic_score(w, s->w_dec + i * d, d) - w[d], size = norm * s->latents.norm[i];
        cosine[i] = size > 0 ? along / size : 0;
    }
}

static void score_class(void *arg, uint64_t i, unsigned worker)
{
    scoring *s = arg;
    const atmsae_absorption *a = s->a;
    const ams_latents *l = &s->latents;
    atmsae_absorption_class *c = s->classes + i;
    if (!c->used) return;
    int32_t class = (int32_t)i;
    float *features = s->features + worker * l->n_rows * s->max_split;
    double *work = s->work + worker * s->work_each, *w = work + s->solver_work, *slope = w + l->d_sae;
    uint32_t ranked[AMS_MAX_SPLIT];

    ams_lasso lasso = {.a = {a->n_train, l->d_sae, l->column_start, l->first_count, l->row, l->column_value},
                       .label = a->label, .lambda = L1_PENALTY * a->unit};
    s->lasso_reached[i] = ams_lasso_fit(&lasso, class, work, w, slope);
    ams_lasso_rank(w, slope, l->d_sae, s->max_split, ranked);
    c->main_latent = ranked[0];
    c->n_split = count_split(s, features, class, ranked, work, c);

    double *cosine = w;
    uint64_t fires = 0;
    find_cosines(s, i, cosine);
    for (uint64_t t = 0; t < a->n_test; t++) {
        uint64_t r = a->n_train + t, first = l->row_start[r], count = l->row_start[r + 1] - first;
        if (a->label[r] != class || !a->is_hit[t]) continue;
        fires += ams_split_fires(count, l->latent + first, l->value + first, ranked, c->n_split);
        c->absorbed += ams_absorbed_fully(count, l->latent + first, l->value + first, cosine, ranked, c->n_split,
                                          a->projection[t]);
    }
    c->full_rate = (double)c->absorbed / (double)c->true_positives;
    c->recall = (double)fires / (double)c->true_positives;
}

static atmsae_status prepare(scoring *s, const atmsae_model *model)
{
    const atmsae_absorption *a = s->a;
    uint64_t n = a->n_train + a->n_test, n_classes = a->config.n_classes, workers = ams_workers(a->ctx);
    uint64_t total = 0, floats = 0;
    s->max_split = ams_min(a->config.max_split, model->d_sae);
    s->w_dec = atmsae_model_view(model, ATMSAE_W_DEC, &(uint64_t){0});
    AMS_TRY(ams_latents_encode(a->ctx, model, a->x, n, a->n_train, &s->latents));
    ams_lasso lasso = {.a = {.n_rows = a->n_train, .n_columns = model->d_sae}};
    ams_logistic widest = {.n = a->n_train, .d = s->max_split};
    s->solver_work = ams_max(ams_lasso_work(&lasso), ams_logistic_work(&widest));
    s->work_each = s->solver_work + 2 * model->d_sae;
    if (ams_mul(s->work_each, workers, &total)) s->work = ams_alloc(a->ctx, total, sizeof *s->work);
    if (ams_mul(n * s->max_split, workers, &floats)) s->features = ams_alloc(a->ctx, floats, sizeof *s->features);
    s->classes = ams_calloc(a->ctx, n_classes, sizeof *s->classes);
    s->lasso_reached = ams_calloc(a->ctx, n_classes, sizeof *s->lasso_reached);
    s->logistic_reached = ams_calloc(a->ctx, n_classes, sizeof *s->logistic_reached);
    if (!s->work || !s->features || !s->classes || !s->lasso_reached || !s->logistic_reached)
        return ams_nomem(a->ctx, "absorption score");
    for (uint64_t i = 0; i < n_classes; i++) {
        atmsae_absorption_class *c = s->classes + i;
        c->probe_f1 = a->probe_f1[i];
        c->true_positives = a->hits[i];
        c->used = a->probe_f1[i] > a->config.min_probe_f1;
    }
    return ATMSAE_OK;
}

/* The ranking needs no more than the first digits of the L1 probe, so there a warning will do. */
static atmsae_status check_convergence(const scoring *s)
{
    for (uint64_t i = 0; i < s->a->config.n_classes; i++) {
        if (!(s->logistic_reached[i] <= AMS_LOGISTIC_TOLERANCE))
            return ams_fail(s->a->ctx, ATMSAE_E_NONFINITE,
                            "absorption: class %llu: the k-sparse probe stopped at a relative gradient of %g",
                            (unsigned long long)i, s->logistic_reached[i]);
        if (!(s->lasso_reached[i] <= AMS_LASSO_TOLERANCE))
            ams_log(s->a->ctx, ATMSAE_LOG_WARNING, "absorption: class %llu: the L1 probe stopped %g from its optimum",
                    (unsigned long long)i, s->lasso_reached[i]);
    }
    return ATMSAE_OK;
}

static atmsae_absorption_result summarise(const scoring *s)
{
    atmsae_absorption_result r = {.size = sizeof r};
    for (uint64_t i = 0; i < s->a->config.n_classes; i++) {
        const atmsae_absorption_class *c = s->classes + i;
        if (!c->used) continue;
        r.classes++;
        r.full_rate += c->full_rate;
        r.recall += c->recall;
        r.sparse_f1 += c->sparse_f1;
        r.mean_split += (double)c->n_split;
        r.probe_f1 += c->probe_f1;
        r.true_positives += c->true_positives;
    }
    double *means[] = {&r.full_rate, &r.recall, &r.sparse_f1, &r.mean_split, &r.probe_f1};
    for (size_t i = 0; i < sizeof means / sizeof *means; i++)
        *means[i] /= (double)r.classes; /* no class passed: 0 / 0, NaN */
    return r;
}

static atmsae_status score(const atmsae_absorption *a, const atmsae_model *model, atmsae_absorption_result *result,
                           atmsae_absorption_class *classes)
{
    if (model->d_in != a->d || model->d_out != a->d)
        return ams_fail(a->ctx, ATMSAE_E_ARG, "absorption: the model has d_in = %llu, d_out = %llu, expected d = %llu",
                        (unsigned long long)model->d_in, (unsigned long long)model->d_out, (unsigned long long)a->d);
    AMS_TRY(ams_struct_check(a->ctx, "atmsae_absorption_result", result, sizeof *result));
    scoring s = {.a = a};
    atmsae_status status = prepare(&s, model);
    if (status == ATMSAE_OK) {
        ams_parallel(a->ctx, a->config.n_classes, score_class, &s);
        status = check_convergence(&s);
    }
    if (status == ATMSAE_OK) {
        atmsae_absorption_result r = summarise(&s);
        status = ams_struct_out(a->ctx, "atmsae_absorption_result", result, &r, sizeof r, sizeof r);
    }
    if (status == ATMSAE_OK && classes) memcpy(classes, s.classes, a->config.n_classes * sizeof *classes);
    void *memory[] = {s.work, s.features, s.classes, s.lasso_reached, s.logistic_reached};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(a->ctx, memory[i]);
    ams_latents_free(a->ctx, &s.latents);
    return status;
}

atmsae_status atmsae_absorption_score(const atmsae_absorption *a, const atmsae_model *model,
                                      atmsae_absorption_result *result, atmsae_absorption_class *classes)
{
    if (!a) return ATMSAE_E_ARG;
    if (!model) return ams_fail(a->ctx, ATMSAE_E_ARG, "absorption: model is NULL");
    AMS_CALL(a->ctx, score(a, model, result, classes), AMS_READS("model", model));
}
