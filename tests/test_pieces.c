/* SPDX-License-Identifier: MIT
 *
 * Sums in 64 ordered pieces, and what all threads do together, against plain loops written here: the pieces
 * themselves, a step's sums from what goes into them, the index by latent, the k largest of a batch. The
 * same bits for every number of threads, also for fewer items than pieces.
 */
#include "atm/atm.h"
#include "sae/sae.h"
#include "suite.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t threads[] = {1, 2, 3, 4, 7};
enum { THREADS = sizeof threads / sizeof *threads };

static uint64_t state = 5;
static uint32_t next32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) ^ (uint32_t)(state >> 51);
}
static float next_float(void) { return (float)(int32_t)(next32() % 2000001 - 1000000u) * 1e-6f; }

static void *zeros(uint64_t count, size_t size)
{
    void *memory = calloc((size_t)count + 1, size);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

static void ok(atmsae_status status, const atmsae_context *ctx)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

static atmsae_context *context(uint32_t n)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = n;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

/* The definition. */
static double sum_of(const double *x, uint64_t n)
{
    double total = 0;
    for (uint64_t p = 0; p < 64; p++) {
        double sum = 0;
        for (uint64_t i = n * p / 64; i < n * (p + 1) / 64; i++)
            sum += x[i];
        total += sum;
    }
    return total;
}

/* ---- the pieces ------------------------------------------------------------------------------------------ */

START_TEST(pieces_cover_everything_once)
{
    const uint64_t counts[] = {0, 1, 5, 63, 64, 65, 127, 4999, INT32_MAX, UINT32_MAX, UINT64_MAX / 64, UINT64_MAX};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        const uint64_t n = counts[c], q = n / 64;
        ck_assert_uint_eq(ams_piece_first(n, 0), 0);
        ck_assert_uint_eq(ams_piece_first(n, 64), n);
        for (uint64_t p = 0; p < 64; p++) {
            const uint64_t size = ams_piece_first(n, p + 1) - ams_piece_first(n, p);
            ck_assert(size == q || size == q + 1);
            if (n <= UINT64_MAX / 64) ck_assert_uint_eq(ams_piece_first(n, p), n * p / 64);
        }
    }
}
END_TEST

typedef struct list {
    const double *x;
    uint32_t *found;
    _Atomic uint64_t seen;
} list;

static void sum_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    list *l = arg;
    ck_assert_uint_lt(piece, AMS_PIECES);
    for (uint64_t i = first; i < last; i++) {
        sums[0] += l->x[i];
        sums[AMS_PIECE_SUMS - 1] -= l->x[i];
    }
    atomic_fetch_add(&l->seen, last - first);
}

static bool is_large(void *arg, uint64_t i) { return ((list *)arg)->x[i] > 0.9; }
static void note(void *arg, uint64_t i, uint64_t number) { ((list *)arg)->found[number] = (uint32_t)i; }

START_TEST(runners_equal_plain_loops)
{
    const uint64_t counts[] = {0, 1, 63, 64, 65, 1000, 4095, 4096, 4097, 20000};
    for (size_t t = 0; t < THREADS; t++) {
        atmsae_context *ctx = context(threads[t]);
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            const uint64_t n = counts[c];
            double *x = zeros(n, sizeof *x), sums[AMS_PIECE_SUMS];
            for (uint64_t i = 0; i < n; i++)
                x[i] = (double)next_float();
            list l = {.x = x, .found = zeros(n, sizeof *l.found)};
            ams_pieces(ctx, n, sum_job, &l, sums);
            ck_assert_uint_eq(l.seen, n);
            ck_assert(sums[0] == sum_of(x, n) && sums[AMS_PIECE_SUMS - 1] == -sums[0] && sums[1] == 0);
            uint64_t count = 0, first = n;
            for (uint64_t i = n; i-- > 0;)
                if (x[i] > 0.9) first = i;
            ck_assert_uint_eq(ams_find(ctx, n, is_large, &l), first);
            const uint64_t numbered = ams_number(ctx, n, is_large, note, &l);
            for (uint64_t i = 0; i < n; i++)
                if (x[i] > 0.9) ck_assert_uint_eq(l.found[count++], i);
            ck_assert_uint_eq(numbered, count);
            free(x);
            free(l.found);
        }
        atmsae_context_destroy(ctx);
    }
}
END_TEST

/* ---- the sums of a step ---------------------------------------------------------------------------------- */

static const struct setup {
    uint64_t F, n, d;
    int32_t activation, per_row;
    double k;
    bool second; /* loss */
} setups[] = {
    {37, 20, 7, ATMSAE_TOPK, 0, 3, false},          {37, 20, 7, ATMSAE_JUMPRELU_TANH, 1, 3, false}, {100, 70, 9, ATMSAE_BATCHTOPK, 0, 5, false},
    {64, 64, 8, ATMSAE_RELU, 0, 3, false},          {4999, 301, 7, ATMSAE_TOPK, 0, 30, false},      {4999, 301, 7, ATMSAE_BATCHTOPK, 1, 40, false},
    {4999, 301, 7, ATMSAE_JUMPRELU_TANH, 0, 9, false}, {4999, 100, 7, ATMSAE_GATED, 0, 9, false},   {130, 4501, 5, ATMSAE_JUMPRELU, 0, 9, false},
    {4200, 4201, 5, ATMSAE_BATCHTOPK, 0, 4, false},      {4999, 301, 7, ATMSAE_GATED, 1, 9, true},
    {130, 4501, 5, ATMSAE_BATCHTOPK, 1, 3, true},
};
enum { SETUPS = sizeof setups / sizeof *setups, STEPS = 3 };

typedef struct run {
    const struct setup *s;
    atmsae_context *ctx;
    atmsae_model *model;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    atmsae_optimizer *optimizer;
    atmsae_tracker *tracker;
    atmsae_masker *masker;
    float *x, *weights;
    uint64_t crc; /* of all results */
} run;

static run begin(const struct setup *s, uint32_t n_threads)
{
    run r = {.s = s, .ctx = context(n_threads), .x = zeros(s->n * s->d, sizeof *r.x), .weights = zeros(s->n, sizeof *r.weights)};
    state = 77;
    for (uint64_t i = 0; i < s->n * s->d; i++)
        r.x[i] = 2 * next_float() + (i % s->d == 1 ? 1.5f : 0);
    for (uint64_t i = 0; i < s->n; i++)
        r.weights[i] = i % 11 == 4 ? 0 : 1 + 0.5f * next_float();
    atmsae_model_config m;
    atmsae_model_config_init(&m, sizeof m);
    m.d_in = s->d;
    m.d_sae = s->F;
    m.k = s->k;
    m.activation = s->activation;
    m.decoder_norm = ATMSAE_DECODER_FREE; /* nothing is projected: the norm is that of the gradients as they are handed out */
    m.pre_act_coef = 0.1;
    m.aux_k = 8;
    m.aux_coef = 0.03;
    m.seed = 3;
    ok(atmsae_model_create(r.ctx, &m, &r.model), r.ctx);
    atmsae_optimizer_config o;
    atmsae_optimizer_config_init(&o, sizeof o);
    o.lr = 0.01;
    ok(atmsae_optimizer_create(r.model, &o, &r.optimizer), r.ctx);
    atmsae_tracker_config t;
    atmsae_tracker_config_init(&t, sizeof t);
    t.d_sae = s->F;
    t.dead_window = s->n;
    t.weight_frequency = 0.7;
    t.observed_only = s->F % 2 != 0;
    ok(atmsae_tracker_create(r.ctx, &t, &r.tracker), r.ctx);
    atmsae_masker_config k;
    atmsae_masker_config_init(&k, sizeof k);
    k.d_sae = s->F;
    k.warmup_steps = 0;
    k.per_row = s->per_row;
    k.effect = s->second ? ATMSAE_EFFECT_SECOND_LOSS : ATMSAE_EFFECT_HARD;
    ok(atmsae_masker_create(r.ctx, &k, &r.masker), r.ctx);
    ok(atmsae_codes_create(r.ctx, &r.codes), r.ctx);
    ok(atmsae_gradients_create(r.model, &r.gradients), r.ctx);
    return r;
}

static void end(run *r)
{
    atmsae_masker_destroy(r->masker);
    atmsae_tracker_destroy(r->tracker);
    atmsae_optimizer_destroy(r->optimizer);
    atmsae_gradients_destroy(r->gradients);
    atmsae_codes_destroy(r->codes);
    atmsae_model_destroy(r->model);
    atmsae_context_destroy(r->ctx);
    free(r->x);
    free(r->weights);
}

static void mix(run *r, const void *data, size_t bytes) { r->crc = ams_crc64(r->crc, data, bytes); }

/* From the codes, the rows and the parameters before the step. */
static void check_losses(const run *r, const atmsae_loss *loss)
{
    const uint64_t n = r->s->n, d = r->s->d;
    const atmsae_model *m = r->model;
    const ams_sparse *s = &r->codes->main;
    double *mse = zeros(n, sizeof *mse), *count = zeros(n, sizeof *count), *w = zeros(n, sizeof *w);
    float e[16];
    for (uint64_t row = 0; row < n; row++) {
        w[row] = (double)r->weights[row];
        if (w[row] == 0) continue;
        for (uint64_t j = 0; j < d; j++)
            e[j] = r->x[row * d + j] * m->input_scale - m->b_dec[j];
        for (uint64_t p = s->start[row]; p < s->start[row + 1]; p++) {
            if (s->value[p] != 0) ams_axpy(e, -s->value[p], m->w_dec + s->latent[p] * d, d);
            count[row] += w[row] * (s->value[p] > 0);
        }
        mse[row] = w[row] * (double)ams_dot(e, e, d);
    }
    for (uint64_t row = 0; row < n; row++) { /* a row's count is times its weight as a whole */
        double fires = 0;
        for (uint64_t p = s->start[row]; p < s->start[row + 1]; p++)
            fires += s->value[p] > 0;
        count[row] = w[row] * fires;
    }
    ck_assert(r->codes->weight_sum == sum_of(w, n));
    ck_assert_msg(loss->mse == sum_of(mse, n) / sum_of(w, n), "mse %.17g, expected %.17g", loss->mse, sum_of(mse, n) / sum_of(w, n));
    ck_assert(loss->l0 == sum_of(count, n) / sum_of(w, n));
    free(mse);
    free(count);
    free(w);
}

/* Without warm-up share the penalty of JUMPRELU_TANH is the pre-activation loss alone. */
static void check_pre_activation(const run *r, const atmsae_loss *loss)
{
    const uint64_t F = r->s->F, n = r->s->n, d = r->s->d;
    const atmsae_model *m = r->model;
    const atmsae_codes *c = r->codes;
    if (r->s->activation != ATMSAE_JUMPRELU_TANH) return;
    double *weight = zeros(F, sizeof *weight), *sum = zeros(F, sizeof *sum), *share = zeros(F, sizeof *share);
    for (uint64_t row = 0; row < n; row++)
        for (uint64_t p = c->main.start[row]; p < c->main.start[row + 1]; p++) {
            if (!(c->main.value[p] > 0)) continue;
            weight[c->main.latent[p]] += (double)r->weights[row];
            sum[c->main.latent[p]] += (double)r->weights[row] * (double)c->main.value[p];
        }
    for (uint64_t i = 0; i < F; i++) {
        if (c->masked[i]) continue;
        const double kept = c->has_row_p ? 1 - c->row_p[i] : 1, theta = (double)m->threshold[i];
        const double z = (double)ams_dot(m->w_enc + i * d, c->x_sum, d) + (double)m->b_enc[i] * c->weight_sum;
        share[i] = (kept * (theta * c->weight_sum - z) - (theta * weight[i] - sum[i])) * (double)m->dec_norm[i];
    }
    ck_assert(loss->sparsity == 0.1 * sum_of(share, F) / c->weight_sum);
    free(weight);
    free(sum);
    free(share);
}

static double norm_of_gradients(const run *r)
{
    const uint64_t F = r->s->F;
    double *squares = zeros(F, sizeof *squares), b_dec = 0;
    for (unsigned p = 0; p < r->model->n_params; p++) {
        const ams_param *param = &r->model->params[p];
        float *g = zeros(param->rows * param->cols, sizeof *g);
        ok(atmsae_gradients_get(r->gradients, param->id, g, param->rows * param->cols), r->ctx);
        if (!param->per_latent) b_dec = (double)ams_dot(g, g, param->cols);
        for (uint64_t i = 0; param->per_latent && i < F; i++)
            squares[i] += (double)ams_dot(g + i * param->cols, g + i * param->cols, param->cols);
        free(g);
    }
    const double norm = sqrt(sum_of(squares, F) + b_dec);
    free(squares);
    return norm;
}

static void check_importance(const run *r)
{
    const uint64_t F = r->s->F;
    const atmsae_tracker *t = r->tracker;
    double *x = zeros(F, sizeof *x), *one = zeros(F, sizeof *one), means[3];
    for (uint64_t i = 0; i < F; i++)
        one[i] = !t->config.observed_only || t->observed[i];
    for (int k = 0; k < 3; k++) {
        for (uint64_t i = 0; i < F; i++)
            x[i] = one[i] != 0 ? t->average[k][i] : 0;
        means[k] = sum_of(x, F) / sum_of(one, F);
    }
    const double weights[3] = {1, 0.7, 1}, total = 1 + 0.7 + 1;
    uint64_t dead = 0, n_dead;
    const uint32_t *listed = atmsae_tracker_dead(t, &n_dead);
    for (uint64_t i = 0; i < F; i++) {
        double combined = 0;
        for (int k = 0; k < 3; k++)
            combined += weights[k] / total * (means[k] > 0 ? t->average[k][i] / means[k] : 0);
        ck_assert(t->importance[i] == (one[i] != 0 ? combined : 0));
        if (t->clock[i] >= (double)t->config.dead_window) ck_assert_uint_eq(listed[dead++], i);
    }
    ck_assert_uint_eq(n_dead, dead);
    const double mu = sum_of(t->importance, F) / (double)F;
    for (uint64_t i = 0; i < F; i++)
        x[i] = (t->importance[i] - mu) * (t->importance[i] - mu);
    const double sigma = sqrt(sum_of(x, F) / (double)F);
    ck_assert(atmsae_masker_mu(r->masker) == mu && atmsae_masker_sigma(r->masker) == sigma);
    ck_assert(atmsae_masker_theta(r->masker) == mu + sigma);
    free(x);
    free(one);
}

static void check_draw(const run *r)
{
    const uint64_t F = r->s->F;
    const double *p = atmsae_masker_p(r->masker);
    const atmsae_mask *mask = atmsae_masker_mask(r->masker);
    ck_assert(atmsae_masker_mean_p(r->masker) == sum_of(p, F) / (double)F);
    for (uint64_t i = 0; mask->masked && i < F; i++)
        ck_assert_int_eq(mask->masked[i], ams_mask_drawn(mask->seed, AMS_DRAW_MASK, mask->step, i, p[i]));
}

static void step(run *r, uint64_t number)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = r->s->n;
    batch.x = r->x;
    batch.row_weights = r->weights;
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    atmsae_loss loss = {.size = sizeof loss};
    atmsae_latent_sums sums = {.size = sizeof sums};
    double norm;
    ok(atmsae_masker_draw(r->masker, number), r->ctx);
    check_draw(r);
    options.mask = atmsae_masker_mask(r->masker);
    options.dead = atmsae_tracker_dead(r->tracker, &options.n_dead);
    options.sparsity_scale = r->s->activation == ATMSAE_JUMPRELU_TANH ? 0 : 1;
    ok(atmsae_forward(r->model, &batch, &options, r->codes, &loss), r->ctx);
    check_losses(r, &loss);
    check_pre_activation(r, &loss);
    ok(atmsae_backward(r->model, r->codes, r->gradients), r->ctx);
    const double expected = norm_of_gradients(r);
    ok(atmsae_optimizer_step(r->optimizer, r->model, r->gradients, &norm), r->ctx);
    ck_assert_msg(norm == expected, "norm %.17g, expected %.17g", norm, expected);
    ok(atmsae_gradients_sums(r->gradients, &sums), r->ctx);
    ok(atmsae_tracker_observe(r->tracker, &sums), r->ctx);
    ok(atmsae_masker_update(r->masker, atmsae_tracker_importance(r->tracker), r->s->F), r->ctx);
    check_importance(r);
    mix(r, &loss, sizeof loss);
    mix(r, &norm, sizeof norm);
    mix(r, atmsae_masker_p(r->masker), (size_t)r->s->F * sizeof(double));
    for (unsigned p = 0; p < r->model->n_params; p++)
        mix(r, r->model->params[p].value, (size_t)(r->model->params[p].rows * r->model->params[p].cols) * sizeof(float));
}

START_TEST(sums_of_a_step)
{
    uint64_t first = 0;
    for (size_t t = 0; t < THREADS; t++) {
        run r = begin(&setups[_i], threads[t]);
        for (uint64_t i = 0; i < STEPS; i++)
            step(&r, i);
        if (t == 0) first = r.crc;
        ck_assert_msg(r.crc == first, "set-up %d: %u threads differ from one", _i, threads[t]);
        end(&r);
    }
}
END_TEST

/* ---- the index by latent ---------------------------------------------------------------------------------- */

START_TEST(index_equals_a_plain_sort)
{
    static const struct {
        uint64_t n, F;
        uint32_t one_in; /* entries; 0: each row has all of the first three latents */
    } shapes[] = {{1, 1, 1}, {7, 5, 2}, {40, 500, 3}, {900, 30, 2}, {3000, 64, 4}, {300, 5000, 40}, {4000, 20, 0}, {2000, 3, 9000}};
    for (size_t t = 0; t < THREADS; t++) {
        atmsae_context *ctx = context(threads[t]);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int kind = AMS_INDEX_PLACES; kind <= AMS_INDEX_VALUES; kind++) {
                const uint64_t n = shapes[i].n, F = shapes[i].F;
                ams_sparse s = {.n = n};
                ok(ams_sparse_reserve(ctx, &s, n, n * F), ctx);
                uint64_t total = 0;
                for (uint64_t r = 0; r < n; r++) {
                    s.start[r] = total;
                    for (uint32_t j = 0; j < F; j++)
                        if (shapes[i].one_in == 0 ? j < 3 : r % 5 != 3 && next32() % shapes[i].one_in == 0) {
                            s.latent[total] = j;
                            s.value[total++] = next_float();
                        }
                }
                s.start[n] = total;
                ams_index index = {0};
                ok(ams_index_build(ctx, &index, kind, &s, F), ctx);
                uint64_t *next = zeros(F + 1, sizeof *next); /* counts, starts, then each latent's next slot */
                for (uint64_t p = 0; p < total; p++)
                    next[s.latent[p] + 1]++;
                for (uint64_t f = 0; f < F; f++)
                    next[f + 1] += next[f];
                ck_assert_mem_eq(index.start, next, (size_t)(F + 1) * sizeof *next);
                for (uint64_t r = 0; r < n; r++)
                    for (uint64_t p = s.start[r]; p < s.start[r + 1]; p++) {
                        const uint64_t slot = next[s.latent[p]]++;
                        ck_assert(index.row[slot] == r);
                        ck_assert(kind == AMS_INDEX_PLACES ? index.at[slot] == p : index.value[slot] == s.value[p]);
                    }
                free(next);
                ams_index_free(ctx, &index);
                ams_sparse_free(ctx, &s);
            }
        atmsae_context_destroy(ctx);
    }
}
END_TEST

/* ---- the k largest of a batch ------------------------------------------------------------------------------ */

enum { RANDOM, COPIES, CONSTANT, DENORMAL, COARSE, NEGATIVE, KINDS };

static int by_place(const void *a, const void *b)
{
    const ams_entry *x = a, *y = b;
    if (x->row != y->row) return x->row < y->row ? -1 : 1;
    return (x->latent > y->latent) - (x->latent < y->latent);
}

static void make_rows(float *x, uint64_t n, uint64_t d, int kind)
{
    for (uint64_t i = 0; i < n * d; i++) {
        x[i] = next_float();
        if (kind == COPIES && i / d % 3 != 0) x[i] = x[i - d]; /* rows in threes are equal */
        if (kind == CONSTANT) x[i] = 1;
        if (kind == DENORMAL) x[i] *= 1e-40f;
        if (kind == COARSE) x[i] = (float)(int)(3 * x[i]); /* many zeros, few values */
    }
}

static void set_model(atmsae_model *m, uint64_t d, uint64_t F, int kind)
{
    for (uint64_t i = 0; i < F * d; i++) {
        if (kind == COPIES && i / d % 4 == 1) m->w_enc[i] = m->w_enc[i - d];
        if (kind == CONSTANT) m->w_enc[i] = i / d % 5 == 0 ? 0.f : 0.25f;
        if (kind == COARSE) m->w_enc[i] = (float)(int)(2.5f * next_float());
    }
    for (uint64_t f = 0; f < F; f++)
        m->b_enc[f] = kind == NEGATIVE ? -1.5f : kind == COPIES || kind >= CONSTANT ? 0 : 0.1f * next_float();
    ams_model_refresh(m);
}

/* As the library did it on one thread: all exact values, quickselect, then sorted. */
static uint64_t select_plainly(const atmsae_model *m, const ams_query *q, ams_entry *e)
{
    uint64_t count = 0, F = q->list ? q->n_list : m->d_sae;
    for (uint64_t r = 0; r < q->n; r++)
        for (uint64_t j = 0; j < F; j++) {
            const uint32_t f = q->list ? q->list[j] : (uint32_t)j;
            const float z = ams_dot(m->w_enc + f * m->d_in, q->x + r * m->d_in, m->d_in) + m->b_enc[f];
            if (z > 0 && !(q->weights && q->weights[r] == 0)) e[count++] = (ams_entry){z, (uint32_t)r, f};
        }
    if (count > q->k && q->k > 0) ams_select(e, count, q->k);
    count = ams_min(count, q->k);
    qsort(e, (size_t)count, sizeof *e, by_place);
    return count;
}

static void check_batch(atmsae_context *ctx, uint64_t n, uint64_t d, uint64_t F, uint64_t k, int kind)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = d;
    config.d_sae = F;
    atmsae_model *m;
    ok(atmsae_model_create(ctx, &config, &m), ctx);
    state = 9 + (uint64_t)kind;
    set_model(m, d, F, kind);
    float *x = zeros(n * d, sizeof *x), *weights = zeros(n, sizeof *weights);
    uint32_t *some = zeros(F, sizeof *some), n_some = 0;
    ams_entry *e = zeros(n * F, sizeof *e);
    for (uint64_t r = 0; r < n; r++)
        weights[r] = r % 9 != 5;
    for (uint32_t f = 0; f < F; f++)
        if (f % 6 != 2) some[n_some++] = f;
    ams_search *search;
    ok(ams_search_create(ctx, &search), ctx);
    ams_sparse out = {0};
    for (int again = 0; again < 3; again++) { /* with a guess, on other rows and latents */
        make_rows(x, n, d, kind);
        const ams_query q = {.kind = AMS_BATCH_TOPK, .k = k, .x = x, .n = n, .weights = again == 1 ? weights : NULL,
                             .list = again == 2 ? some : NULL, .n_list = again == 2 ? n_some : 0};
        ok(ams_search_run(search, m, &q, &out), ctx);
        const uint64_t count = select_plainly(m, &q, e);
        ck_assert_uint_eq(out.start[0], 0);
        ck_assert_msg(out.start[n] == count, "kind %d, k %d: %d entries, expected %d", kind, (int)k, (int)out.start[n], (int)count);
        float smallest = INFINITY;
        for (uint64_t r = 0; r < n; r++)
            for (uint64_t p = out.start[r]; p < out.start[r + 1]; p++) {
                ck_assert_uint_eq(e[p].row, r);
                ck_assert_uint_eq(e[p].latent, out.latent[p]);
                ck_assert(memcmp(&e[p].value, &out.value[p], sizeof out.value[p]) == 0);
                smallest = fminf(smallest, e[p].value);
            }
        if (count > 0) ck_assert(ams_search_smallest(search) == smallest);
    }
    ams_sparse_free(ctx, &out);
    ams_search_destroy(search);
    atmsae_model_destroy(m);
    free(x);
    free(weights);
    free(some);
    free(e);
}

START_TEST(batch_selection_equals_the_plain_one)
{
    const uint64_t ks[] = {1, 2, 100, 9000, 25000, 300 * 260};
    for (size_t t = 0; t < THREADS; t++) {
        atmsae_context *ctx = context(threads[t]);
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
            check_batch(ctx, 300, 9, 260, ks[i], _i);
            check_batch(ctx, 3, 9, 40, ks[i] % 121, _i); /* so few rows have no product */
        }
        atmsae_context_destroy(ctx);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pieces");
    TCase *t = tcase_create("pieces");
    tcase_add_test(t, pieces_cover_everything_once);
    tcase_add_test(t, runners_equal_plain_loops);
    tcase_add_loop_test(t, sums_of_a_step, 0, SETUPS);
    tcase_add_test(t, index_equals_a_plain_sort);
    tcase_add_loop_test(t, batch_selection_equals_the_plain_one, 0, KINDS);
    suite_add_tcase(suite, t);
    return run_all(suite);
}
