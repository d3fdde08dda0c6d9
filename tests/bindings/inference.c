/* SPDX-License-Identifier: MIT
 *
 * usage: inference FILE
 * What a program does with the inference-only build, for every activation: a model from arrays in memory,
 * encode, decode. Writes all results; linked with either build the file is the same.
 */
#include <atmsae/atmsae.h>
#include <stdio.h>
#include <stdlib.h>

enum { D_IN = 48, D_OUT = 40, D_SAE = 300, ROWS = 70 };

static atmsae_context *ctx;

static void or_die(atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    exit(1);
}

/* n numbers from -1 to 1; from `from` to 1 where it says so. */
static void fill(float *x, uint64_t n, float from)
{
    static uint32_t state = 1;
    for (uint64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = from + (1 - from) * (float)(state >> 8) * 0x1p-24f;
    }
}

static void run(FILE *out, int32_t activation, uint64_t d_out)
{
    static float values[D_SAE * D_IN], rows[ROWS * D_IN], decoded[ROWS * D_IN];
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_out = d_out;
    config.d_sae = D_SAE;
    config.activation = activation;
    config.k = 12;
    atmsae_model *model;
    or_die(atmsae_model_create(ctx, &config, &model));
    for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_OUTPUT_SCALE; p++) {
        uint64_t n;
        if (!atmsae_model_view(model, p, &n)) continue;
        fill(values, n, p >= ATMSAE_BATCH_THRESHOLD || p == ATMSAE_THRESHOLD ? 0.5f : -1);
        or_die(atmsae_model_set(model, p, values, n));
    }
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.x = rows;
    atmsae_codes *codes;
    atmsae_codes_view view = {.size = sizeof view};
    or_die(atmsae_codes_create(ctx, &codes));
    for (batch.n_rows = 1; batch.n_rows <= ROWS; batch.n_rows += ROWS - 1) { /* one row, and many */
        fill(rows, ROWS * D_IN, -1);
        or_die(atmsae_encode(model, &batch, codes));
        or_die(atmsae_codes_get(codes, &view));
        or_die(atmsae_decode(model, codes, decoded, 0));
        const uint64_t n = view.row_start[view.n_rows], width = d_out ? d_out : D_IN;
        size_t written = fwrite(view.row_start, sizeof *view.row_start, view.n_rows + 1, out) +
                         fwrite(view.latent, sizeof *view.latent, n, out) + fwrite(view.value, sizeof *view.value, n, out) +
                         fwrite(decoded, sizeof *decoded, view.n_rows * width, out);
        if (n == 0 || written != view.n_rows + 1 + 2 * n + view.n_rows * width) exit(1);
    }
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(model);
}

int main(int argc, char **argv)
{
    FILE *out = argc == 2 ? fopen(argv[1], "wb") : NULL;
    if (!out) return 2;
    or_die(atmsae_context_create(NULL, &ctx));
    for (int32_t activation = ATMSAE_RELU; activation <= ATMSAE_GATED; activation++) run(out, activation, 0);
    run(out, ATMSAE_JUMPRELU, D_OUT);
    atmsae_model *model;
    atmsae_model_config wrong;
    atmsae_model_config_init(&wrong, sizeof wrong);
    if (atmsae_model_create(ctx, &wrong, &model) != ATMSAE_E_ARG || !*atmsae_last_error(ctx)) return 1;
    atmsae_context_destroy(ctx);
    return fclose(out) != 0;
}
