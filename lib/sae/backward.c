/* SPDX-License-Identifier: MIT
 *
 * Gradients of a forward's loss (doc/method.md, section 2). Work follows the live entries: an index by
 * latent makes the gradients of row i of W_enc and W_dec sums over the few rows in which latent i has
 * an entry. A thread owns whole latents, rows come in ascending order, so nothing depends on the number
 * of threads.
 */
#include "sae/sae.h"

#include <math.h>
#include <string.h>


/* ---- entries by latent -------------------------------------------------------------------------------- */

static void index_entries(const ams_sparse *s, uint64_t F, uint64_t *start, uint32_t *row, uint64_t *at)
{
    memset(start, 0, (size_t)(F + 1) * sizeof *start);
    uint64_t total = s->start[s->n];
    for (uint64_t p = 0; p < total; p++)
        start[s->latent[p]]++;
    uint64_t sum = 0;
    for (uint64_t i = 0; i <= F; i++) { /* counts to ends */
        sum += i < F ? start[i] : 0;
        start[i] = sum;
    }
    for (uint64_t r = s->n; r-- > 0;)
        for (uint64_t p = s->start[r + 1]; p-- > s->start[r];) { /* from the back: ends become starts */
            uint64_t slot = --start[s->latent[p]];
            row[slot] = (uint32_t)r;
            at[slot] = p;
        }
}

/* ---- one latent ------------------------------------------------------------------------------------------ */

typedef struct pass {
    const atmsae_model *m;
    const atmsae_codes *c;
    atmsae_gradients *g;
    float *w_enc, *b_enc, *w_dec, *b_dec, *threshold, *r_mag, *b_mag; /* gradients */
    double l0_slope; /* d penalty / d L0 (JUMPRELU) */
} pass;

/* Sums over the entries of one latent. */
typedef struct latent {
    uint64_t i;
    const float *dec;    /* d_i */
    const float *part;   /* residuals of its Matryoshka group, [n, d_out] */
    const float *e;      /* e, [n, d_out] */
    float *g_enc, *g_dec;
    double norm, b_enc, a, threshold, r_mag, b_mag;
    double by_norm;      /* d penalty / d |d_i| */
    double magnitude, frequency, contribution;
} latent;

/* One entry: its row, its weight's share of W, its values. */
typedef struct entry {
    uint64_t row;
    double w, f, z;
    double by_f;         /* d loss / d f, from the residual */
    double by_z;         /* d loss / d z: b_enc and a see it */
    double by_magnitude; /* d loss / d a through GATED's magnitude: only a sees it */
} entry;

static void jumprelu_entry(const pass *a, latent *l, entry *x)
{
    const atmsae_model_config *config = &a->m->config;
    const double theta = (double)a->m->threshold[l->i], eps = config->bandwidth;
    bool fires = x->z > theta, in_band = fabs(x->z - theta) < eps / 2, tanh_form = config->activation == ATMSAE_JUMPRELU_TANH;
    if (tanh_form) {
        double t = tanh(config->tanh_scale * x->f * l->norm);
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
        l->by_norm -= config->pre_act_coef * x->w * (theta - x->z);
    }
}

static void gated_entry(const pass *a, latent *l, entry *x)
{
    const atmsae_model *m = a->m;
    const float *gate = a->c->gate_residual + x->row * m->d_out;
    x->by_z = a->c->lambda * x->w * l->norm - 2 * x->w * (double)ams_dot(gate, l->dec, m->d_out);
    l->by_norm += a->c->lambda * x->w * x->z;
    if (!(x->f > 0)) return;
    x->by_magnitude = x->by_f * exp((double)m->r_mag[l->i]);
    l->r_mag += x->by_magnitude * (x->z - (double)m->b_enc[l->i]);
    l->b_mag += x->by_f;
}

static void main_entry(const pass *a, latent *l, uint64_t row, uint64_t p)
{
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    const uint64_t d = m->d_out;
    const double weight = (double)c->weights[row], w = weight / c->weight_sum, f = (double)c->main.value[p];
    const float *part = l->part + row * d, *e = l->e + row * d;
    double part_dot = (double)ams_dot(part, l->dec, d);
    entry x = {.row = row, .w = w, .f = f, .by_f = -2 * w * part_dot};
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
        x.z = (double)c->pre[p];
        jumprelu_entry(a, l, &x);
        break;
    case ATMSAE_GATED:
        x.z = (double)c->pre[p];
        gated_entry(a, l, &x);
        break;
    }
    if (f > 0) {
        double e_dot = part == e ? part_dot : (double)ams_dot(e, l->dec, d);
        l->magnitude += weight * f * l->norm;
        l->frequency += weight;
        l->contribution += weight * f * (2 * e_dot + f * l->norm * l->norm);
        ams_axpy(l->g_dec, (float)(-2 * w * f), part, d);
    }
    l->b_enc += x.by_z;
    l->a += x.by_z + x.by_magnitude;
    ams_axpy(l->g_enc, (float)(x.by_z + x.by_magnitude), c->x + row * m->d_in, m->d_in);
}

static void aux_entry(const pass *a, latent *l, uint64_t row, uint64_t p)
{
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    const double w = 2 * c->aux_scale * (double)c->weights[row] / c->weight_sum;
    const float *rest = c->aux_residual + row * m->d_out;
    double by_z = -w * (double)ams_dot(rest, l->dec, m->d_out);
    ams_axpy(l->g_dec, (float)(-w * (double)c->aux.value[p]), rest, m->d_out);
    ams_axpy(l->g_enc, (float)by_z, c->x + row * m->d_in, m->d_in);
    l->b_enc += by_z;
    l->a += by_z;
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
    return a->c->residual + g * a->c->n * a->c->d_out;
}

static void latent_gradient(const pass *a, uint64_t i)
{
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    atmsae_gradients *g = a->g;
    latent l = {.i = i,
                .dec = m->w_dec + i * m->d_out,
                .part = group_residual(a, i),
                .e = c->residual + (c->n_residuals - 1) * c->n * c->d_out,
                .g_enc = a->w_enc + i * m->d_in,
                .g_dec = a->w_dec + i * m->d_out,
                .norm = (double)m->dec_norm[i]};
    bool dense = m->config.activation == ATMSAE_JUMPRELU_TANH && m->config.pre_act_coef > 0 && !c->masked[i];
    bool aux = c->aux_scale > 0 && g->aux_start[i] < g->aux_start[i + 1];
    g->touched[i] = dense || aux || g->main_start[i] < g->main_start[i + 1];
    if (g->touched[i]) {
        memset(l.g_enc, 0, (size_t)m->d_in * sizeof *l.g_enc);
        memset(l.g_dec, 0, (size_t)m->d_out * sizeof *l.g_dec);
        if (dense) pre_activation(a, &l);
        for (uint64_t s = g->main_start[i]; s < g->main_start[i + 1]; s++)
            main_entry(a, &l, g->main_row[s], g->main_at[s]);
        if (aux)
            for (uint64_t s = g->aux_start[i]; s < g->aux_start[i + 1]; s++)
                aux_entry(a, &l, g->aux_row[s], g->aux_at[s]);
        if (l.by_norm != 0 && l.norm > 0) ams_axpy(l.g_dec, (float)(l.by_norm / l.norm), l.dec, m->d_out);
    }
    a->b_enc[i] = (float)l.b_enc;
    if (a->threshold) a->threshold[i] = (float)(l.threshold * (double)m->threshold[i]); /* by log theta */
    if (a->r_mag) a->r_mag[i] = (float)l.r_mag;
    if (a->b_mag) a->b_mag[i] = (float)l.b_mag;
    g->pre_sum[i] = l.a;
    double seen = c->masked[i] ? 0 : c->weight_sum * (c->has_row_p ? 1 - c->row_p[i] : 1);
    const double sums[4] = {seen, l.magnitude, l.frequency, l.contribution};
    for (uint64_t k = 0; k < 4; k++)
        g->sums[k * m->d_sae + i] = sums[k];
}

/* ---- b_dec, and all of it ------------------------------------------------------------------------------- */

enum { LATENTS_A_JOB = 16, COLUMNS_A_JOB = 64 };

static void latents_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    uint64_t last = ams_min((job + 1) * LATENTS_A_JOB, a->m->d_sae);
    for (uint64_t i = job * LATENTS_A_JOB; i < last; i++)
        latent_gradient(a, i);
}

/* Through the reconstruction (all prefixes: the first suffix sum), and through x~ = .. - b_dec. */
static void b_dec_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const atmsae_model *m = a->m;
    const atmsae_codes *c = a->c;
    uint64_t first = job * COLUMNS_A_JOB, count = ams_min(COLUMNS_A_JOB, m->d_out - first);
    double sum[COLUMNS_A_JOB] = {0};
    for (uint64_t r = 0; r < c->n; r++) {
        const float *e = c->residual + r * m->d_out + first;
        double w = -2 * (double)c->weights[r] / c->weight_sum;
        for (uint64_t j = 0; j < count; j++)
            sum[j] += w * (double)e[j];
    }
    for (uint64_t i = 0; !m->config.transcoder && i < m->d_sae; i++) {
        if (a->g->pre_sum[i] == 0) continue;
        const float *enc = m->w_enc + i * m->d_in + first;
        for (uint64_t j = 0; j < count; j++)
            sum[j] -= a->g->pre_sum[i] * (double)enc[j];
    }
    for (uint64_t j = 0; j < count; j++)
        a->b_dec[first + j] = (float)sum[j];
}

/* As much as the codes have room for, so that later batches with more entries need no more. */
static atmsae_status reserve(const atmsae_codes *c, atmsae_gradients *g)
{
    uint64_t entries = c->main.latent_capacity, aux = c->aux.latent_capacity;
    AMS_TRY(ams_grow(g->ctx, &g->main_row, &g->main_row_capacity, entries, 0, sizeof *g->main_row));
    AMS_TRY(ams_grow(g->ctx, &g->main_at, &g->main_at_capacity, entries, 0, sizeof *g->main_at));
    AMS_TRY(ams_grow(g->ctx, &g->aux_row, &g->aux_row_capacity, aux, 0, sizeof *g->aux_row));
    return ams_grow(g->ctx, &g->aux_at, &g->aux_at_capacity, aux, 0, sizeof *g->aux_at);
}

atmsae_status ams_backward(const atmsae_model *m, atmsae_codes *c, atmsae_gradients *g)
{
    if (c->state != AMS_CODES_FORWARD)
        return ams_fail(g->ctx, ATMSAE_E_STATE, "backward: these codes are not from a successful forward");
    bool same = c->d_sae == m->d_sae && c->d_in == m->d_in && c->d_out == m->d_out && g->d_sae == m->d_sae &&
                g->d_in == m->d_in && g->d_out == m->d_out && g->n_params == m->n_params &&
                c->activation == m->config.activation && c->transcoder == m->config.transcoder &&
                c->n_residuals == 1 + m->config.n_prefixes &&
                memcmp(c->prefixes, m->prefixes, sizeof c->prefixes) == 0;
    if (!same)
        return ams_fail(g->ctx, ATMSAE_E_STATE, "backward: codes and gradients belong to a model of another shape");
    g->state = AMS_GRADIENTS_NONE;
    AMS_TRY(reserve(c, g));
    index_entries(&c->main, m->d_sae, g->main_start, g->main_row, g->main_at);
    if (c->aux_scale > 0) index_entries(&c->aux, m->d_sae, g->aux_start, g->aux_row, g->aux_at);
    memcpy(g->masked, c->masked, (size_t)m->d_sae);
    g->min_kept = c->min_kept;

    pass a = {.m = m, .c = c, .g = g};
    a.w_enc = ams_gradient(g, ATMSAE_W_ENC);
    a.b_enc = ams_gradient(g, ATMSAE_B_ENC);
    a.w_dec = ams_gradient(g, ATMSAE_W_DEC);
    a.b_dec = ams_gradient(g, ATMSAE_B_DEC);
    a.threshold = ams_gradient(g, ATMSAE_THRESHOLD);
    a.r_mag = ams_gradient(g, ATMSAE_R_MAG);
    a.b_mag = ams_gradient(g, ATMSAE_B_MAG);
    a.l0_slope = c->lambda;
    if (m->config.target_l0 > 0)
        a.l0_slope = 2 * c->lambda * (c->l0 / m->config.target_l0 - 1) / m->config.target_l0;
    ams_parallel(g->ctx, (m->d_sae + LATENTS_A_JOB - 1) / LATENTS_A_JOB, latents_job, &a);
    ams_parallel(g->ctx, (m->d_out + COLUMNS_A_JOB - 1) / COLUMNS_A_JOB, b_dec_job, &a);
    g->state = AMS_GRADIENTS_READY;
    return ATMSAE_OK;
}

atmsae_status atmsae_backward(const atmsae_model *m, atmsae_codes *c, atmsae_gradients *g)
{
    if (!m || !c || !g) return ATMSAE_E_ARG;
    AMS_CALL(g->ctx, ams_backward(m, c, g),
             AMS_READS("model", m), AMS_CHANGES("codes", c), AMS_CHANGES("gradients", g));
}
