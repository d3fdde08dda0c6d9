/* SPDX-License-Identifier: MIT
 *
 * Rows of features in trees: every feature has a probability, a magnitude and possibly a parent, without which it
 * is off; draws may be correlated; siblings may exclude each other. It is the model of SynthSAEBench
 * (Chanin & Garriga-Alonso 2026), and its special cases are the small toys. synth_tree_create.c makes one.
 */
#include "base/elementary.h"
#include "data/synth.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

/* Correlated draws: z_i = sum_k factor_ki e_k + own_i e, and feature i is drawn where z_i > threshold_i, that is,
 * where a uniform u < Q((threshold_i - g_i) / own_i), Q the normal tail and g_i the sum. Q falls, so its
 * values at the two ends of a grid cell decide nearly all cases, and erfc only the rest. */
enum { GRID_END = 9, GRID_STEPS = 32, GRID = 2 * GRID_END * GRID_STEPS + 1 };

static double tail(double c) { return 0.5 * ams_erfc(c * 0.70710678118654752440); }

static bool below_tail(const ams_tree *t, double u, double c)
{
    double at = (c + GRID_END) * GRID_STEPS;
    if (!(at >= 0 && at < GRID - 1)) return u < tail(c);
    uint64_t cell = (uint64_t)at;
    if (u >= t->tail[cell]) return false;
    return u < t->tail[cell + 1] || u < tail(c);
}

/* One row in the making. */
typedef struct row {
    const atmsae_synth *synth;
    uint64_t row;
    float *common;     /* [n] g */
    float *magnitude;  /* [n] of drawn features; read only where drawn */
    uint8_t *drawn;    /* [n] */
} row;

uint64_t ams_tree_scratch(const atmsae_synth *synth)
{
    return (synth->features * (2 * sizeof(float) + 1) + 63) / 64 * 64;
}

static void draw_common(const row *r)
{
    const ams_tree *t = r->synth->tree;
    uint64_t n = r->synth->features;
    memset(r->common, 0, n * sizeof *r->common);
    for (uint64_t k = 0; k < t->rank; k += 2) {
        uint32_t words[4];
        double two[2];
        ams_synth_words(r->synth, AMS_SYNTH_COMMON, k / 2, r->row, words);
        ams_normal2(words, two);
        for (uint64_t q = k; q < ams_min(k + 2, t->rank); q++)
            ams_axpy(r->common, (float)two[q - k], t->factor + q * n, n);
    }
}

/* Which features are drawn, and how large they would be, before the hierarchy has its say. */
static void draw(const row *r)
{
    const ams_tree *t = r->synth->tree;
    uint64_t n = r->synth->features;
    if (t->rank > 0) draw_common(r);
    for (uint64_t i = 0; i < n; i += 4) {
        uint32_t words[4];
        ams_synth_words(r->synth, AMS_SYNTH_FIRE, i / 4, r->row, words);
        for (uint64_t q = i; q < ams_min(i + 4, n); q++) {
            double u = (double)words[q - i] * 0x1p-32;
            r->drawn[q] = t->rank > 0 ? below_tail(t, u, (t->threshold[q] - (double)r->common[q]) / t->own[q]) : u < t->p[q];
        }
    }
}

static float draw_magnitude(const row *r, uint64_t i)
{
    const ams_tree *t = r->synth->tree;
    uint32_t words[4];
    double two[2];
    ams_synth_words(r->synth, AMS_SYNTH_SIZE, i, r->row, words);
    ams_normal2(words, two);
    return (float)fmax(0, (double)t->mean[i] + (double)t->sd[i] * two[0]);
}

/* A number in [0, 1) for the choice among a parent's children. */
static double choice(const row *r, uint32_t parent)
{
    uint32_t words[4];
    ams_synth_words(r->synth, AMS_SYNTH_CHOICE, parent, r->row, words);
    return ams_uniform(words[0], words[1]);
}

/* Siblings order[first .. last-1] of a parent that is on: of those drawn one stays, each as likely; or one is
 * drawn now by the features' own probabilities, or none with what is left of 1. */
static void exclude(const row *r, uint32_t parent, const uint32_t *sibling, uint64_t n)
{
    const ams_tree *t = r->synth->tree;
    double u = choice(r, parent), sum = 0;
    uint64_t drawn = 0, seen = 0;
    for (uint64_t k = 0; k < n; k++)
        drawn += r->drawn[sibling[k]];
    uint64_t keep = ams_min((uint64_t)(u * (double)drawn), drawn ? drawn - 1 : 0);
    for (uint64_t k = 0; k < n; k++) {
        uint32_t i = sibling[k];
        double before = sum;
        sum += t->p[i];
        if (t->exclusive[parent] == ATMSAE_CHILDREN_CHOOSE_ONE) r->drawn[i] = u >= before && u < sum;
        else if (r->drawn[i]) r->drawn[i] = seen++ == keep;
    }
}

/* The features in `order`: siblings lie together, and after their parent. */
static void apply_hierarchy(const row *r)
{
    const ams_tree *t = r->synth->tree;
    const uint32_t *parent_of = r->synth->parent_of;
    for (uint64_t k = 0, end; k < r->synth->features; k = end) {
        uint32_t parent = parent_of[t->order[k]];
        for (end = k + 1; end < r->synth->features && parent != AMS_NO_PARENT && parent_of[t->order[end]] == parent;)
            end++;
        float scale = 1;
        if (parent != AMS_NO_PARENT) {
            if (!r->drawn[parent]) {
                for (uint64_t q = k; q < end; q++)
                    r->drawn[t->order[q]] = 0;
                continue;
            }
            if (t->exclusive[parent]) exclude(r, parent, t->order + k, end - k);
            if (t->scale_children && t->mean[parent] > 0) scale = r->magnitude[parent] / t->mean[parent];
        }
        for (uint64_t q = k; q < end; q++) {
            uint32_t i = t->order[q];
            if (!r->drawn[i]) continue;
            r->magnitude[i] = draw_magnitude(r, i) * scale;
            r->drawn[i] = r->magnitude[i] > 0;
        }
    }
}

void ams_tree_row(const atmsae_synth *synth, uint64_t at, void *scratch, float *x, uint8_t *active)
{
    uint64_t n = synth->features, d = synth->config.d;
    float *floats = scratch;
    row r = {synth, at, floats, floats + n, (uint8_t *)(floats + 2 * n)};
    draw(&r);
    apply_hierarchy(&r);
    memcpy(x, synth->tree->bias, d * sizeof *x);
    for (uint64_t i = 0; i < n; i++)
        if (r.drawn[i]) ams_axpy(x, r.magnitude[i], synth->directions + i * d, d);
    if (active) memcpy(active, r.drawn, n);
}

void ams_tree_free(atmsae_context *ctx, ams_tree *t)
{
    if (!t) return;
    void *memory[] = {t->order, t->exclusive, t->p, t->threshold, t->factor, t->own, t->tail, t->mean, t->sd, t->bias, t};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        ams_free(ctx, memory[i]);
}

/* ---- tables ----------------------------------------------------------------------------------------- */

/* Q^-1(p) by halving; p = 0 and 1 give infinities. */
static double inverse_tail(double p)
{
    double low = -40, high = 40;
    if (p <= 0) return INFINITY;
    if (p >= 1) return -INFINITY;
    for (int i = 0; i < 80; i++) {
        double middle = 0.5 * (low + high);
        if (tail(middle) > p) low = middle;
        else high = middle;
    }
    return 0.5 * (low + high);
}

atmsae_status ams_tree_correlate(atmsae_synth *synth, uint64_t rank, double scale)
{
    ams_tree *t = synth->tree;
    uint64_t n = synth->features, size = 0;
    if (rank == 0) return ATMSAE_OK;
    t->rank = rank;
    t->factor = ams_mul(n, rank, &size) ? ams_alloc(synth->ctx, size, sizeof *t->factor) : NULL;
    t->own = ams_alloc(synth->ctx, n, sizeof *t->own);
    t->threshold = ams_alloc(synth->ctx, n, sizeof *t->threshold);
    t->tail = ams_alloc(synth->ctx, GRID, sizeof *t->tail);
    if (!t->factor || !t->own || !t->threshold || !t->tail) return ams_nomem(synth->ctx, "a generator's correlations");
    for (uint64_t i = 0; i < n; i++) {
        double squares = 0, shrink = 1;
        for (uint64_t k = 0; k < rank; k += 2) {
            uint32_t words[4];
            double two[2];
            ams_synth_words(synth, AMS_SYNTH_FACTOR, i, k / 2, words);
            ams_normal2(words, two);
            for (uint64_t q = k; q < ams_min(k + 2, rank); q++) {
                t->factor[q * n + i] = (float)(scale * two[q - k]);
                squares += scale * two[q - k] * scale * two[q - k];
            }
        }
        if (1 - squares < 0.01) { /* the common part may make up 99 % of a variance at most */
            shrink = sqrt(0.99 / squares);
            for (uint64_t q = 0; q < rank; q++)
                t->factor[q * n + i] = (float)(shrink * (double)t->factor[q * n + i]);
        }
        t->own[i] = sqrt(1 - shrink * shrink * squares);
        t->threshold[i] = inverse_tail(t->p[i]);
    }
    for (int i = 0; i < GRID; i++)
        t->tail[i] = tail((double)i / GRID_STEPS - GRID_END);
    return ATMSAE_OK;
}
