// SPDX-License-Identifier: MIT
//! libatmsae's C interface as bindgen sees it (`generate`). The crate `atmsae` wraps it safely.

#![allow(non_camel_case_types)]

include!("bindings.rs");

/// Structs start as the library's init functions leave them ...
macro_rules! defaults {
    ($($name:ident $init:ident)*) => { $(
        impl Default for $name {
            fn default() -> Self {
                let mut value = std::mem::MaybeUninit::<Self>::zeroed();
                unsafe {
                    $init(value.as_mut_ptr(), std::mem::size_of::<Self>());
                    value.assume_init()
                }
            }
        }
    )* };
}
/// ... and results as zeros of a known size.
macro_rules! results {
    ($($name:ident)*) => { $(
        impl Default for $name {
            fn default() -> Self {
                let mut value: Self = unsafe { std::mem::zeroed() };
                value.size = std::mem::size_of::<Self>();
                value
            }
        }
    )* };
}
defaults! {
    atmsae_context_config atmsae_context_config_init
    atmsae_model_config atmsae_model_config_init
    atmsae_batch atmsae_batch_init
    atmsae_save_options atmsae_save_options_init
    atmsae_optimizer_config atmsae_optimizer_config_init
    atmsae_tracker_config atmsae_tracker_config_init
    atmsae_masker_config atmsae_masker_config_init
    atmsae_trainer_config atmsae_trainer_config_init
    atmsae_source_config atmsae_source_config_init
    atmsae_forward_options atmsae_forward_options_init
    atmsae_absorption_config atmsae_absorption_config_init
    atmsae_synth_config atmsae_synth_config_init
}
results! {
    atmsae_codes_view atmsae_step_stats atmsae_mask atmsae_loss atmsae_latent_sums atmsae_metrics_result
    atmsae_absorption_result atmsae_synth_result atmsae_tensor_info atmsae_row_origin
    atmsae_row_norms
}
