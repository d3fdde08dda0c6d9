/* SPDX-License-Identifier: MIT
 *
 * Any sequence of calls on small handles: in any order, with any numbers, wrong counts, missing
 * arguments. Whatever fails leaves its handle usable, because the sequence goes on with it.
 */
#include "settings.h"

typedef struct world {
    fz_bytes in;
    uint64_t d_in, d_out, d_sae;
    atmsae_model *model;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    atmsae_optimizer *optimizer;
    atmsae_tracker *tracker;
    atmsae_masker *masker;
    atmsae_metrics *metrics;
    atmsae_source *source;
    uint64_t given, width; /* of the callback: rows, and row width */
    float rows[8 * 3];
} world;

/* Now and then a call gets NULL in place of a handle. */
#define MAYBE(w, handle) (fz_u8(&(w)->in) % 32 == 31 ? NULL : (w)->handle)

/* ---- model ---------------------------------------------------------------------------------------- */

static atmsae_status set(world *w)
{
    int32_t parameter = (int32_t)fz_range(&w->in, 0, 11);
    uint64_t count;
    atmsae_model_view(w->model, parameter, &count);
    if (fz_u8(&w->in) % 16 == 0) count++;
    float *values = fz_rows(&w->in, count, 1, 1, ATMSAE_F32);
    atmsae_status status = atmsae_model_set(MAYBE(w, model), parameter, values, count);
    free(values);
    return status;
}

typedef atmsae_status on_batch(world *w, const atmsae_batch *batch);

static atmsae_status with_batch(world *w, on_batch *call)
{
    fz_batch b;
    fz_batch_make(&w->in, w->d_in, w->d_out, &b);
    if (fz_u8(&w->in) % 32 == 31) b.batch.x = NULL;
    atmsae_status status = call(w, fz_u8(&w->in) % 32 == 31 ? NULL : &b.batch);
    fz_batch_free(&b);
    return status;
}

static atmsae_status prepare_batch(world *w, const atmsae_batch *batch) { return atmsae_model_prepare(w->model, batch); }
static atmsae_status calibrate_batch(world *w, const atmsae_batch *batch) { return atmsae_model_calibrate(w->model, batch); }
static atmsae_status metrics_batch(world *w, const atmsae_batch *batch) { return atmsae_metrics_add(w->metrics, batch); }

static void check_codes(const world *w, bool training)
{
    atmsae_codes_view v = {.size = sizeof v};
    FZ_CHECK(atmsae_codes_get(w->codes, &v) == ATMSAE_OK);
    FZ_CHECK(v.d_sae == w->d_sae && v.row_start[0] == 0);
    for (uint64_t r = 0; r < v.n_rows; r++) {
        FZ_CHECK(v.row_start[r] <= v.row_start[r + 1] && v.row_start[r + 1] - v.row_start[r] <= w->d_sae);
        for (uint64_t e = v.row_start[r]; e < v.row_start[r + 1]; e++) {
            FZ_CHECK(v.latent[e] < w->d_sae && (e == v.row_start[r] || v.latent[e] > v.latent[e - 1]));
            FZ_CHECK(training ? v.value[e] >= 0 : v.value[e] > 0);
        }
    }
}

static atmsae_status encode_batch(world *w, const atmsae_batch *batch)
{
    atmsae_status status = atmsae_encode(w->model, batch, w->codes);
    if (status == ATMSAE_OK) check_codes(w, false);
    return status;
}

/* The mask and the dead latents come from the other handles, or are made up. */
static atmsae_status forward_batch(world *w, const atmsae_batch *batch)
{
    uint8_t how = fz_u8(&w->in), masked[20];
    uint32_t dead[20];
    double p[20];
    atmsae_mask mask = {.size = sizeof mask, .d_sae = w->d_sae + (how == 255), .seed = fz_u64(&w->in), .step = fz_u64(&w->in)};
    for (uint64_t i = 0; i < w->d_sae; i++) {
        masked[i] = (uint8_t)(fz_u8(&w->in) % 2);
        p[i] = fz_double(&w->in);
        dead[i] = (uint32_t)i;
    }
    mask.masked = how & 16 ? masked : NULL;
    mask.p = how & 32 ? p : NULL;
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    options.mask = how & 1 ? atmsae_masker_mask(w->masker) : how & 2 ? &mask : NULL;
    options.dead = how & 4 ? atmsae_tracker_dead(w->tracker, &options.n_dead) : dead;
    if (!(how & 4)) options.n_dead = fz_range(&w->in, 0, w->d_sae);
    if (how & 64) dead[0] = (uint32_t)fz_u64(&w->in);
    fz_set(&w->in, &options.sparsity_scale);
    atmsae_loss loss = {.size = sizeof loss};
    atmsae_status status = atmsae_forward(w->model, batch, how & 128 ? NULL : &options, w->codes, &loss);
    if (status == ATMSAE_OK) {
        check_codes(w, true);
        FZ_CHECK(isfinite(loss.total));
    }
    return status;
}

static atmsae_status prepare(world *w) { return with_batch(w, prepare_batch); }
static atmsae_status calibrate(world *w) { return with_batch(w, calibrate_batch); }
static atmsae_status encode(world *w) { return with_batch(w, encode_batch); }
static atmsae_status forward(world *w) { return with_batch(w, forward_batch); }
static atmsae_status metrics(world *w) { return with_batch(w, metrics_batch); }

static atmsae_status decode(world *w)
{
    uint64_t ld = fz_u8(&w->in) % 8 == 0 ? fz_u64(&w->in) : 0;
    if (ld > 64) ld = 0; /* the caller's promise about `out` */
    float out[4 * 64];
    return atmsae_decode(MAYBE(w, model), MAYBE(w, codes), out, ld);
}

static atmsae_status result(world *w)
{
    atmsae_metrics_result r = {.size = sizeof r};
    return atmsae_metrics_get(w->metrics, &r);
}

/* ---- the loop by hand ----------------------------------------------------------------------------- */

static atmsae_status backward(world *w) { return atmsae_backward(MAYBE(w, model), MAYBE(w, codes), MAYBE(w, gradients)); }

static atmsae_status optimize(world *w)
{
    double norm;
    atmsae_status status = atmsae_optimizer_step(MAYBE(w, optimizer), w->model, MAYBE(w, gradients), &norm);
    if (status == ATMSAE_OK) FZ_CHECK(isfinite(norm) && isfinite(atmsae_optimizer_lr(w->optimizer)));
    return status;
}

static atmsae_status gradient(world *w)
{
    int32_t parameter = (int32_t)fz_range(&w->in, 0, 11);
    uint64_t count;
    atmsae_model_view(w->model, parameter, &count);
    if (fz_u8(&w->in) % 16 == 0) count++;
    float *out = malloc(count ? count * sizeof *out : 1);
    FZ_CHECK(out);
    atmsae_status status = atmsae_gradients_get(w->gradients, parameter, out, count);
    free(out);
    return status;
}

static atmsae_status observe(world *w)
{
    atmsae_latent_sums sums = {.size = sizeof sums};
    atmsae_status status = atmsae_gradients_sums(w->gradients, &sums);
    double made[4][20];
    if (status < 0 || fz_u8(&w->in) % 2) {
        for (int k = 0; k < 4; k++)
            for (uint64_t i = 0; i < w->d_sae; i++)
                made[k][i] = fz_double(&w->in);
        sums = (atmsae_latent_sums){sizeof sums, w->d_sae + (fz_u8(&w->in) == 255), made[0], made[1], made[2], made[3]};
    }
    status = atmsae_tracker_observe(MAYBE(w, tracker), &sums);
    const double *importance = atmsae_tracker_importance(w->tracker);
    for (uint64_t i = 0; i < w->d_sae; i++)
        FZ_CHECK(isfinite(importance[i]) && importance[i] >= 0);
    uint64_t n_dead;
    const uint32_t *dead = atmsae_tracker_dead(w->tracker, &n_dead);
    FZ_CHECK(n_dead <= w->d_sae && (n_dead == 0 || dead[n_dead - 1] < w->d_sae));
    return status;
}

static atmsae_status update(world *w)
{
    double made[20];
    for (uint64_t i = 0; i < w->d_sae; i++)
        made[i] = fz_double(&w->in);
    const double *importance = fz_u8(&w->in) % 2 ? made : atmsae_tracker_importance(w->tracker);
    atmsae_status status = atmsae_masker_update(MAYBE(w, masker), importance, w->d_sae);
    FZ_CHECK(importance == made || status == ATMSAE_OK || status == ATMSAE_E_ARG); /* ARG: the handle was NULL */
    return status;
}

static atmsae_status draw(world *w)
{
    uint64_t step = fz_u64(&w->in);
    atmsae_status status = atmsae_masker_draw(w->masker, step);
    if (status < 0) return status;
    const atmsae_mask *mask = atmsae_masker_mask(w->masker);
    const double *p = atmsae_masker_p(w->masker);
    FZ_CHECK(mask && mask->d_sae == w->d_sae);
    for (uint64_t i = 0; i < w->d_sae; i++) {
        FZ_CHECK(p[i] >= 0 && p[i] < 1);
        FZ_CHECK(p[i] > 0 || !atmsae_mask_test(mask, step % 1000, i));
    }
    return status;
}

static atmsae_status cooldown(world *w)
{
    uint64_t first = fz_u64(&w->in), steps = fz_u64(&w->in);
    return atmsae_masker_begin_cooldown(w->masker, first, steps);
}

/* ---- source --------------------------------------------------------------------------------------- */

static int64_t give(void *opaque, float *out, uint64_t max_rows)
{
    world *w = opaque;
    uint64_t n = ams_min(max_rows, fz_u8(&w->in) % 4);
    if (fz_u8(&w->in) % 16 == 0) return -1;
    if (w->given > 64) return 0;
    memset(out, 0, n * w->width * sizeof *out);
    w->given += n;
    return (int64_t)n;
}

static atmsae_status add(world *w)
{
    uint8_t how = fz_u8(&w->in);
    if (how % 3 == 0) {
        uint64_t d = how & 64 ? 2 : 3;
        atmsae_status status = atmsae_source_add_callback(w->source, d, give, w);
        if (status == ATMSAE_OK) w->width = d;
        return status;
    }
    uint64_t ld = how & 32 ? 4 : 0, n = fz_range(&w->in, 0, ld ? 6 : 8);
    return atmsae_source_add_memory(MAYBE(w, source), w->rows, n, 3, ld, how & 128 ? ATMSAE_BF16 : ATMSAE_F32);
}

static atmsae_status next(world *w)
{
    uint64_t n = fz_range(&w->in, 0, 9), got;
    float *out = malloc((n ? n : 1) * 3 * sizeof *out);
    FZ_CHECK(out);
    atmsae_status status = atmsae_source_next(MAYBE(w, source), n, out, &got);
    FZ_CHECK(got <= n && (status == ATMSAE_OK || got == 0));
    free(out);
    return status;
}

static atmsae_status rewind_source(world *w) { return atmsae_source_rewind(w->source); }

/* ---- sequence ------------------------------------------------------------------------------------- */

typedef atmsae_status operation(world *w);
static operation *const operations[] = {set, prepare, calibrate, encode, decode, forward, backward, optimize, gradient, observe,
                                        update, draw, cooldown, metrics, result, add, next, rewind_source,
                                        forward, backward, optimize, next};

static atmsae_status make(world *w)
{
    atmsae_context *ctx = fz_context();
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    atmsae_source_config source;
    uint64_t prefixes[4];
    fz_model_config(&w->in, &model, prefixes);
    fz_optimizer_config(&w->in, &optimizer);
    fz_tracker_config(&w->in, &tracker);
    fz_masker_config(&w->in, &masker);
    tracker.d_sae = masker.d_sae = w->d_sae = model.d_sae;
    w->d_in = model.d_in;
    w->d_out = model.d_out ? model.d_out : model.d_in;
    atmsae_source_config_init(&source, sizeof source);
    source.shuffle_rows = fz_range(&w->in, 0, 9);
    fz_set_u64(&w->in, &source.epochs);
    for (int i = 0; i < 24; i++)
        w->rows[i] = (float)i;
    AMS_TRY(atmsae_model_create(ctx, &model, &w->model));
    AMS_TRY(atmsae_optimizer_create(w->model, &optimizer, &w->optimizer));
    AMS_TRY(atmsae_tracker_create(ctx, &tracker, &w->tracker));
    AMS_TRY(atmsae_masker_create(ctx, &masker, &w->masker));
    AMS_TRY(atmsae_source_create(ctx, &source, &w->source));
    AMS_TRY(atmsae_codes_create(ctx, &w->codes));
    AMS_TRY(atmsae_gradients_create(w->model, &w->gradients));
    return atmsae_metrics_create(w->model, &w->metrics);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    world w = {.in = {data, size}};
    fz_context();
    fz_limit(4 << 20);
    atmsae_status status = make(&w);
    for (int i = 0; status == ATMSAE_OK && w.in.left > 0 && i < 200; i++) {
        operation *call = operations[fz_u8(&w.in) % (sizeof operations / sizeof *operations)];
        atmsae_status got = call(&w);
        FZ_CHECK(got <= 0 && strcmp(atmsae_status_name(got), "unknown status") != 0);
        FZ_CHECK(got != ATMSAE_E_ABI && got != ATMSAE_E_NOMEM && got != ATMSAE_E_IO);
    }
    atmsae_metrics_destroy(w.metrics);
    atmsae_gradients_destroy(w.gradients);
    atmsae_codes_destroy(w.codes);
    atmsae_source_destroy(w.source);
    atmsae_masker_destroy(w.masker);
    atmsae_tracker_destroy(w.tracker);
    atmsae_optimizer_destroy(w.optimizer);
    atmsae_model_destroy(w.model);
    fz_done(status);
    return 0;
}
