/* SPDX-License-Identifier: MIT
 *
 * One update: project, clip, Adam, renormalise (doc/method.md, section 2, "Order of a step").
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <math.h>

void atmsae_optimizer_config_init(atmsae_optimizer_config *config, size_t size)
{
    const atmsae_optimizer_config defaults = {.lr = NAN, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1,
                                              .warmup_steps = UINT64_MAX, .decay_steps = UINT64_MAX};
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

static atmsae_status check(atmsae_context *ctx, const atmsae_optimizer_config *c)
{
    const struct {
        const char *name;
        double value, low;
        bool below_one;
    } table[] = {{"lr", c->lr, 0, false}, {"beta1", c->beta1, 0, true}, {"beta2", c->beta2, 0, true},
                 {"eps", c->eps, 1e-30, false}, {"clip", c->clip, 0, false}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double high = table[i].below_one ? 1 : 1e9;
        if (table[i].value >= table[i].low && table[i].value < high) continue;
        return ams_fail(ctx, ATMSAE_E_ARG, "%s = %g, allowed: %g to below %g", table[i].name, table[i].value,
                        table[i].low, high);
    }
    if (c->freeze_masked != 0 && c->freeze_masked != 1)
        return ams_fail(ctx, ATMSAE_E_ARG, "freeze_masked = %d, allowed: 0 or 1", c->freeze_masked);
    return ATMSAE_OK;
}

double ams_optimizer_usual_lr(uint64_t d_sae) { return 2e-4 / sqrt((double)d_sae / 16384); }

static atmsae_status create(const atmsae_model *model, const atmsae_optimizer_config *caller, atmsae_optimizer **out)
{
    atmsae_context *ctx = model->ctx;
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "optimizer_create: out is NULL");
    atmsae_optimizer_config config;
    atmsae_optimizer_config_init(&config, sizeof config);
    if (caller)
        AMS_TRY(ams_struct_in(ctx, atmsae_optimizer_config, &config, caller));
    if (isnan(config.lr)) config.lr = ams_optimizer_usual_lr(model->d_sae);
    AMS_TRY(check(ctx, &config));

    atmsae_optimizer *o = ams_calloc(ctx, 1, sizeof *o);
    if (!o) return ams_nomem(ctx, "the optimizer");
    o->ctx = ams_context_ref(ctx);
    o->config = config;
    o->d_sae = model->d_sae;
    o->n_params = model->n_params;
    for (unsigned p = 0; p < o->n_params; p++) {
        o->counts[p] = model->params[p].rows * model->params[p].cols;
        o->m[p] = ams_calloc(ctx, o->counts[p], sizeof(float));
        o->v[p] = ams_calloc(ctx, o->counts[p], sizeof(float));
        if (o->m[p] && o->v[p]) continue;
        atmsae_optimizer_destroy(o);
        return ams_nomem(ctx, "Adam's moments");
    }
    *out = o;
    return ATMSAE_OK;
}

atmsae_status atmsae_optimizer_create(const atmsae_model *model, const atmsae_optimizer_config *caller,
                                      atmsae_optimizer **out)
{
    if (out) *out = NULL;
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, create(model, caller, out), AMS_READS("model", model));
}

void atmsae_optimizer_destroy(atmsae_optimizer *o)
{
    if (!o) return;
    atmsae_context *ctx = o->ctx;
    for (unsigned p = 0; p < o->n_params; p++) {
        ams_free(ctx, o->m[p]);
        ams_free(ctx, o->v[p]);
    }
    ams_free(ctx, o);
    atmsae_context_destroy(ctx);
}

/* UINT64_MAX stands for the default share of the run; a run of unknown length has none. */
static uint64_t steps_of(uint64_t setting, uint64_t total, double share)
{
    return setting == UINT64_MAX ? (uint64_t)((double)total * share) : setting;
}

atmsae_optimizer_config ams_optimizer_resolved(const atmsae_optimizer *o)
{
    atmsae_optimizer_config c = o->config;
    c.warmup_steps = steps_of(c.warmup_steps, c.total_steps, 0.05);
    c.decay_steps = steps_of(c.decay_steps, c.total_steps, 0.20);
    return c;
}

double ams_optimizer_lr(const atmsae_optimizer *o)
{
    const atmsae_optimizer_config c = ams_optimizer_resolved(o);
    double t = (double)o->steps, total = (double)c.total_steps, lr = c.lr;
    if (c.warmup_steps > 0) lr *= fmin(1, (t + 1) / (double)c.warmup_steps);
    if (c.total_steps > 0 && c.decay_steps > 0) lr *= fmin(1, fmax(0, (total - t) / (double)c.decay_steps));
    if (o->cooldown_steps > 0 && o->steps >= o->cooldown_from)
        lr *= fmax(0, 1 - (t - (double)o->cooldown_from) / (double)o->cooldown_steps);
    return lr;
}

double atmsae_optimizer_lr(const atmsae_optimizer *o)
{
    if (!o) return NAN;
    fenv_t environment;
    ams_float_begin(&environment);
    double lr = ams_optimizer_lr(o);
    ams_float_end(&environment);
    return lr;
}

/* ---- the step ------------------------------------------------------------------------------------------ */

typedef struct pass {
    atmsae_optimizer *o;
    atmsae_model *m;
    atmsae_gradients *g;
    ams_adam adam;
    float scale;
} pass;

enum { LATENTS_A_JOB = 32 };

static double squares(const float *x, uint64_t n) { return (double)ams_dot(x, x, n); }

/* NULL: all zeros. */
static float *row_gradient(const atmsae_gradients *g, unsigned p, const ams_param *param, uint64_t i)
{
    if (!param->matrix) return g->params[p].value + i * param->cols;
    return g->slot[i] == AMS_NO_SLOT ? NULL : g->params[p].value + g->slot[i] * param->cols;
}

/* Projects the decoder's gradients and takes each latent's squared norm. */
static void norm_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    const atmsae_model *m = a->m;
    uint64_t last = ams_min((job + 1) * LATENTS_A_JOB, m->d_sae);
    for (uint64_t i = job * LATENTS_A_JOB; i < last; i++) {
        double sum = 0;
        for (unsigned p = 0; p < m->n_params; p++) {
            const ams_param *param = &m->params[p];
            float *g = param->per_latent ? row_gradient(a->g, p, param, i) : NULL;
            if (!g) continue;
            /* Rows of a unit decoder have norm 1; one that was set to nearly 0 has no direction to keep. */
            if (param->id == ATMSAE_W_DEC && m->config.decoder_norm == ATMSAE_DECODER_UNIT && m->dec_norm[i] > 1e-15f) {
                const float *d = param->value + i * param->cols;
                ams_axpy(g, -ams_dot(g, d, param->cols) / (m->dec_norm[i] * m->dec_norm[i]), d, param->cols);
            }
            sum += squares(g, param->cols);
        }
        a->g->norms[i] = sum;
    }
}

static void sum_norms_job(void *gradients, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)piece;
    const atmsae_gradients *g = gradients;
    for (uint64_t i = first; i < last; i++)
        sums[0] += g->norms[i];
}

static void update(const pass *a, unsigned p, uint64_t first, uint64_t count, const float *gradient)
{
    ams_adam_row(a->m->params[p].value + first, a->o->m[p] + first, a->o->v[p] + first, gradient, a->scale, count,
                 &a->adam);
}

static void update_latent(const pass *a, uint64_t i)
{
    atmsae_model *m = a->m;
    if (a->o->config.freeze_masked && a->g->masked[i]) return;
    for (unsigned p = 0; p < m->n_params; p++) {
        const ams_param *param = &m->params[p];
        if (!param->per_latent) continue;
        update(a, p, i * param->cols, param->cols, row_gradient(a->g, p, param, i));
    }
    if (m->config.decoder_norm == ATMSAE_DECODER_UNIT) {
        float *d = m->w_dec + i * m->d_out, norm = sqrtf(ams_dot(d, d, m->d_out));
        for (uint64_t j = 0; norm > 0 && norm < INFINITY && j < m->d_out; j++)
            d[j] /= norm;
    }
}

static void update_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    const pass *a = arg;
    uint64_t first = job * LATENTS_A_JOB, last = ams_min(first + LATENTS_A_JOB, a->m->d_sae);
    for (uint64_t i = first; i < last; i++)
        update_latent(a, i);
    ams_model_exp_thresholds(a->m, first, last);
    ams_model_refresh_latents(a->m, first, last);
}

static void move_batch_threshold(atmsae_model *m, float smallest)
{
    const double decay = 0.99;
    if (m->config.activation != ATMSAE_BATCHTOPK || isnan(smallest)) return;
    m->batch_threshold = isnan(m->batch_threshold)
                             ? smallest
                             : (float)(decay * (double)m->batch_threshold + (1 - decay) * (double)smallest);
}

atmsae_status ams_optimizer_step(atmsae_optimizer *o, atmsae_model *m, atmsae_gradients *g, double *grad_norm)
{
    if (g->state != AMS_GRADIENTS_READY)
        return ams_fail(o->ctx, ATMSAE_E_STATE, "optimizer_step: there was no backward since the last step");
    bool same = o->d_sae == m->d_sae && g->d_sae == m->d_sae && o->n_params == m->n_params && g->n_params == m->n_params;
    for (unsigned p = 0; same && p < m->n_params; p++)
        same = o->counts[p] == m->params[p].rows * m->params[p].cols && g->params[p].count == o->counts[p];
    if (!same) return ams_fail(o->ctx, ATMSAE_E_STATE, "optimizer_step: optimizer, model and gradients differ in shape");

    const atmsae_optimizer_config *c = &o->config;
    pass a = {.o = o, .m = m, .g = g};
    uint64_t jobs = (m->d_sae + LATENTS_A_JOB - 1) / LATENTS_A_JOB;
    ams_parallel(o->ctx, jobs, norm_job, &a);
    unsigned b_dec = 0;
    while (m->params[b_dec].per_latent)
        b_dec++;
    double latents[AMS_PIECE_SUMS];
    ams_pieces(o->ctx, m->d_sae, sum_norms_job, g, latents);
    double norm = sqrt(latents[0] + squares(g->params[b_dec].value, m->d_out)); /* b_dec, which is no latent's, last */
    if (!isfinite(norm)) return ams_fail(o->ctx, ATMSAE_E_NONFINITE, "optimizer_step: the gradient's norm is %g: diverged: lower lr", norm);

    double t = (double)o->steps + 1, lr = ams_optimizer_lr(o);
    a.scale = c->clip > 0 ? (float)fmin(1, c->clip / (norm + 1e-6)) : 1;
    a.adam = (ams_adam){(float)c->beta1, (float)(1 - c->beta1), (float)c->beta2, (float)(1 - c->beta2), (float)c->eps,
                        (float)(lr / (1 - ams_pow(c->beta1, t))), (float)(1 / sqrt(1 - ams_pow(c->beta2, t)))};
    ams_parallel(o->ctx, jobs, update_job, &a);
    update(&a, b_dec, 0, m->d_out, g->params[b_dec].value);
    ams_model_refresh_max(m);
    move_batch_threshold(m, g->min_kept);
    o->steps++;
    g->state = AMS_GRADIENTS_USED;
    if (grad_norm) *grad_norm = norm;
    return ATMSAE_OK;
}

atmsae_status atmsae_optimizer_step(atmsae_optimizer *o, atmsae_model *m, atmsae_gradients *g, double *grad_norm)
{
    AMS_NEED_BOTH("optimizer", o, "model", m);
    AMS_NEED_BOTH("model", m, "gradients", g);
    AMS_CALL(o->ctx, ams_optimizer_step(o, m, g, grad_norm),
             AMS_CHANGES("optimizer", o), AMS_CHANGES("model", m), AMS_CHANGES("gradients", g));
}
