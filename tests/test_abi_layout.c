/* SPDX-License-Identifier: MIT
 *
 * The ABI of version 1 of every public struct on 64-bit machines, and the value of every constant.
 * Compiling is the test. A line here never changes: structs grow at the end, constants by new ones.
 */
#include <atmsae/eval.h>

#define SIZE(type, bytes) _Static_assert(sizeof(type) >= (bytes), #type " shrank")
#define AT(type, field, offset) \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " moved")
#define IS(constant, value) _Static_assert((constant) == (value), #constant " changed")

#if defined(__LP64__)

AT(atmsae_allocator, opaque, 0);
AT(atmsae_allocator, alloc, 8);
AT(atmsae_allocator, free, 16);
SIZE(atmsae_allocator, 24);

AT(atmsae_context_config, size, 0);
AT(atmsae_context_config, threads, 8);
AT(atmsae_context_config, log_level, 12);
AT(atmsae_context_config, allocator, 16);
AT(atmsae_context_config, log, 24);
AT(atmsae_context_config, log_opaque, 32);
AT(atmsae_context_config, precision, 40);
SIZE(atmsae_context_config, 48);

AT(atmsae_model_config, size, 0);
AT(atmsae_model_config, d_in, 8);
AT(atmsae_model_config, d_out, 16);
AT(atmsae_model_config, d_sae, 24);
AT(atmsae_model_config, seed, 32);
AT(atmsae_model_config, activation, 40);
AT(atmsae_model_config, decoder_norm, 44);
AT(atmsae_model_config, input_norm, 48);
AT(atmsae_model_config, b_dec_init, 52);
AT(atmsae_model_config, transcoder, 56);
AT(atmsae_model_config, pad0_, 60);
AT(atmsae_model_config, k, 64);
AT(atmsae_model_config, sparsity_coef, 72);
AT(atmsae_model_config, target_l0, 80);
AT(atmsae_model_config, bandwidth, 88);
AT(atmsae_model_config, init_threshold, 96);
AT(atmsae_model_config, tanh_scale, 104);
AT(atmsae_model_config, pre_act_coef, 112);
AT(atmsae_model_config, decoder_init_norm, 120);
AT(atmsae_model_config, aux_coef, 128);
AT(atmsae_model_config, aux_k, 136);
AT(atmsae_model_config, n_prefixes, 144);
AT(atmsae_model_config, prefixes, 152);
AT(atmsae_model_config, uncentred, 160);
AT(atmsae_model_config, pad1_, 164);
SIZE(atmsae_model_config, 168);

AT(atmsae_batch, size, 0);
AT(atmsae_batch, n_rows, 8);
AT(atmsae_batch, x, 16);
AT(atmsae_batch, ld_x, 24);
AT(atmsae_batch, y, 32);
AT(atmsae_batch, ld_y, 40);
AT(atmsae_batch, row_weights, 48);
AT(atmsae_batch, x_type, 56);
AT(atmsae_batch, y_type, 60);
SIZE(atmsae_batch, 64);

AT(atmsae_row_norms, size, 0);
AT(atmsae_row_norms, rows, 8);
AT(atmsae_row_norms, median, 16);
AT(atmsae_row_norms, largest, 24);
AT(atmsae_row_norms, top_rows, 32);
AT(atmsae_row_norms, top_share, 40);
SIZE(atmsae_row_norms, 48);

AT(atmsae_codes_view, size, 0);
AT(atmsae_codes_view, n_rows, 8);
AT(atmsae_codes_view, d_sae, 16);
AT(atmsae_codes_view, row_start, 24);
AT(atmsae_codes_view, latent, 32);
AT(atmsae_codes_view, value, 40);
SIZE(atmsae_codes_view, 48);

AT(atmsae_save_options, size, 0);
AT(atmsae_save_options, model_name, 8);
AT(atmsae_save_options, hook_name, 16);
AT(atmsae_save_options, format, 24);
AT(atmsae_save_options, fold_decoder_norm, 32);
AT(atmsae_save_options, layer, 36);
AT(atmsae_save_options, latents, 40);
AT(atmsae_save_options, strengths, 48);
AT(atmsae_save_options, n_latents, 56);
AT(atmsae_save_options, hook_name_out, 64);
SIZE(atmsae_save_options, 72);
AT(atmsae_model_origin, size, 0);
AT(atmsae_model_origin, format, 8);
AT(atmsae_model_origin, model_name, 16);
AT(atmsae_model_origin, hook_name, 24);
AT(atmsae_model_origin, hook_name_out, 32);
AT(atmsae_model_origin, may_transcode, 40);
AT(atmsae_model_origin, pad0_, 44);
SIZE(atmsae_model_origin, 48);

AT(atmsae_optimizer_config, size, 0);
AT(atmsae_optimizer_config, lr, 8);
AT(atmsae_optimizer_config, beta1, 16);
AT(atmsae_optimizer_config, beta2, 24);
AT(atmsae_optimizer_config, eps, 32);
AT(atmsae_optimizer_config, clip, 40);
AT(atmsae_optimizer_config, total_steps, 48);
AT(atmsae_optimizer_config, warmup_steps, 56);
AT(atmsae_optimizer_config, decay_steps, 64);
AT(atmsae_optimizer_config, freeze_masked, 72);
AT(atmsae_optimizer_config, pad0_, 76);
SIZE(atmsae_optimizer_config, 80);

AT(atmsae_tracker_config, size, 0);
AT(atmsae_tracker_config, d_sae, 8);
AT(atmsae_tracker_config, decay, 16);
AT(atmsae_tracker_config, weight_magnitude, 24);
AT(atmsae_tracker_config, weight_frequency, 32);
AT(atmsae_tracker_config, weight_contribution, 40);
AT(atmsae_tracker_config, combine, 48);
AT(atmsae_tracker_config, observed_only, 52);
AT(atmsae_tracker_config, dead_window, 56);
SIZE(atmsae_tracker_config, 64);

AT(atmsae_masker_config, size, 0);
AT(atmsae_masker_config, d_sae, 8);
AT(atmsae_masker_config, seed, 16);
AT(atmsae_masker_config, kind, 24);
AT(atmsae_masker_config, per_row, 28);
AT(atmsae_masker_config, c, 32);
AT(atmsae_masker_config, r, 40);
AT(atmsae_masker_config, total_steps, 48);
AT(atmsae_masker_config, warmup_steps, 56);
AT(atmsae_masker_config, cooldown_start, 64);
AT(atmsae_masker_config, cooldown_end, 72);
AT(atmsae_masker_config, effect, 80);
AT(atmsae_masker_config, alpha, 88);
SIZE(atmsae_masker_config, 96);

AT(atmsae_trainer_config, size, 0);
AT(atmsae_trainer_config, model, 8);
AT(atmsae_trainer_config, optimizer, 16);
AT(atmsae_trainer_config, tracker, 24);
AT(atmsae_trainer_config, masker, 32);
AT(atmsae_trainer_config, total_rows, 40);
AT(atmsae_trainer_config, batch_rows, 48);
AT(atmsae_trainer_config, sparsity_warmup, 56);
AT(atmsae_trainer_config, skip_bad_rows, 64);
AT(atmsae_trainer_config, max_norm, 72);
SIZE(atmsae_trainer_config, 80);

AT(atmsae_step_stats, size, 0);
AT(atmsae_step_stats, step, 8);
AT(atmsae_step_stats, rows, 16);
AT(atmsae_step_stats, loss, 24);
AT(atmsae_step_stats, mse, 32);
AT(atmsae_step_stats, sparsity, 40);
AT(atmsae_step_stats, aux, 48);
AT(atmsae_step_stats, fvu, 56);
AT(atmsae_step_stats, l0, 64);
AT(atmsae_step_stats, dead, 72);
AT(atmsae_step_stats, masked, 80);
AT(atmsae_step_stats, mean_p, 88);
AT(atmsae_step_stats, r, 96);
AT(atmsae_step_stats, lr, 104);
AT(atmsae_step_stats, grad_norm, 112);
AT(atmsae_step_stats, bad_rows, 120);
AT(atmsae_step_stats, sparsity_coef, 128);
AT(atmsae_step_stats, masked_loss, 136);
AT(atmsae_step_stats, outlier_rows, 144);
SIZE(atmsae_step_stats, 152);

AT(atmsae_source_config, size, 0);
AT(atmsae_source_config, shuffle_rows, 8);
AT(atmsae_source_config, seed, 16);
AT(atmsae_source_config, epochs, 24);
SIZE(atmsae_source_config, 32);

AT(atmsae_row_origin, size, 0);
AT(atmsae_row_origin, path, 8);
AT(atmsae_row_origin, input, 16);
AT(atmsae_row_origin, row, 24);
AT(atmsae_row_origin, target_path, 32);
SIZE(atmsae_row_origin, 40);

AT(atmsae_mask, size, 0);
AT(atmsae_mask, d_sae, 8);
AT(atmsae_mask, masked, 16);
AT(atmsae_mask, p, 24);
AT(atmsae_mask, seed, 32);
AT(atmsae_mask, step, 40);
AT(atmsae_mask, effect, 48);
AT(atmsae_mask, alpha, 56);
SIZE(atmsae_mask, 64);

AT(atmsae_forward_options, size, 0);
AT(atmsae_forward_options, mask, 8);
AT(atmsae_forward_options, dead, 16);
AT(atmsae_forward_options, n_dead, 24);
AT(atmsae_forward_options, sparsity_scale, 32);
SIZE(atmsae_forward_options, 40);

AT(atmsae_loss, size, 0);
AT(atmsae_loss, total, 8);
AT(atmsae_loss, mse, 16);
AT(atmsae_loss, sparsity, 24);
AT(atmsae_loss, aux, 32);
AT(atmsae_loss, prefix, 40);
AT(atmsae_loss, fvu, 48);
AT(atmsae_loss, l0, 56);
AT(atmsae_loss, rows, 64);
AT(atmsae_loss, masked, 72);
SIZE(atmsae_loss, 80);

AT(atmsae_latent_sums, size, 0);
AT(atmsae_latent_sums, d_sae, 8);
AT(atmsae_latent_sums, rows, 16);
AT(atmsae_latent_sums, magnitude, 24);
AT(atmsae_latent_sums, frequency, 32);
AT(atmsae_latent_sums, contribution, 40);
SIZE(atmsae_latent_sums, 48);

AT(atmsae_metrics_result, size, 0);
AT(atmsae_metrics_result, rows, 8);
AT(atmsae_metrics_result, mse, 16);
AT(atmsae_metrics_result, fvu, 24);
AT(atmsae_metrics_result, cosine, 32);
AT(atmsae_metrics_result, l0, 40);
AT(atmsae_metrics_result, l1, 48);
AT(atmsae_metrics_result, dead, 56);
AT(atmsae_metrics_result, dense, 64);
AT(atmsae_metrics_result, bias, 72);
SIZE(atmsae_metrics_result, 80);

AT(atmsae_absorption_config, size, 0);
AT(atmsae_absorption_config, n_classes, 8);
AT(atmsae_absorption_config, min_probe_f1, 16);
AT(atmsae_absorption_config, min_f1_gain, 24);
AT(atmsae_absorption_config, max_split, 32);
AT(atmsae_absorption_config, probe, 40);
AT(atmsae_absorption_config, pad0_, 44);
SIZE(atmsae_absorption_config, 48);

AT(atmsae_absorption_result, size, 0);
AT(atmsae_absorption_result, classes, 8);
AT(atmsae_absorption_result, full_rate, 16);
AT(atmsae_absorption_result, recall, 24);
AT(atmsae_absorption_result, sparse_f1, 32);
AT(atmsae_absorption_result, mean_split, 40);
AT(atmsae_absorption_result, probe_f1, 48);
AT(atmsae_absorption_result, true_positives, 56);
AT(atmsae_absorption_result, main_f1, 64);
AT(atmsae_absorption_result, main_precision, 72);
AT(atmsae_absorption_result, main_rate, 80);
AT(atmsae_absorption_result, gap, 88);
AT(atmsae_absorption_result, gap_error, 96);
SIZE(atmsae_absorption_result, 104);

AT(atmsae_absorption_class, probe_f1, 0);
AT(atmsae_absorption_class, full_rate, 8);
AT(atmsae_absorption_class, recall, 16);
AT(atmsae_absorption_class, sparse_f1, 24);
AT(atmsae_absorption_class, true_positives, 32);
AT(atmsae_absorption_class, absorbed, 40);
AT(atmsae_absorption_class, n_split, 48);
AT(atmsae_absorption_class, main_latent, 56);
AT(atmsae_absorption_class, used, 64);
AT(atmsae_absorption_class, pad0_, 68);
SIZE(atmsae_absorption_class, 72);

AT(atmsae_synth_config, size, 0);
AT(atmsae_synth_config, d, 8);
AT(atmsae_synth_config, n_parents, 16);
AT(atmsae_synth_config, n_children, 24);
AT(atmsae_synth_config, n_independent, 32);
AT(atmsae_synth_config, seed, 40);
AT(atmsae_synth_config, p_parent, 48);
AT(atmsae_synth_config, p_child, 56);
AT(atmsae_synth_config, child_power, 64);
AT(atmsae_synth_config, p_independent_min, 72);
AT(atmsae_synth_config, p_independent_max, 80);
AT(atmsae_synth_config, magnitude_sd, 88);
SIZE(atmsae_synth_config, 96);

AT(atmsae_synth_result, size, 0);
AT(atmsae_synth_result, true_l0, 8);
AT(atmsae_synth_result, missed, 16);
AT(atmsae_synth_result, missed_child_on, 24);
AT(atmsae_synth_result, missed_child_off, 32);
AT(atmsae_synth_result, parent_recall, 40);
AT(atmsae_synth_result, parent_precision, 48);
AT(atmsae_synth_result, parent_f1, 56);
AT(atmsae_synth_result, mcc, 64);
SIZE(atmsae_synth_result, 72);

AT(atmsae_tensor_info, size, 0);
AT(atmsae_tensor_info, name, 8);
AT(atmsae_tensor_info, dtype, 16);
AT(atmsae_tensor_info, rank, 24);
AT(atmsae_tensor_info, shape, 32);
SIZE(atmsae_tensor_info, 96);

AT(atmsae_absorption_entry, size, 0);
AT(atmsae_absorption_entry, words, 8);
AT(atmsae_absorption_entry, absorbed, 16);
AT(atmsae_absorption_entry, n_split, 24);
AT(atmsae_absorption_entry, split, 32);
AT(atmsae_absorption_entry, full_rate, 112);
AT(atmsae_absorption_entry, fraction_v060, 120);
AT(atmsae_absorption_entry, fraction_v032, 128);
AT(atmsae_absorption_entry, probe_f1, 136);
AT(atmsae_absorption_entry, sparse_f1, 144);
AT(atmsae_absorption_entry, split_f1, 152);
AT(atmsae_absorption_entry, split_recall, 160);
AT(atmsae_absorption_entry, main_recall, 168);
AT(atmsae_absorption_entry, main_precision, 176);
AT(atmsae_absorption_entry, used, 184);
AT(atmsae_absorption_entry, pad0_, 188);
AT(atmsae_absorption_entry, train_rows, 192);
AT(atmsae_absorption_entry, test_rows, 200);
AT(atmsae_absorption_entry, main_f1, 208);
AT(atmsae_absorption_entry, main_rate, 216);
AT(atmsae_absorption_entry, own_words, 224);
AT(atmsae_absorption_entry, own_recall, 232);
AT(atmsae_absorption_entry, other_recall, 240);
SIZE(atmsae_absorption_entry, 248);

AT(atmsae_absorption_measures, size, 0);
AT(atmsae_absorption_measures, classes, 8);
AT(atmsae_absorption_measures, words, 16);
AT(atmsae_absorption_measures, absorbed, 24);
AT(atmsae_absorption_measures, full_rate, 32);
AT(atmsae_absorption_measures, full_rate_sd, 40);
AT(atmsae_absorption_measures, fraction_v060, 48);
AT(atmsae_absorption_measures, fraction_v060_sd, 56);
AT(atmsae_absorption_measures, classes_v032, 64);
AT(atmsae_absorption_measures, fraction_v032, 72);
AT(atmsae_absorption_measures, fraction_v032_sd, 80);
AT(atmsae_absorption_measures, mean_split, 88);
AT(atmsae_absorption_measures, probe_f1, 96);
AT(atmsae_absorption_measures, sparse_f1, 104);
AT(atmsae_absorption_measures, split_f1, 112);
AT(atmsae_absorption_measures, split_recall, 120);
AT(atmsae_absorption_measures, main_recall, 128);
AT(atmsae_absorption_measures, main_precision, 136);
AT(atmsae_absorption_measures, main_f1, 144);
AT(atmsae_absorption_measures, main_rate, 152);
AT(atmsae_absorption_measures, own_words, 160);
AT(atmsae_absorption_measures, own_recall, 168);
AT(atmsae_absorption_measures, other_recall, 176);
AT(atmsae_absorption_measures, gap, 184);
AT(atmsae_absorption_measures, gap_error, 192);
SIZE(atmsae_absorption_measures, 200);

AT(atmsae_probing_config, size, 0);
AT(atmsae_probing_config, n_tasks, 8);
AT(atmsae_probing_config, ks, 16);
AT(atmsae_probing_config, n_ks, 24);
AT(atmsae_probing_config, texts, 32);
AT(atmsae_probing_config, c, 40);
AT(atmsae_probing_config, protocol, 48);
AT(atmsae_probing_config, pad0_, 52);
SIZE(atmsae_probing_config, 56);

AT(atmsae_probing_entry, accuracy, 0);
AT(atmsae_probing_entry, f1, 8);
AT(atmsae_probing_entry, auc, 16);
AT(atmsae_probing_entry, c, 24);
AT(atmsae_probing_entry, best, 32);
SIZE(atmsae_probing_entry, 40);

AT(atmsae_probing_task, size, 0);
AT(atmsae_probing_task, train, 8);
AT(atmsae_probing_task, test, 24);
AT(atmsae_probing_task, majority, 40);
AT(atmsae_probing_task, probed, 48);
AT(atmsae_probing_task, pad0_, 52);
SIZE(atmsae_probing_task, 56);

AT(atmsae_metrics_details, size, 0);
AT(atmsae_metrics_details, rows, 8);
AT(atmsae_metrics_details, mse_per_dim, 16);
AT(atmsae_metrics_details, explained_variance, 24);
AT(atmsae_metrics_details, explained_variance_centred, 32);
AT(atmsae_metrics_details, error_norm, 40);
AT(atmsae_metrics_details, norm_ratio, 48);
AT(atmsae_metrics_details, alive, 56);
AT(atmsae_metrics_details, over_1_percent, 64);
AT(atmsae_metrics_details, over_10_percent, 72);
AT(atmsae_metrics_details, firings_over_1_percent, 80);
AT(atmsae_metrics_details, firings_over_10_percent, 88);
AT(atmsae_metrics_details, saebench_mse, 96);
AT(atmsae_metrics_details, saebench_explained_variance, 104);
SIZE(atmsae_metrics_details, 112);

AT(atmsae_lm_output, size, 0);
AT(atmsae_lm_output, n_tokens, 8);
AT(atmsae_lm_output, activations, 16);
AT(atmsae_lm_output, outputs, 24);
AT(atmsae_lm_output, keep, 32);
AT(atmsae_lm_output, ce, 40);
AT(atmsae_lm_output, logits, 48);
AT(atmsae_lm_output, vocab, 56);
SIZE(atmsae_lm_output, 64);

AT(atmsae_language_model, size, 0);
AT(atmsae_language_model, n_batches, 8);
AT(atmsae_language_model, opaque, 16);
AT(atmsae_language_model, run, 24);
SIZE(atmsae_language_model, 32);

AT(atmsae_lm_result, size, 0);
AT(atmsae_lm_result, tokens, 8);
AT(atmsae_lm_result, ce_original, 16);
AT(atmsae_lm_result, ce_reconstruction, 24);
AT(atmsae_lm_result, ce_zero, 32);
AT(atmsae_lm_result, ce_score, 40);
AT(atmsae_lm_result, kl_reconstruction, 48);
AT(atmsae_lm_result, kl_zero, 56);
AT(atmsae_lm_result, kl_score, 64);
SIZE(atmsae_lm_result, 72);

AT(atmsae_match_result, size, 0);
AT(atmsae_match_result, pairs, 8);
AT(atmsae_match_result, mcc, 16);
AT(atmsae_match_result, shared, 24);
SIZE(atmsae_match_result, 32);

AT(atmsae_hedging_result, size, 0);
AT(atmsae_hedging_result, projection, 8);
AT(atmsae_hedging_result, random_projection, 16);
AT(atmsae_hedging_result, score, 24);
SIZE(atmsae_hedging_result, 32);

AT(atmsae_tree_config, size, 0);
AT(atmsae_tree_config, d, 8);
AT(atmsae_tree_config, n_features, 16);
AT(atmsae_tree_config, seed, 24);
AT(atmsae_tree_config, probability, 32);
AT(atmsae_tree_config, parent, 40);
AT(atmsae_tree_config, children, 48);
AT(atmsae_tree_config, mean, 56);
AT(atmsae_tree_config, sd, 64);
AT(atmsae_tree_config, directions, 72);
AT(atmsae_tree_config, scale_children, 80);
AT(atmsae_tree_config, compensate, 84);
AT(atmsae_tree_config, orthogonal_steps, 88);
AT(atmsae_tree_config, orthogonal_lr, 96);
AT(atmsae_tree_config, correlation_rank, 104);
AT(atmsae_tree_config, correlation_scale, 112);
AT(atmsae_tree_config, bias_norm, 120);
SIZE(atmsae_tree_config, 128);

AT(atmsae_truth_result, size, 0);
AT(atmsae_truth_result, true_l0, 8);
AT(atmsae_truth_result, l0, 16);
AT(atmsae_truth_result, dead, 24);
AT(atmsae_truth_result, mcc, 32);
AT(atmsae_truth_result, mcc_signed, 40);
AT(atmsae_truth_result, uniqueness, 48);
AT(atmsae_truth_result, precision, 56);
AT(atmsae_truth_result, recall, 64);
AT(atmsae_truth_result, f1, 72);
AT(atmsae_truth_result, accuracy, 80);
AT(atmsae_truth_result, parents, 88);
AT(atmsae_truth_result, parent_recall_child_on, 96);
AT(atmsae_truth_result, parent_recall_child_off, 104);
AT(atmsae_truth_result, absorption, 112);
AT(atmsae_truth_result, decoder_leak, 120);
AT(atmsae_truth_result, fraction_v060, 128);
AT(atmsae_truth_result, fraction_v032, 136);
AT(atmsae_truth_result, full_rate, 144);
SIZE(atmsae_truth_result, 152);

#endif

SIZE(atmsae_status, 4);

IS(ATMSAE_OK, 0);
IS(ATMSAE_E_ARG, -1);
IS(ATMSAE_E_NOMEM, -2);
IS(ATMSAE_E_STATE, -3);
IS(ATMSAE_E_UNSUPPORTED, -4);
IS(ATMSAE_E_ABI, -5);
IS(ATMSAE_E_NONFINITE, -6);
IS(ATMSAE_E_LIMIT, -7);
IS(ATMSAE_E_IO, -10);
IS(ATMSAE_E_FORMAT, -11);
IS(ATMSAE_E_TRUNCATED, -12);
IS(ATMSAE_E_VERSION, -13);
IS(ATMSAE_E_CALLBACK, -20);
IS(ATMSAE_E_STOPPED, -21);

IS(ATMSAE_LOG_ERROR, 1);
IS(ATMSAE_LOG_WARNING, 2);
IS(ATMSAE_LOG_INFO, 3);

IS(ATMSAE_F32, 1);
IS(ATMSAE_F16, 2);
IS(ATMSAE_BF16, 3);

IS(ATMSAE_RELU, 1);
IS(ATMSAE_TOPK, 2);
IS(ATMSAE_BATCHTOPK, 3);
IS(ATMSAE_JUMPRELU, 4);
IS(ATMSAE_JUMPRELU_TANH, 5);
IS(ATMSAE_GATED, 6);

IS(ATMSAE_AUTO, 0);

IS(ATMSAE_DECODER_FREE, 1);
IS(ATMSAE_DECODER_UNIT, 2);

IS(ATMSAE_INPUT_RAW, 1);
IS(ATMSAE_INPUT_SQRT_D, 2);

IS(ATMSAE_B_DEC_ZERO, 1);
IS(ATMSAE_B_DEC_MEAN, 2);
IS(ATMSAE_B_DEC_MEDIAN, 3);

IS(ATMSAE_W_ENC, 1);
IS(ATMSAE_B_ENC, 2);
IS(ATMSAE_W_DEC, 3);
IS(ATMSAE_B_DEC, 4);
IS(ATMSAE_THRESHOLD, 5);
IS(ATMSAE_R_MAG, 6);
IS(ATMSAE_B_MAG, 7);
IS(ATMSAE_BATCH_THRESHOLD, 8);
IS(ATMSAE_INPUT_SCALE, 9);
IS(ATMSAE_OUTPUT_SCALE, 10);

IS(ATMSAE_MEAN_ARITHMETIC, 1);
IS(ATMSAE_MEAN_GEOMETRIC, 2);

IS(ATMSAE_MASK_NONE, 1);
IS(ATMSAE_MASK_ATM, 2);
IS(ATMSAE_MASK_PAPER, 3);
IS(ATMSAE_MASK_UNIFORM, 4);
IS(ATMSAE_MASK_PERMUTED, 5);

IS(ATMSAE_ROW_NOT_COUNTED, 0);
IS(ATMSAE_ROW_KEPT, 1);
IS(ATMSAE_ROW_ABSORBED, 2);
IS(ATMSAE_PROBING_SAEBENCH, 1);
IS(ATMSAE_PROBING_SAE_PROBES, 2);
IS(ATMSAE_CHILDREN_FREE, 0);
IS(ATMSAE_CHILDREN_KEEP_ONE, 1);
IS(ATMSAE_CHILDREN_CHOOSE_ONE, 2);
IS(ATMSAE_SYNTH_BENCH_16K, 1);
IS(ATMSAE_SYNTH_CHANIN, 2);
IS(ATMSAE_SYNTH_MATRYOSHKA, 3);

int main(void) { return 0; }
