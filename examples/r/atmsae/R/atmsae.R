# SPDX-License-Identifier: MIT
#
# libatmsae for R. Rows are numeric matrices, one row of the data a row; latents are counted from 1.
# Handles free themselves. Settings are named lists, names as in the header.

atmsae_context <- function(threads = 0) .Call(r_context, threads)

# model, optimizer, tracker, masker: named lists of the header's settings.
atmsae_trainer <- function(context, model, optimizer = list(), tracker = list(), masker = list(),
                           batch_rows = 4096, total_rows = 0)
    .Call(r_trainer, context, model, optimizer, tracker, masker, batch_rows, total_rows)
atmsae_prepare <- function(trainer, x) invisible(.Call(r_prepare, trainer, x))
# One step; returns what it did, by name.
atmsae_step <- function(trainer, x) .Call(r_step, trainer, x)
atmsae_calibrate <- function(trainer, x) invisible(.Call(r_calibrate, trainer, x))

# model: a trainer or a loaded model. Parameters are W_enc, b_enc, W_dec, b_dec, threshold, r_mag,
# b_mag, batch_threshold, input_scale, output_scale; matrices have a latent a row.
atmsae_parameter <- function(model, name) .Call(r_parameter, model, name)
# A data frame with the columns row, latent, value.
atmsae_encode <- function(model, x) as.data.frame(.Call(r_encode, model, x))
# The reconstruction of rows x from their latents.
atmsae_decode <- function(model, x) .Call(r_decode, model, x)
atmsae_save <- function(model, folder) invisible(.Call(r_save, model, folder))
atmsae_load <- function(context, folder) .Call(r_load, context, folder)

# Tracker and masker alone, for a model that lives elsewhere.
atmsae_tracker <- function(context, d_sae, settings = list()) .Call(r_tracker, context, c(list(d_sae = d_sae), settings))
atmsae_observe <- function(tracker, rows, magnitude, frequency, contribution)
    invisible(.Call(r_observe, tracker, rows, magnitude, frequency, contribution))
atmsae_importance <- function(tracker) .Call(r_importance, tracker)
atmsae_masker <- function(context, d_sae, settings = list()) .Call(r_masker, context, c(list(d_sae = d_sae), settings))
atmsae_draw <- function(masker, step) .Call(r_draw, masker, step) # logical, TRUE: masked; none where every row has a mask of its own
atmsae_update <- function(masker, importance) invisible(.Call(r_update, masker, importance))
atmsae_p <- function(masker) .Call(r_p, masker)

# Rows with known features: rows first + 1 .. first + n of the generator.
atmsae_synth_rows <- function(context, first, n) .Call(r_synth_rows, context, first, n)
