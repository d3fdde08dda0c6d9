/* SPDX-License-Identifier: MIT
 *
 * See small_run.h.
 */
#include "small_run.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const small_setup small_setups[SMALL_SETUPS] = {
    {"relu-paper", ATMSAE_RELU, ATMSAE_MASK_PAPER, 0, 0, 0, false, false, false, false, false},
    {"topk", ATMSAE_TOPK, ATMSAE_MASK_ATM, 0, 0, 0, false, false, false, false, false},
    {"batchtopk", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 0, 0, 0, false, false, false, false, false},
    {"batchtopk-per-row", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 1, 0, 0, false, false, false, false, false},
    {"batchtopk-cooldown", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 0, 0, 0, false, true, false, false, false},
    {"matryoshka", ATMSAE_BATCHTOPK, ATMSAE_MASK_PERMUTED, 0, 0, 2, false, false, false, false, false},
    {"jumprelu", ATMSAE_JUMPRELU, ATMSAE_MASK_ATM, 0, 0, 0, false, false, false, false, false},
    {"jumprelu-tanh", ATMSAE_JUMPRELU_TANH, ATMSAE_MASK_ATM, 1, 0, 0, false, false, false, false, false},
    {"gated", ATMSAE_GATED, ATMSAE_MASK_ATM, 0, 0, 0, false, false, false, false, false},
    {"topk-stream", ATMSAE_TOPK, ATMSAE_MASK_UNIFORM, 1, 0, 0, true, true, false, false, false},
    {"jumprelu-transcoder", ATMSAE_JUMPRELU, ATMSAE_MASK_ATM, 0, 7, 0, false, false, false, false, false},
    {"transcoder-callback", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 0, 7, 0, true, true, false, false, false},
    {"batchtopk-bad-rows", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 0, 0, 0, false, false, false, true, false},
    {"transcoder-callback-bad-rows", ATMSAE_TOPK, ATMSAE_MASK_ATM, 0, 7, 0, true, true, false, true, false},
    {"batchtopk-second-loss", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 1, 0, 2, false, false, true, false, false},
    {"batchtopk-outliers", ATMSAE_BATCHTOPK, ATMSAE_MASK_ATM, 0, 0, 0, false, false, false, false, true},
    {"transcoder-callback-outliers", ATMSAE_TOPK, ATMSAE_MASK_ATM, 0, 7, 0, true, true, false, true, true},
};

static void must(bool good, const char *what)
{
    if (good) return;
    fprintf(stderr, "small run: %s\n", what);
    abort();
}

static void ok(atmsae_status status, const atmsae_context *ctx) { must(status == ATMSAE_OK, atmsae_last_error(ctx)); }

/* ---- rows: element j of row i is a hash of both ------------------------------------------------------ */

static float element(uint64_t i, uint64_t j)
{
    uint64_t h = (i * 1000003 + j + 1) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    return 1 + 3 * ((float)(h >> 40) * 0x1p-23f - 1);
}

static uint64_t width(const small_setup *setup) { return SMALL_D + setup->d_out; }

static void make_rows(float *out, uint64_t first, uint64_t n, uint64_t d)
{
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < d; j++)
            out[i * d + j] = element(first + i, j);
}

/* As the setup has them. */
static void setup_rows(const small_setup *setup, float *out, uint64_t first, uint64_t n)
{
    const uint64_t d = width(setup);
    make_rows(out, first, n, d);
    for (uint64_t i = 0; i < n && setup->bad_rows; i++)
        if ((first + i) % 19 == 8) out[i * d + (first + i) % d] = NAN;
    for (uint64_t i = 0; i < n && setup->outliers; i++) {
        if ((first + i) % 11 != 5) continue;
        const uint64_t of = (first + i) % 3, from = of == 1 ? SMALL_D : 0, to = of == 0 ? SMALL_D : d; /* x, y, both */
        for (uint64_t j = from; j < to; j++)
            out[i * d + j] *= 200;
    }
}

void small_rows(float *out, uint64_t n) { make_rows(out, 1000000, n, SMALL_D); }

static int64_t give(void *opaque, float *out, uint64_t most)
{
    small_run *run = opaque;
    uint64_t n = most < 23 ? most : 23; /* in pieces that fit nothing */
    setup_rows(run->setup, out, run->given, n);
    run->given += n;
    return (int64_t)n;
}

/* ---- runs ------------------------------------------------------------------------------------------------ */

atmsae_context *small_context(uint32_t threads)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    atmsae_context *ctx;
    must(atmsae_context_create(&config, &ctx) == ATMSAE_OK, "no context");
    return ctx;
}

enum { MEMORY_ROWS = 150 };

static void open_source(small_run *run)
{
    static float memory[3 * MEMORY_ROWS * (SMALL_D + 8)]; /* lent to sources; always the same rows, good or not */
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 50;
    config.seed = 5;
    ok(atmsae_source_create(run->ctx, &config, &run->source), run->ctx);
    if (run->setup->callback) {
        ok(atmsae_source_add_callback(run->source, width(run->setup), give, run), run->ctx);
        return;
    }
    float *rows = memory + (run->setup->bad_rows ? MEMORY_ROWS * (SMALL_D + 8) : run->setup->outliers ? 2 * MEMORY_ROWS * (SMALL_D + 8) : 0);
    setup_rows(run->setup, rows, 0, MEMORY_ROWS);
    ok(atmsae_source_add_memory(run->source, rows, MEMORY_ROWS, width(run->setup), 0, ATMSAE_F32), run->ctx);
}

void small_begin(small_run *run, const small_setup *s, atmsae_context *ctx)
{
    static const uint64_t prefixes[] = {9, 20};
    *run = (small_run){.setup = s, .ctx = ctx};
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    atmsae_trainer_config config;
    atmsae_model_config_init(&model, sizeof model);
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    atmsae_masker_config_init(&masker, sizeof masker);
    atmsae_trainer_config_init(&config, sizeof config);
    model.d_in = SMALL_D;
    model.d_out = s->d_out;
    model.d_sae = SMALL_F;
    model.activation = s->activation;
    model.k = 3;
    model.seed = 3;
    model.aux_k = 6;
    model.init_threshold = 0.4;
    model.pre_act_coef = 1e-3;
    model.n_prefixes = (uint64_t)s->prefixes;
    model.prefixes = prefixes;
    optimizer.lr = 1e-2;
    tracker.dead_window = SMALL_N;
    tracker.decay = 0.8;
    masker.kind = s->mask_kind;
    masker.per_row = s->per_row;
    masker.effect = s->second ? ATMSAE_EFFECT_SECOND_LOSS : ATMSAE_EFFECT_HARD;
    if (s->second) masker.alpha = 0.7;
    masker.warmup_steps = 2;
    masker.r = 1;
    config.model = &model;
    config.optimizer = &optimizer;
    config.tracker = &tracker;
    config.masker = &masker;
    config.total_rows = s->stream ? 0 : SMALL_STEPS * SMALL_N;
    config.batch_rows = SMALL_N;
    config.sparsity_warmup = 0.5;
    config.skip_bad_rows = s->bad_rows ? 40 : 0;
    config.max_norm = s->outliers ? 10 : 0;
    ok(atmsae_trainer_create(ctx, &config, &run->trainer), ctx);

    float rows[64 * (SMALL_D + 8)];
    setup_rows(s, rows, 0, 64);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = 64;
    batch.x = rows;
    batch.ld_x = width(s);
    if (s->d_out) batch.y = rows + SMALL_D, batch.ld_y = width(s);
    ok(atmsae_trainer_prepare(run->trainer, &batch), ctx);
    open_source(run);
}

atmsae_status small_load(small_run *run, const small_setup *setup, atmsae_context *ctx, const char *path, uint64_t given)
{
    *run = (small_run){.setup = setup, .ctx = ctx, .given = given};
    open_source(run);
    atmsae_status status = atmsae_trainer_load(ctx, path, run->source, &run->trainer);
    if (status < 0) small_end(run);
    return status;
}

void small_step(small_run *run)
{
    float rows[SMALL_N * (SMALL_D + 8)], weights[SMALL_N];
    uint64_t got, step = atmsae_trainer_steps_done(run->trainer);
    ok(atmsae_source_next(run->source, SMALL_N, rows, &got), run->ctx);
    must(got == SMALL_N, "the source ended");
    for (uint64_t r = 0; r < SMALL_N; r++)
        weights[r] = (r + step) % 7 == 2 ? 0 : 0.5f + 0.125f * (float)((r + step) % 5);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = SMALL_N;
    batch.x = rows;
    batch.ld_x = width(run->setup);
    if (run->setup->d_out) batch.y = rows + SMALL_D, batch.ld_y = width(run->setup);
    batch.row_weights = weights;
    atmsae_step_stats stats = {.size = sizeof stats};
    ok(atmsae_trainer_step(run->trainer, &batch, &stats), run->ctx);
    run->loss = stats.loss;
    run->aux = run->aux || stats.aux > 0;
    run->masked = run->masked || stats.mean_p > 0;
    run->skipped = run->skipped || stats.bad_rows > 0;
    run->left_out = run->left_out || stats.outlier_rows > 0;
    run->dead = run->dead || stats.dead > 0;
    if (run->setup->stream && step == 7) ok(atmsae_trainer_begin_cooldown(run->trainer, 6), run->ctx);
}

void small_until(small_run *run, uint64_t steps)
{
    while (atmsae_trainer_steps_done(run->trainer) < steps)
        small_step(run);
}

void small_end(small_run *run)
{
    atmsae_trainer_destroy(run->trainer);
    atmsae_source_destroy(run->source);
    run->trainer = NULL;
    run->source = NULL;
}

/* ---- files ------------------------------------------------------------------------------------------------ */

char *small_read(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    *bytes = 0;
    if (!file) return NULL;
    struct stat st;
    must(fstat(fileno(file), &st) == 0, path);
    char *data = malloc((size_t)st.st_size + 1);
    must(data && fread(data, 1, (size_t)st.st_size, file) == (size_t)st.st_size, path);
    fclose(file);
    *bytes = (size_t)st.st_size;
    data[*bytes] = '\0';
    return data;
}

void small_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    must(file && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0, path);
}

const char *small_folder(void)
{
    static char path[4][64];
    static unsigned turn;
    char *folder = path[turn++ % 4];
    snprintf(folder, sizeof path[0], "%s/atmsae-faults-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    must(mkdtemp(folder) != NULL, folder);
    return folder;
}

static unsigned visit(const char *folder, bool remove_them)
{
    unsigned n = 0;
    DIR *dir = opendir(folder);
    if (!dir) return 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        n++;
        char path[400];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (remove_them && unlink(path) < 0) small_remove(path);
    }
    closedir(dir);
    return n;
}

unsigned small_entries(const char *folder) { return visit(folder, false); }

void small_remove(const char *folder)
{
    visit(folder, true);
    rmdir(folder);
}

uint64_t small_scale(void)
{
    const char *text = getenv("ATMSAE_SCALE");
    const long scale = text ? strtol(text, NULL, 10) : 1;
    return scale > 1 ? (uint64_t)scale : 1;
}
