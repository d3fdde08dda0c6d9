# SPDX-License-Identifier: MIT
library(atmsae)

set.seed(0)
features <- matrix(rnorm(100 * 48), 100)
rows <- matrix(as.numeric(runif(20000 * 100) < 0.03), 20000) %*% features

context <- atmsae_context()
trainer <- atmsae_trainer(context, list(d_in = 48, d_sae = 100, k = 3), list(lr = 2e-3), batch_rows = 500, total_rows = 500 * 500)
atmsae_prepare(trainer, rows[1:5000, ])
for (step in 0:499) {
    stats <- atmsae_step(trainer, rows[step %% 40 * 500 + 1:500, ])
}
atmsae_calibrate(trainer, rows)
print(stats[c("step", "fvu", "l0")])
print(head(atmsae_encode(trainer, rows[1:10, ])))
atmsae_save(trainer, "hello-sae")
