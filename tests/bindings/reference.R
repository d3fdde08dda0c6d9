# SPDX-License-Identifier: MIT
#
# usage: Rscript reference.R FILE
# What reference.c writes, through the R package.
library(atmsae)

out <- file(commandArgs(trailingOnly = TRUE)[1], "wb")
put_floats <- function(x) writeBin(as.numeric(x), out, size = 4) # exact: they came from floats
put_doubles <- function(x) writeBin(as.numeric(x), out, size = 8)
context <- atmsae_context()

batch <- 512
trainer <- atmsae_trainer(context, list(d_in = 96, d_sae = 168, k = 3, seed = 7), list(lr = 1e-3), masker = list(r = 0.5),
                          batch_rows = batch, total_rows = 60 * batch)
for (step in 0:59) {
    x <- atmsae_synth_rows(context, step * batch, batch)
    if (step == 0) atmsae_prepare(trainer, x)
    atmsae_step(trainer, x)
}
atmsae_calibrate(trainer, x)
put_floats(t(atmsae_parameter(trainer, "W_enc"))) # R writes columns
put_floats(atmsae_parameter(trainer, "b_enc"))
put_floats(t(atmsae_parameter(trainer, "W_dec")))
put_floats(atmsae_parameter(trainer, "b_dec"))
put_floats(atmsae_parameter(trainer, "batch_threshold"))
codes <- atmsae_encode(trainer, x)
starts <- c(0L, cumsum(tabulate(codes$row, batch)))
writeBin(as.integer(rbind(starts, 0L)), out, size = 4) # 64 bits, low half first
writeBin(codes$latent - 1L, out, size = 4)
put_floats(codes$value)
put_floats(t(atmsae_decode(trainer, x)))

tracker <- atmsae_tracker(context, 8)
masker <- atmsae_masker(context, 8, list(seed = 11, c = 0.5, effect = 0))
for (step in 0:299) {
    masked <- atmsae_draw(masker, step)
    writeBin(as.raw(masked), out)
    rows <- ifelse(masked, 0, 1000)
    frequency <- rows / (1:8 + 1)
    atmsae_observe(tracker, rows, 1.5 * frequency, frequency, 2 * frequency)
    atmsae_update(masker, atmsae_importance(tracker))
}
put_doubles(atmsae_p(masker))
put_doubles(atmsae_importance(tracker))
close(out)

# Failures are R errors with the library's text, and a handle of the wrong kind is one too.
fails <- function(expression, text) {
    message <- tryCatch({ expression; "" }, error = conditionMessage)
    if (!grepl(text, message, fixed = TRUE)) stop("expected an error with '", text, "', got '", message, "'")
}
fails(atmsae_trainer(context, list(d_in = 4, d_sae = 8, k = 9)), "k = 9")
fails(atmsae_trainer(context, list(d_in = 4, depth = 8)), "no setting named 'depth'")
fails(atmsae_step(trainer, x[, 1:5]), "expected 96")
fails(atmsae_step(context, x), "expected a trainer")
