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

#include <float.h>
#include <math.h>
#include <string.h>

static float scaled(const ams_sae_matrix *m, uint64_t latent, float value)
{
    float factor = m->latent ? m->factor * m->latent[latent] : m->factor;
    if (!m->values) return factor;
    return m->divide ? value / factor : value * factor;
}

static float value_at(const ams_sae_matrix *m, uint64_t latent, uint64_t at)
{
    if (!m->values) return 1;
    return m->minus ? m->values[at] - m->minus[latent] : m->values[at];
}

static float element(const ams_sae_matrix *m, uint64_t latent, uint64_t at) { return scaled(m, latent, value_at(m, latent, at)); }

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

/* ---- can the file hold it? ------------------------------------------------------------------------ */

/* As `scaled`, in double. */
static double unrounded(const ams_sae_matrix *m, uint64_t latent, float value)
{
    double factor = (double)m->factor * (m->latent ? (double)m->latent[latent] : 1);
    return m->divide ? (double)value / factor : (double)value * factor;
}

/* Is the folded value neither too large for single precision nor so small that rounding would change it? Where the
 * factor is 1, the file has the value as it is. */
static bool fits(const ams_sae_matrix *m, uint64_t latent, float value)
{
    double want = unrounded(m, latent, value), error = fabs((double)scaled(m, latent, value) - want);
    if (want == 0 || (isfinite(want) && unrounded(m, latent, 1) == 1)) return true;
    return fabs(want) >= (double)FLT_MIN && error <= 0x1p-20 * fabs(want);
}

/* Largest absolute value. By bits, which are in the order of the values, so that it takes little time. */
static float largest(const float *values, uint64_t n)
{
    uint32_t most = 0, bits;
    float out;
    for (uint64_t i = 0; i < n; i++) {
        memcpy(&bits, values + i, sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    memcpy(&out, &most, sizeof out);
    return out;
}

/* Looks at the largest value of each row of a matrix, and at the largest of a vector: where that fits, what is lost of
 * much smaller ones does not matter. */
static bool find_misfit(const ams_sae_matrix *m, bool matrix, uint64_t *where, float *value)
{
    double most = -1;
    for (uint64_t i = 0; i < m->rows; i++) {
        float here = matrix ? largest(m->values + i * m->cols, m->cols) : value_at(m, i, i);
        double size = fabs(unrounded(m, i, here));
        if (!matrix && !(size > most || isnan(size))) continue;
        most = size;
        *where = i;
        *value = here;
        if (matrix && !fits(m, i, here)) return true;
    }
    return !matrix && !fits(m, *where, *value);
}

/* Do latents and reconstructions stay finite? In the units of the model a typical row has a norm of sqrt(d), which is
 * some thousands at most, or that of b_dec, which is subtracted. ROOM is that and a margin for rows that are larger. */
static atmsae_status check_room(const ams_sae_plan *p)
{
    const double ROOM = 0x1p20;
    const atmsae_model_config *c = &p->config;
    const float *enc = atmsae_model_view(p->model, ATMSAE_W_ENC, NULL), *dec = atmsae_model_view(p->model, ATMSAE_W_DEC, NULL);
    double typical = c->uncentred ? 1 : fmax(1, (double)largest(atmsae_model_view(p->model, ATMSAE_B_DEC, NULL), c->d_out));
    for (uint64_t i = 0; i < c->d_sae; i++) {
        double w_enc = (double)largest(enc + i * c->d_in, c->d_in), w_dec = (double)largest(dec + i * c->d_out, c->d_out);
        double latent = ROOM * typical * w_enc, row = latent * w_dec * fmax(1, 1 / (double)p->t);
        if (p->norms) latent *= (double)p->norms[i];
        if (latent > (double)FLT_MAX || row > (double)FLT_MAX)
            return ams_fail(p->model->ctx, ATMSAE_E_UNSUPPORTED, "model_save: latent %llu, whose values in W_enc come to %g and in W_dec to %g, would "
                            "overflow single precision on rows that are not small%s; give it smaller ones", (unsigned long long)i, w_enc, w_dec,
                            p->norms ? ", or save without fold_decoder_norm" : "");
    }
    return ATMSAE_OK;
}

static const struct {
    int32_t parameter;
    const char *name;
} all[] = {{ATMSAE_W_ENC, "W_enc"}, {ATMSAE_B_ENC, "b_enc"}, {ATMSAE_W_DEC, "W_dec"}, {ATMSAE_B_DEC, "b_dec"},
           {ATMSAE_THRESHOLD, "threshold"}, {ATMSAE_R_MAG, "r_mag"}, {ATMSAE_B_MAG, "b_mag"}};
enum { ALL = sizeof all / sizeof *all };

static atmsae_status check_fits(const ams_sae_plan *p)
{
    for (int i = 0; i < ALL; i++) {
        ams_sae_matrix m;
        ams_tensor_out out;
        uint64_t where = 0;
        float value = 0;
        bool wanted = all[i].parameter != ATMSAE_THRESHOLD || p->activation == ATMSAE_JUMPRELU;
        if (!wanted || !ams_sae_plan_tensor(p, all[i].parameter, all[i].name, false, &m, &out)) continue;
        if (find_misfit(&m, out.rank == 2, &where, &value))
            return ams_fail(p->model->ctx, ATMSAE_E_UNSUPPORTED, "model_save: %s, %s %llu: %g would be %g in the file, with the scale%s folded in; "
                            "single precision holds %g to %g. Train on rows that are scaled to values nearer to 1%s", all[i].name,
                            all[i].parameter == ATMSAE_B_DEC ? "element" : "latent", (unsigned long long)where, (double)value,
                            unrounded(&m, where, value), p->norms ? " and the decoder's norms" : "", (double)FLT_MIN, (double)FLT_MAX,
                            p->norms ? ", or save without fold_decoder_norm" : "");
    }
    return ATMSAE_OK;
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
        const float *row = dec + i * c->d_out;
        p->norms[i] = ams_fold_norm(row, c->d_out, p->t);
        unit = unit && p->norms[i] == 1;
        if (largest(row, c->d_out) == 0) p->norms[i] = 1;
        else if (!isfinite(p->norms[i]) || p->norms[i] < FLT_MIN)
            return ams_fail(p->model->ctx, ATMSAE_E_UNSUPPORTED, "model_save: W_dec, latent %llu: its norm, %g, is none that can be folded in; "
                            "single precision holds %g to %g. Save without fold_decoder_norm", (unsigned long long)i, (double)p->norms[i],
                            (double)FLT_MIN, (double)FLT_MAX);
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
    for (int i = 0; i < ALL; i++) {
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
    if (folds & AMS_FOLD_CENTRE && !p->config.uncentred) AMS_TRY(make_centre(p));
    AMS_TRY(check_fits(p));
    return check_room(p);
}

void ams_sae_plan_end(ams_sae_plan *p)
{
    ams_free(p->model->ctx, p->norms);
    ams_free(p->model->ctx, p->centre);
    p->norms = p->centre = NULL;
}
