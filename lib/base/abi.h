/* SPDX-License-Identifier: MIT
 *
 * Structs that cross the ABI lead with their size, so that the program and the library may be of different
 * releases. A struct grows at its end only. What a caller's size says:
 *
 *     below the first release's    no struct of ours: ATMSAE_E_ABI
 *     below this library's         an older program: fields that it does not have keep their defaults
 *     above this library's         a newer program: fields that we do not know must be 0, else ATMSAE_E_ABI
 *
 * So the size that a struct had when it was first released is a promise that stays when the struct grows. The
 * table names the field that was its last then; a new field changes nothing here.
 */
#ifndef AMS_ABI_H
#define AMS_ABI_H

#include <atmsae/eval.h>

/* S(struct, its last field in the first release that had it) */
#define AMS_STRUCTS(S)                               \
    S(atmsae_context_config, log_opaque)             \
    S(atmsae_model_config, prefixes)                 \
    S(atmsae_batch, y_type)                          \
    S(atmsae_row_norms, top_share)                   \
    S(atmsae_codes_view, value)                      \
    S(atmsae_save_options, hook_name)                \
    S(atmsae_model_origin, hook_name)                \
    S(atmsae_optimizer_config, pad0_)                \
    S(atmsae_tracker_config, dead_window)            \
    S(atmsae_masker_config, cooldown_end)            \
    S(atmsae_trainer_config, sparsity_warmup)        \
    S(atmsae_step_stats, grad_norm)                  \
    S(atmsae_source_config, epochs)                  \
    S(atmsae_row_origin, row)                        \
    S(atmsae_mask, step)                             \
    S(atmsae_forward_options, sparsity_scale)        \
    S(atmsae_loss, rows)                             \
    S(atmsae_latent_sums, contribution)              \
    S(atmsae_metrics_result, bias)                   \
    S(atmsae_absorption_config, max_split)           \
    S(atmsae_absorption_result, true_positives)      \
    S(atmsae_synth_config, magnitude_sd)             \
    S(atmsae_synth_result, mcc)                      \
    S(atmsae_tensor_info, shape)                     \
    S(atmsae_absorption_entry, pad0_)                \
    S(atmsae_absorption_measures, main_precision)    \
    S(atmsae_probing_config, pad0_)                  \
    S(atmsae_probing_task, pad0_)                    \
    S(atmsae_metrics_details, saebench_explained_variance) \
    S(atmsae_lm_output, vocab)                       \
    S(atmsae_language_model, run)                    \
    S(atmsae_lm_result, kl_score)                    \
    S(atmsae_match_result, shared)                   \
    S(atmsae_hedging_result, score)                  \
    S(atmsae_tree_config, bias_norm)                 \
    S(atmsae_truth_result, full_rate)

enum {
#define AMS_STRUCT_INDEX(type, last) AMS_STRUCT_##type,
    AMS_STRUCTS(AMS_STRUCT_INDEX)
#undef AMS_STRUCT_INDEX
        AMS_N_STRUCTS
};

typedef struct ams_struct {
    const char *name;
    size_t size, first; /* now, and in its first release */
} ams_struct;
extern const ams_struct ams_structs[AMS_N_STRUCTS];

/* Copies a caller's struct over *local, which holds the defaults. `type` is the name of both. */
#define ams_struct_in(ctx, type, local, caller) \
    ams_struct_copy_in(ctx, &ams_structs[AMS_STRUCT_##type], 1 ? (local) : (type *)NULL, caller)
/* Writes as much of *local as the caller's struct can hold, and keeps its size field. */
#define ams_struct_out(ctx, type, caller, local) \
    ams_struct_copy_out(ctx, &ams_structs[AMS_STRUCT_##type], caller, 1 ? (local) : (const type *)NULL)
/* Checks the size alone, ahead of work whose result will go there. */
#define ams_struct_check(ctx, type, caller) ams_struct_check_size(ctx, &ams_structs[AMS_STRUCT_##type], caller)

atmsae_status ams_struct_copy_in(atmsae_context *ctx, const ams_struct *s, void *local, const void *caller);
atmsae_status ams_struct_copy_out(atmsae_context *ctx, const ams_struct *s, void *caller, const void *local);
atmsae_status ams_struct_check_size(atmsae_context *ctx, const ams_struct *s, const void *caller);
/* For the _init functions: copies the defaults into a struct of `size` bytes and zeroes the rest. */
void ams_struct_init(void *caller, size_t size, const void *defaults, size_t defaults_size);

#endif
