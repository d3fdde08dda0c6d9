/* SPDX-License-Identifier: MIT
 *
 * Stands in for llama.cpp: "prompts" of 17 to 64 tokens run through 4 "layers", whose outputs l_out-0 ..
 * l_out-3 are rows with known features.
 */
#include "engine.h"

#include <atmsae/atmsae.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 96, LAYERS = 4, MAX_TOKENS = 64, TOKENS = 200000 };

size_t ggml_nbytes(const struct ggml_tensor *t) { return (size_t)(t->ne[0] * t->ne[1]) * sizeof(float); }

void ggml_backend_tensor_get(const struct ggml_tensor *t, void *data, size_t offset, size_t size)
{
    memcpy(data, (const char *)t->data + offset, size);
}

int engine_run(int argc, char **argv, ggml_backend_sched_eval_callback cb, void *user_data)
{
    (void)argc, (void)argv;
    atmsae_context *ctx = NULL;
    atmsae_synth *text = NULL;
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    config.d = WIDTH;
    float *data = malloc(sizeof *data * MAX_TOKENS * WIDTH);
    bool ok = data && atmsae_context_create(NULL, &ctx) >= 0 && atmsae_synth_create(ctx, &config, &text) >= 0;
    for (uint64_t token = 0, n; ok && token < TOKENS; token += n) {
        n = 17 + token % 48;
        for (int layer = 0; ok && layer < LAYERS; layer++) {
            struct ggml_tensor t = {.type = GGML_TYPE_F32, .ne = {WIDTH, (int64_t)n, 1, 1}, .data = data};
            snprintf(t.name, sizeof t.name, "l_out-%d", layer);
            if (!cb(&t, true, user_data)) continue;
            ok = atmsae_synth_rows(text, token, n, data, NULL) >= 0 && cb(&t, false, user_data);
        }
    }
    if (!ok) fprintf(stderr, "the engine stopped\n");
    atmsae_synth_destroy(text);
    atmsae_context_destroy(ctx);
    free(data);
    return ok ? 0 : -1;
}
