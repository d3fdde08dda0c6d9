/* SPDX-License-Identifier: MIT
 *
 * A model as it stands in a file. Models here see scaled rows, files raw ones:
 *     x~ = s x - b_dec = s (x - b_dec / s), so W_enc' = s W_enc, W_dec' = W_dec / t, b_dec' = b_dec / t,
 * with t = s for an autoencoder; pre-activations, and so thresholds and biases of latents, stay. Two more
 * foldings where asked for: rows of W_dec' to norm 1 (latents then grow by the norm n_i: all that makes
 * them is multiplied by it), and the centring of the input into b_enc' = b_enc - W_enc b_dec.
 */
#include "format/sae_formats.h"
#include "kernels/kernels.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

static float element(const ams_sae_matrix *m, uint64_t latent, uint64_t at)
{
    float factor = m->latent ? m->factor * m->latent[latent] : m->factor;
    if (!m->values) return factor;
    float value = m->minus ? m->values[at] - m->minus[latent] : m->values[at];
    return m->divide ? value / factor : value * factor;
}

/* Rows of the tensor are latents, or entries of b_dec. */
static void fill_rows(const void *arg, uint64_t first, uint64_t n, void *out_bytes)
{
    const ams_sae_matrix *m = arg;
    float *out = out_bytes;
    for (uint64_t i = first; i < first + n; i++)
        for (uint64_t j = 0; j < m->cols; j++)
            *out++ = element(m, i, i * m->cols + j);
}

/* Columns of the tensor are latents. */
static void fill_columns(const void *arg, uint64_t first, uint64_t n, void *out_bytes)
{
    enum { TILE = 16 }; /* floats in a cache line, both ways */
    const ams_sae_matrix *m = arg;
    float *out = out_bytes;
    for (uint64_t i0 = 0; i0 < m->rows; i0 += TILE)
        for (uint64_t j = 0; j < n; j++)
            for (uint64_t i = i0; i < ams_min(i0 + TILE, m->rows); i++)
                out[j * m->rows + i] = element(m, i, i * m->cols + first + j);
}

bool ams_sae_plan_tensor(const ams_sae_plan *p, int32_t parameter, const char *name, bool latents_last,
                         ams_sae_matrix *m, ams_tensor_out *out)
{
    const atmsae_model_config *c = &p->config;
    const float *values = atmsae_model_view(p->model, parameter, NULL);
    bool matrix = parameter == ATMSAE_W_ENC || parameter == ATMSAE_W_DEC;
    *m = (ams_sae_matrix){.values = values, .rows = c->d_sae, .cols = 1, .factor = 1, .latent = p->norms};
    switch (parameter) {
    case ATMSAE_W_ENC:
        m->cols = c->d_in;
        m->factor = p->s;
        break;
    case ATMSAE_W_DEC:
        m->cols = c->d_out;
        m->factor = p->t;
        m->divide = true;
        break;
    case ATMSAE_B_DEC:
        m->rows = c->d_out;
        m->factor = p->t;
        m->divide = true;
        m->latent = NULL;
        break;
    case ATMSAE_B_ENC:
        m->minus = p->centre;
        break;
    case ATMSAE_R_MAG:
        m->latent = NULL;
        break;
    case ATMSAE_THRESHOLD:
        if (!values) m->factor = p->threshold; /* the same for all */
        break;
    default:
        break;
    }
    *out = (ams_tensor_out){.name = name, .dtype = "F32", .rank = matrix ? 2 : 1, .arg = m};
    out->fill = latents_last ? fill_columns : fill_rows;
    out->shape[0] = latents_last ? m->cols : m->rows;
    if (matrix) out->shape[1] = latents_last ? m->rows : m->cols;
    return values || parameter == ATMSAE_THRESHOLD;
}

float ams_fold_norm(const float *row, uint64_t cols, float scale)
{
    double sum = 0;
    for (uint64_t j = 0; j < cols; j++)
        sum += (double)row[j] * (double)row[j];
    double norm = sqrt(sum) / (double)scale;
    return fabs(norm - 1) <= 0x1p-21 ? 1 : (float)norm;
}

static atmsae_status make_norms(ams_sae_plan *p)
{
    const atmsae_model_config *c = &p->config;
    const float *dec = atmsae_model_view(p->model, ATMSAE_W_DEC, NULL);
    p->norms = ams_alloc(p->model->ctx, c->d_sae, sizeof *p->norms);
    if (!p->norms) return ams_nomem(p->model->ctx, "decoder norms");
    bool unit = true;
    for (uint64_t i = 0; i < c->d_sae; i++) {
        p->norms[i] = ams_fold_norm(dec + i * c->d_out, c->d_out, p->t);
        unit = unit && p->norms[i] == 1;
        if (!(p->norms[i] > 0)) p->norms[i] = 1; /* a row of zeros */
    }
    if (unit || c->activation != ATMSAE_TOPK) return ATMSAE_OK;
    return ams_fail(p->model->ctx, ATMSAE_E_UNSUPPORTED, "model_save: TOPK selects by pre-activation, so folding decoder norms into it "
                    "would select others; it is possible where the rows of W_dec have norm %g already", (double)p->t);
}

static atmsae_status make_centre(ams_sae_plan *p)
{
    const atmsae_model_config *c = &p->config;
    const float *enc = atmsae_model_view(p->model, ATMSAE_W_ENC, NULL), *b_dec = atmsae_model_view(p->model, ATMSAE_B_DEC, NULL);
    p->centre = ams_alloc(p->model->ctx, c->d_sae, sizeof *p->centre);
    if (!p->centre) return ams_nomem(p->model->ctx, "the centre");
    for (uint64_t i = 0; i < c->d_sae; i++) {
        double sum = 0;
        for (uint64_t j = 0; j < c->d_in; j++)
            sum += (double)enc[i * c->d_in + j] * (double)b_dec[j];
        p->centre[i] = (float)sum;
    }
    return ATMSAE_OK;
}

static atmsae_status check_finite(const ams_sae_plan *p)
{
    static const struct {
        int32_t parameter;
        const char *name;
    } all[] = {{ATMSAE_W_ENC, "W_enc"}, {ATMSAE_B_ENC, "b_enc"}, {ATMSAE_W_DEC, "W_dec"}, {ATMSAE_B_DEC, "b_dec"},
               {ATMSAE_THRESHOLD, "threshold"}, {ATMSAE_R_MAG, "r_mag"}, {ATMSAE_B_MAG, "b_mag"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint64_t count;
        const float *values = atmsae_model_view(p->model, all[i].parameter, &count);
        if (values && !ams_all_finite(values, count))
            return ams_fail(p->model->ctx, ATMSAE_E_NONFINITE, "model_save: %s has values that are not finite", all[i].name);
    }
    return ATMSAE_OK;
}

static float scalar(const atmsae_model *model, int32_t parameter)
{
    const float *value = atmsae_model_view(model, parameter, NULL);
    return value ? *value : 1;
}

atmsae_status ams_sae_plan_make(ams_sae_plan *p, const atmsae_model *model, unsigned folds)
{
    atmsae_context *ctx = model->ctx;
    *p = (ams_sae_plan){.model = model, .config = {.size = sizeof p->config}};
    AMS_TRY(atmsae_model_get_config(model, &p->config));
    int32_t a = p->config.activation;
    p->activation = a == ATMSAE_BATCHTOPK || a == ATMSAE_JUMPRELU_TANH ? ATMSAE_JUMPRELU : a;
    p->s = scalar(model, ATMSAE_INPUT_SCALE);
    p->t = scalar(model, ATMSAE_OUTPUT_SCALE);
    p->threshold = scalar(model, ATMSAE_BATCH_THRESHOLD);
    if (a == ATMSAE_BATCHTOPK && isnan(p->threshold))
        return ams_fail(ctx, ATMSAE_E_STATE, "model_save: BATCHTOPK has no threshold yet; train it or call atmsae_model_calibrate");
    if (a == ATMSAE_RELU) p->threshold = 0; /* for formats that want one */
    if (!p->config.transcoder && p->s != p->t)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "model_save: input scale %g and output scale %g of an autoencoder differ",
                        (double)p->s, (double)p->t);
    AMS_TRY(check_finite(p));
    if (folds & AMS_FOLD_NORMS) AMS_TRY(make_norms(p));
    if (folds & AMS_FOLD_CENTRE && !p->config.transcoder) AMS_TRY(make_centre(p));
    return ATMSAE_OK;
}

void ams_sae_plan_end(ams_sae_plan *p)
{
    ams_free(p->model->ctx, p->norms);
    ams_free(p->model->ctx, p->centre);
    p->norms = p->centre = NULL;
}
