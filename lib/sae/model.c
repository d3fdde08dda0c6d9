/* SPDX-License-Identifier: MIT
 *
 * The model handle: memory, initial weights, access to parameters.
 */
#include "base/elementary.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

/* Which parameters an activation has, in the order in which everything walks them. */
static const struct {
    int32_t id;
    const char *name;
    uint32_t activations; /* bit per activation */
} params[] = {
    {ATMSAE_W_ENC, "W_enc", ~0u},
    {ATMSAE_B_ENC, "b_enc", ~0u},
    {ATMSAE_W_DEC, "W_dec", ~0u},
    {ATMSAE_B_DEC, "b_dec", ~0u},
    {ATMSAE_THRESHOLD, "log_threshold", 1u << ATMSAE_JUMPRELU | 1u << ATMSAE_JUMPRELU_TANH},
    {ATMSAE_R_MAG, "r_mag", 1u << ATMSAE_GATED},
    {ATMSAE_B_MAG, "b_mag", 1u << ATMSAE_GATED},
};

static atmsae_status allocate(atmsae_model *m)
{
    for (size_t p = 0; p < sizeof params / sizeof *params; p++) {
        if (!(params[p].activations >> m->config.activation & 1)) continue;
        ams_param *param = &m->params[m->n_params++];
        param->id = params[p].id;
        param->name = params[p].name;
        param->per_latent = param->id != ATMSAE_B_DEC;
        param->matrix = param->id == ATMSAE_W_ENC || param->id == ATMSAE_W_DEC;
        param->rows = param->per_latent ? m->d_sae : 1;
        param->cols = param->id == ATMSAE_W_ENC ? m->d_in
                      : param->id == ATMSAE_W_DEC || param->id == ATMSAE_B_DEC ? m->d_out : 1;
        uint64_t count;
        if (!ams_mul(param->rows, param->cols, &count)) return ams_nomem(m->ctx, param->name);
        param->value = ams_calloc(m->ctx, count, sizeof(float));
        if (!param->value)
            return ams_fail(m->ctx, ATMSAE_E_NOMEM, "out of memory for %s: %llu x %llu floats", param->name,
                            (unsigned long long)param->rows, (unsigned long long)param->cols);
        switch (param->id) {
        case ATMSAE_W_ENC: m->w_enc = param->value; break;
        case ATMSAE_B_ENC: m->b_enc = param->value; break;
        case ATMSAE_W_DEC: m->w_dec = param->value; break;
        case ATMSAE_B_DEC: m->b_dec = param->value; break;
        case ATMSAE_THRESHOLD: m->log_threshold = param->value; break;
        case ATMSAE_R_MAG: m->r_mag = param->value; break;
        case ATMSAE_B_MAG: m->b_mag = param->value; break;
        }
    }
    m->enc_norm = ams_calloc(m->ctx, m->d_sae, sizeof(float));
    m->dec_norm = ams_calloc(m->ctx, m->d_sae, sizeof(float));
    if (m->log_threshold) m->threshold = ams_calloc(m->ctx, m->d_sae, sizeof(float));
    if (!m->enc_norm || !m->dec_norm || (m->log_threshold && !m->threshold)) return ams_nomem(m->ctx, "the model");
    return ATMSAE_OK;
}

atmsae_status ams_model_create_blank(atmsae_context *ctx, const atmsae_model_config *config, atmsae_model **out)
{
    if (!out) return ams_fail(ctx, ATMSAE_E_ARG, "model_create: out is NULL");
    *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    atmsae_model_config resolved;
    uint64_t prefixes[AMS_MAX_PREFIXES];
    AMS_TRY(ams_model_config_resolve(ctx, config, &resolved, prefixes));
    atmsae_model *m = ams_calloc(ctx, 1, sizeof *m);
    if (!m) return ams_nomem(ctx, "the model");
    m->ctx = ams_context_ref(ctx);
    m->config = resolved;
    if (resolved.n_prefixes) {
        memcpy(m->prefixes, prefixes, (size_t)resolved.n_prefixes * sizeof *prefixes);
        m->config.prefixes = m->prefixes;
    }
    m->d_in = resolved.d_in;
    m->d_out = resolved.d_out;
    m->d_sae = resolved.d_sae;
    m->input_scale = m->output_scale = 1;
    m->batch_threshold = NAN;
    atmsae_status status = allocate(m);
    if (status < 0) {
        atmsae_model_destroy(m);
        return status;
    }
    for (uint64_t i = 0; m->log_threshold && i < m->d_sae; i++)
        m->log_threshold[i] = (float)ams_ln(resolved.init_threshold);
    ams_model_exp_thresholds(m, 0, m->d_sae);
    ams_model_refresh(m);
    *out = m;
    return ATMSAE_OK;
}

/* Row i of matrix `which` becomes a Gaussian direction of the given norm. */
static void random_row(float *row, uint64_t d, uint64_t seed, uint64_t which, uint64_t i, double norm)
{
    double squares = 0;
    for (uint64_t j = 0; j < d; j += 2) {
        uint32_t words[4];
        double pair[2];
        ams_philox(seed, AMS_DRAW_INIT, which << 32 | i, j / 2, words);
        ams_normal2(words, pair);
        for (uint64_t l = 0; l < 2 && j + l < d; l++) {
            row[j + l] = (float)pair[l];
            squares += pair[l] * pair[l];
        }
    }
    double scale = norm / sqrt(squares);
    for (uint64_t j = 0; j < d; j++)
        row[j] = (float)(row[j] * scale);
}

enum { LATENTS_A_JOB = 64 };

static void init_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    atmsae_model *m = arg;
    double norm = m->config.decoder_norm == ATMSAE_DECODER_UNIT ? 1 : m->config.decoder_init_norm;
    uint64_t last = ams_min((job + 1) * LATENTS_A_JOB, m->d_sae);
    for (uint64_t i = job * LATENTS_A_JOB; i < last; i++) {
        float *enc = m->w_enc + i * m->d_in, *dec = m->w_dec + i * m->d_out;
        random_row(dec, m->d_out, m->config.seed, 0, i, norm);
        if (m->config.transcoder)
            random_row(enc, m->d_in, m->config.seed, 1, i, norm);
        else
            memcpy(enc, dec, (size_t)m->d_in * sizeof *enc);
    }
}

static atmsae_status create(atmsae_context *ctx, const atmsae_model_config *config, atmsae_model **out)
{
    AMS_TRY(ams_model_create_blank(ctx, config, out));
    ams_parallel(ctx, ((*out)->d_sae + LATENTS_A_JOB - 1) / LATENTS_A_JOB, init_job, *out);
    ams_model_refresh(*out);
    return ATMSAE_OK;
}

atmsae_status atmsae_model_create(atmsae_context *ctx, const atmsae_model_config *config, atmsae_model **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, create(ctx, config, out));
}

void atmsae_model_destroy(atmsae_model *m)
{
    if (!m) return;
    atmsae_context *ctx = m->ctx;
    for (unsigned p = 0; p < m->n_params; p++)
        ams_free(ctx, m->params[p].value);
    ams_free(ctx, m->threshold);
    ams_free(ctx, m->enc_norm);
    ams_free(ctx, m->dec_norm);
    ams_free(ctx, m->origin.model_name);
    ams_free(ctx, m->origin.hook_name);
    ams_free(ctx, m->origin.hook_name_out);
    ams_free(ctx, m);
    atmsae_context_destroy(ctx);
}

static atmsae_status get_config(const atmsae_model *m, atmsae_model_config *config)
{
    return ams_struct_out(m->ctx, atmsae_model_config, config, &m->config);
}

atmsae_status atmsae_model_get_config(const atmsae_model *m, atmsae_model_config *config)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, get_config(m, config), AMS_READS("model", m));
}

/* ---- derived values -------------------------------------------------------------------------- */

void ams_model_refresh_latents(atmsae_model *m, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i < last; i++) {
        const float *enc = m->w_enc + i * m->d_in, *dec = m->w_dec + i * m->d_out;
        m->enc_norm[i] = (float)ams_norm(enc, m->d_in);
        m->dec_norm[i] = (float)ams_norm(dec, m->d_out);
    }
}

void ams_model_exp_thresholds(atmsae_model *m, uint64_t first, uint64_t last)
{
    const float lowest = -87, highest = 88; /* beyond, exp leaves the normal floats */
    if (!m->threshold || !m->log_threshold) return; /* JumpReLU has both */
    for (uint64_t i = first; i < last; i++) {
        float *log_threshold = &m->log_threshold[i];
        if (*log_threshold < lowest) *log_threshold = lowest;
        if (*log_threshold > highest) *log_threshold = highest;
        m->threshold[i] = (float)ams_exp((double)*log_threshold);
    }
}

typedef struct maxima {
    const atmsae_model *m;
    float enc_norm[AMS_PIECES], b_enc[AMS_PIECES];
} maxima;

static void max_job(void *arg, uint64_t piece, uint64_t first, uint64_t last, double *sums)
{
    (void)sums;
    maxima *a = arg;
    float norm = 0, bias = 0;
    for (uint64_t i = first; i < last; i++) {
        norm = fmaxf(norm, a->m->enc_norm[i]);
        bias = fmaxf(bias, fabsf(a->m->b_enc[i]));
    }
    a->enc_norm[piece] = norm;
    a->b_enc[piece] = bias;
}

void ams_model_refresh_max(atmsae_model *m)
{
    maxima a = {.m = m};
    ams_pieces(m->ctx, m->d_sae, max_job, &a, NULL);
    m->enc_norm_max = m->b_enc_max = 0;
    for (uint64_t p = 0; p < AMS_PIECES; p++) {
        m->enc_norm_max = fmax(m->enc_norm_max, (double)a.enc_norm[p]);
        m->b_enc_max = fmaxf(m->b_enc_max, a.b_enc[p]);
    }
}

static void refresh_job(void *arg, uint64_t job, unsigned worker)
{
    (void)worker;
    atmsae_model *m = arg;
    ams_model_refresh_latents(m, job * LATENTS_A_JOB, ams_min((job + 1) * LATENTS_A_JOB, m->d_sae));
}

void ams_model_refresh(atmsae_model *m)
{
    ams_parallel(m->ctx, (m->d_sae + LATENTS_A_JOB - 1) / LATENTS_A_JOB, refresh_job, m);
    ams_model_refresh_max(m);
}

/* ---- access ------------------------------------------------------------------------------------ */

static float *find(const atmsae_model *m, int32_t id, uint64_t *count)
{
    *count = 1;
    if (id == ATMSAE_INPUT_SCALE) return (float *)(uintptr_t)&m->input_scale;
    if (id == ATMSAE_OUTPUT_SCALE) return (float *)(uintptr_t)&m->output_scale;
    if (id == ATMSAE_BATCH_THRESHOLD && m->config.activation == ATMSAE_BATCHTOPK)
        return (float *)(uintptr_t)&m->batch_threshold;
    for (unsigned p = 0; p < m->n_params; p++) {
        if (m->params[p].id != id) continue;
        *count = m->params[p].rows * m->params[p].cols;
        return id == ATMSAE_THRESHOLD ? m->threshold : m->params[p].value;
    }
    *count = 0;
    return NULL;
}

const float *atmsae_model_view(const atmsae_model *m, int32_t parameter, uint64_t *count)
{
    uint64_t ignored;
    if (!count) count = &ignored;
    *count = 0;
    return m ? find(m, parameter, count) : NULL;
}

static atmsae_status set(atmsae_model *m, int32_t parameter, const float *values, uint64_t count)
{
    uint64_t expected;
    float *target = find(m, parameter, &expected);
    if (!target) return ams_fail(m->ctx, ATMSAE_E_ARG, "model_set: this model has no parameter %d", parameter);
    if (!values || count != expected)
        return ams_fail(m->ctx, ATMSAE_E_ARG, "model_set: parameter %d takes %llu values, got %llu%s", parameter,
                        (unsigned long long)expected, (unsigned long long)count, values ? "" : " and NULL");
    bool positive = parameter == ATMSAE_INPUT_SCALE || parameter == ATMSAE_OUTPUT_SCALE;
    bool threshold = parameter == ATMSAE_THRESHOLD || parameter == ATMSAE_BATCH_THRESHOLD;
    for (uint64_t j = 0; j < count; j++) {
        bool good = isfinite(values[j]) && (!positive || values[j] > 0) && (!threshold || values[j] >= 0);
        if (!good)
            return ams_fail(m->ctx, ATMSAE_E_ARG, "model_set: parameter %d, value %llu = %g, allowed: %s", parameter,
                            (unsigned long long)j, (double)values[j],
                            positive ? "finite and above 0" : threshold ? "finite and at least 0" : "finite");
    }
    memcpy(target, values, (size_t)count * sizeof *values);
    if (parameter == ATMSAE_INPUT_SCALE && !m->config.transcoder) m->output_scale = *values;
    if (parameter == ATMSAE_OUTPUT_SCALE && !m->config.transcoder) m->input_scale = *values;
    if (parameter == ATMSAE_THRESHOLD) {
        /* Training works on the logarithm, of which a threshold of 0 has none: it gets a tiny one. The
         * value in use stays exactly what was given until the optimiser moves it. */
        for (uint64_t i = 0; i < count; i++)
            m->log_threshold[i] = (float)ams_ln(values[i] > 1e-30f ? (double)values[i] : 1e-30);
        return ATMSAE_OK;
    }
    ams_model_refresh(m);
    return ATMSAE_OK;
}

atmsae_status atmsae_model_set(atmsae_model *m, int32_t parameter, const float *values, uint64_t count)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, set(m, parameter, values, count), AMS_CHANGES("model", m));
}
