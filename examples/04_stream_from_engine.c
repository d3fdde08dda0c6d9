/* SPDX-License-Identifier: MIT
 *
 * Hidden states out of an inference engine's callback straight into training steps: no files, no
 * Python, memory for one batch. The callback has the shape of llama.cpp's cb_eval; with llama.cpp
 * installed the program runs it, else a stand-in (engine.h). Saves the SAE as folder engine-sae.
 */
#include "engine.h"

#include <atmsae/atmsae.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 512 };
static const char layer[] = "l_out-2"; /* the residual stream after block 2 */

static atmsae_context *ctx;

typedef struct sink {
    uint64_t d, filled;
    float *rows; /* [BATCH, d] */
    atmsae_trainer *trainer;
    atmsae_step_stats last;
} sink;

static atmsae_status start(sink *s, uint64_t d)
{
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = d;
    model.d_sae = 2 * d;
    model.k = d < 128 ? 3 : 32;
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = 1e-3;
    atmsae_trainer_config config; /* total_rows stays 0: nobody knows when the text ends */
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.optimizer = &optimizer;
    config.batch_rows = BATCH;
    s->d = d;
    s->rows = malloc(sizeof *s->rows * BATCH * d);
    return s->rows ? atmsae_trainer_create(ctx, &config, &s->trainer) : ATMSAE_E_NOMEM;
}

/* One step when the batch is full. */
static atmsae_status train(sink *s)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = s->filled;
    batch.x = s->rows;
    s->filled = 0;
    atmsae_status status = ATMSAE_OK;
    if (atmsae_trainer_steps_done(s->trainer) == 0) status = atmsae_trainer_prepare(s->trainer, &batch);
    return status < 0 ? status : atmsae_trainer_step(s->trainer, &batch, &s->last);
}

/* Called by the engine, on its thread. */
static bool on_tensor(struct ggml_tensor *t, bool ask, void *user_data)
{
    if (strcmp(t->name, layer) != 0) return !ask; /* not ours: not wanted; go on */
    if (ask) return true;
    sink *s = user_data;
    if (t->type != GGML_TYPE_F32 || (s->trainer && (uint64_t)t->ne[0] != s->d)) return false;
    atmsae_status status = s->trainer ? ATMSAE_OK : start(s, (uint64_t)t->ne[0]);
    uint64_t n = (uint64_t)t->ne[1], row_bytes = s->d * sizeof(float);
    for (uint64_t done = 0, take; status >= 0 && done < n; done += take) {
        take = n - done < BATCH - s->filled ? n - done : BATCH - s->filled;
        /* From wherever the engine computed it, a GPU included. */
        ggml_backend_tensor_get(t, s->rows + s->filled * s->d, done * row_bytes, take * row_bytes);
        s->filled += take;
        if (s->filled == BATCH) status = train(s);
    }
    if (status < 0) fprintf(stderr, "%s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    return status >= 0;
}

int main(int argc, char **argv)
{
    if (atmsae_context_create(NULL, &ctx) < 0) return 1;
    sink s = {.last.size = sizeof s.last};
    int status = engine_run(argc, argv, on_tensor, &s);
    if (status == 0 && s.trainer) {
        printf("%llu steps: FVU %.3f at %.2f latents a row\n", (unsigned long long)atmsae_trainer_steps_done(s.trainer),
               s.last.fvu, s.last.l0);
        status = atmsae_model_save(atmsae_trainer_model(s.trainer), "engine-sae", NULL);
    }
    atmsae_trainer_destroy(s.trainer);
    atmsae_context_destroy(ctx);
    free(s.rows);
    return status ? 1 : 0;
}
