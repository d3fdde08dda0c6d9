/* SPDX-License-Identifier: MIT
 *
 * usage: make_golden FOLDER
 *
 * Wrote tests/golden/0.1: for every kind of run in ../faults/small_run.c its checkpoint after ten
 * steps, its SAE folder, and in expected.txt what later versions must make of them: the loss of the
 * next step, and the latents of fixed rows. Files of a released version are never made again; the
 * next one that changes a format gets a folder of its own.
 */
#include "small_run.h"

#include <stdio.h>
#include <sys/stat.h>

enum { STEPS = 10, ROWS = 8 };

static int fail(const atmsae_context *ctx, const char *what)
{
    fprintf(stderr, "make_golden: %s: %s\n", what, atmsae_last_error(ctx));
    return 1;
}

int main(int argc, char **argv)
{
    char path[400];
    if (argc != 2) return 2;
    (void)mkdir(argv[1], 0777);
    snprintf(path, sizeof path, "%s/expected.txt", argv[1]);
    FILE *expected = fopen(path, "w");
    if (!expected) return 1;
    atmsae_context *ctx = small_context(1);
    for (int i = 0; i < SMALL_SETUPS; i++) {
        const char *name = small_setups[i].name;
        small_run run;
        small_begin(&run, &small_setups[i], ctx);
        small_until(&run, STEPS);
        snprintf(path, sizeof path, "%s/%s.safetensors", argv[1], name);
        if (atmsae_trainer_save(run.trainer, run.source, path) < 0) return fail(ctx, name);
        const unsigned long long given = run.given;
        atmsae_save_options options;
        atmsae_save_options_init(&options, sizeof options);
        options.hook_name = "blocks.3.hook_resid_pre";
        snprintf(path, sizeof path, "%s/%s", argv[1], name);
        if (atmsae_model_save(atmsae_trainer_model(run.trainer), path, &options) < 0) return fail(ctx, name);
        small_step(&run);
        fprintf(expected, "run %s given %llu loss %.17g\n", name, given, run.loss);

        float rows[ROWS * SMALL_D];
        small_rows(rows, ROWS);
        atmsae_batch batch;
        atmsae_batch_init(&batch, sizeof batch);
        batch.n_rows = ROWS;
        batch.x = rows;
        atmsae_model *model;
        atmsae_codes *codes;
        atmsae_codes_view view = {.size = sizeof view};
        if (atmsae_model_load(ctx, path, &model) < 0 || atmsae_codes_create(ctx, &codes) < 0 || atmsae_encode(model, &batch, codes) < 0 ||
            atmsae_codes_get(codes, &view) < 0)
            return fail(ctx, name);
        for (uint64_t r = 0; r < ROWS; r++)
            for (uint64_t e = view.row_start[r]; e < view.row_start[r + 1]; e++)
                fprintf(expected, "row %d latent %u value %.9g\n", (int)r, view.latent[e], (double)view.value[e]);
        fprintf(expected, "end %s\n", name);
        atmsae_codes_destroy(codes);
        atmsae_model_destroy(model);
        small_end(&run);
    }
    atmsae_context_destroy(ctx);
    return fclose(expected) != 0;
}
