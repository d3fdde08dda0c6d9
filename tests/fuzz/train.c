/* SPDX-License-Identifier: MIT
 *
 * A tiny training run with any settings on any data. After each step the parameters are finite, or
 * the step was refused and changed nothing; a run resumed from a checkpoint ends in the same bytes.
 */
#include "settings.h"

enum { ROOM = 1 << 16 };

static bool refusal(atmsae_status status)
{
    return status == ATMSAE_E_NONFINITE || status == ATMSAE_E_ARG || status == ATMSAE_E_LIMIT;
}

static void compare(const atmsae_trainer *a, const atmsae_trainer *b)
{
    static char bytes[2][ROOM];
    FZ_CHECK(atmsae_trainer_save(a, NULL, fz_path("a")) == ATMSAE_OK);
    FZ_CHECK(atmsae_trainer_save(b, NULL, fz_path("b")) == ATMSAE_OK);
    size_t n = fz_read(fz_path("a"), bytes[0], ROOM);
    FZ_CHECK(n == fz_read(fz_path("b"), bytes[1], ROOM) && memcmp(bytes[0], bytes[1], n) == 0);
}

/* What was refused is refused the same way by the twin; it is shown to the twin only one time in
 * two, so that the final comparison finds traces of it. */
static void step(fz_bytes *in, const fz_run *run, atmsae_trainer *a, atmsae_trainer *twin)
{
    fz_batch b;
    uint64_t d_out = run->model.d_out ? run->model.d_out : run->model.d_in;
    fz_batch_make(in, run->model.d_in, d_out, &b);
    atmsae_step_stats stats = {.size = sizeof stats};
    uint64_t before = atmsae_trainer_steps_done(a);
    atmsae_status status = atmsae_trainer_step(a, &b.batch, &stats);
    FZ_CHECK(status == ATMSAE_OK || refusal(status));
    FZ_CHECK(atmsae_trainer_steps_done(a) == before + (status == ATMSAE_OK));
    FZ_CHECK(status < 0 || (isfinite(stats.loss) && isfinite(stats.grad_norm)));
    fz_check_finite(atmsae_trainer_model(a));
    if (twin && (status == ATMSAE_OK || fz_u8(in) % 2)) FZ_CHECK(atmsae_trainer_step(twin, &b.batch, NULL) == status);
    fz_batch_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fz_bytes in = {data, size};
    fz_run run;
    fz_limit(4 << 20);
    fz_trainer_config(&in, &run);
    atmsae_trainer *a, *twin = NULL;
    atmsae_status status = atmsae_trainer_create(fz_context(), &run.config, &a);
    if (status < 0) {
        FZ_CHECK(status == ATMSAE_E_ARG && !a);
        fz_done(status);
        return 0;
    }
    if (fz_u8(&in) % 2) {
        fz_batch b;
        fz_batch_make(&in, run.model.d_in, run.model.d_out ? run.model.d_out : run.model.d_in, &b);
        status = atmsae_trainer_prepare(a, &b.batch);
        FZ_CHECK(status == ATMSAE_OK || refusal(status));
        fz_check_finite(atmsae_trainer_model(a));
        fz_batch_free(&b);
    }
    unsigned steps = fz_u8(&in) % 6, save_at = fz_u8(&in) % 6;
    for (unsigned s = 0; s < steps; s++) {
        if (s == save_at) {
            FZ_CHECK(atmsae_trainer_save(a, NULL, fz_path("a")) == ATMSAE_OK);
            FZ_CHECK(atmsae_trainer_load(fz_context(), fz_path("a"), NULL, &twin) == ATMSAE_OK);
        }
        if (s == 2 && fz_rarely(&in)) {
            uint64_t rows = fz_u64(&in);
            status = atmsae_trainer_set_total_rows(a, rows);
            FZ_CHECK(!twin || atmsae_trainer_set_total_rows(twin, rows) == status);
        }
        if (s == 3 && fz_rarely(&in)) {
            uint64_t length = fz_u64(&in);
            status = atmsae_trainer_begin_cooldown(a, length);
            FZ_CHECK(!twin || atmsae_trainer_begin_cooldown(twin, length) == status);
        }
        step(&in, &run, a, twin);
    }
    if (twin) compare(a, twin);
    atmsae_trainer_destroy(a);
    atmsae_trainer_destroy(twin);
    fz_done(ATMSAE_OK);
    return 0;
}
