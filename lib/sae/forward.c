/* SPDX-License-Identifier: MIT
 *
 * Training forward: codes, residuals and loss of a batch (doc/method.md, section 2): residuals.c has the part that
 * follows the entries. What backward needs stays in the codes.
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

void atmsae_forward_options_init(atmsae_forward_options *options, size_t size)
{
    static const atmsae_forward_options defaults = {.sparsity_scale = 1};
    ams_struct_init(options, size, &defaults, sizeof defaults);
}

typedef struct pass {
    const atmsae_model *m;
    const atmsae_batch *b;
    atmsae_codes *c;
    float *e; /* = the last residual: [n, d_out] */
} pass;

/* ---- what takes part ------------------------------------------------------------------------------ */

static bool takes_part(void *codes, uint64_t i) { return !((const atmsae_codes *)codes)->masked[i]; }

static void list_latent(void *codes, uint64_t i, uint64_t number)
{
    ((const atmsae_codes *)codes)->list[number] = (uint32_t)i;
}

/* A hard mask: the latents that take part. */
static atmsae_status copy_mask(atmsae_codes *c, const atmsae_mask *mask, uint64_t *n_live)
{
    atmsae_context *ctx = c->ctx;
    uint64_t F = c->d_sae;
    AMS_TRY(ams_grow(ctx, &c->masked, &c->masked_capacity, F, 0, sizeof *c->masked));
    AMS_TRY(ams_grow(ctx, &c->list, &c->list_capacity, F, 0, sizeof *c->list));
    c->has_row_p = mask && mask->p;
    if (c->has_row_p) {
        AMS_TRY(ams_grow(ctx, &c->row_p, &c->row_p_capacity, F, 0, sizeof *c->row_p));
        memcpy(c->row_p, mask->p, (size_t)F * sizeof *c->row_p);
    }
    const uint8_t *masked = mask ? mask->masked : NULL;
    for (uint64_t i = 0; i < F; i++)
        c->masked[i] = masked && masked[i];
    *n_live = masked ? ams_number(ctx, F, takes_part, list_latent, c) : F; /* all: needs no list */
    return ATMSAE_OK;
}

typedef struct row_weights {
    atmsae_codes *c;
    const float *given; /* NULL: all 1 */
} row_weights;

enum { WEIGHT, ROWS };

static void weight_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const row_weights *a = arg;
    for (uint64_t r = first; r < last; r++) {
        a->c->weights[r] = a->given ? a->given[r] : 1;
        sums[WEIGHT] += (double)a->c->weights[r];
        sums[ROWS] += a->c->weights[r] != 0;
    }
}

static atmsae_status copy_weights(atmsae_codes *c, const atmsae_batch *b, uint64_t *active_rows)
{
    AMS_TRY(ams_grow(c->ctx, &c->weights, &c->weights_capacity, b->n_rows, 0, sizeof *c->weights));
    row_weights a = {c, b->row_weights};
    double sums[AMS_PIECE_SUMS];
    ams_pieces(c->ctx, b->n_rows, weight_job, &a, sums);
    c->weight_sum = sums[WEIGHT];
    *active_rows = (uint64_t)sums[ROWS];
    if (!(c->weight_sum > 0)) return ams_fail(c->ctx, ATMSAE_E_ARG, "batch: the row weights sum to 0");
    return ATMSAE_OK;
}

/* ---- search ------------------------------------------------------------------------------------------ */

static atmsae_status find_codes(const atmsae_model *m, atmsae_codes *c, uint64_t n_live, uint64_t active_rows,
                                const atmsae_mask *row_mask)
{
    const atmsae_model_config *config = &m->config;
    ams_query q = {.kind = AMS_ABOVE, .x = c->x, .n = c->n, .weights = c->weights, .row_mask = row_mask};
    if (n_live < c->d_sae) {
        q.list = c->list;
        q.n_list = n_live;
    }
    if (config->activation == ATMSAE_TOPK) {
        q.kind = AMS_ROW_TOPK;
        q.k = (uint64_t)config->k;
    } else if (config->activation == ATMSAE_BATCHTOPK) {
        q.kind = AMS_BATCH_TOPK;
        q.k = (uint64_t)(config->k * (double)active_rows);
    } else if (m->threshold) {
        /* Entries up to half a bandwidth under theta have a gradient too. */
        AMS_TRY(ams_grow(c->ctx, &c->low, &c->low_capacity, c->d_sae, 0, sizeof *c->low));
        for (uint64_t i = 0; i < c->d_sae; i++)
            c->low[i] = m->threshold[i] - (float)config->bandwidth / 2;
        q.low = c->low;
    }
    AMS_TRY(ams_search_run(c->search, m, &q, &c->main));
    const bool gated = config->activation == ATMSAE_GATED;
    if (!m->threshold && !gated) return ATMSAE_OK;
    if (gated) AMS_TRY(ams_grow(c->ctx, &c->pre, &c->pre_capacity, c->main.start[c->n], 0, sizeof *c->pre));
    ams_activate(m, c);
    return ATMSAE_OK;
}

typedef struct draws {
    const atmsae_mask *mask;
    atmsae_codes *c;
} draws;

static void hide_job(void *arg, uint64_t row, unsigned worker)
{
    (void)worker;
    const draws *a = arg;
    const ams_sparse *s = &a->c->main;
    for (uint64_t p = s->start[row]; p < s->start[row + 1]; p++)
        a->c->hidden[p] = (uint8_t)atmsae_mask_test(a->mask, row, s->latent[p]);
}

/* The entries that the second reconstruction is without: drawn once, forward and backward read the same. */
static atmsae_status hide_entries(atmsae_codes *c, const atmsae_mask *mask)
{
    if (c->alpha == 0) return ATMSAE_OK;
    AMS_TRY(ams_grow(c->ctx, &c->hidden, &c->hidden_capacity, c->main.start[c->n], 0, sizeof *c->hidden));
    draws a = {mask, c};
    ams_parallel(c->ctx, c->n, hide_job, &a);
    return ATMSAE_OK;
}

enum { AUX_ROWS_A_JOB = 64 };

static void position_job(void *codes, uint64_t job, unsigned worker)
{
    (void)worker;
    const atmsae_codes *c = codes;
    const uint64_t last = c->aux.start[ams_min((job + 1) * AUX_ROWS_A_JOB, c->n)];
    for (uint64_t p = c->aux.start[job * AUX_ROWS_A_JOB]; p < last; p++)
        c->aux.latent[p] = c->position[c->aux.latent[p]];
}

static atmsae_status find_aux(const atmsae_model *m, atmsae_codes *c, const atmsae_forward_options *o,
                              const atmsae_mask *row_mask)
{
    c->aux_scale = 0;
    if (!o->dead || m->config.aux_coef == 0) return ATMSAE_OK;
    /* All memory at the first step, not when the first latent dies. */
    ams_query q = {.kind = AMS_ROW_TOPK, .k = m->config.aux_k, .x = c->x, .n = c->n, .weights = c->weights,
                   .row_mask = row_mask};
    AMS_TRY(ams_search_reserve(c->search, m, &q, &c->aux));
    AMS_TRY(ams_index_reserve(c->ctx, &c->aux_by_latent, AMS_INDEX_VALUES, &c->aux, c->n, c->d_sae));
    AMS_TRY(ams_gather_reserve(c->ctx, &c->gather, &c->gather_capacity));
    AMS_TRY(ams_grow(c->ctx, &c->aux_list, &c->aux_list_capacity, c->d_sae, 0, sizeof *c->aux_list));
    AMS_TRY(ams_grow(c->ctx, &c->position, &c->position_capacity, c->d_sae, 0, sizeof *c->position));
    AMS_TRY(ams_grow(c->ctx, &c->aux_residual, &c->aux_capacity, c->n * c->d_out, 0, sizeof *c->aux_residual));
    uint64_t count = 0;
    for (uint64_t j = 0; j < o->n_dead; j++) {
        if (o->dead[j] >= c->d_sae || (j > 0 && o->dead[j] <= o->dead[j - 1]))
            return ams_fail(c->ctx, ATMSAE_E_ARG, "forward: dead[%llu] = %u, allowed: ascending, below d_sae = %llu",
                            (unsigned long long)j, o->dead[j], (unsigned long long)c->d_sae);
        if (!c->masked[o->dead[j]]) c->aux_list[count++] = o->dead[j];
    }
    if (count == 0) return ATMSAE_OK;
    q.list = c->aux_list;
    q.n_list = c->n_aux = count;
    AMS_TRY(ams_search_run(c->search, m, &q, &c->aux));
    for (uint64_t j = 0; j < count; j++)
        c->position[c->aux_list[j]] = (uint32_t)j;
    ams_parallel(c->ctx, (c->n + AUX_ROWS_A_JOB - 1) / AUX_ROWS_A_JOB, position_job, c);
    c->aux_scale = m->config.aux_coef * fmin(1, (double)count / (double)m->config.aux_k);
    return ATMSAE_OK;
}

/* ---- targets ------------------------------------------------------------------------------------------ */

/* e starts as the scaled target minus b_dec; for an autoencoder without y that is x~. */
static bool load_target(const pass *a, uint64_t r)
{
    const atmsae_model *m = a->m;
    const atmsae_batch *b = a->b;
    float *e = a->e + r * m->d_out;
    if (a->c->weights[r] == 0) {
        memset(e, 0, (size_t)m->d_out * sizeof *e);
        return true;
    }
    if (!b->y && !m->config.uncentred) {
        memcpy(e, a->c->x + r * m->d_in, (size_t)m->d_in * sizeof *e);
        return true;
    }
    const char *rows = b->y ? b->y : b->x;
    int32_t type = b->y ? b->y_type : b->x_type;
    ams_to_f32(e, rows + r * (b->y ? b->ld_y : b->ld_x) * ams_type_size(type), type, m->d_out);
    if (!ams_all_finite(e, m->d_out)) return false;
    for (uint64_t j = 0; j < m->d_out; j++)
        e[j] = m->output_scale * e[j] - m->b_dec[j];
    return true;
}

static void target_job(void *arg, uint64_t r, unsigned worker)
{
    (void)worker;
    pass *a = arg;
    double *sums = a->c->row_sums + r * AMS_ROW_SUMS;
    memset(sums, 0, AMS_ROW_SUMS * sizeof *sums);
    sums[AMS_SUM_BAD] = !load_target(a, r);
}

static bool is_bad_row(void *codes, uint64_t r) { return ((const atmsae_codes *)codes)->row_sums[r * AMS_ROW_SUMS + AMS_SUM_BAD] != 0; }

enum { COLUMNS_A_JOB = 64 };

typedef struct column_pass {
    const float *rows; /* [n, d] */
    uint64_t d;
    atmsae_codes *c;
} column_pass;

static void column_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const column_pass *a = arg;
    uint64_t first = job * COLUMNS_A_JOB, count = ams_min(COLUMNS_A_JOB, a->d - first);
    double sum[COLUMNS_A_JOB] = {0};
    for (uint64_t r = 0; r < a->c->n; r++) {
        const float *row = a->rows + r * a->d + first;
        double w = (double)a->c->weights[r];
        for (uint64_t j = 0; j < count; j++)
            sum[j] += w * (double)row[j];
    }
    memcpy(a->c->columns + first, sum, (size_t)count * sizeof *sum);
}

/* c->columns = weighted sums of the columns, each in the order of the rows. */
static void sum_columns(atmsae_codes *c, const float *rows, uint64_t d)
{
    column_pass a = {rows, d, c};
    ams_parallel(c->ctx, (d + COLUMNS_A_JOB - 1) / COLUMNS_A_JOB, column_job, &a);
}

/* Sums of squares about the mean, column by column and measured from the first row that counts: so
 * constant targets give exactly 0, and a mean far from 0 costs no digits. */
static void spread_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const column_pass *a = arg;
    uint64_t first = job * COLUMNS_A_JOB, count = ams_min(COLUMNS_A_JOB, a->d - first), origin = 0;
    while (a->c->weights[origin] == 0)
        origin++;
    const float *from = a->rows + origin * a->d + first;
    double sum[COLUMNS_A_JOB] = {0}, squares[COLUMNS_A_JOB] = {0};
    for (uint64_t r = origin; r < a->c->n; r++) {
        const float *row = a->rows + r * a->d + first;
        double w = (double)a->c->weights[r];
        for (uint64_t j = 0; j < count; j++) {
            double y = (double)row[j] - (double)from[j];
            sum[j] += w * y;
            squares[j] += w * (y * y);
        }
    }
    for (uint64_t j = 0; j < count; j++)
        a->c->columns[first + j] = squares[j] - sum[j] * (sum[j] / a->c->weight_sum);
}

static double spread_of_targets(const pass *a)
{
    column_pass columns = {a->e, a->m->d_out, a->c};
    ams_parallel(a->c->ctx, (columns.d + COLUMNS_A_JOB - 1) / COLUMNS_A_JOB, spread_job, &columns);
    double sum = 0;
    for (uint64_t j = 0; j < columns.d; j++)
        sum += a->c->columns[j];
    return sum;
}

/* ---- the pre-activation loss: all rows minus the firing ones ------------------------------------------ */

static void pre_activation_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const pass *a = arg;
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    for (uint64_t i = first; i < last; i++) {
        if (c->masked[i]) continue;
        double weight = 0, sum = 0; /* of firing rows, of w and of w z */
        for (uint64_t q = c->by_latent.start[i]; q < c->by_latent.start[i + 1]; q++) {
            const double z = (double)c->main.value[c->by_latent.at[q]], w = (double)c->weights[c->by_latent.row[q]];
            if (!(z > 0)) continue;
            weight += w;
            sum += w * z;
        }
        double share = c->has_row_p ? 1 - c->row_p[i] : 1, theta = (double)m->threshold[i];
        double z_sum = (double)ams_dot(m->w_enc + i * m->d_in, c->x_sum, m->d_in) + (double)m->b_enc[i] * c->weight_sum;
        double gap = share * (theta * c->weight_sum - z_sum) - (theta * weight - sum);
        sums[0] += gap * (double)m->dec_norm[i];
    }
}

static double pre_activation_loss(pass *a)
{
    const atmsae_model *m = a->m;
    atmsae_codes *c = a->c;
    sum_columns(c, c->x, m->d_in);
    for (uint64_t j = 0; j < m->d_in; j++)
        c->x_sum[j] = (float)c->columns[j];
    double sums[AMS_PIECE_SUMS];
    ams_pieces(c->ctx, c->d_sae, pre_activation_job, a, sums);
    return m->config.pre_act_coef * sums[0] / c->weight_sum;
}

/* ---- all of it ------------------------------------------------------------------------------------------ */

static atmsae_status reserve(const atmsae_model *m, atmsae_codes *c)
{
    atmsae_context *ctx = c->ctx;
    uint64_t floats, all;
    c->n_residuals = 1 + m->config.n_prefixes;
    memcpy(c->prefixes, m->prefixes, sizeof c->prefixes);
    c->uncentred = m->config.uncentred;
    if (!ams_mul(c->n, m->d_out, &floats) || !ams_mul(floats, c->n_residuals, &all))
        return ams_fail(ctx, ATMSAE_E_LIMIT, "n_rows * d_out overflows");
    AMS_TRY(ams_grow(ctx, &c->residual, &c->residual_capacity, all, 0, sizeof *c->residual));
    if (m->config.activation == ATMSAE_GATED)
        AMS_TRY(ams_grow(ctx, &c->gate_residual, &c->gate_capacity, floats, 0, sizeof *c->gate_residual));
    if (c->alpha > 0) AMS_TRY(ams_grow(ctx, &c->teacher, &c->teacher_capacity, floats, 0, sizeof *c->teacher));
    if (c->alpha > 0 && m->config.activation == ATMSAE_GATED)
        AMS_TRY(ams_grow(ctx, &c->gate_teacher, &c->gate_teacher_capacity, floats, 0, sizeof *c->gate_teacher));
    AMS_TRY(ams_grow(ctx, &c->x_sum, &c->x_sum_capacity, m->d_in, 0, sizeof *c->x_sum));
    return ams_grow(ctx, &c->columns, &c->columns_capacity, ams_max(m->d_in, m->d_out), 0, sizeof *c->columns);
}

_Static_assert((int)AMS_ROW_SUMS <= (int)AMS_PIECE_SUMS, "a row's losses are summed together");

static void losses_job(void *codes, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const atmsae_codes *c = codes;
    for (uint64_t r = first; r < last; r++)
        for (uint64_t k = 0; k < AMS_ROW_SUMS; k++)
            sums[k] += (double)c->weights[r] * c->row_sums[r * AMS_ROW_SUMS + k];
}

static void sum_losses(pass *a, double centred, atmsae_loss *loss)
{
    const atmsae_model *m = a->m;
    atmsae_codes *c = a->c;
    const atmsae_model_config *config = &m->config;
    double mean[AMS_PIECE_SUMS];
    ams_pieces(c->ctx, c->n, losses_job, c, mean);
    for (int k = 0; k < AMS_ROW_SUMS; k++)
        mean[k] /= c->weight_sum;
    loss->mse = mean[AMS_SUM_MSE];
    loss->prefix = mean[AMS_SUM_PREFIX];
    loss->l0 = c->l0 = mean[AMS_SUM_COUNT];
    loss->aux = c->aux_scale * mean[AMS_SUM_AUX];
    loss->fvu = centred > 0 ? loss->mse / centred : NAN;
    loss->sparsity = c->lambda * mean[AMS_SUM_PENALTY] + mean[AMS_SUM_GATE];
    if (config->activation == ATMSAE_JUMPRELU) {
        loss->sparsity = c->lambda * loss->l0;
    } else if (config->activation == ATMSAE_JUMPRELU_TANH) {
        loss->sparsity += pre_activation_loss(a);
    }
    loss->masked = c->alpha * mean[AMS_SUM_HIDDEN];
    loss->total = loss->mse + loss->prefix + loss->sparsity + loss->aux + loss->masked;
}

static bool is_no_probability(void *mask, uint64_t i)
{
    const double p = ((const atmsae_mask *)mask)->p[i];
    return !(p >= 0 && p <= 1);
}

static atmsae_status check_options(const atmsae_codes *c, const atmsae_forward_options *caller,
                                   atmsae_forward_options *o, atmsae_mask *mask)
{
    atmsae_forward_options_init(o, sizeof *o);
    if (caller) AMS_TRY(ams_struct_in(c->ctx, atmsae_forward_options, o, caller));
    if (!(o->sparsity_scale >= 0 && o->sparsity_scale <= 1e9))
        return ams_fail(c->ctx, ATMSAE_E_ARG, "forward: sparsity_scale = %g, allowed: 0 to 1e9", o->sparsity_scale);
    if (!o->mask) return ATMSAE_OK;
    memset(mask, 0, sizeof *mask);
    AMS_TRY(ams_struct_in(c->ctx, atmsae_mask, mask, o->mask));
    o->mask = mask;
    if (mask->effect != ATMSAE_EFFECT_HARD && mask->effect != ATMSAE_EFFECT_SECOND_LOSS)
        return ams_fail(c->ctx, ATMSAE_E_ARG, "forward: mask.effect = %d, allowed: 0 (hard), 1 (second loss)", mask->effect);
    if (!(mask->alpha >= 0 && mask->alpha <= 1e9))
        return ams_fail(c->ctx, ATMSAE_E_ARG, "forward: mask.alpha = %g, allowed: 0 to 1e9", mask->alpha);
    const uint64_t bad = mask->p ? ams_find(c->ctx, mask->d_sae, is_no_probability, mask) : mask->d_sae;
    if (bad < mask->d_sae)
        return ams_fail(c->ctx, ATMSAE_E_ARG, "forward: mask.p[%llu] = %g, allowed: 0 to 1", (unsigned long long)bad,
                        mask->p[bad]);
    return ATMSAE_OK;
}

atmsae_status ams_forward(const atmsae_model *m, const atmsae_batch *caller, const atmsae_forward_options *options,
                          atmsae_codes *c, atmsae_loss *out)
{
    atmsae_batch b;
    atmsae_forward_options o;
    atmsae_mask mask;
    AMS_TRY(ams_batch_check(c->ctx, m, caller, true, &b));
    AMS_TRY(check_options(c, options, &o, &mask));
    if (out) AMS_TRY(ams_struct_check(c->ctx, atmsae_loss, out));
    if (o.mask && mask.d_sae != m->d_sae)
        return ams_fail(c->ctx, ATMSAE_E_ARG, "forward: the mask is for %llu latents, the model has %llu",
                        (unsigned long long)mask.d_sae, (unsigned long long)m->d_sae);
    AMS_TRY(ams_codes_load_rows(c, m, &b));
    uint64_t n_live, active_rows;
    AMS_TRY(copy_weights(c, &b, &active_rows));
    const bool hard = o.mask && mask.effect == ATMSAE_EFFECT_HARD;
    c->alpha = o.mask && !hard ? mask.alpha : 0;
    AMS_TRY(copy_mask(c, hard ? &mask : NULL, &n_live));
    AMS_TRY(reserve(m, c));

    pass a = {.m = m, .b = &b, .c = c, .e = ams_residual(c, c->n_residuals - 1)};
    ams_parallel(c->ctx, c->n, target_job, &a);
    const uint64_t bad = ams_find(c->ctx, c->n, is_bad_row, c);
    if (bad < c->n)
        return ams_fail(c->ctx, ATMSAE_E_NONFINITE, "batch: y: row %llu has a NaN or infinite value",
                        (unsigned long long)bad);
    double centred = spread_of_targets(&a) / c->weight_sum;

    const atmsae_mask *row_mask = c->has_row_p ? &mask : NULL;
    AMS_TRY(find_codes(m, c, n_live, active_rows, row_mask));
    AMS_TRY(hide_entries(c, &mask));
    AMS_TRY(find_aux(m, c, &o, row_mask));
    c->lambda = m->config.sparsity_coef * o.sparsity_scale;
    AMS_TRY(ams_take_out_latents(m, c));
    c->min_kept = m->config.activation == ATMSAE_BATCHTOPK && c->main.start[c->n] > 0 ? ams_search_smallest(c->search) : NAN;

    atmsae_loss loss = {.size = sizeof loss, .rows = active_rows};
    sum_losses(&a, centred, &loss);
    if (!isfinite(loss.total))
        return ams_fail(c->ctx, ATMSAE_E_NONFINITE, "forward: the loss is %g (mse %g, sparsity %g, aux %g, masked %g): diverged: lower lr",
                        loss.total, loss.mse, loss.sparsity, loss.aux, loss.masked);
    if (out) AMS_TRY(ams_struct_out(c->ctx, atmsae_loss, out, &loss));
    c->state = AMS_CODES_FORWARD;
    return ATMSAE_OK;
}

atmsae_status atmsae_forward(const atmsae_model *m, const atmsae_batch *caller, const atmsae_forward_options *options,
                             atmsae_codes *c, atmsae_loss *out)
{
    AMS_NEED_BOTH("model", m, "codes", c);
    AMS_CALL(c->ctx, ams_forward(m, caller, options, c, out), AMS_READS("model", m), AMS_CHANGES("codes", c));
}
