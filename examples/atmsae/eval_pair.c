/* SPDX-License-Identifier: MIT
 *
 * atmsae eval: what the weights and the firing counts tell: nearest latents, shares of latents, and --pair, how alike
 * the latents of two SAEs are.
 */
#include "report.h"
#include "run_file.h"

bool pair_measure(atmsae_context *context, const atmsae_model *model, const char *other_folder, fields *out)
{
    static const struct {
        const char *mcc, *shared;
        int32_t parameter, absolute;
    } kinds[] = {{"pair_mcc", "pair_shared", ATMSAE_W_DEC, 0},
                 {"pair_mcc_absolute", NULL, ATMSAE_W_DEC, 1},
                 {"pair_mcc_encoder", NULL, ATMSAE_W_ENC, 0}};
    atmsae_model *other = sae_load(context, other_folder);
    if (!other) return false;
    bool good = true;
    for (size_t k = 0; good && k < sizeof kinds / sizeof *kinds; k++) {
        atmsae_match_result r = {.size = sizeof r};
        good = atmsae_model_match(model, other, kinds[k].parameter, kinds[k].absolute, NULL, &r) >= 0;
        if (!good) break;
        fields_real(out, kinds[k].mcc, r.mcc);
        if (kinds[k].shared) fields_real(out, kinds[k].shared, r.shared);
    }
    if (!good) command_failed(context);
    atmsae_model_destroy(other);
    return good;
}

bool details_measure(atmsae_context *context, const atmsae_model *model, const atmsae_metrics *metrics, fields *out)
{
    atmsae_metrics_details d = {.size = sizeof d};
    double decoder = 0, encoder = 0;
    if (atmsae_metrics_get_details(metrics, &d) < 0 ||
        atmsae_model_similarity(model, ATMSAE_W_DEC, NULL, &decoder) < 0 ||
        atmsae_model_similarity(model, ATMSAE_W_ENC, NULL, &encoder) < 0)
        return command_failed(context), false;
    fields_real(out, "explained_variance", d.explained_variance);
    fields_real(out, "norm_ratio", d.norm_ratio);
    fields_real(out, "alive", d.alive);
    fields_real(out, "over_1_percent", d.over_1_percent);
    fields_real(out, "over_10_percent", d.over_10_percent);
    fields_real(out, "decoder_similarity", decoder);
    fields_real(out, "encoder_similarity", encoder);
    return true;
}
