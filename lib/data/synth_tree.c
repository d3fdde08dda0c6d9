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

static bool fires(const ams_tree *t, uint64_t i, uint32_t word, float g)
{
    double u = (double)word * 0x1p-32;
    return t->rank > 0 ? below_tail(t, u, (t->threshold[i] - (double)g) / t->own[i]) : u < t->p[i];
}

typedef struct entry {
    uint32_t feature;
    float size;
} entry;

/* Rows in the making, and room for them. */
typedef struct tile {
    const atmsae_synth *synth;
    uint64_t first, rows;
    uint64_t row_words;
    uint64_t *on;     /* [rows, row_words] a bit for each feature that is on */
    float *common;    /* [rows, rank] the e_k */
    float *magnitude; /* [n] of features that are on; of one row, as what follows */
    uint32_t *list;   /* [n] */
    uint8_t *drawn;   /* [n] of siblings, one after the other */
    entry *entry;     /* [n + 1 + ENTRIES rows] features of several rows that are on, each row's ascending */
} tile;
enum {
    ENTRIES = 64,  /* a row: where there are more, fewer rows are added at a time */
    TOGETHER = 128 /* features whose directions are added before those of the next */
};

static uint64_t words_of(uint64_t bits) { return (bits + 63) / 64; }

uint64_t ams_tree_scratch(const atmsae_synth *synth, uint64_t rows)
{
    uint64_t n = synth->features, rank = synth->tree->rank;
    uint64_t bytes = rows * (words_of(n) * sizeof(uint64_t) + rank * sizeof(float) + ENTRIES * sizeof(entry)) +
                     (n + 1) * sizeof(entry) + n * (sizeof(float) + sizeof(uint32_t) + 1);
    return (bytes + 63) / 64 * 64;
}

static tile begin(const atmsae_synth *synth, uint64_t first, uint64_t rows, void *scratch)
{
    tile w = {.synth = synth, .first = first, .rows = rows, .row_words = words_of(synth->features), .on = scratch};
    w.entry = (entry *)(w.on + rows * w.row_words);
    w.common = (float *)(w.entry + synth->features + 1 + ENTRIES * rows);
    w.magnitude = w.common + rows * synth->tree->rank;
    w.list = (uint32_t *)(w.magnitude + synth->features);
    w.drawn = (uint8_t *)(w.list + synth->features);
    memset(w.on, 0, rows * w.row_words * sizeof *w.on);
    return w;
}

static void set_bit(const tile *w, uint64_t r, uint64_t i) { w->on[r * w->row_words + i / 64] |= (uint64_t)1 << i % 64; }

/* Lists the features of a row that are on, ascending. */
static uint64_t list_row(const tile *w, uint64_t r)
{
    uint64_t count = 0;
    for (uint64_t q = 0; q < w->row_words; q++)
        for (uint64_t bits = w->on[r * w->row_words + q]; bits; bits &= bits - 1)
            w->list[count++] = (uint32_t)(q * 64 + (uint64_t)__builtin_ctzll(bits));
    return count;
}

/* ---- features without a parent: in every row ---------------------------------------------------------- */

/* Draws index .. index + 15; word by word, as ams_philox_16 gives them. */
static void draw_16(const tile *w, uint64_t r, unsigned use, uint64_t index, uint32_t words[64])
{
    ams_philox_16(w->synth->config.seed, AMS_DRAW_SYNTH, (uint64_t)use << 48 | index, w->first + r, words);
}

static void draw_common(const tile *w)
{
    uint64_t rank = w->synth->tree->rank;
    for (uint64_t r = 0; r < w->rows; r++) {
        uint32_t words[64];
        double two[2] = {0};
        for (uint64_t k = 0; k < rank; k++) {
            uint64_t i = k / 2 % 16;
            if (k % 32 == 0) draw_16(w, r, AMS_SYNTH_COMMON, k / 2, words);
            if (k % 2 == 0) ams_normal2((const uint32_t[]){words[i], words[16 + i], words[32 + i], words[48 + i]}, two);
            w->common[r * rank + k] = (float)two[k % 2];
        }
    }
}

/* 64 features at a time, whose factors stay in cache for all rows. Most draws are rejected by a bound. */
static void draw_roots(const tile *w)
{
    const atmsae_synth *synth = w->synth;
    const ams_tree *t = synth->tree;
    for (uint64_t b = 0; b < t->n_blocks; b++) {
        const float *factor = t->block_limits + b * (t->rank + 2) * 64, *threshold = factor + t->rank * 64;
        for (uint64_t r = 0; r < w->rows; r++) {
            uint32_t words[64];
            float g[64] = {0};
            draw_16(w, r, AMS_SYNTH_FIRE, (uint64_t)t->block[b] * 16, words);
            ams_gather_64(g, w->common + r * t->rank, t->numbers, 0, factor, t->rank);
            for (uint64_t bits = ams_below_tail_64(words, g, threshold, threshold + 64); bits; bits &= bits - 1) {
                unsigned j = (unsigned)__builtin_ctzll(bits);
                uint64_t i = (uint64_t)t->block[b] * 64 + ams_tree_place(j);
                if (i < synth->features && synth->parent_of[i] == AMS_NO_PARENT && fires(t, i, words[j], g[j])) set_bit(w, r, i);
            }
        }
    }
}

/* ---- children: where their parent is on --------------------------------------------------------------- */

static float draw_magnitude(const tile *w, uint64_t r, uint64_t i)
{
    const ams_tree *t = w->synth->tree;
    uint32_t words[4], parent = w->synth->parent_of[i];
    double two[2];
    ams_synth_words(w->synth, AMS_SYNTH_SIZE, i, w->first + r, words);
    ams_normal2(words, two);
    float magnitude = (float)fmax(0, (double)t->mean[i] + (double)t->sd[i] * two[0]);
    bool scaled = t->scale_children && parent != AMS_NO_PARENT && t->mean[parent] > 0;
    return scaled ? magnitude * (w->magnitude[parent] / t->mean[parent]) : magnitude;
}

/* Features share draws, and lie in `factor`, in fours. */
static void draw_siblings(const tile *w, uint64_t r, const uint32_t *sibling, uint64_t n)
{
    const ams_tree *t = w->synth->tree;
    const float *common = w->common + r * t->rank;
    uint32_t words[4];
    float g[4];
    for (uint64_t k = 0; k < n; k++) {
        uint64_t i = sibling[k], four = i / 4;
        if (k == 0 || four != sibling[k - 1] / 4) {
            ams_synth_words(w->synth, AMS_SYNTH_FIRE, four, w->first + r, words);
            memset(g, 0, sizeof g);
            for (const float *factor = t->factor + four * t->rank * 4, *e = common; e < common + t->rank; e++, factor += 4)
                for (int q = 0; q < 4; q++)
                    g[q] += *e * factor[q];
        }
        w->drawn[k] = fires(t, i, words[i % 4], g[i % 4]);
    }
}

/* Siblings that exclude each other: of those drawn one stays, each as likely; or one is drawn now by the features' own
 * probabilities, or none with what is left of 1. */
static void exclude(const tile *w, uint64_t r, uint32_t parent, const uint32_t *sibling, uint64_t n)
{
    const ams_tree *t = w->synth->tree;
    bool choose = t->exclusive[parent] == ATMSAE_CHILDREN_CHOOSE_ONE;
    uint32_t words[4];
    uint64_t drawn = 0, seen = 0;
    for (uint64_t k = 0; k < n; k++)
        drawn += w->drawn[k];
    if (!choose && drawn <= 1) return;
    ams_synth_words(w->synth, AMS_SYNTH_CHOICE, parent, w->first + r, words);
    double u = ams_uniform(words[0], words[1]);
    if (choose) {
        double sum = 0;
        for (uint64_t k = 0; k < n; k++) {
            double before = sum;
            sum += t->p[sibling[k]];
            w->drawn[k] = u >= before && u < sum;
        }
        return;
    }
    uint64_t keep = ams_min((uint64_t)(u * (double)drawn), drawn - 1);
    for (uint64_t k = 0; k < n; k++)
        if (w->drawn[k]) w->drawn[k] = seen++ == keep;
}

static const uint32_t *children(const ams_tree *t, uint64_t i, uint64_t *n)
{
    uint32_t first = i ? t->child_end[i - 1] : 0;
    *n = t->child_end[i] - first;
    return t->child + first;
}

/* Sizes of all that are on in a row, of which those without a parent are known. */
static void apply_hierarchy(const tile *w, uint64_t r)
{
    const ams_tree *t = w->synth->tree;
    uint64_t count = list_row(w, r);
    memset(w->on + r * w->row_words, 0, w->row_words * sizeof *w->on);
    for (uint64_t k = 0; k < count; k++) {
        uint32_t i = w->list[k];
        uint64_t n;
        const uint32_t *child = children(t, i, &n);
        if (n > 0) ams_prefetch(t->factor + child[0] / 4 * t->rank * 4, t->rank * 4);
        w->magnitude[i] = draw_magnitude(w, r, i);
        if (!(w->magnitude[i] > 0)) continue;
        set_bit(w, r, i);
        if (n == 0) continue;
        draw_siblings(w, r, child, n);
        if (t->exclusive[i]) exclude(w, r, i, child, n);
        for (uint64_t q = 0; q < n; q++)
            if (w->drawn[q]) w->list[count++] = child[q];
    }
}

/* ---- sums ------------------------------------------------------------------------------------------------ */

/* Adds the directions of some features to all rows before those of the next ones, so that each is read from memory once
 * for many rows; in every row they are added in ascending order. at[r]: the entries of row r. */
static void add_directions(const tile *w, uint64_t first, uint64_t end, const entry **at, float *x)
{
    uint64_t d = w->synth->config.d;
    uint32_t next[AMS_TREE_ROWS];
    for (uint64_t r = first; r < end; r++) {
        memcpy(x + r * d, w->synth->tree->bias, d * sizeof *x);
        next[r] = at[r]->feature;
    }
    for (uint64_t limit = TOGETHER; limit < w->synth->features + TOGETHER; limit += TOGETHER)
        for (uint64_t r = first; r < end; r++)
            while (next[r] < limit) {
                ams_axpy(x + r * d, at[r]->size, w->synth->directions + next[r] * d, d);
                next[r] = (++at[r])->feature;
            }
}

void ams_tree_rows(const atmsae_synth *synth, uint64_t first, uint64_t rows, void *scratch, float *x, uint8_t *active)
{
    uint64_t n = synth->features, used = 0, done = 0;
    const entry *at[AMS_TREE_ROWS];
    const tile w = begin(synth, first, rows, scratch);
    draw_common(&w);
    draw_roots(&w);
    for (uint64_t r = 0; r < rows; r++) {
        apply_hierarchy(&w, r);
        uint64_t count = list_row(&w, r);
        if (used > ENTRIES * rows) { /* the next row may not find room */
            add_directions(&w, done, r, at, x);
            done = r;
            used = 0;
        }
        at[r] = w.entry + used;
        if (active) memset(active + r * n, 0, n);
        for (uint64_t k = 0; k < count; k++) {
            w.entry[used++] = (entry){w.list[k], w.magnitude[w.list[k]]};
            if (active) active[r * n + w.list[k]] = 1;
        }
        w.entry[used++].feature = UINT32_MAX; /* the end */
    }
    add_directions(&w, done, rows, at, x);
}

void ams_tree_free(atmsae_context *ctx, ams_tree *t)
{
    if (!t) return;
    void *memory[] = {t->child, t->child_end, t->exclusive, t->p, t->threshold, t->factor, t->own, t->block, t->block_limits,
                      t->numbers, t->tail, t->mean, t->sd, t->bias, t};
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

/* Factors of feature i, whose squares' sum is returned. */
static double draw_factors(const atmsae_synth *synth, uint64_t i, double scale)
{
    uint64_t rank = synth->tree->rank;
    float *factor = synth->tree->factor + i / 4 * rank * 4 + i % 4; /* every fourth */
    double squares = 0, shrink = 1;
    for (uint64_t k = 0; k < rank; k += 2) {
        uint32_t words[4];
        double two[2];
        ams_synth_words(synth, AMS_SYNTH_FACTOR, i, k / 2, words);
        ams_normal2(words, two);
        for (uint64_t q = k; q < ams_min(k + 2, rank); q++) {
            factor[q * 4] = (float)(scale * two[q - k]);
            squares += scale * two[q - k] * scale * two[q - k];
        }
    }
    if (1 - squares < 0.01) { /* the common part may make up 99 % of a variance at most */
        shrink = sqrt(0.99 / squares);
        for (uint64_t q = 0; q < rank; q++)
            factor[q * 4] = (float)(shrink * (double)factor[q * 4]);
    }
    return shrink * shrink * squares;
}

/* What draw_roots reads: blocks of 64 features with one without a parent. */
static void set_blocks(atmsae_synth *synth)
{
    ams_tree *t = synth->tree;
    for (uint64_t b = 0; b < words_of(synth->features); b++) {
        float *limits = t->block_limits + t->n_blocks * (t->rank + 2) * 64;
        bool any = false;
        for (unsigned j = 0; j < 64; j++) {
            uint64_t i = b * 64 + ams_tree_place(j);
            bool root = i < synth->features && synth->parent_of[i] == AMS_NO_PARENT;
            any = any || root;
            for (uint64_t k = 0; k < t->rank; k++)
                limits[k * 64 + j] = root ? t->factor[(i / 4 * t->rank + k) * 4 + i % 4] : 0;
            limits[t->rank * 64 + j] = root ? (float)t->threshold[i] : INFINITY;
            limits[(t->rank + 1) * 64 + j] = root ? (float)(1 / t->own[i]) : 1;
        }
        if (any) t->block[t->n_blocks++] = (uint32_t)b;
    }
}

atmsae_status ams_tree_set_limits(atmsae_synth *synth, uint64_t rank, double scale)
{
    ams_tree *t = synth->tree;
    uint64_t n = synth->features, blocks = words_of(n), size = 0;
    bool fits = ams_mul(blocks * 64, rank + 2, &size);
    t->rank = rank;
    t->factor = fits ? ams_calloc(synth->ctx, (n + 3) / 4 * 4 * rank, sizeof *t->factor) : NULL;
    t->block_limits = fits ? ams_alloc(synth->ctx, size, sizeof *t->block_limits) : NULL;
    t->block = ams_alloc(synth->ctx, blocks, sizeof *t->block);
    t->numbers = ams_alloc(synth->ctx, rank, sizeof *t->numbers);
    t->own = ams_alloc(synth->ctx, n, sizeof *t->own);
    t->threshold = ams_alloc(synth->ctx, n, sizeof *t->threshold);
    t->tail = ams_alloc(synth->ctx, GRID, sizeof *t->tail);
    if (!t->factor || !t->block_limits || !t->block || !t->numbers || !t->own || !t->threshold || !t->tail)
        return ams_nomem(synth->ctx, "a generator's correlations");
    for (uint64_t i = 0; i < n; i++) {
        t->own[i] = sqrt(1 - draw_factors(synth, i, scale));
        t->threshold[i] = inverse_tail(t->p[i]);
    }
    for (uint64_t k = 0; k < rank; k++)
        t->numbers[k] = (uint32_t)k;
    for (int i = 0; i < GRID; i++)
        t->tail[i] = tail((double)i / GRID_STEPS - GRID_END);
    set_blocks(synth);
    return ATMSAE_OK;
}
