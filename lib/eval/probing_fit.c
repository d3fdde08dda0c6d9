/* SPDX-License-Identifier: MIT
 *
 * The probes of k-sparse probing: ranks columns by how far the class means lie apart, fits a logistic
 * regression on the first k and on all, and tests it. One job a task.
 */
#include "base/elementary.h"
#include "eval/absorption.h"
#include "eval/logistic.h"
#include "eval/probing.h"
#include "format/format.h"

#include <math.h>
#include <string.h>

enum { N_C = 10, MIN_FOR_C = 128, MAX_HELD_OUT = 100 };

/* A task's texts, in the order given: training ones first. */
typedef struct task {
    uint64_t n_train, n_test;
    uint64_t *text;  /* [n_texts] */
    int32_t *label;  /* [n_texts] */
} task;

typedef struct scored {
    double score;
    uint64_t positive;
} scored;

typedef struct probing {
    const atmsae_probing *p;
    const ams_features *f;
    uint64_t max_k, entries; /* entries: most of a task */
    task *tasks;             /* [workers], and what follows likewise */
    float *value;            /* [max(entries, n_texts * max_k)] the task's rows */
    uint64_t *row_start;     /* [n_texts + 1] */
    uint32_t *column;        /* [entries], sparse only */
    double *mean;            /* [4, width]: sums over positive and negative rows, of |a|, and counts */
    uint32_t *ranked;        /* [max_k] */
    double *w, *work;        /* [width + 1], [work_each] */
    scored *scores;          /* [n_texts] */
    uint64_t value_each, work_each;
    double *reached;         /* [n_tasks] */
    atmsae_probing_entry *out;
} probing;

static void collect(const probing *s, uint64_t k, task *t)
{
    const atmsae_probing *p = s->p;
    t->n_train = t->n_test = 0;
    for (int train = 1; train >= 0; train--)
        for (uint64_t i = 0; i < p->n_texts; i++) {
            int8_t label = p->label[i * p->config.n_tasks + k];
            if (p->is_train[i] != train || label < 0) continue;
            t->text[t->n_train + t->n_test] = i;
            t->label[t->n_train + t->n_test] = label;
            *(train ? &t->n_train : &t->n_test) += 1;
        }
}

/* The entries of a text: column j of entry e is column[e], or e itself of a dense row. */
typedef struct row {
    const float *value;
    const uint32_t *column;
    uint64_t n;
} row;
static row row_of(const ams_features *f, uint64_t text)
{
    if (!f->row_start) return (row){f->value + text * f->width, NULL, f->width};
    uint64_t first = f->row_start[text];
    return (row){f->value + first, f->column + first, f->row_start[text + 1] - first};
}

/* The first max_k columns by |mean of positives - mean of negatives|, lower index first on ties. */
static void rank_columns(const probing *s, const task *t, double *mean, uint32_t *ranked)
{
    uint64_t width = s->f->width, n_positive = 0;
    double *sum[2] = {mean, mean + width}, *size = mean + 2 * width, *count = mean + 3 * width;
    memset(mean, 0, 4 * width * sizeof *mean);
    for (uint64_t i = 0; i < t->n_train; i++) {
        row r = row_of(s->f, t->text[i]);
        n_positive += t->label[i] == 1;
        for (uint64_t e = 0; e < r.n; e++) {
            uint64_t j = r.column ? r.column[e] : e;
            sum[t->label[i]][j] += (double)r.value[e];
            size[j] += fabs((double)r.value[e]);
            count[j] += r.value[e] != 0;
        }
    }
    for (uint64_t j = 0; j < width; j++) {
        sum[1][j] = fabs(sum[1][j] / (double)n_positive - sum[0][j] / (double)(t->n_train - n_positive));
        if (s->p->config.protocol == ATMSAE_PROBING_SAE_PROBES) sum[1][j] /= size[j] / (count[j] + 1e-6) + 1e-6;
    }
    uint64_t n = 0;
    for (uint64_t j = 0; j < width && s->max_k > 0; j++) { /* insertion into a short list */
        if (n == s->max_k && !(sum[1][j] > sum[1][ranked[n - 1]])) continue;
        uint64_t at = n < s->max_k ? n++ : n - 1;
        for (; at > 0 && sum[1][j] > sum[1][ranked[at - 1]]; at--)
            ranked[at] = ranked[at - 1];
        ranked[at] = (uint32_t)j;
    }
}

/* The task's rows with the first k ranked columns (k 0: all), as the solver takes them. */
static ams_logistic gather(const probing *s, const task *t, uint64_t k, const uint32_t *ranked, float *value,
                           uint64_t *row_start, uint32_t *column)
{
    uint64_t n = t->n_train + t->n_test, at = 0;
    ams_logistic p = {.x = value, .n = t->n_train, .d = k ? k : s->f->width, .ld = k ? k : s->f->width, .label = t->label};
    if (!k && s->f->row_start) {
        p.row_start = row_start;
        p.column = column;
    }
    for (uint64_t i = 0; i < n; i++) {
        row r = row_of(s->f, t->text[i]);
        if (k) {
            for (uint64_t q = 0; q < k; q++) {
                value[i * k + q] = r.column ? 0 : r.value[ranked[q]];
                for (uint64_t e = 0; r.column && e < r.n; e++)
                    if (r.column[e] == ranked[q]) value[i * k + q] = r.value[e];
            }
            continue;
        }
        memcpy(value + at, r.value, r.n * sizeof *value);
        if (r.column) memcpy(column + at, r.column, r.n * sizeof *column);
        row_start[i] = at;
        row_start[i + 1] = at += r.n;
    }
    return p;
}

static int by_score(const void *a, const void *b)
{
    double x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return x < y ? -1 : x > y;
}

/* Area under the ROC curve; ties count half. NaN without both classes. */
static double auc(scored *scores, uint64_t n)
{
    double positives = 0, ranks = 0;
    ams_sort(scores, n, sizeof *scores, by_score);
    for (uint64_t i = 0, j; i < n; i = j) {
        for (j = i; j < n && scores[j].score == scores[i].score; j++)
            positives += (double)scores[j].positive;
        for (uint64_t q = i; q < j; q++)
            ranks += scores[q].positive ? (double)(i + j + 1) / 2 : 0;
    }
    return (ranks - positives * (positives + 1) / 2) / (positives * ((double)n - positives));
}

/* Scores of rows first .. last-1. */
static void apply(const ams_logistic *p, const double *w, uint64_t first, uint64_t last, scored *out)
{
    for (uint64_t i = first; i < last; i++)
        out[i - first] = (scored){ams_logistic_row_score(p, i, w), p->label[i] == 1};
}

/* The C of 10^5 .. 10^-5 with the best AUC on the last training rows, as sae-probes chooses it. */
static double choose_c(const ams_logistic *all, double *work, double *w, scored *scores, double fallback)
{
    uint64_t held_out = ams_min(all->n / 5, MAX_HELD_OUT), n = all->n - held_out;
    double best = -1, chosen = fallback;
    if (all->n < MIN_FOR_C) return fallback;
    for (int i = 0; i < N_C; i++) {
        ams_logistic p = *all;
        p.n = n;
        p.c = ams_pow(10, 5 - 10.0 * i / (N_C - 1));
        (void)ams_logistic_fit(&p, 1, work, w);
        apply(all, w, n, all->n, scores);
        double area = auc(scores, held_out);
        if (area > best) {
            best = area;
            chosen = p.c;
        }
    }
    return chosen;
}

static void test_probe(const ams_logistic *p, const double *w, uint64_t n_test, scored *scores, atmsae_probing_entry *out)
{
    uint64_t of[2][2] = {{0}}; /* said, is */
    apply(p, w, p->n, p->n + n_test, scores);
    for (uint64_t i = 0; i < n_test; i++)
        of[scores[i].score > 0][scores[i].positive]++;
    out->accuracy = (double)(of[0][0] + of[1][1]) / (double)n_test;
    out->f1 = ams_f1(of[1][1], of[1][0], of[0][1]);
    out->auc = auc(scores, n_test);
}

static void fit_task(void *arg, uint64_t k, unsigned worker)
{
    probing *s = arg;
    const atmsae_probing *p = s->p;
    uint64_t n = p->n_texts, width = s->f->width;
    task *t = s->tasks + worker;
    float *value = s->value + worker * s->value_each;
    uint64_t *row_start = s->row_start + worker * (n + 1);
    uint32_t *column = s->column + worker * s->entries, *ranked = s->ranked + worker * s->max_k;
    double *w = s->w + worker * (width + 1), *work = s->work + worker * s->work_each;
    scored *scores = s->scores + worker * n;
    if (!p->tasks[k].probed) {
        for (uint64_t i = 0; i <= p->config.n_ks; i++)
            s->out[k * (p->config.n_ks + 1) + i] = (atmsae_probing_entry){NAN, NAN, NAN, NAN, UINT64_MAX};
        return;
    }
    collect(s, k, t);
    rank_columns(s, t, s->mean + (size_t)worker * 4 * width, ranked);
    for (uint64_t i = 0; i <= p->config.n_ks; i++) {
        atmsae_probing_entry *out = s->out + k * (p->config.n_ks + 1) + i;
        bool all = i == p->config.n_ks;
        ams_logistic problem = gather(s, t, all ? 0 : ams_min(p->ks[i], width), ranked, value, row_start, column);
        problem.c = p->config.c;
        if (p->config.protocol == ATMSAE_PROBING_SAE_PROBES) problem.c = choose_c(&problem, work, w, scores, problem.c);
        s->reached[k] = fmax(s->reached[k], ams_logistic_fit(&problem, 1, work, w));
        *out = (atmsae_probing_entry){.c = problem.c, .best = all ? UINT64_MAX : ranked[0]};
        test_probe(&problem, w, t->n_test, scores, out);
    }
}

static void *many(const probing *s, uint64_t count, size_t size) /* count for each worker; NULL on overflow */
{
    uint64_t total = 0;
    return ams_mul(count, ams_workers(s->p->ctx), &total) ? ams_alloc(s->p->ctx, total, size) : NULL;
}

static atmsae_status allocate(probing *s)
{
    const atmsae_probing *p = s->p;
    uint64_t n = p->n_texts, width = s->f->width, dense = 0;
    ams_logistic problem = {.n = n, .d = width, .row_start = s->f->row_start};
    s->entries = s->f->row_start ? s->f->row_start[n] : 0;
    if (!ams_mul(n, s->f->row_start ? s->max_k : ams_max(width, s->max_k), &dense)) return ams_nomem(p->ctx, "probing");
    s->value_each = ams_max(s->entries, dense);
    s->work_each = ams_logistic_work(&problem);
    problem.row_start = NULL;
    for (uint64_t i = 0; i < p->config.n_ks; i++) {
        problem.d = ams_min(p->ks[i], width);
        s->work_each = ams_max(s->work_each, ams_logistic_work(&problem));
    }
    s->tasks = many(s, 1, sizeof *s->tasks);
    s->value = many(s, s->value_each, sizeof *s->value);
    s->row_start = many(s, n + 1, sizeof *s->row_start);
    s->column = many(s, s->entries, sizeof *s->column);
    s->mean = many(s, 4 * width, sizeof *s->mean);
    s->ranked = many(s, s->max_k, sizeof *s->ranked);
    s->w = many(s, width + 1, sizeof *s->w);
    s->work = many(s, s->work_each, sizeof *s->work);
    s->scores = many(s, n, sizeof *s->scores);
    s->reached = ams_calloc(p->ctx, p->config.n_tasks, sizeof *s->reached);
    uint64_t *texts = many(s, n, sizeof *texts);
    int32_t *labels = many(s, n, sizeof *labels);
    if (s->tasks) *s->tasks = (task){.text = texts, .label = labels}; /* the first one frees them */
    if (!s->tasks || !s->value || !s->row_start || !s->column || !s->mean || !s->ranked || !s->w || !s->work ||
        !s->scores || !s->reached || !texts || !labels) {
        if (!s->tasks) ams_free(p->ctx, texts), ams_free(p->ctx, labels);
        return ams_nomem(p->ctx, "probing");
    }
    for (unsigned i = 0; i < ams_workers(p->ctx); i++)
        s->tasks[i] = (task){.text = texts + i * n, .label = labels + i * n};
    return ATMSAE_OK;
}

atmsae_status ams_probe(const atmsae_probing *p, const ams_features *features, atmsae_probing_entry *entries)
{
    probing s = {.p = p, .f = features, .out = entries};
    for (uint64_t i = 0; i < p->config.n_ks; i++)
        s.max_k = ams_max(s.max_k, ams_min(p->ks[i], features->width));
    atmsae_status status = allocate(&s);
    if (status == ATMSAE_OK) ams_parallel(p->ctx, p->config.n_tasks, fit_task, &s);
    for (uint64_t k = 0; status == ATMSAE_OK && k < p->config.n_tasks; k++)
        if (!(s.reached[k] <= AMS_LOGISTIC_TOLERANCE))
            ams_log(p->ctx, ATMSAE_LOG_WARNING, "probing: task %llu: a probe stopped at a relative gradient of %g",
                    (unsigned long long)k, s.reached[k]);
    void *memory[] = {s.tasks ? s.tasks->text : NULL, s.tasks ? s.tasks->label : NULL, s.tasks, s.value, s.row_start,
                      s.column, s.mean, s.ranked, s.w, s.work, s.scores, s.reached};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(p->ctx, memory[i]);
    return status;
}
