/* SPDX-License-Identifier: MIT
 *
 * See letters.h. The rule of absorption is that of doc/method.md section 6; what differs is how the probe
 * and the split latents are found:
 *
 *   probe    linear discriminant: u_c = S^-1 (mean of c - mean of the rest), S the covariance within letters
 *            (plus 1 % of its mean diagonal); the letter said is the one with the largest discriminant
 *   splits   a letter's latents are ranked by the F1 of "fires" as a sign of the letter on the training words; the
 *            next joins while "one of them fires" gains more than 0.03 F1 there. At least 1, at most 10
 */
#include "letters.h"
#include "program.h"
#include "study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LETTERS = 26, FOLDS = 5, MAX_SPLIT = 10 };

struct letters {
    uint64_t n, d;
    const float *rows;
    const int32_t *label;
    uint8_t *fold;
    float *direction;   /* [FOLDS, LETTERS, d] unit */
    uint8_t *said;      /* [n] letter that the probe of the word's fold says */
    double *projection; /* [n] x . u of the word's own letter */
    double f1[LETTERS]; /* of the probe over all folds */
};

static double f1_of(uint64_t hits, uint64_t false_alarms, uint64_t missed)
{
    return hits == 0 ? 0 : 2 * (double)hits / (double)(2 * hits + false_alarms + missed);
}

/* A fixed shuffle, dealt round. */
static uint8_t *deal_folds(uint64_t n)
{
    uint32_t *order = program_alloc(n, sizeof *order);
    uint8_t *fold = program_alloc(n, 1);
    uint64_t state = 1;
    for (uint64_t i = 0; i < n; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint64_t j = (state >> 33) % (i + 1);
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    for (uint64_t i = 0; i < n; i++)
        fold[order[i]] = (uint8_t)(i % FOLDS);
    free(order);
    return fold;
}

/* ---- the probe --------------------------------------------------------------------------------------- */

/* Sums of one fold: rows and products of rows, centred by `mean`. */
typedef struct sums {
    double count[LETTERS], *of_letter /* [LETTERS, d] */, *products /* [d, d] lower triangle */;
} sums;

static void add_fold(const letters *l, uint64_t fold, const double *mean, sums *s)
{
    double *x = program_alloc(l->d, sizeof *x);
    for (uint64_t i = 0; i < l->n; i++) {
        if (l->fold[i] != fold) continue;
        for (uint64_t j = 0; j < l->d; j++)
            x[j] = (double)l->rows[i * l->d + j] - mean[j];
        s->count[l->label[i]]++;
        for (uint64_t j = 0; j < l->d; j++) {
            s->of_letter[(uint64_t)l->label[i] * l->d + j] += x[j];
            double *row = s->products + j * l->d;
            for (uint64_t c = 0; c <= j; c++)
                row[c] += x[j] * x[c];
        }
    }
    free(x);
}

/* In place: the Cholesky factor of a positive definite matrix, lower triangle. */
static void factorize(double *a, uint64_t d)
{
    for (uint64_t i = 0; i < d; i++)
        for (uint64_t j = 0; j <= i; j++) {
            double sum = a[i * d + j];
            for (uint64_t k = 0; k < j; k++)
                sum -= a[i * d + k] * a[j * d + k];
            a[i * d + j] = i == j ? sqrt(sum) : sum / a[j * d + j];
        }
}

static void solve(const double *factor, uint64_t d, double *b)
{
    for (uint64_t i = 0; i < d; i++) {
        for (uint64_t k = 0; k < i; k++)
            b[i] -= factor[i * d + k] * b[k];
        b[i] /= factor[i * d + i];
    }
    for (uint64_t i = d; i-- > 0;) {
        for (uint64_t k = i + 1; k < d; k++)
            b[i] -= factor[k * d + i] * b[k];
        b[i] /= factor[i * d + i];
    }
}

/* Discriminants of the words of a fold, from the sums of the others (which become the factor). */
static void fit_fold(letters *l, uint64_t fold, const double *mean, sums *s)
{
    const uint64_t d = l->d;
    double n = 0, diagonal = 0, *total = program_alloc(d, sizeof *total), *w = program_alloc(LETTERS * d, sizeof *w), bias[LETTERS];
    for (uint64_t c = 0; c < LETTERS; c++)
        n += s->count[c];
    for (uint64_t c = 0; c < LETTERS; c++)
        for (uint64_t j = 0; j < d; j++) {
            total[j] += s->of_letter[c * d + j];
            for (uint64_t k = 0; k <= j && s->count[c] > 0; k++)
                s->products[j * d + k] -= s->of_letter[c * d + j] * s->of_letter[c * d + k] / s->count[c];
        }
    for (uint64_t j = 0; j < d; j++)
        diagonal += s->products[j * d + j] / (double)d;
    for (uint64_t j = 0; j < d; j++) {
        s->products[j * d + j] += 0.01 * diagonal;
        for (uint64_t k = 0; k <= j; k++)
            s->products[j * d + k] /= n;
    }
    factorize(s->products, d);
    for (uint64_t c = 0; c < LETTERS; c++) {
        double norm = 0, half = 0, *u = program_alloc(d, sizeof *u), *of = w + c * d;
        const double count = s->count[c] > 0 ? s->count[c] : 1;
        for (uint64_t j = 0; j < d; j++) {
            of[j] = s->of_letter[c * d + j] / count;
            u[j] = of[j] - (total[j] - s->of_letter[c * d + j]) / (n - count);
        }
        double *centre = program_alloc(d, sizeof *centre);
        memcpy(centre, of, d * sizeof *centre);
        solve(s->products, d, of);
        solve(s->products, d, u);
        for (uint64_t j = 0; j < d; j++) {
            half += 0.5 * centre[j] * of[j];
            norm += u[j] * u[j];
        }
        bias[c] = log(count / n) - half;
        for (uint64_t j = 0; j < d; j++)
            l->direction[(fold * LETTERS + c) * d + j] = (float)(u[j] / sqrt(norm > 0 ? norm : 1));
        free(centre);
        free(u);
    }
    for (uint64_t i = 0; i < l->n; i++) {
        if (l->fold[i] != fold) continue;
        const float *x = l->rows + i * d, *u = l->direction + (fold * LETTERS + (uint64_t)l->label[i]) * d;
        double best = -INFINITY;
        for (uint64_t c = 0; c < LETTERS; c++) {
            double score = bias[c];
            for (uint64_t j = 0; j < d; j++)
                score += w[c * d + j] * ((double)x[j] - mean[j]);
            if (score > best) {
                best = score;
                l->said[i] = (uint8_t)c;
            }
        }
        for (uint64_t j = 0; j < d; j++)
            l->projection[i] += (double)x[j] * (double)u[j];
    }
    free(total);
    free(w);
}

letters *letters_open(const float *rows, uint64_t n, uint64_t d, const int32_t *label)
{
    letters *l = program_alloc(1, sizeof *l);
    *l = (letters){.n = n, .d = d, .rows = rows, .label = label, .fold = deal_folds(n)};
    l->direction = program_alloc((uint64_t)FOLDS * LETTERS * d, sizeof *l->direction);
    l->said = program_alloc(n, 1);
    l->projection = program_alloc(n, sizeof *l->projection);
    double *mean = program_alloc(d, sizeof *mean);
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < d; j++)
            mean[j] += (double)rows[i * d + j] / (double)n;
    sums of[FOLDS], others = {.of_letter = program_alloc(LETTERS * d, sizeof(double)), .products = program_alloc(d * d, sizeof(double))};
    for (uint64_t f = 0; f < FOLDS; f++) {
        of[f] = (sums){.of_letter = program_alloc(LETTERS * d, sizeof(double)), .products = program_alloc(d * d, sizeof(double))};
        add_fold(l, f, mean, &of[f]);
    }
    for (uint64_t f = 0; f < FOLDS; f++) {
        memset(others.count, 0, sizeof others.count);
        memset(others.of_letter, 0, LETTERS * d * sizeof(double));
        memset(others.products, 0, d * d * sizeof(double));
        for (uint64_t g = 0; g < FOLDS; g++) {
            if (g == f) continue;
            for (uint64_t c = 0; c < LETTERS; c++)
                others.count[c] += of[g].count[c];
            for (uint64_t j = 0; j < LETTERS * d; j++)
                others.of_letter[j] += of[g].of_letter[j];
            for (uint64_t j = 0; j < d * d; j++)
                others.products[j] += of[g].products[j];
        }
        fit_fold(l, f, mean, &others);
    }
    for (uint64_t f = 0; f < FOLDS; f++) {
        free(of[f].of_letter);
        free(of[f].products);
    }
    free(others.of_letter);
    free(others.products);
    free(mean);
    for (uint64_t c = 0; c < LETTERS; c++) {
        uint64_t hits = 0, alarms = 0, missed = 0;
        for (uint64_t i = 0; i < n; i++) {
            hits += (uint64_t)label[i] == c && l->said[i] == c;
            alarms += (uint64_t)label[i] != c && l->said[i] == c;
            missed += (uint64_t)label[i] == c && l->said[i] != c;
        }
        l->f1[c] = f1_of(hits, alarms, missed);
    }
    return l;
}

void letters_close(letters *l)
{
    if (!l) return;
    free(l->fold);
    free(l->direction);
    free(l->said);
    free(l->projection);
    free(l);
}

/* ---- scores of a model ----------------------------------------------------------------------------------- */

typedef struct split {
    uint64_t n;
    uint32_t latent[MAX_SPLIT];
} split;

static bool fires(const atmsae_codes_view *v, uint64_t row, uint32_t latent, float *value)
{
    uint64_t low = v->row_start[row], high = v->row_start[row + 1];
    while (low < high) {
        const uint64_t middle = (low + high) / 2;
        if (v->latent[middle] < latent) low = middle + 1;
        else high = middle;
    }
    const bool found = low < v->row_start[row + 1] && v->latent[low] == latent;
    if (value) *value = found ? v->value[low] : 0;
    return found;
}

static bool any_fires(const atmsae_codes_view *v, uint64_t row, const split *s)
{
    for (uint64_t i = 0; i < s->n; i++)
        if (fires(v, row, s->latent[i], NULL)) return true;
    return false;
}

static double union_f1(const letters *l, const atmsae_codes_view *v, uint64_t fold, uint64_t letter, const split *s)
{
    uint64_t hits = 0, alarms = 0, missed = 0;
    for (uint64_t i = 0; i < l->n; i++) {
        if (l->fold[i] == fold) continue;
        const bool positive = (uint64_t)l->label[i] == letter, on = any_fires(v, i, s);
        hits += positive && on;
        alarms += !positive && on;
        missed += positive && !on;
    }
    return f1_of(hits, alarms, missed);
}

/* counts [F, 2]: training words on which a latent fires, of the letter and others. */
static void choose(const letters *l, const atmsae_codes_view *v, uint64_t fold, uint64_t letter, uint32_t (*counts)[2], split *s)
{
    uint64_t positives = 0;
    memset(counts, 0, v->d_sae * sizeof *counts);
    for (uint64_t i = 0; i < l->n; i++) {
        if (l->fold[i] == fold) continue;
        const bool other = (uint64_t)l->label[i] != letter;
        positives += !other;
        for (uint64_t e = v->row_start[i]; e < v->row_start[i + 1]; e++)
            counts[v->latent[e]][other]++;
    }
    double best = -1;
    split tried = {0};
    while (tried.n < MAX_SPLIT) {
        double top = -1;
        uint32_t at = 0;
        for (uint32_t j = 0; j < v->d_sae; j++) {
            const double f1 = f1_of(counts[j][0], counts[j][1], positives - counts[j][0]);
            if (f1 > top) {
                top = f1;
                at = j;
            }
        }
        counts[at][0] = 0; /* taken */
        counts[at][1] = UINT32_MAX;
        tried.latent[tried.n++] = at;
        const double f1 = union_f1(l, v, fold, letter, &tried);
        if (!(f1 > best + 0.03)) break;
        best = f1;
        *s = tried;
    }
}

static int by_value(const void *a, const void *b)
{
    const float x = ((const float *)a)[0], y = ((const float *)b)[0];
    return (x < y) - (x > y);
}

/* F1 on the fold's words of "the main latent is above t", t being best on the other words. */
static double main_f1(const letters *l, const atmsae_codes_view *v, uint64_t fold, uint64_t letter, uint32_t latent)
{
    float (*on)[2] = program_alloc(l->n, sizeof *on), t = 0, value; /* values and whether of the letter */
    uint64_t n = 0, positives = 0, hits = 0, alarms = 0, missed = 0;
    for (uint64_t i = 0; i < l->n; i++) {
        const bool positive = (uint64_t)l->label[i] == letter;
        if (l->fold[i] == fold) continue;
        positives += positive;
        if (!fires(v, i, latent, &value)) continue;
        on[n][0] = value;
        on[n++][1] = positive;
    }
    qsort(on, n, sizeof *on, by_value);
    double best = -1;
    for (uint64_t i = 0; i < n; i++) {
        hits += on[i][1] > 0;
        const double f1 = f1_of(hits, i + 1 - hits, positives - hits);
        if (f1 > best && (i + 1 == n || on[i + 1][0] < on[i][0])) {
            best = f1;
            t = on[i][0];
        }
    }
    free(on);
    hits = 0;
    for (uint64_t i = 0; i < l->n; i++) {
        if (l->fold[i] != fold) continue;
        const bool positive = (uint64_t)l->label[i] == letter, above = fires(v, i, latent, &value) && value >= t;
        hits += positive && above;
        alarms += !positive && above;
        missed += positive && !above;
    }
    return f1_of(hits, alarms, missed);
}

/* Is word i, on which no latent of its letter's split fires, carried by another one? */
static bool carried(const letters *l, const atmsae_codes_view *v, uint64_t i, const float *cosine, double scale)
{
    double top = 0, cos_top = 0;
    const double along = scale * l->projection[i];
    for (uint64_t e = v->row_start[i]; e < v->row_start[i + 1]; e++) {
        const double cos = (double)cosine[v->latent[e]], p = (double)v->value[e] * cos;
        if (p > top) {
            top = p;
            cos_top = cos;
        }
    }
    return cos_top >= 0.025 && along > 0 && top / along >= 0.4;
}

void letters_score(const letters *l, atmsae_context *context, const atmsae_model *model, const char *form, FILE *out)
{
    atmsae_codes *codes;
    atmsae_codes_view v = {.size = sizeof v};
    const atmsae_batch batch = {.size = sizeof batch, .n_rows = l->n, .x = l->rows, .x_type = ATMSAE_F32};
    uint64_t count;
    const double scale = (double)atmsae_model_view(model, ATMSAE_INPUT_SCALE, &count)[0];
    const float *w_dec = atmsae_model_view(model, ATMSAE_W_DEC, &count);
    study_check(context, atmsae_codes_create(context, &codes));
    study_check(context, atmsae_encode(model, &batch, codes));
    study_check(context, atmsae_codes_get(codes, &v));
    uint32_t (*counts)[2] = program_alloc(v.d_sae, sizeof *counts);
    float *cosine = program_alloc(v.d_sae, sizeof *cosine);
    uint8_t *absorbed = program_alloc(l->n, 1);
    uint64_t words = 0, n_absorbed = 0, main_fires = 0, splits = 0, fits = 0;
    double f1 = 0;
    for (uint64_t c = 0; c < LETTERS; c++) {
        if (!(l->f1[c] > 0.6)) continue;
        for (uint64_t fold = 0; fold < FOLDS; fold++) {
            split s = {0};
            choose(l, &v, fold, c, counts, &s);
            splits += s.n;
            fits++;
            f1 += main_f1(l, &v, fold, c, s.latent[0]);
            const float *u = l->direction + (fold * LETTERS + c) * l->d;
            for (uint64_t j = 0; j < v.d_sae; j++) {
                const float *row = w_dec + j * l->d;
                float dot = 0, square = 0;
                for (uint64_t x = 0; x < l->d; x++) {
                    dot += u[x] * row[x];
                    square += row[x] * row[x];
                }
                cosine[j] = square > 0 ? dot / sqrtf(square) : 0;
            }
            for (uint64_t i = 0; i < l->n; i++) {
                if (l->fold[i] != fold || (uint64_t)l->label[i] != c || l->said[i] != c) continue;
                words++;
                main_fires += fires(&v, i, s.latent[0], NULL);
                if (any_fires(&v, i, &s) || !carried(l, &v, i, cosine, scale)) continue;
                absorbed[i] = 1;
                n_absorbed++;
            }
        }
    }
    fprintf(out, ", \"words_%s\": %d, \"absorbed_%s\": %d, \"f1_%s\": %.4f, \"recall_%s\": %.4f, \"split_%s\": %.3f, \"l0_%s\": %.2f, \"list_%s\": [",
            form, (int)words, form, (int)n_absorbed, form, f1 / (double)fits, form, (double)main_fires / (double)words, form,
            (double)splits / (double)fits, form, (double)v.row_start[l->n] / (double)l->n, form);
    const char *comma = "";
    for (uint64_t i = 0; i < l->n; i++)
        if (absorbed[i]) {
            fprintf(out, "%s%d", comma, (int)i);
            comma = ",";
        }
    fprintf(out, "]");
    free(absorbed);
    free(counts);
    free(cosine);
    atmsae_codes_destroy(codes);
}

/* ---- probing ------------------------------------------------------------------------------------------------ */

/* Logistic regression w a + b with an L2 penalty of 1 / 2 on w (C = 1), by Newton's method from 0, steps halved
 * while they do not help; test accuracy. */
static double logistic_accuracy(const float *a, const int8_t *label, uint64_t n, uint64_t tasks, const uint8_t *is_train)
{
    double w = 0, b = 0, before = INFINITY, dw = 0, db = 0;
    for (int round = 0; round < 60; round++) {
        double gw = w, gb = 0, hww = 1, hwb = 0, hbb = 1e-9, loss = w * w / 2;
        for (uint64_t i = 0; i < n; i++) {
            const int8_t y = label[i * tasks];
            if (y < 0 || !is_train[i]) continue;
            const double z = w * (double)a[i] + b, p = 1 / (1 + exp(-z)), curve = p * (1 - p);
            loss += (z > 0 ? z : 0) + log1p(exp(-fabs(z))) - (y ? z : 0);
            gw += (p - y) * (double)a[i];
            gb += p - y;
            hww += curve * (double)a[i] * (double)a[i];
            hwb += curve * (double)a[i];
            hbb += curve;
        }
        if (loss > before) { /* halfway back */
            w += dw /= 2;
            b += db /= 2;
            continue;
        }
        before = loss;
        const double determinant = hww * hbb - hwb * hwb;
        dw = (hbb * gw - hwb * gb) / determinant;
        db = (hww * gb - hwb * gw) / determinant;
        if (fabs(dw) + fabs(db) < 1e-10) break;
        w -= dw;
        b -= db;
    }
    uint64_t right = 0, all = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (label[i * tasks] < 0 || is_train[i]) continue;
        right += (w * (double)a[i] + b > 0) == (label[i * tasks] == 1);
        all++;
    }
    return (double)right / (double)all;
}

double texts_top1(const texts *t, atmsae_context *context, const atmsae_model *model)
{
    atmsae_codes *codes;
    atmsae_codes_view v = {.size = sizeof v};
    const atmsae_batch batch = {.size = sizeof batch, .n_rows = t->n, .x = t->rows, .x_type = ATMSAE_F32};
    study_check(context, atmsae_codes_create(context, &codes));
    study_check(context, atmsae_encode(model, &batch, codes));
    study_check(context, atmsae_codes_get(codes, &v));
    double *difference = program_alloc(v.d_sae, sizeof *difference), accuracy = 0;
    float *column = program_alloc(t->n, sizeof *column);
    for (uint64_t task = 0; task < t->n_tasks; task++) {
        double n[2] = {0, 0};
        memset(difference, 0, v.d_sae * sizeof *difference);
        for (uint64_t i = 0; i < t->n; i++)
            if (t->is_train[i] && t->label[i * t->n_tasks + task] >= 0) n[t->label[i * t->n_tasks + task]]++;
        for (uint64_t i = 0; i < t->n; i++) {
            const int8_t y = t->label[i * t->n_tasks + task];
            for (uint64_t e = v.row_start[i]; t->is_train[i] && y >= 0 && e < v.row_start[i + 1]; e++)
                difference[v.latent[e]] += (y ? 1 : -1) * (double)v.value[e] / n[y];
        }
        uint32_t best = 0;
        for (uint32_t j = 1; j < v.d_sae; j++)
            if (fabs(difference[j]) > fabs(difference[best])) best = j;
        for (uint64_t i = 0; i < t->n; i++)
            fires(&v, i, best, &column[i]);
        accuracy += logistic_accuracy(column, t->label + task, t->n, t->n_tasks, t->is_train) / (double)t->n_tasks;
    }
    free(difference);
    free(column);
    atmsae_codes_destroy(codes);
    return accuracy;
}
