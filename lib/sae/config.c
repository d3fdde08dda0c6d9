/* SPDX-License-Identifier: MIT
 *
 * The model's settings: defaults, ranges, what each activation fills in.
 */
#include "sae/sae.h"
#include "kernels/rows.h"

#include <math.h>
#include <string.h>

void atmsae_model_config_init(atmsae_model_config *config, size_t size)
{
    const atmsae_model_config defaults = {
        .activation = ATMSAE_BATCHTOPK,
        .k = 32,
        .sparsity_coef = NAN,
        .bandwidth = NAN,
        .init_threshold = NAN,
        .tanh_scale = 4,
        .pre_act_coef = 3e-6,
        .decoder_init_norm = 0.1,
        .aux_coef = 1.0 / 32,
    };
    ams_struct_init(config, size, &defaults, sizeof defaults);
}

void atmsae_batch_init(atmsae_batch *batch, size_t size)
{
    static const atmsae_batch defaults = {.x_type = ATMSAE_F32, .y_type = ATMSAE_F32};
    ams_struct_init(batch, size, &defaults, sizeof defaults);
}

/* What "default" means for each activation. Sources: doc/method.md, section 2. */
static const struct {
    double sparsity_coef, bandwidth, init_threshold;
    int32_t decoder_norm;
} by_activation[] = {
    [ATMSAE_RELU] = {5, 0, 0, ATMSAE_DECODER_FREE},
    [ATMSAE_TOPK] = {0, 0, 0, ATMSAE_DECODER_UNIT},
    [ATMSAE_BATCHTOPK] = {0, 0, 0, ATMSAE_DECODER_UNIT},
    [ATMSAE_JUMPRELU] = {1, 0.5, 0.5, ATMSAE_DECODER_UNIT},
    [ATMSAE_JUMPRELU_TANH] = {10, 2, 0.1, ATMSAE_DECODER_FREE},
    [ATMSAE_GATED] = {1, 0, 0, ATMSAE_DECODER_UNIT},
};

static atmsae_status check_integer(atmsae_context *ctx, const char *name, uint64_t value, uint64_t low, uint64_t high)
{
    if (value >= low && value <= high) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ARG, "%s = %llu, allowed: %llu to %llu", name, (unsigned long long)value,
                    (unsigned long long)low, (unsigned long long)high);
}

static atmsae_status check_number(atmsae_context *ctx, const char *name, double value, double low, double high)
{
    if (value >= low && value <= high) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ARG, "%s = %g, allowed: %g to %g", name, value, low, high);
}

static atmsae_status check_choice(atmsae_context *ctx, const char *name, int32_t value, int32_t last)
{
    if (value >= 1 && value <= last) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ARG, "%s = %d, allowed: 1 to %d", name, value, last);
}

static atmsae_status check_flag(atmsae_context *ctx, const char *name, int32_t value)
{
    if (value == 0 || value == 1) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ARG, "%s = %d, allowed: 0 or 1", name, value);
}

static atmsae_status check_prefixes(atmsae_context *ctx, atmsae_model_config *c, uint64_t *prefixes)
{
    AMS_TRY(check_integer(ctx, "n_prefixes", c->n_prefixes, 0, AMS_MAX_PREFIXES));
    if (c->n_prefixes > 0 && !c->prefixes)
        return ams_fail(ctx, ATMSAE_E_ARG, "prefixes is NULL and n_prefixes = %llu", (unsigned long long)c->n_prefixes);
    for (uint64_t g = 0; g < c->n_prefixes; g++) {
        uint64_t low = g == 0 ? 1 : c->prefixes[g - 1] + 1;
        if (c->prefixes[g] < low || c->prefixes[g] >= c->d_sae)
            return ams_fail(ctx, ATMSAE_E_ARG, "prefixes[%llu] = %llu, allowed: %llu to d_sae - 1 = %llu (strictly increasing)",
                            (unsigned long long)g, (unsigned long long)c->prefixes[g], (unsigned long long)low,
                            (unsigned long long)(c->d_sae - 1));
        prefixes[g] = c->prefixes[g];
    }
    c->prefixes = c->n_prefixes ? prefixes : NULL;
    return ATMSAE_OK;
}

atmsae_status ams_model_config_resolve(atmsae_context *ctx, const atmsae_model_config *caller,
                                       atmsae_model_config *c, uint64_t prefixes[AMS_MAX_PREFIXES])
{
    atmsae_model_config_init(c, sizeof *c);
    AMS_TRY(ams_struct_in(ctx, atmsae_model_config, c, caller));
    AMS_TRY(check_integer(ctx, "d_in", c->d_in, 1, 1 << 22));
    AMS_TRY(check_integer(ctx, "d_out", c->d_out, 0, 1 << 22));
    AMS_TRY(check_integer(ctx, "d_sae", c->d_sae, 1, INT32_MAX));
    AMS_TRY(check_choice(ctx, "activation", c->activation, ATMSAE_GATED));
    if (c->d_out == 0) c->d_out = c->d_in;
    if (c->d_out != c->d_in) c->transcoder = 1;
    AMS_TRY(check_flag(ctx, "transcoder", c->transcoder));
    AMS_TRY(check_flag(ctx, "uncentred", c->uncentred));
    if (c->transcoder) c->uncentred = 1; /* its b_dec is the centre of the targets */

    if (c->decoder_norm == ATMSAE_AUTO) c->decoder_norm = by_activation[c->activation].decoder_norm;
    if (c->input_norm == ATMSAE_AUTO) c->input_norm = ATMSAE_INPUT_SQRT_D;
    if (c->b_dec_init == ATMSAE_AUTO) c->b_dec_init = ATMSAE_B_DEC_MEAN;
    if (isnan(c->sparsity_coef)) c->sparsity_coef = by_activation[c->activation].sparsity_coef;
    if (isnan(c->bandwidth)) c->bandwidth = by_activation[c->activation].bandwidth;
    if (isnan(c->init_threshold)) c->init_threshold = by_activation[c->activation].init_threshold;
    if (c->aux_k == 0) c->aux_k = ams_max(1, c->d_in / 2);
    AMS_TRY(check_choice(ctx, "decoder_norm", c->decoder_norm, ATMSAE_DECODER_UNIT));
    AMS_TRY(check_choice(ctx, "input_norm", c->input_norm, ATMSAE_INPUT_SQRT_D));
    AMS_TRY(check_choice(ctx, "b_dec_init", c->b_dec_init, ATMSAE_B_DEC_MEDIAN));

    bool topk = c->activation == ATMSAE_TOPK, batch = c->activation == ATMSAE_BATCHTOPK;
    if (topk || batch) {
        if (!(c->k > 0 && c->k <= (double)c->d_sae))
            return ams_fail(ctx, ATMSAE_E_ARG, "k = %g, allowed: above 0, at most d_sae = %llu", c->k,
                            (unsigned long long)c->d_sae);
        if (topk && c->k != floor(c->k))
            return ams_fail(ctx, ATMSAE_E_ARG, "k = %g, allowed for TOPK: whole numbers", c->k);
    }
    bool jump = c->activation == ATMSAE_JUMPRELU || c->activation == ATMSAE_JUMPRELU_TANH;
    if (jump) {
        AMS_TRY(check_number(ctx, "bandwidth", c->bandwidth, 1e-6, 1e6));
        AMS_TRY(check_number(ctx, "init_threshold", c->init_threshold, 1e-6, 1e6));
    }
    AMS_TRY(check_number(ctx, "sparsity_coef", c->sparsity_coef, 0, 1e9));
    AMS_TRY(check_number(ctx, "target_l0", c->target_l0, 0, (double)c->d_sae));
    if (c->target_l0 > 0 && (topk || batch))
        return ams_fail(ctx, ATMSAE_E_ARG, "target_l0 = %g, allowed for TOPK and BATCHTOPK: 0, since k is their L0", c->target_l0);
    if (c->target_l0 > 0 && c->sparsity_coef == 0)
        return ams_fail(ctx, ATMSAE_E_ARG, "sparsity_coef = 0, allowed with target_l0: above 0, since it is what the coefficient "
                        "starts from");
    AMS_TRY(check_number(ctx, "tanh_scale", c->tanh_scale, 1e-6, 1e6));
    AMS_TRY(check_number(ctx, "pre_act_coef", c->pre_act_coef, 0, 1e6));
    AMS_TRY(check_number(ctx, "decoder_init_norm", c->decoder_init_norm, 1e-6, 1e6));
    AMS_TRY(check_number(ctx, "aux_coef", c->aux_coef, 0, 1e6));
    return check_prefixes(ctx, c, prefixes);
}

atmsae_status ams_batch_check(atmsae_context *ctx, const atmsae_model *model, const atmsae_batch *caller, bool targets,
                              atmsae_batch *b)
{
    atmsae_batch_init(b, sizeof *b);
    AMS_TRY(ams_struct_in(ctx, atmsae_batch, b, caller));
    if (!targets) b->y = NULL;
    AMS_TRY(check_integer(ctx, "batch: n_rows", b->n_rows, 1, INT32_MAX));
    ams_rows x = {"batch: x", b->x, b->n_rows, model->d_in, b->ld_x, b->x_type};
    ams_rows y = {"batch: y", b->y, b->n_rows, model->d_out, b->ld_y, b->y_type};
    AMS_TRY(ams_rows_check(ctx, &x));
    if (b->y) AMS_TRY(ams_rows_check(ctx, &y));
    else if (targets) AMS_TRY(ams_needs_no_targets(ctx, model, "batch"));
    b->ld_x = x.ld;
    b->ld_y = y.ld;
    return ams_row_weights_check(ctx, b->row_weights, b->n_rows);
}

atmsae_status ams_needs_no_targets(atmsae_context *ctx, const atmsae_model *model, const char *what)
{
    if (!model->config.transcoder) return ATMSAE_OK;
    return ams_fail(ctx, ATMSAE_E_ARG, "%s: y is NULL, but the model is a transcoder (d_in = %llu, d_out = %llu), which is trained on and "
                    "measured against targets: give them as y; an SAE whose input is not centred has uncentred = 1 and "
                    "transcoder = 0", what, (unsigned long long)model->d_in, (unsigned long long)model->d_out);
}
