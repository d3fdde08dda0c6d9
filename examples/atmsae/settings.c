/* SPDX-License-Identifier: MIT
 *
 * Settings of models and runs as named fields, under the names of train's options.
 */
#include "command.h"
#include "program.h"

#include <math.h>
#include <stdlib.h>

static const char *activation_name(const atmsae_model_config *model)
{
    switch (model->activation) {
    case ATMSAE_RELU: return "standard";
    case ATMSAE_TOPK: return "topk";
    case ATMSAE_BATCHTOPK: return model->n_prefixes ? "matryoshka" : "batchtopk";
    case ATMSAE_JUMPRELU:
    case ATMSAE_JUMPRELU_TANH: return "jumprelu";
    case ATMSAE_GATED: return "gated";
    default: return "unknown";
    }
}

/* "?" for a number this program does not know. */
static const char *pick(int32_t value, const char *const *names, int32_t n)
{
    return value >= 0 && value < n ? names[value] : "?";
}

static char *prefix_list(const atmsae_model_config *model, bool json)
{
    char *text = NULL;
    size_t size;
    FILE *out = program_text_open(&text, &size);
    if (json) fputc('[', out);
    for (uint64_t i = 0; i < model->n_prefixes; i++)
        fprintf(out, "%s%llu", i ? "," : "", (unsigned long long)model->prefixes[i]);
    if (json) fputc(']', out);
    return program_text_close(out, &text);
}

void model_fields(fields *out, const atmsae_model_config *model)
{
    static const char *const decoder[] = {"auto", "free", "unit"};
    static const char *const input[] = {"?", "raw", "sqrt-d"};
    static const char *const b_dec[] = {"?", "zero", "mean", "median"};
    const bool jumprelu = model->activation == ATMSAE_JUMPRELU || model->activation == ATMSAE_JUMPRELU_TANH;
    const bool top = model->activation == ATMSAE_TOPK || model->activation == ATMSAE_BATCHTOPK;
    fields_text(out, "arch", activation_name(model));
    if (jumprelu)
        fields_text(out, "jumprelu-form", model->activation == ATMSAE_JUMPRELU ? "deepmind" : "anthropic");
    fields_count(out, "d-in", model->d_in);
    if (model->transcoder) fields_count(out, "d-out", model->d_out);
    else if (model->uncentred) fields_flag(out, "uncentred", true);
    fields_count(out, "d-sae", model->d_sae);
    if (top) fields_real(out, "k", model->k);
    if (!top) fields_real(out, "sparsity", model->sparsity_coef);
    if (model->target_l0 > 0)
        fields_real(out, "target-l0", model->target_l0);
    if (jumprelu) {
        fields_real(out, "bandwidth", model->bandwidth);
        if (model->target_l0 == 0) fields_real(out, "init-threshold", model->init_threshold);
    }
    if (model->n_prefixes) {
        char *text = prefix_list(model, false);
        fields_text(out, "prefixes", text);
        free(text);
    }
    fields_text(out, "decoder-norm", pick(model->decoder_norm, decoder, 3));
    fields_text(out, "input-norm", pick(model->input_norm, input, 3));
    fields_text(out, "b-dec", pick(model->b_dec_init, b_dec, 4));
    fields_real(out, "aux-coef", model->aux_coef);
    fields_count(out, "aux-k", model->aux_k);
    fields_count(out, "seed", model->seed);
}

void trainer_fields(fields *out, const atmsae_trainer_config *config)
{
    static const char *const mask[] = {"?", "none", "atm", "paper", "uniform", "permuted"};
    model_fields(out, config->model);
    const atmsae_masker_config *masker = config->masker;
    const uint64_t steps = config->batch_rows ? config->total_rows / config->batch_rows : 0;
    fields_text(out, "mask", pick(masker->kind, mask, 6));
    if (masker->kind != ATMSAE_MASK_NONE) {
        fields_real(out, "r", masker->r);
        fields_real(out, "c", masker->c);
        fields_text(out, "mask-per", masker->per_row ? "row" : "step");
        const bool second = masker->effect == ATMSAE_EFFECT_SECOND_LOSS;
        fields_text(out, "mask-effect", second ? "second-loss" : "hard");
        if (second) fields_real(out, "alpha", masker->alpha);
        if (masker->kind != ATMSAE_MASK_PAPER)
            fields_count(out, "mask-warmup-steps", masker->warmup_steps);
    }
    fields_real(out, "lr", config->optimizer->lr);
    fields_count(out, "lr-warmup-steps", config->optimizer->warmup_steps);
    fields_count(out, "lr-decay-steps", config->optimizer->decay_steps);
    fields_count(out, "dead-window", config->tracker->dead_window);
    if (config->max_norm > 0) fields_real(out, "max-norm", config->max_norm);
    fields_count(out, "batch", config->batch_rows);
    fields_count(out, "rows", config->total_rows);
    fields_count(out, "steps", steps);
}
