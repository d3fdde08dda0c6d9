/* SPDX-License-Identifier: MIT
 *
 * Feature absorption: scores a model with the data and probe of a handle.
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
#include <stddef.h>
#include <string.h>

#define L1_PENALTY 0.01 /* SAEBench's */
#define SPARSE_C 1.0    /* scikit-learn's default, as in SAEBench */
#define OWN_SHARE 0.01  /* of the rows: a latent that fires on at most so many may be a word's own */
enum { OWN_AMONG = 3, MAX_LISTED = sizeof ((atmsae_absorption_entry *)0)->split / sizeof(uint64_t) };

typedef struct scoring {
    const atmsae_absorption *a;
    const float *w_dec;
    ams_latents latents;
    uint64_t max_split;     /* min(config, F) */
    double *work;           /* [workers, work_each] */
    uint64_t work_each, solver_work;
    float *values;          /* [workers, n + 2, max_split], and the next three likewise: memory of a firing */
    int32_t *labels;
    uint32_t *times, *places;
    bool every_class;       /* also those whose probe is poor, for the mean of version 0.3.2 */
    atmsae_absorption_entry *classes;
    uint8_t *rows;          /* [n_test] ATMSAE_ROW_.. */
    double *lasso_reached, *logistic_reached; /* [n_classes] */
} scoring;

/* The rows on which any of a class's ranked latents fires, with the values of those latents; training rows count once,
 * test rows not at all. Rows 0 and 1 stand for all other training rows, of other classes and of this. */
typedef struct firing {
    uint32_t *at;      /* [n] place of a row in what follows; 0: none */
    uint64_t n;
    float *value;      /* [n, max_split] */
    int32_t *label;    /* [n] 1 of the class, 0 of another */
    uint32_t *times;   /* [n] */
    uint64_t test[2];  /* test rows on which none fires, of other classes and of this */
} firing;

static void begin_firing(const scoring *s, int32_t class, firing *f)
{
    const atmsae_absorption *a = s->a;
    memset(f->at, 0, s->latents.n_rows * sizeof *f->at);
    memset(f->value, 0, 2 * s->max_split * sizeof *f->value);
    memset(f->times, 0, 2 * sizeof *f->times);
    memset(f->test, 0, sizeof f->test);
    f->n = 2;
    for (uint64_t r = 0; r < s->latents.n_rows; r++) {
        bool of_class = a->label[r] == class;
        if (r < a->n_train) f->times[of_class]++;
        else f->test[of_class]++;
    }
    for (int32_t k = 0; k < 2; k++)
        f->label[k] = k;
}

/* Writes latent `i` into column k. */
static void add_firing(const scoring *s, int32_t class, uint64_t k, uint64_t i, firing *f)
{
    const ams_latents *l = &s->latents;
    for (uint64_t q = 0; q < f->n; q++)
        f->value[q * s->max_split + k] = 0;
    for (uint64_t e = l->column_start[i], end = e + l->column_count[i]; e < end; e++) {
        uint32_t r = l->row[e];
        if (f->at[r] == 0) {
            bool of_class = s->a->label[r] == class, is_test = r >= s->a->n_train;
            memset(f->value + f->n * s->max_split, 0, s->max_split * sizeof *f->value);
            f->label[f->n] = of_class;
            f->times[f->n] = !is_test;
            f->at[r] = (uint32_t)f->n++;
            if (is_test) f->test[of_class]--;
            else f->times[of_class]--;
        }
        f->value[f->at[r] * s->max_split + k] = l->column_value[e];
    }
}

static double sparse_test_f1(const scoring *s, const firing *f, uint64_t k, const double *w)
{
    uint64_t of[2][2] = {{0}}; /* said, is */
    for (uint64_t is = 0; is < 2; is++)
        of[w[k] > 0][is] = f->test[is];
    for (uint64_t q = 2; q < f->n; q++)
        if (f->times[q] == 0) of[ams_logistic_score(w, f->value + q * s->max_split, k) > 0][f->label[q]]++;
    return ams_f1(of[1][1], of[1][0], of[0][1]);
}

/* How many of the ranked latents the class needs: stops at the first that gains too little F1. */
static uint64_t count_split(scoring *s, firing *f, int32_t class, const uint32_t *ranked, double *work,
                            atmsae_absorption_entry *c)
{
    const atmsae_absorption *a = s->a;
    double w[AMS_MAX_SPLIT + 1], best = 0;
    begin_firing(s, class, f);
    for (uint64_t k = 1; k <= s->max_split; k++) {
        add_firing(s, class, k - 1, ranked[k - 1], f);
        ams_logistic problem = {.x = f->value, .n = f->n, .d = k, .ld = s->max_split, .label = f->label, .times = f->times,
                                .c = SPARSE_C / (a->unit * a->unit), .balanced = true};
        double reached = ams_logistic_fit(&problem, 1, work, w);
        s->logistic_reached[class] = fmax(s->logistic_reached[class], reached);
        double f1 = sparse_test_f1(s, f, k, w);
        if (k == 1) c->sparse_f1 = f1;
        else if (!(f1 > best + a->config.min_f1_gain)) return k - 1;
        c->split_f1 = best = f1;
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

/* Whether one of the OWN_AMONG largest latents outside the split set fires on few rows. */
static bool has_own(const scoring *s, const ams_absorption_row *row)
{
    double most = OWN_SHARE * (double)s->latents.n_rows;
    float value[OWN_AMONG] = {0};
    bool rare[OWN_AMONG] = {false};
    for (uint64_t e = 0; e < row->count; e++) {
        float v = row->value[e];
        bool r = (double)s->latents.column_count[row->latent[e]] <= most;
        for (uint64_t k = 0; k < row->n_split; k++)
            if (row->split[k] == row->latent[e]) v = 0;
        for (int k = 0; k < OWN_AMONG; k++) { /* insertion: the largest first */
            if (!(v > value[k])) continue;
            float smaller = value[k];
            bool its = rare[k];
            value[k] = v, rare[k] = r;
            v = smaller, r = its;
        }
    }
    for (int k = 0; k < OWN_AMONG; k++)
        if (rare[k]) return true;
    return false;
}

/* Applies the rules to the test rows of a class; `base` has what they share. */
static void judge_rows(scoring *s, int32_t class, const ams_absorption_row *base, atmsae_absorption_entry *c)
{
    const atmsae_absorption *a = s->a;
    const ams_latents *l = &s->latents;
    double words = (double)c->words;
    uint64_t split = 0, main = 0, main_of_class = 0, main_anywhere = 0, main_of_own = 0;
    for (uint64_t t = 0; t < a->n_test; t++) {
        uint64_t first = l->row_start[a->n_train + t];
        bool of_class = a->label[a->n_train + t] == class;
        ams_absorption_row row = *base;
        row.count = l->row_start[a->n_train + t + 1] - first;
        row.latent = l->latent + first;
        row.value = l->value + first;
        row.projection = a->projection[t];
        row.n_split = 1;
        bool main_fires = ams_split_fires(&row);
        row.n_split = base->n_split;
        main_anywhere += main_fires;
        main_of_class += main_fires && of_class;
        if (!of_class || !a->is_hit[t]) continue;
        bool absorbed = ams_absorbed_fully(&row);
        bool own = has_own(s, &row);
        main += main_fires;
        c->own_words += own;
        main_of_own += main_fires && own;
        split += ams_split_fires(&row);
        c->absorbed += absorbed;
        c->fraction_v060 += ams_absorbed_fraction_v060(&row);
        c->fraction_v032 += ams_absorbed_fraction_v032(&row);
        if (c->used) s->rows[t] = absorbed ? ATMSAE_ROW_ABSORBED : ATMSAE_ROW_KEPT;
    }
    c->full_rate = (double)c->absorbed / words;
    c->fraction_v060 /= words;
    c->fraction_v032 /= words;
    c->split_recall = (double)split / words;
    c->main_recall = (double)main / words;
    c->main_precision = main_anywhere ? (double)main_of_class / (double)main_anywhere : 0;
    c->main_f1 = ams_f1(main_of_class, main_anywhere - main_of_class, c->test_rows - main_of_class);
    c->main_rate = (double)main_anywhere / (double)a->n_test;
    c->own_recall = ams_mean_or_nan((double)main_of_own, (double)c->own_words);
    c->other_recall = ams_mean_or_nan((double)(main - main_of_own), (double)(c->words - c->own_words));
}

static void score_class(void *arg, uint64_t i, unsigned worker)
{
    scoring *s = arg;
    const atmsae_absorption *a = s->a;
    const ams_latents *l = &s->latents;
    atmsae_absorption_entry *c = s->classes + i;
    if (!c->used && !(s->every_class && c->words > 0)) return;
    int32_t class = (int32_t)i;
    uint64_t first = worker * (l->n_rows + 2);
    firing f = {.at = s->places + first, .value = s->values + first * s->max_split, .label = s->labels + first,
                .times = s->times + first};
    double *work = s->work + worker * s->work_each, *w = work + s->solver_work, *slope = w + l->d_sae;
    uint32_t ranked[AMS_MAX_SPLIT];

    ams_lasso lasso = {.a = {a->n_train, l->d_sae, l->column_start, l->first_count, l->row, l->column_value},
                       .label = a->label, .lambda = L1_PENALTY * a->unit};
    s->lasso_reached[i] = ams_lasso_fit(&lasso, class, work, w, slope);
    ams_lasso_rank(w, slope, l->d_sae, s->max_split, ranked);
    c->n_split = count_split(s, &f, class, ranked, work, c);
    for (uint64_t k = 0; k < ams_min(c->n_split, MAX_LISTED); k++)
        c->split[k] = ranked[k];
    find_cosines(s, i, w);
    judge_rows(s, class, &(ams_absorption_row){.cosine = w, .split = ranked, .n_split = c->n_split}, c);
}

static atmsae_status prepare(scoring *s, const atmsae_model *model)
{
    const atmsae_absorption *a = s->a;
    uint64_t n = a->n_train + a->n_test, n_classes = a->config.n_classes, workers = ams_workers(a->ctx);
    uint64_t total = 0, places = (n + 2) * workers, values = 0;
    s->max_split = ams_min(a->config.max_split, model->d_sae);
    s->w_dec = atmsae_model_view(model, ATMSAE_W_DEC, &(uint64_t){0});
    AMS_TRY(ams_latents_encode(a->ctx, model, a->x, n, &s->latents));
    AMS_TRY(ams_latents_transpose(a->ctx, a->n_train, &s->latents));
    ams_lasso lasso = {.a = {.n_rows = a->n_train, .n_columns = model->d_sae}};
    ams_logistic widest = {.n = n + 2, .d = s->max_split};
    s->solver_work = ams_max(ams_lasso_work(&lasso), ams_logistic_work(&widest));
    s->work_each = s->solver_work + 2 * model->d_sae;
    if (ams_mul(s->work_each, workers, &total)) s->work = ams_alloc(a->ctx, total, sizeof *s->work);
    if (ams_mul(places, s->max_split, &values)) s->values = ams_alloc(a->ctx, values, sizeof *s->values);
    s->labels = ams_alloc(a->ctx, places, sizeof *s->labels);
    s->times = ams_alloc(a->ctx, places, sizeof *s->times);
    s->places = ams_alloc(a->ctx, places, sizeof *s->places);
    s->classes = ams_calloc(a->ctx, n_classes, sizeof *s->classes);
    s->rows = ams_calloc(a->ctx, a->n_test, sizeof *s->rows);
    s->lasso_reached = ams_calloc(a->ctx, n_classes, sizeof *s->lasso_reached);
    s->logistic_reached = ams_calloc(a->ctx, n_classes, sizeof *s->logistic_reached);
    if (!s->work || !s->values || !s->labels || !s->times || !s->places || !s->classes || !s->rows || !s->lasso_reached ||
        !s->logistic_reached)
        return ams_nomem(a->ctx, "absorption score");
    for (uint64_t i = 0; i < n_classes; i++) {
        atmsae_absorption_entry *c = s->classes + i;
        c->size = sizeof *c;
        c->probe_f1 = a->probe_f1[i];
        c->words = a->hits[i];
        c->used = a->probe_f1[i] > a->config.min_probe_f1;
    }
    for (uint64_t r = 0; r < n; r++)
        *(r < a->n_train ? &s->classes[a->label[r]].train_rows : &s->classes[a->label[r]].test_rows) += 1;
    return ATMSAE_OK;
}

/* The ranking needs no more than the first digits of the L1 probe, so there a warning will do. */
static atmsae_status check_convergence(const scoring *s)
{
    uint64_t n_short = 0, worst = 0;
    for (uint64_t i = 0; i < s->a->config.n_classes; i++) {
        if (!(s->logistic_reached[i] <= AMS_LOGISTIC_TOLERANCE))
            return ams_fail(s->a->ctx, ATMSAE_E_NONFINITE,
                            "absorption: class %llu: the k-sparse probe stopped at a relative gradient of %g",
                            (unsigned long long)i, s->logistic_reached[i]);
        n_short += !(s->lasso_reached[i] <= AMS_LASSO_TOLERANCE);
        if (!(s->lasso_reached[i] <= s->lasso_reached[worst])) worst = i;
    }
    if (n_short > 0)
        ams_log(s->a->ctx, ATMSAE_LOG_WARNING,
                "absorption: the L1 probes of %llu classes, which rank latents, stopped short of their optimum (class %llu: a "
                "gradient of %g penalties); a few rows with latents far larger than all others do that",
                (unsigned long long)n_short, (unsigned long long)worst, s->lasso_reached[worst]);
    return ATMSAE_OK;
}

typedef struct mean {
    double mean, sd; /* over classes; sd of the sample */
} mean;

/* Of the double at `offset` of an entry, over classes that are used, or that have words. */
static mean mean_over(const scoring *s, size_t offset, bool with_words)
{
    double n = 0, sum = 0, squares = 0;
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t i = 0; i < s->a->config.n_classes; i++) {
            const atmsae_absorption_entry *c = s->classes + i;
            double value;
            if (!(with_words ? c->words > 0 : c->used)) continue;
            memcpy(&value, (const char *)c + offset, sizeof value);
            if (pass == 0) {
                n += 1;
                sum += value;
            } else {
                squares += (value - sum / n) * (value - sum / n);
            }
        }
    return (mean){n > 0 ? sum / n : (double)NAN, n > 1 ? sqrt(squares / (n - 1)) : (double)NAN};
}

/* Variance of a share of n words, from one that cannot be 0 or 1. */
static double variance(double share, double n)
{
    double p = (share * n + 0.5) / (n + 1);
    return p * (1 - p) / n;
}

/* The weights are those with which a difference that is the same in all classes has the least error. */
static void compare_recalls(const scoring *s, atmsae_absorption_measures *r)
{
    double weights = 0, own = 0, other = 0, squares = 0;
    for (uint64_t i = 0; i < s->a->config.n_classes; i++) {
        const atmsae_absorption_entry *c = s->classes + i;
        if (!c->used) continue;
        r->own_words += c->own_words;
        double n = (double)c->own_words, m = (double)(c->words - c->own_words);
        if (!(n > 0 && m > 0)) continue;
        double weight = n * m / (n + m);
        weights += weight;
        own += weight * c->own_recall;
        other += weight * c->other_recall;
        squares += weight * weight * (variance(c->own_recall, n) + variance(c->other_recall, m));
    }
    r->own_recall = ams_mean_or_nan(own, weights);
    r->other_recall = ams_mean_or_nan(other, weights);
    r->gap = ams_mean_or_nan(other - own, weights);
    r->gap_error = ams_mean_or_nan(sqrt(squares), weights);
}

static atmsae_absorption_measures summarise(const scoring *s)
{
    atmsae_absorption_measures r = {.size = sizeof r};
    for (uint64_t i = 0; i < s->a->config.n_classes; i++) {
        const atmsae_absorption_entry *c = s->classes + i;
        r.classes_v032 += c->words > 0;
        if (!c->used) continue;
        r.classes++;
        r.words += c->words;
        r.absorbed += c->absorbed;
        r.mean_split += (double)c->n_split;
    }
    r.mean_split = r.classes ? r.mean_split / (double)r.classes : NAN;
#define MEAN(field) mean_over(s, offsetof(atmsae_absorption_entry, field), false)
    mean full = MEAN(full_rate), v060 = MEAN(fraction_v060);
    mean v032 = mean_over(s, offsetof(atmsae_absorption_entry, fraction_v032), true);
    r.full_rate = full.mean, r.full_rate_sd = full.sd;
    r.fraction_v060 = v060.mean, r.fraction_v060_sd = v060.sd;
    r.fraction_v032 = v032.mean, r.fraction_v032_sd = v032.sd;
    r.probe_f1 = MEAN(probe_f1).mean;
    r.sparse_f1 = MEAN(sparse_f1).mean;
    r.split_f1 = MEAN(split_f1).mean;
    r.split_recall = MEAN(split_recall).mean;
    r.main_recall = MEAN(main_recall).mean;
    r.main_precision = MEAN(main_precision).mean;
    r.main_f1 = MEAN(main_f1).mean;
    r.main_rate = MEAN(main_rate).mean;
#undef MEAN
    compare_recalls(s, &r);
    return r;
}

/* What a caller wants: the results of one of the two public functions. */
typedef struct wanted {
    atmsae_absorption_result *result;
    atmsae_absorption_class *classes;
    atmsae_absorption_measures *measures;
    atmsae_absorption_entry *entries;
    uint8_t *rows;
} wanted;

static atmsae_status write_measures(const scoring *s, const wanted *w)
{
    const atmsae_absorption *a = s->a;
    atmsae_absorption_measures r = summarise(s);
    size_t stride = w->entries ? w->entries->size : 0;
    for (uint64_t i = 0; i < a->config.n_classes && w->entries; i++) {
        char *entry = (char *)w->entries + i * stride;
        memcpy(entry, &stride, sizeof stride);
        AMS_TRY(ams_struct_out(a->ctx, atmsae_absorption_entry, entry, s->classes + i));
    }
    if (w->rows) memset(w->rows, ATMSAE_ROW_NOT_COUNTED, a->n_given);
    for (uint64_t t = 0; t < a->n_test && w->rows; t++)
        w->rows[a->given[t]] = s->rows[t];
    return ams_struct_out(a->ctx, atmsae_absorption_measures, w->measures, &r);
}

static atmsae_status write_result(const scoring *s, const wanted *w)
{
    atmsae_absorption_measures m = summarise(s);
    atmsae_absorption_result r = {.size = sizeof r, .classes = m.classes, .full_rate = m.full_rate,
                                  .recall = m.split_recall, .sparse_f1 = m.sparse_f1, .mean_split = m.mean_split,
                                  .probe_f1 = m.probe_f1, .true_positives = m.words, .main_f1 = m.main_f1,
                                  .main_precision = m.main_precision, .main_rate = m.main_rate, .gap = m.gap,
                                  .gap_error = m.gap_error};
    AMS_TRY(ams_struct_out(s->a->ctx, atmsae_absorption_result, w->result, &r));
    for (uint64_t i = 0; i < s->a->config.n_classes && w->classes; i++) {
        const atmsae_absorption_entry *c = s->classes + i;
        w->classes[i] = (atmsae_absorption_class){
            .probe_f1 = c->probe_f1, .full_rate = c->full_rate, .recall = c->split_recall, .sparse_f1 = c->sparse_f1,
            .true_positives = c->words, .absorbed = c->absorbed, .n_split = c->n_split, .main_latent = c->split[0],
            .used = c->used};
    }
    return ATMSAE_OK;
}

static atmsae_status score(const atmsae_absorption *a, const atmsae_model *model, const wanted *w)
{
    if (model->d_in != a->d || model->d_out != a->d)
        return ams_fail(a->ctx, ATMSAE_E_ARG, "absorption: the model has d_in = %llu, d_out = %llu, expected d = %llu",
                        (unsigned long long)model->d_in, (unsigned long long)model->d_out, (unsigned long long)a->d);
    if (model->config.transcoder)
        return ams_fail(a->ctx, ATMSAE_E_UNSUPPORTED, "absorption: the model is a transcoder: what its latents add lies in the space of its "
                        "targets, where the probe, which is fitted on its inputs, has no direction");
    scoring s = {.a = a, .every_class = w->measures};
    atmsae_status status = prepare(&s, model);
    if (status == ATMSAE_OK) {
        ams_parallel(a->ctx, a->config.n_classes, score_class, &s);
        status = check_convergence(&s);
    }
    if (status == ATMSAE_OK) status = w->measures ? write_measures(&s, w) : write_result(&s, w);
    void *memory[] = {s.work, s.values, s.labels, s.times, s.places, s.classes, s.rows, s.lasso_reached, s.logistic_reached};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(a->ctx, memory[i]);
    ams_latents_free(a->ctx, &s.latents);
    return status;
}

static atmsae_status score_old(const atmsae_absorption *a, const atmsae_model *model, atmsae_absorption_result *result,
                               atmsae_absorption_class *classes)
{
    AMS_TRY(ams_struct_check(a->ctx, atmsae_absorption_result, result));
    return score(a, model, &(wanted){.result = result, .classes = classes});
}

static atmsae_status measure(const atmsae_absorption *a, const atmsae_model *model, atmsae_absorption_measures *measures,
                             atmsae_absorption_entry *entries, uint8_t *rows)
{
    AMS_TRY(ams_struct_check(a->ctx, atmsae_absorption_measures, measures));
    if (entries) AMS_TRY(ams_struct_check(a->ctx, atmsae_absorption_entry, entries));
    return score(a, model, &(wanted){.measures = measures, .entries = entries, .rows = rows});
}

atmsae_status atmsae_absorption_score(const atmsae_absorption *a, const atmsae_model *model,
                                      atmsae_absorption_result *result, atmsae_absorption_class *classes)
{
    AMS_NEED_BOTH("absorption", a, "model", model);
    AMS_CALL(a->ctx, score_old(a, model, result, classes), AMS_READS("model", model));
}

atmsae_status atmsae_absorption_measure(const atmsae_absorption *a, const atmsae_model *model,
                                        atmsae_absorption_measures *result, atmsae_absorption_entry *classes,
                                        uint8_t *rows)
{
    AMS_NEED_BOTH("absorption", a, "model", model);
    AMS_CALL(a->ctx, measure(a, model, result, classes, rows), AMS_READS("model", model));
}
