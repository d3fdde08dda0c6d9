/* SPDX-License-Identifier: MIT
 *
 * Gradients of a forward's loss (doc/method.md, section 2). Work follows the live entries: their index
 * by latent makes the gradients of row i of W_enc and W_dec sums over the few rows in which latent i has
 * an entry. A thread owns whole latents, rows come in ascending order, so nothing depends on the number
 * of threads.
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>


/* ---- one latent ------------------------------------------------------------------------------------------ */

typedef struct pass {
    const atmsae_model *m;
    atmsae_codes *c;
    atmsae_gradients *g;
    float *w_enc, *b_enc, *w_dec, *b_dec, *threshold, *r_mag, *b_mag; /* gradients */
    double l0_slope; /* d penalty / d L0 (JUMPRELU) */
    uint64_t latents_a_job, rows_a_block;
    double aux_slope; /* d loss / d a . d of an AuxK entry is this times its row's weight */
} pass;

/* Sums over the entries of one latent. */
typedef struct ams_latent {
    uint64_t i;
    const float *dec;    /* d_i */
    const float *part;   /* residuals of its Matryoshka group, [n, d_out], */
    const float *e;      /* e, [n, d_out] */
    float *row;          /* [d_out] working memory */
    float *g_enc, *g_dec;
    double norm, b_enc, a, threshold, r_mag, b_mag;
    double by_norm;      /* d penalty / d |d_i| */
    double magnitude, frequency, contribution;
    uint64_t next; /* of its entries: the first that is not summed yet */
} latent;

/* One entry: its row, its weight's share of W, its values. */
typedef struct entry {
    uint64_t row;
    double w, f;
    bool taught;         /* by the second loss, too */
    double z;            /* GATED */
    double by_f;         /* d loss / d f, from the residual */
    double by_z;         /* d loss / d z: b_enc and a see it */
    double by_magnitude; /* d loss / d a through GATED's magnitude: only a sees it */
} entry;

static void jumprelu_entry(const pass *a, latent *l, entry *x)
{
    const atmsae_model_config *config = &a->m->config;
    const double theta = (double)a->m->threshold[l->i], eps = config->bandwidth;
    /* An entry that does not fire is there because the search went down to the lower end of the band. */
    const bool fires = x->f > 0, in_band = !fires || x->f - theta < eps / 2, tanh_form = config->activation == ATMSAE_JUMPRELU_TANH;
    if (tanh_form) {
        double t = ams_tanh(config->tanh_scale * x->f * l->norm);
        double slope = a->c->lambda * x->w * config->tanh_scale * (1 - t * t);
        x->by_f += slope * l->norm;
        l->by_norm += slope * x->f;
    }
    if (fires) x->by_z = x->by_f;
    if (in_band) {
        l->threshold -= theta / eps * x->by_f;
        if (tanh_form)
            x->by_z += theta / eps * x->by_f;
        else
            l->threshold -= a->l0_slope * x->w / eps;
    }
    if (tanh_form && fires) { /* taken out of the sum over all rows: see pre_activation() */
        double slope = config->pre_act_coef * x->w * l->norm;
        x->by_z += slope;
        l->threshold -= slope;
        l->by_norm -= config->pre_act_coef * x->w * (theta - x->f);
    }
}

static void gated_entry(const pass *a, latent *l, entry *x)
{
    const atmsae_model *m = a->m;
    const float *gate = (x->taught ? a->c->gate_teacher : a->c->gate_residual) + x->row * m->d_out;
    x->by_z = a->c->lambda * x->w * l->norm - 2 * x->w * (double)ams_dot(gate, l->dec, m->d_out);
    l->by_norm += a->c->lambda * x->w * x->z;
    if (!(x->f > 0)) return;
    x->by_magnitude = x->by_f * ams_exp((double)m->r_mag[l->i]);
    l->r_mag += x->by_magnitude * (x->z - (double)m->b_enc[l->i]);
    l->b_mag += x->by_f;
}

/* [d_out] the sum of the residuals in whose squares this entry has a part: e, those of wider Matryoshka prefixes, and, where the
 * entry is not masked (taught), alpha times that of the second loss. */
static const float *seen_by(const pass *a, const latent *l, uint64_t row, bool taught)
{
    const atmsae_codes *c = a->c;
    const uint64_t d = a->m->d_out;
    const float *part = l->part + row * d;
    if (c->alpha == 0 || taught != (l->part == l->e)) return part;
    const float *e = l->e + row * d, *teacher = c->teacher + row * d;
    if (taught) return teacher;
    for (uint64_t j = 0; j < d; j++) /* a narrower group's residuals have alpha e' in them */
        l->row[j] = part[j] - (teacher[j] - e[j]);
    return l->row;
}

static void main_entry(const pass *a, latent *l, uint64_t row, uint64_t p)
{
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    const uint64_t d = m->d_out;
    const double weight = (double)c->weights[row], w = weight / c->weight_sum, f = (double)c->main.value[p];
    const bool taught = c->alpha > 0 && !c->hidden[p];
    const float *seen = seen_by(a, l, row, taught), *e = l->e + row * d;
    double seen_dot = (double)ams_dot(seen, l->dec, d);
    entry x = {.row = row, .w = w, .f = f, .taught = taught, .by_f = -2 * w * seen_dot};
    switch (m->config.activation) {
    case ATMSAE_RELU:
        x.by_f += c->lambda * w * l->norm;
        l->by_norm += c->lambda * w * f;
        x.by_z = x.by_f;
        break;
    case ATMSAE_TOPK:
    case ATMSAE_BATCHTOPK:
        x.by_z = x.by_f;
        break;
    case ATMSAE_JUMPRELU:
    case ATMSAE_JUMPRELU_TANH:
        jumprelu_entry(a, l, &x);
        break;
    case ATMSAE_GATED:
        x.z = (double)c->pre[p];
        gated_entry(a, l, &x);
        break;
    }
    if (f > 0) {
        double e_dot = seen == e ? seen_dot : (double)ams_dot(e, l->dec, d);
        l->magnitude += weight * f * l->norm;
        l->frequency += weight;
        l->contribution += weight * f * (2 * e_dot + f * l->norm * l->norm);
        ams_axpy(l->g_dec, (float)(-2 * w * f), seen, d);
    }
    l->b_enc += x.by_z;
    l->a += x.by_z + x.by_magnitude;
    if (x.by_z + x.by_magnitude != 0)
        ams_axpy(l->g_enc, (float)(x.by_z + x.by_magnitude), c->x + row * m->d_in, m->d_in);
}

static bool has_pre_activation_loss(const atmsae_model *m, const atmsae_codes *c, uint64_t i)
{
    return m->config.activation == ATMSAE_JUMPRELU_TANH && m->config.pre_act_coef > 0 && !c->masked[i];
}

/* The sum over all rows of the pre-activation loss; main_entry takes the firing rows out again. */
static void pre_activation(const pass *a, latent *l)
{
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    double share = c->has_row_p ? 1 - c->row_p[l->i] : 1, theta = (double)m->threshold[l->i];
    double slope = m->config.pre_act_coef * l->norm * share;
    double z_mean = (double)ams_dot(m->w_enc + l->i * m->d_in, c->x_sum, m->d_in) / c->weight_sum + (double)m->b_enc[l->i];
    ams_axpy(l->g_enc, (float)(-slope / c->weight_sum), c->x_sum, m->d_in);
    l->b_enc -= slope;
    l->a -= slope;
    l->threshold += slope;
    l->by_norm += m->config.pre_act_coef * share * (theta - z_mean);
}

static const float *group_residual(const pass *a, uint64_t i)
{
    uint64_t g = 0;
    while (g < a->m->config.n_prefixes && i >= a->m->prefixes[g])
        g++;
    return ams_residual(a->c, g);
}

/* False: the latent has no entries, and its gradient is 0. */
static bool start_latent(const pass *a, uint64_t i, unsigned worker, latent *l)
{
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    *l = (latent){.i = i,
                  .dec = m->w_dec + i * m->d_out,
                  .part = group_residual(a, i),
                  .e = ams_residual(c, c->n_residuals - 1),
                  .row = a->g->row + (size_t)worker * m->d_out,
                  .norm = (double)m->dec_norm[i]};
    if (a->g->slot[i] == AMS_NO_SLOT) return false;
    l->g_enc = a->w_enc + a->g->slot[i] * m->d_in;
    l->g_dec = a->w_dec + a->g->slot[i] * m->d_out;
    memset(l->g_enc, 0, (size_t)m->d_in * sizeof *l->g_enc);
    memset(l->g_dec, 0, (size_t)m->d_out * sizeof *l->g_dec);
    if (has_pre_activation_loss(m, c, i)) pre_activation(a, l);
    return true;
}

static void end_latent(const pass *a, latent *l)
{
    const atmsae_codes *c = a->c;
    atmsae_gradients *g = a->g;
    const uint64_t i = l->i;
    if (l->by_norm != 0 && l->norm > 0) ams_axpy(l->g_dec, (float)(l->by_norm / l->norm), l->dec, a->m->d_out);
    a->b_enc[i] = (float)l->b_enc;
    if (a->threshold) a->threshold[i] = (float)(l->threshold * (double)a->m->threshold[i]); /* by log theta */
    if (a->r_mag) a->r_mag[i] = (float)l->r_mag;
    if (a->b_mag) a->b_mag[i] = (float)l->b_mag;
    g->pre_sum[i] = l->a;
    double seen = c->masked[i] ? 0 : c->weight_sum * (c->has_row_p ? 1 - c->row_p[i] : 1);
    const double sums[4] = {seen, l->magnitude, l->frequency, l->contribution};
    for (uint64_t k = 0; k < 4; k++)
        g->sums[k * a->m->d_sae + i] = sums[k];
}

/* ---- all latents ---------------------------------------------------------------------------------------- */

enum { DENSE_LATENTS = 16, DENSE_ROWS = 16, MOST_LATENTS = 1024, ENTRIES_A_BLOCK = 16, AUX_ROWS_A_JOB = 64, COLUMNS_A_JOB = 256 };

/* Asks for the rows that the entry after this one needs; of x only where it fires: the entries of
 * JUMPRELU in the band under theta do without. */
static void prefetch(const pass *a, const latent *l, uint64_t next, uint64_t end)
{
    const ams_index *by_latent = &a->c->by_latent;
    if (next >= end) return;
    ams_prefetch(l->part + by_latent->row[next] * a->m->d_out, a->m->d_out);
    if (a->c->alpha > 0) ams_prefetch(a->c->teacher + by_latent->row[next] * a->m->d_out, a->m->d_out);
    if (a->c->main.value[by_latent->at[next]] > 0)
        ams_prefetch(a->c->x + by_latent->row[next] * a->m->d_in, a->m->d_in);
}

/* Walks the entries of `count` latents, in blocks of rows. */
static void walk(const pass *a, latent *all, uint64_t count)
{
    const ams_index *by_latent = &a->c->by_latent;
    const uint64_t n = a->c->n, rows = a->rows_a_block;
    for (latent *l = all; l < all + count; l++)
        l->next = by_latent->start[l->i];
    for (uint64_t end_row = rows; end_row < n + rows; end_row += rows)
        for (latent *l = all; l < all + count; l++)
            for (uint64_t end = by_latent->start[l->i + 1]; l->next < end && by_latent->row[l->next] < end_row; l->next++) {
                if (rows > DENSE_ROWS) prefetch(a, l, l->next + 1, end);
                main_entry(a, l, by_latent->row[l->next], by_latent->at[l->next]);
            }
}

static void latents_job(void *arg, uint64_t job, unsigned worker)
{
    const pass *a = arg;
    const uint64_t first = job * a->latents_a_job, last = ams_min(first + a->latents_a_job, a->m->d_sae);
    latent *all = a->g->latents + (size_t)worker * MOST_LATENTS;
    uint64_t count = 0; /* of those that have a gradient */
    for (uint64_t i = first; i < last; i++) {
        if (start_latent(a, i, worker, &all[count]))
            count++;
        else
            end_latent(a, &all[count]);
    }
    if (count > 0) walk(a, all, count);
    for (uint64_t k = 0; k < count; k++)
        end_latent(a, &all[k]);
}

/* ---- AuxK: many entries of few latents ------------------------------------------------------------------ */

/* d loss / d a of each entry of some rows, in place of its value. */
static void aux_slopes_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    atmsae_codes *c = a->c;
    const uint64_t d = a->m->d_out, first = job * AUX_ROWS_A_JOB, last = first + AUX_ROWS_A_JOB;
    const ams_index *index = &c->aux_by_latent;
    for (uint64_t j = 0; j < c->n_aux; j++) {
        const float *dec = a->m->w_dec + c->aux_list[j] * d;
        const uint64_t end = index->start[j + 1];
        if (j + 1 < c->n_aux) ams_prefetch(a->m->w_dec + c->aux_list[j + 1] * d, d);
        for (uint64_t p = ams_lower_bound(index->row, index->start[j], end, first); p < end && index->row[p] < last; p++) {
            const uint64_t row = index->row[p];
            const double by_a = a->aux_slope * (double)c->weights[row];
            index->value[p] = (float)(by_a * (double)ams_dot(c->aux_residual + row * d, dec, d));
        }
    }
}

static void aux_sums_job(void *arg, uint64_t j, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const atmsae_codes *c = a->c;
    double sum = 0;
    for (uint64_t p = c->aux_by_latent.start[j]; p < c->aux_by_latent.start[j + 1]; p++)
        sum += (double)c->aux_by_latent.value[p];
    a->b_enc[c->aux_list[j]] += (float)sum;
    a->g->pre_sum[c->aux_list[j]] += sum;
}

static void aux_gradients(pass *a)
{
    atmsae_codes *c = a->c;
    a->aux_slope = -2 * c->aux_scale / c->weight_sum;
    ams_gather g = {.start = c->aux_by_latent.start, .at = c->aux_by_latent.row, .value = c->aux_by_latent.value,
                    .n = c->n_aux, .d = a->m->d_out, .rows = c->aux_residual, .n_rows = c->n,
                    .factor = a->aux_slope, .weights = c->weights,
                    .out = a->w_dec, .out_of = a->g->slot, .out_names = c->aux_list};
    ams_gather_run(c->ctx, c->gather, &g);
    ams_parallel(c->ctx, (c->n + AUX_ROWS_A_JOB - 1) / AUX_ROWS_A_JOB, aux_slopes_job, a);
    ams_parallel(c->ctx, c->n_aux, aux_sums_job, a);
    g.d = a->m->d_in;
    g.rows = c->x;
    g.factor = 1;
    g.weights = NULL;
    g.out = a->w_enc;
    ams_gather_run(c->ctx, c->gather, &g);
}

/* ---- all of it ------------------------------------------------------------------------------------------- */

static bool has_entries(const ams_index *by_latent, uint64_t i) { return by_latent->start[i] < by_latent->start[i + 1]; }

/* A job takes some rows for all its latents before it goes on to others: the rows are then in cache, be
 * it a core's own or, for fewer entries, the CPU's. The order of a latent's entries is the same. */
static void choose_blocks(pass *a)
{
    const uint64_t n = a->c->n, F = a->m->d_sae, entries = a->c->main.start[n] / F, workers = ams_workers(a->g->ctx);
    a->latents_a_job = DENSE_LATENTS;
    a->rows_a_block = n;
    if (ams_index_dense(a->c->main.start[n], F, n)) {
        a->rows_a_block = DENSE_ROWS;
    } else if (entries > 2 * (uint64_t)ENTRIES_A_BLOCK) {
        a->latents_a_job = ams_max(DENSE_LATENTS, ams_min(MOST_LATENTS, F / (8 * workers)));
        a->rows_a_block = n * ENTRIES_A_BLOCK / entries;
    }
}

static bool has_gradient(void *arg, uint64_t i)
{
    const pass *a = arg;
    return has_entries(&a->c->by_latent, i) || has_pre_activation_loss(a->m, a->c, i) || a->g->slot[i] != AMS_NO_SLOT;
}

static void give_slot(void *arg, uint64_t i, uint64_t number)
{
    const pass *a = arg;
    a->g->slot[i] = (uint32_t)number;
}

/* Packs the gradients' rows: one for each latent that has entries. */
static void give_slots(pass *a)
{
    const atmsae_codes *c = a->c;
    memset(a->g->slot, 0xff, (size_t)a->m->d_sae * sizeof *a->g->slot); /* AMS_NO_SLOT */
    for (uint64_t j = 0; c->aux_scale > 0 && j < c->n_aux; j++)
        if (has_entries(&c->aux_by_latent, j)) a->g->slot[c->aux_list[j]] = 0; /* some slot */
    ams_number(a->g->ctx, a->m->d_sae, has_gradient, give_slot, a);
}

static double row_weight(const pass *a, uint64_t r) { return -2 * (double)a->c->weights[r] / a->c->weight_sum; }
static double latent_weight(const pass *a, uint64_t i) { return -a->g->pre_sum[i]; }

/* sum [d] += weighted rows first .. last - 1, four at a time. */
static void add_rows(const pass *a, double *sum, const float *rows, double (*weight)(const pass *, uint64_t), uint64_t first,
                     uint64_t last)
{
    const uint64_t d = a->m->d_out;
    for (uint64_t r = first; r < last; r += 4) {
        double w[4];
        const float *x[4];
        for (uint64_t q = 0; q < 4; q++) {
            w[q] = r + q < last ? weight(a, r + q) : 0;
            x[q] = rows + (r + q < last ? r + q : r) * d;
        }
        if (w[0] == 0 && w[1] == 0 && w[2] == 0 && w[3] == 0) continue;
        for (uint64_t j = 0; j < d; j++)
            sum[j] += (w[0] * (double)x[0][j] + w[1] * (double)x[1][j]) + (w[2] * (double)x[2][j] + w[3] * (double)x[3][j]);
    }
}

/* Through all reconstructions, whose residuals the first suffix sum adds up (without prefixes that is e, or e + alpha e'), and
 * through x~ = .. - b_dec: a piece of the rows and one of the latents. */
static void b_dec_job(void *arg, uint64_t piece, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const uint64_t n = a->c->n, F = a->m->d_sae;
    double *sum = a->g->pieces + piece * a->m->d_out;
    memset(sum, 0, (size_t)a->m->d_out * sizeof *sum);
    const float *rows = a->c->n_residuals == 1 && a->c->alpha > 0 ? a->c->teacher : a->c->residual;
    add_rows(a, sum, rows, row_weight, ams_piece_first(n, piece), ams_piece_first(n, piece + 1));
    if (!a->m->config.uncentred)
        add_rows(a, sum, a->m->w_enc, latent_weight, ams_piece_first(F, piece), ams_piece_first(F, piece + 1));
}

static void add_pieces_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const uint64_t d = a->m->d_out, first = job * COLUMNS_A_JOB, count = ams_min(COLUMNS_A_JOB, d - first);
    double sum[COLUMNS_A_JOB] = {0};
    for (uint64_t p = 0; p < AMS_PIECES; p++)
        for (uint64_t j = 0; j < count; j++)
            sum[j] += a->g->pieces[p * d + first + j];
    for (uint64_t j = 0; j < count; j++)
        a->b_dec[first + j] = (float)sum[j];
}

static void b_dec_gradient(pass *a)
{
    ams_parallel(a->g->ctx, AMS_PIECES, b_dec_job, a);
    ams_parallel(a->g->ctx, (a->m->d_out + COLUMNS_A_JOB - 1) / COLUMNS_A_JOB, add_pieces_job, a);
}

bool ams_backward_memory(atmsae_gradients *g)
{
    g->latents = ams_calloc(g->ctx, (uint64_t)ams_workers(g->ctx) * MOST_LATENTS, sizeof *g->latents);
    g->row = ams_alloc(g->ctx, (uint64_t)ams_workers(g->ctx) * g->d_out, sizeof *g->row);
    g->pieces = ams_alloc(g->ctx, AMS_PIECES * g->d_out, sizeof *g->pieces);
    return g->latents && g->row && g->pieces;
}

atmsae_status ams_backward(const atmsae_model *m, atmsae_codes *c, atmsae_gradients *g)
{
    if (c->state != AMS_CODES_FORWARD)
        return ams_fail(g->ctx, ATMSAE_E_STATE, "backward: these codes are not from a successful forward");
    bool same = c->d_sae == m->d_sae && c->d_in == m->d_in && c->d_out == m->d_out && g->d_sae == m->d_sae &&
                g->d_in == m->d_in && g->d_out == m->d_out && g->n_params == m->n_params &&
                c->activation == m->config.activation && c->uncentred == m->config.uncentred &&
                c->n_residuals == 1 + m->config.n_prefixes &&
                memcmp(c->prefixes, m->prefixes, sizeof c->prefixes) == 0;
    if (!same)
        return ams_fail(g->ctx, ATMSAE_E_STATE, "backward: codes and gradients belong to a model of another shape");
    g->state = AMS_GRADIENTS_NONE;
    memcpy(g->masked, c->masked, (size_t)m->d_sae);
    g->min_kept = c->min_kept;

    pass a = {.m = m, .c = c, .g = g};
    give_slots(&a);
    a.w_enc = ams_gradient(g, ATMSAE_W_ENC);
    a.b_enc = ams_gradient(g, ATMSAE_B_ENC);
    a.w_dec = ams_gradient(g, ATMSAE_W_DEC);
    a.b_dec = ams_gradient(g, ATMSAE_B_DEC);
    a.threshold = ams_gradient(g, ATMSAE_THRESHOLD);
    a.r_mag = ams_gradient(g, ATMSAE_R_MAG);
    a.b_mag = ams_gradient(g, ATMSAE_B_MAG);
    a.l0_slope = c->lambda;
    choose_blocks(&a);
    ams_parallel(g->ctx, (m->d_sae + a.latents_a_job - 1) / a.latents_a_job, latents_job, &a);
    if (c->aux_scale > 0) aux_gradients(&a);
    b_dec_gradient(&a);
    g->state = AMS_GRADIENTS_READY;
    return ATMSAE_OK;
}

atmsae_status atmsae_backward(const atmsae_model *m, atmsae_codes *c, atmsae_gradients *g)
{
    AMS_NEED_BOTH("model", m, "codes", c);
    AMS_NEED_BOTH("codes", c, "gradients", g);
    AMS_CALL(g->ctx, ams_backward(m, c, g),
             AMS_READS("model", m), AMS_CHANGES("codes", c), AMS_CHANGES("gradients", g));
}
