/* SPDX-License-Identifier: MIT
 *
 * The library's half of saelens.py, public API only.
 *   write_folders write DIR                    for each architecture: DIR/NAME (a SAELens folder) and
 *                                              DIR/NAME.x, .codes, .decoded (raw f32 rows)
 *   write_folders read FOLDER ROWS OUT         loads FOLDER, encodes and decodes the raw rows of the
 *                                              file ROWS to OUT.codes and OUT.decoded, saves it as OUT
 *   write_folders export MODEL OUT             loads an SAE of any format, saves it as OUT ends: .npz, or
 *                                              .gguf (latents 1 and 3 with strengths 2 and -1, layer 7),
 *                                              or a folder, decoder norms folded
 * A refusal is printed to stderr with its status; the exit code is then 3.
 */
#include <atmsae/atmsae.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 40, D = 20, D_OUT = 26, F = 70 };

static atmsae_context *ctx;

static void must(atmsae_status status, const char *what)
{
    if (status >= 0) return;
    fprintf(stderr, "%s: %s: %s\n", what, atmsae_status_name(status), atmsae_last_error(ctx));
    exit(3);
}

static void *room(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory) exit(2);
    return memory;
}

static void put(const char *path, const char *ending, const float *values, size_t count)
{
    char name[4096];
    snprintf(name, sizeof name, "%s.%s", path, ending);
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(values, sizeof *values, count, file) != count || fclose(file)) {
        perror(name);
        exit(2);
    }
}

static float draw(uint32_t *state) /* xorshift32, to (-1, 1) */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return (float)(*state >> 8) * 0x1p-23f - 1.0f;
}

/* Writes what the library makes of the rows: dense codes and reconstructions. */
static void put_results(const atmsae_model *model, const float *x, uint64_t rows, const char *out)
{
    atmsae_model_config c;
    atmsae_model_config_init(&c, sizeof c);
    must(atmsae_model_get_config(model, &c), "config");
    atmsae_codes *codes;
    must(atmsae_codes_create(ctx, &codes), "codes");
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = rows;
    batch.x = x;
    must(atmsae_encode(model, &batch, codes), "encode");
    atmsae_codes_view view = {.size = sizeof view};
    must(atmsae_codes_get(codes, &view), "codes");
    float *dense = room(rows * c.d_sae * sizeof *dense), *decoded = room(rows * c.d_out * sizeof *decoded);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t k = view.row_start[r]; k < view.row_start[r + 1]; k++)
            dense[r * c.d_sae + view.latent[k]] = view.value[k];
    must(atmsae_decode(model, codes, decoded, 0), "decode");
    put(out, "codes", dense, rows * c.d_sae);
    put(out, "decoded", decoded, rows * c.d_out);
    free(dense);
    free(decoded);
    atmsae_codes_destroy(codes);
}

static void set(atmsae_model *model, int32_t parameter, float low, float high, uint32_t *state)
{
    uint64_t count;
    if (!atmsae_model_view(model, parameter, &count)) return;
    float *values = room(count * sizeof *values);
    for (uint64_t i = 0; i < count; i++) values[i] = low + (high - low) * (0.5f * draw(state) + 0.5f);
    must(atmsae_model_set(model, parameter, values, count), "set");
    free(values);
}

static void write_one(const char *dir, const char *name, int32_t activation, int32_t decoder_norm, uint64_t d_out)
{
    uint32_t state = 2463534242u;
    atmsae_model_config c;
    atmsae_model_config_init(&c, sizeof c);
    c.d_in = D;
    c.d_out = d_out;
    c.d_sae = F;
    c.k = 6;
    c.activation = activation;
    c.decoder_norm = decoder_norm;
    atmsae_model *model;
    must(atmsae_model_create(ctx, &c, &model), name);
    set(model, ATMSAE_W_ENC, -0.5f, 0.5f, &state);
    set(model, ATMSAE_B_ENC, -0.3f, 0.2f, &state);
    if (decoder_norm == ATMSAE_DECODER_FREE) set(model, ATMSAE_W_DEC, -0.5f, 0.5f, &state);
    set(model, ATMSAE_B_DEC, -0.6f, 0.6f, &state);
    set(model, ATMSAE_THRESHOLD, 0.1f, 0.9f, &state);
    set(model, ATMSAE_R_MAG, -0.4f, 0.4f, &state);
    set(model, ATMSAE_B_MAG, -0.3f, 0.3f, &state);
    set(model, ATMSAE_INPUT_SCALE, 1.7f, 1.7f, &state);
    set(model, ATMSAE_OUTPUT_SCALE, d_out != D ? 0.6f : 1.7f, d_out != D ? 0.6f : 1.7f, &state);
    if (activation == ATMSAE_BATCHTOPK) set(model, ATMSAE_BATCH_THRESHOLD, 0.8f, 0.8f, &state);

    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.model_name = "gpt2";
    options.hook_name = "blocks.4.hook_resid_pre";
    must(atmsae_model_save(model, path, &options), name);
    float *x = room(ROWS * D * sizeof *x);
    for (size_t i = 0; i < (size_t)ROWS * D; i++) x[i] = 1.5f * draw(&state);
    put(path, "x", x, (size_t)ROWS * D);
    put_results(model, x, ROWS, path);
    free(x);
    atmsae_model_destroy(model);
}

static void write_all(const char *dir)
{
    const int32_t free_ = ATMSAE_DECODER_FREE, unit = ATMSAE_DECODER_UNIT;
    write_one(dir, "standard", ATMSAE_RELU, free_, D);
    write_one(dir, "topk", ATMSAE_TOPK, unit, D);
    write_one(dir, "topk_free", ATMSAE_TOPK, free_, D);
    write_one(dir, "batchtopk", ATMSAE_BATCHTOPK, unit, D);
    write_one(dir, "jumprelu", ATMSAE_JUMPRELU, unit, D);
    write_one(dir, "jumprelu_tanh", ATMSAE_JUMPRELU_TANH, free_, D);
    write_one(dir, "gated", ATMSAE_GATED, unit, D);
    write_one(dir, "transcoder", ATMSAE_RELU, free_, D_OUT);
    write_one(dir, "jumprelu_transcoder", ATMSAE_BATCHTOPK, unit, D_OUT);
}

static void read_one(const char *folder, const char *rows_path, const char *out)
{
    atmsae_model *model;
    must(atmsae_model_load(ctx, folder, &model), folder);
    atmsae_model_config c;
    atmsae_model_config_init(&c, sizeof c);
    must(atmsae_model_get_config(model, &c), "config");
    FILE *file = fopen(rows_path, "rb");
    float *x = room(ROWS * c.d_in * sizeof *x);
    if (!file) {
        perror(rows_path);
        exit(2);
    }
    size_t rows = fread(x, c.d_in * sizeof *x, ROWS, file);
    fclose(file);
    put_results(model, x, rows, out);
    must(atmsae_model_save(model, out, NULL), out);
    free(x);
    atmsae_model_destroy(model);
}

static void export_one(const char *path, const char *out)
{
    const uint32_t latents[] = {1, 3};
    const float strengths[] = {2, -1};
    atmsae_model *model;
    must(atmsae_model_load(ctx, path, &model), path);
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.latents = latents;
    options.strengths = strengths;
    options.n_latents = 2;
    options.layer = 7;
    options.fold_decoder_norm = !strstr(out, ".npz") && !strstr(out, ".gguf");
    must(atmsae_model_save(model, out, &options), out);
    atmsae_model_destroy(model);
}

int main(int argc, char **argv)
{
    must(atmsae_context_create(NULL, &ctx), "context");
    if (argc == 3 && !strcmp(argv[1], "write")) {
        write_all(argv[2]);
    } else if (argc == 5 && !strcmp(argv[1], "read")) {
        read_one(argv[2], argv[3], argv[4]);
    } else if (argc == 4 && !strcmp(argv[1], "export")) {
        export_one(argv[2], argv[3]);
    } else {
        fprintf(stderr, "usage: write_folders write DIR | write_folders read FOLDER ROWS OUT | write_folders export MODEL OUT\n");
        return 2;
    }
    atmsae_context_destroy(ctx);
    return 0;
}
