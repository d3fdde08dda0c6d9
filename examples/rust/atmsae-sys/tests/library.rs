// SPDX-License-Identifier: MIT
//! The declarations against the loaded library: what its init functions write is where Rust reads it.

use atmsae_sys::*;

#[test]
fn defaults_arrive_in_their_fields() {
    let size = std::mem::size_of::<atmsae_model_config>();
    let model = atmsae_model_config::default();
    assert_eq!((model.size, model.activation, model.k), (size, ATMSAE_BATCHTOPK, 32.0));
    assert_eq!((model.aux_coef, model.aux_k, model.n_prefixes), (1.0 / 32.0, 0, 0));
    assert!(model.prefixes.is_null());
    let optimizer = atmsae_optimizer_config::default();
    assert_eq!((optimizer.clip, optimizer.decay_steps, optimizer.freeze_masked), (1.0, u64::MAX, 0));
    let tracker = atmsae_tracker_config::default();
    assert_eq!((tracker.decay, tracker.combine, tracker.dead_window), (0.99, 1, u64::MAX));
    let masker = atmsae_masker_config::default();
    assert_eq!((masker.kind, masker.effect, masker.cooldown_end), (ATMSAE_MASK_ATM, ATMSAE_EFFECT_SECOND_LOSS, 0.95));
    assert_eq!(atmsae_trainer_config::default().batch_rows, 4096);
    assert_eq!(atmsae_source_config::default().shuffle_rows, 65536);
    let synth = atmsae_synth_config::default();
    assert_eq!((synth.d, synth.p_independent_max, synth.magnitude_sd), (96, 0.08, 0.15));
    let batch = atmsae_batch::default();
    assert_eq!((batch.x_type, batch.y_type), (ATMSAE_F32, ATMSAE_F32));
    assert_eq!(atmsae_context_config::default().log_level, ATMSAE_LOG_INFO);
}

#[test]
fn the_library_is_of_this_version() {
    let loaded = unsafe { atmsae_version_number() };
    assert_eq!(loaded / 100, ATMSAE_VERSION_MAJOR * 100 + ATMSAE_VERSION_MINOR);
}
