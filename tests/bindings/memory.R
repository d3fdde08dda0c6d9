# SPDX-License-Identifier: MIT
#
# usage: Rscript memory.R
# The R package against misuse: every wrong argument is an R error that names what is wrong, whatever R code
# does to a handle; and nothing is lost where R collects garbage at every allocation.
library(atmsae)

fails <- function(expression, text) {
    message <- tryCatch({ force(expression); "no error" }, error = conditionMessage)
    if (!grepl(text, message)) stop("expected an error with '", text, "', got '", message, "'")
}
exercise <- function() {
    context <- atmsae_context(1)
    trainer <- atmsae_trainer(context, list(d_in = 6, d_sae = 10, activation = 2, k = 2), batch_rows = 20, total_rows = 200)
    x <- matrix(seq(-1, 1, length.out = 120)^3, 20, 6)
    atmsae_prepare(trainer, x)
    for (i in 1:3) stats <- atmsae_step(trainer, x)
    atmsae_calibrate(trainer, x)
    folder <- file.path(tempdir(), "sae")
    atmsae_save(trainer, folder)
    tracker <- atmsae_tracker(context, 10)
    atmsae_observe(tracker, rep(1, 10), 1:10 / 10, 1:10 / 20, 10:1 / 10)
    masker <- atmsae_masker(context, 10, list(effect = 0, warmup_steps = 0, r = 5))
    atmsae_update(masker, atmsae_importance(tracker))
    list(stats, atmsae_parameter(trainer, "W_dec"), atmsae_parameter(trainer, "b_enc"), atmsae_encode(trainer, x),
         atmsae_decode(trainer, x), atmsae_decode(atmsae_load(context, folder), x), atmsae_importance(tracker),
         atmsae_draw(masker, 100), atmsae_p(masker), atmsae_synth_rows(context, 0, 5))
}
expected <- exercise()
gctorture(TRUE)
tortured <- exercise()
gctorture(FALSE)
stopifnot(identical(tortured, expected), sum(expected[[8]]) > 0)

context <- atmsae_context(1)
trainer <- atmsae_trainer(context, list(d_in = 6, d_sae = 10, k = 2), batch_rows = 20)
tracker <- atmsae_tracker(context, 10)
masker <- atmsae_masker(context, 10)
x <- matrix(0.5, 20, 6)

# Attributes are R's to change; lengths do not follow them.
attr(tracker, "d_sae") <- 1e8
attr(masker, "d_sae") <- 1e8
class(trainer) <- "masker"
stopifnot(length(atmsae_importance(tracker)) == 10, length(atmsae_p(masker)) == 10, length(atmsae_draw(masker, 0)) == 10)
fails(atmsae_update(masker, rep(1, 1e4)), "expected 10 doubles")
fails(atmsae_draw(trainer, 1), "expected a masker")
attributes(tracker) <- NULL

# What is saved and restored is no handle, and neither is anything else.
file <- tempfile()
saveRDS(list(context, trainer, tracker, masker), file)
restored <- readRDS(file)
fails(atmsae_trainer(restored[[1]], list(d_in = 4, d_sae = 8, k = 2)), "expected a context of this session")
fails(atmsae_step(restored[[2]], x), "expected a trainer")
fails(atmsae_save(restored[[2]], tempfile()), "expected a model")
fails(atmsae_decode(restored[[2]], x), "expected a model")
fails(atmsae_importance(restored[[3]]), "expected a tracker")
fails(atmsae_p(restored[[4]]), "expected a masker")
for (wrong in list(NULL, NA, 1, "context", list(), sum, new("externalptr"), masker, quote(x))) {
    fails(atmsae_trainer(wrong, list(d_in = 4, d_sae = 8)), "expected a context")
    fails(atmsae_load(wrong, "x"), "expected a context")
    fails(atmsae_synth_rows(wrong, 0, 5), "expected a context")
    fails(atmsae_step(wrong, x), "expected a trainer")
    fails(atmsae_encode(wrong, x), "expected a model")
    fails(atmsae_parameter(wrong, "W_dec"), "expected a model")
    fails(atmsae_importance(wrong), "expected a tracker")
}

# Settings and numbers.
for (wrong in list(NA, NA_real_, NA_integer_, NaN, "5", NULL, numeric(0), c(1, 2), list(1), sum)) {
    fails(atmsae_trainer(context, list(d_in = 4, d_sae = 8, k = wrong)), "k must be one number")
    fails(atmsae_trainer(context, list(d_in = wrong)), "d_in must be one number")
    fails(atmsae_trainer(context, list(activation = wrong)), "activation must be one number")
    fails(atmsae_context(wrong), "threads must be one number")
    fails(atmsae_draw(masker, wrong), "step must be one number")
}
for (wrong in c(-1, 2.5, 1e300, Inf, -Inf)) {
    fails(atmsae_trainer(context, list(d_in = wrong)), "d_in = .* must be a whole number")
    fails(atmsae_context(wrong), "threads = .* must be a whole number")
    fails(atmsae_synth_rows(context, 0, wrong), "n = .* must be a whole number")
}
fails(atmsae_trainer(context, list(activation = 2^32 + 2)), "activation = .* must be a whole number")
fails(atmsae_synth_rows(context, 0, 2^40), "must be a whole number")
fails(atmsae_trainer(context, list(4, 5)), "no setting named ''")
for (wrong in list(NULL, c(d_in = 4), pairlist(d_in = 4), "d_in", sum)) fails(atmsae_trainer(context, wrong), "must be a list")

# Rows, names and paths.
for (wrong in list(matrix(1:12, 2), x[1, ], NULL, as.data.frame(x), matrix("1", 2, 6), list(), NA))
    fails(atmsae_step(trainer, wrong), "rows must be a numeric matrix")
fails(atmsae_step(trainer, x[, 1:5]), "expected 6")
fails(atmsae_step(trainer, matrix(0, 0, 6)), "ATMSAE_E_ARG")
for (wrong in c(NA, NaN, Inf, 1e300)) fails(atmsae_step(trainer, replace(x, 3, wrong)), "ATMSAE_E_NONFINITE")
for (wrong in list(NA, NA_character_, character(0), NULL, 7, c("a", "b"), list("a"))) {
    fails(atmsae_save(trainer, wrong), "a path must be one string")
    fails(atmsae_load(context, wrong), "a path must be one string")
}
fails(atmsae_load(context, "nowhere"), "ATMSAE_E_IO: nowhere")
for (wrong in list(7, NULL, NA, c("W_dec", "W_enc"))) fails(atmsae_parameter(trainer, wrong), "name must be one string")
fails(atmsae_parameter(trainer, "W"), "no parameter is named 'W'")
stopifnot(!file.exists("NA"), all(is.finite(atmsae_step(trainer, x + runif(120))[c("loss", "l0")])))
