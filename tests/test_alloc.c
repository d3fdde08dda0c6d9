/* SPDX-License-Identifier: MIT
 *
 * What happens when memory runs out. Every allocation of every public call fails, once and from then
 * on: E_NOMEM with a text, NULL from a create, nothing changed, no leak, and the same call then gives
 * what it would have given. Which calls allocate is checked against the header. Huge shapes make
 * huge requests, never small ones. Past the hook nothing is allocated.
 */
#include "alloc_shim.h"
#include "headers.h"
#include "base/base.h"
#include "kernels/kernels.h"
#include "suite.h"

#include <atmsae/eval.h>
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { D = 6, F = 24, N = 12, FEATURES = 5 * 3 + 4 };

/* ---- the hook ------------------------------------------------------------------------------------------ */

typedef struct meter {
    _Atomic long calls, live;
    long fail_at;     /* 0: never */
    bool go_on;       /* and so do all after it */
    uint64_t refused; /* size of the request that failed first */
    uint64_t limit;   /* requests above it fail; 0: none */
} meter;

static void *meter_alloc(void *opaque, size_t align, size_t bytes)
{
    meter *m = opaque;
    long call = ++m->calls;
    if ((m->fail_at && (call == m->fail_at || (call > m->fail_at && m->go_on))) || (m->limit && bytes > m->limit)) {
        if (!m->refused) m->refused = bytes;
        return NULL;
    }
    void *memory = NULL;
    if (posix_memalign(&memory, align, bytes) != 0) return NULL; /* no Check here: it allocates too */
    memset(memory, 0xa5, bytes); /* what nobody wrote shows */
    m->live++;
    return memory;
}

static void meter_free(void *opaque, void *memory)
{
    ((meter *)opaque)->live--;
    free(memory);
}

/* ---- a world: every handle there is, small and with a past ----------------------------------------------- */

typedef struct variant {
    int32_t activation;
    int prefixes, transcoder, per_row, aux, second;
    int32_t mask, b_dec_init;
} variant;

typedef struct world {
    meter m;
    const variant *v;
    atmsae_context *ctx, *second;
    atmsae_model *model, *loaded, *wider;
    atmsae_trainer *trainer, *resumed;
    atmsae_codes *codes, *spare;
    atmsae_gradients *gradients;
    atmsae_optimizer *optimizer;
    atmsae_tracker *tracker;
    atmsae_masker *masker;
    atmsae_metrics *metrics;
    atmsae_absorption *absorption;
    atmsae_probing *probing;
    atmsae_top_rows *top;
    atmsae_synth *synth;
    atmsae_source *source, *fed;
    atmsae_tensors *tensors, *opened;
    atmsae_batch batch;
    float x[N * D], y[N * D], out[4 * N * (D + F)], ce[N];
    int64_t integers[N];
    uint8_t active[N * FEATURES];
    uint64_t got, kept; /* kept: a checksum of further results */
    atmsae_absorption_result score;
    atmsae_synth_result synth_score;
} world;

static char folder[64];
static const char *path_of(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void ok(const world *w, atmsae_status status)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(w->ctx));
}

static float noise(uint64_t at)
{
    uint32_t words[4];
    ams_philox(7, 200, 0, at, words);
    return (float)(ams_uniform(words[0], words[1]) * 2 - 1);
}

static atmsae_status new_context(meter *m, uint32_t threads, atmsae_context **out)
{
    atmsae_allocator allocator = {m, meter_alloc, meter_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    config.allocator = &allocator;
    return atmsae_context_create(&config, out);
}

static atmsae_model_config model_config(const variant *v)
{
    static const uint64_t prefixes[] = {6, 12};
    atmsae_model_config c;
    atmsae_model_config_init(&c, sizeof c);
    c.d_in = D;
    c.d_sae = F;
    c.k = 3;
    c.activation = v->activation;
    c.transcoder = v->transcoder;
    c.b_dec_init = v->b_dec_init;
    c.init_threshold = 0.1;
    c.n_prefixes = v->prefixes ? 2 : 0;
    c.prefixes = prefixes;
    return c;
}

static atmsae_status create_trainer_with(world *w, double max_norm, atmsae_trainer **out)
{
    atmsae_model_config model = model_config(w->v);
    atmsae_masker_config masker;
    atmsae_masker_config_init(&masker, sizeof masker);
    masker.kind = w->v->mask ? w->v->mask : ATMSAE_MASK_ATM;
    masker.per_row = w->v->per_row;
    masker.effect = w->v->second;
    masker.warmup_steps = 0;
    atmsae_tracker_config tracker;
    atmsae_tracker_config_init(&tracker, sizeof tracker);
    tracker.dead_window = w->v->aux ? 1 : 0;
    atmsae_trainer_config c;
    atmsae_trainer_config_init(&c, sizeof c);
    c.model = &model;
    c.masker = &masker;
    c.tracker = &tracker;
    c.batch_rows = N;
    c.total_rows = 50 * N;
    c.max_norm = max_norm;
    return atmsae_trainer_create(w->ctx, &c, out);
}

static atmsae_status create_trainer(world *w, atmsae_trainer **out) { return create_trainer_with(w, 0, out); }

static int64_t feed(void *opaque, float *out, uint64_t max_rows)
{
    uint64_t *left = opaque, n = ams_min(*left, max_rows);
    for (uint64_t j = 0; j < n * D; j++)
        out[j] = noise(*left * D + j);
    *left -= n;
    return (int64_t)n;
}

static atmsae_status create_source(world *w, uint64_t shuffle_rows, atmsae_source **out)
{
    atmsae_source_config c;
    atmsae_source_config_init(&c, sizeof c);
    c.shuffle_rows = shuffle_rows;
    return atmsae_source_create(w->ctx, &c, out);
}

static void start_on(world *w, const variant *v, uint32_t threads)
{
    *w = (world){.v = v};
    for (uint64_t j = 0; j < N * D; j++) {
        w->x[j] = noise(j) + (j / D % 3 == j % D ? 2.0f : 0);
        w->y[j] = noise(j + 1000);
    }
    atmsae_batch_init(&w->batch, sizeof w->batch);
    w->batch.n_rows = N;
    w->batch.x = w->x;
    if (v->transcoder) w->batch.y = w->y;
    ck_assert_int_eq(new_context(&w->m, threads, &w->ctx), ATMSAE_OK);
    ok(w, create_trainer(w, &w->trainer));
    w->model = atmsae_trainer_model(w->trainer);
    w->tracker = atmsae_trainer_tracker(w->trainer);
    w->masker = atmsae_trainer_masker(w->trainer);
    w->optimizer = atmsae_trainer_optimizer(w->trainer);
}

static void start(world *w, const variant *v) { start_on(w, v, 2); }

/* Some steps, so that there are averages, masks, dead latents and a threshold. */
static void train(world *w, int steps)
{
    ok(w, atmsae_trainer_prepare(w->trainer, &w->batch));
    for (int s = 0; s < steps; s++)
        ok(w, atmsae_trainer_step(w->trainer, &w->batch, NULL));
}

static void stop(world *w)
{
    atmsae_tensors_close(w->opened);
    atmsae_tensors_close(w->tensors);
    atmsae_source_destroy(w->fed);
    atmsae_source_destroy(w->source);
    atmsae_synth_destroy(w->synth);
    atmsae_top_rows_destroy(w->top);
    atmsae_probing_destroy(w->probing);
    atmsae_absorption_destroy(w->absorption);
    atmsae_metrics_destroy(w->metrics);
    atmsae_gradients_destroy(w->gradients);
    atmsae_codes_destroy(w->codes);
    atmsae_codes_destroy(w->spare);
    atmsae_trainer_destroy(w->trainer);
    if (w->resumed) atmsae_trainer_destroy(w->resumed);
    else atmsae_model_destroy(w->loaded);
    atmsae_model_destroy(w->wider);
    atmsae_context_destroy(w->second);
    atmsae_context_destroy(w->ctx);
    ck_assert_msg(w->m.live == 0, "%ld allocations were not freed", (long)w->m.live);
}

/* ---- what must not change: one number of all that can be seen ----------------------------------------- */

static uint64_t sum_file(uint64_t crc, const char *path)
{
    char bytes[4096];
    size_t n;
    FILE *file = fopen(path, "rb");
    if (!file) return ams_crc64(crc, "absent", 6);
    while ((n = fread(bytes, 1, sizeof bytes, file)) > 0)
        crc = ams_crc64(crc, bytes, n);
    fclose(file);
    return crc;
}

static uint64_t sum_model(uint64_t crc, const atmsae_model *model)
{
    for (int32_t p = ATMSAE_W_ENC; model && p <= ATMSAE_OUTPUT_SCALE; p++) {
        uint64_t count;
        const float *values = atmsae_model_view(model, p, &count);
        crc = ams_crc64(crc, values ? values : (const float *)&count, values ? count * sizeof *values : 0);
    }
    return crc;
}

static uint64_t sum_trainer(uint64_t crc, atmsae_trainer *t)
{
    if (!t) return crc;
    crc = sum_model(crc, atmsae_trainer_model(t));
    const atmsae_tracker *tracker = atmsae_trainer_tracker(t);
    const atmsae_masker *masker = atmsae_trainer_masker(t);
    crc = ams_crc64(crc, atmsae_tracker_importance(tracker), F * sizeof(double));
    for (int32_t k = 0; k < 3; k++)
        crc = ams_crc64(crc, atmsae_tracker_average(tracker, k), F * sizeof(double));
    uint64_t n_dead;
    const uint32_t *dead = atmsae_tracker_dead(tracker, &n_dead);
    crc = ams_crc64(crc, dead, n_dead * sizeof *dead);
    const double numbers[] = {atmsae_masker_mu(masker), atmsae_masker_sigma(masker), atmsae_masker_theta(masker),
                              (double)atmsae_trainer_bad_rows(t), (double)atmsae_trainer_outlier_rows(t), atmsae_trainer_norm_limit(t, 0),
                              atmsae_trainer_norm_limit(t, 1), atmsae_optimizer_lr(atmsae_trainer_optimizer(t)), (double)atmsae_trainer_steps_done(t)};
    return ams_crc64(crc, numbers, sizeof numbers);
}

static const char *const files[] = {"sae/cfg.json", "sae/sae_weights.safetensors", "checkpoint.safetensors"};

static uint64_t state(const world *w)
{
    uint64_t crc = sum_trainer(0, w->trainer);
    if (w->metrics) {
        atmsae_metrics_result r = {.size = sizeof r};
        ok(w, atmsae_metrics_get(w->metrics, &r));
        crc = ams_crc64(crc, &r, sizeof r);
        crc = ams_crc64(crc, atmsae_metrics_counts(w->metrics), F * sizeof(uint64_t));
    }
    const uint64_t rows[] = {atmsae_source_d(w->source), atmsae_source_d_target(w->source), atmsae_source_rows(w->source)};
    crc = ams_crc64(crc, rows, sizeof rows);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        crc = sum_file(crc, path_of(files[i]));
    return crc;
}

/* Results too, once the call has succeeded. */
static uint64_t results(world *w)
{
    uint64_t crc = state(w);
    crc = sum_trainer(crc, w->resumed);
    crc = sum_model(crc, w->loaded);
    atmsae_codes_view codes = {.size = sizeof codes};
    if (w->codes && atmsae_codes_get(w->codes, &codes) == ATMSAE_OK) {
        crc = ams_crc64(crc, codes.row_start, (codes.n_rows + 1) * sizeof *codes.row_start);
        crc = ams_crc64(crc, codes.latent, codes.row_start[codes.n_rows] * sizeof *codes.latent);
        crc = ams_crc64(crc, codes.value, codes.row_start[codes.n_rows] * sizeof *codes.value);
    }
    atmsae_latent_sums sums = {.size = sizeof sums};
    if (w->gradients && atmsae_gradients_sums(w->gradients, &sums) == ATMSAE_OK) {
        crc = ams_crc64(crc, sums.contribution, F * sizeof(double));
        float gradient[F * D];
        ok(w, atmsae_gradients_get(w->gradients, ATMSAE_W_ENC, gradient, F * D));
        crc = ams_crc64(crc, gradient, sizeof gradient);
    }
    /* Rows that come next tell the source's position. */
    for (int i = 0; i < 2; i++) {
        atmsae_source *source = i ? w->fed : w->source;
        float rows[5 * 2 * D];
        uint64_t got;
        if (!source || atmsae_source_d(source) == 0) continue;
        const uint64_t width = atmsae_source_d(source) + atmsae_source_d_target(source); /* of a row with its target */
        ck_assert_uint_le(width, 2 * D);
        ok(w, atmsae_source_next(source, 5, rows, &got));
        crc = ams_crc64(crc, rows, got * width * sizeof *rows);
    }
    crc = ams_crc64(crc, w->out, sizeof w->out);
    crc = ams_crc64(crc, w->integers, sizeof w->integers);
    crc = ams_crc64(crc, w->active, sizeof w->active);
    crc = ams_crc64(crc, &w->score, sizeof w->score);
    crc = ams_crc64(crc, &w->kept, sizeof w->kept);
    return ams_crc64(crc, &w->synth_score, sizeof w->synth_score);
}

/* ---- the calls --------------------------------------------------------------------------------------------- */

/* A create must overwrite what stood in the caller's variable. */
#define CREATE(field, ...)                                     \
    void *const was = w->field;                                \
    w->field = (void *)(uintptr_t)0x1000;                      \
    atmsae_status status = __VA_ARGS__;                        \
    if (status < 0) {                                          \
        ck_assert_ptr_null(w->field);                          \
        w->field = was;                                        \
    }                                                          \
    return status

static void nothing(world *w) { (void)w; }
static void trained(world *w) { train(w, 4); }
static void with_codes(world *w)
{
    train(w, 4);
    ok(w, atmsae_codes_create(w->ctx, &w->codes));
}

static atmsae_status forward(world *w, atmsae_codes *codes)
{
    atmsae_forward_options o;
    atmsae_forward_options_init(&o, sizeof o);
    o.mask = atmsae_masker_mask(w->masker);
    o.dead = atmsae_tracker_dead(w->tracker, &o.n_dead);
    return atmsae_forward(w->model, &w->batch, &o, codes, NULL);
}

static void with_forward(world *w)
{
    with_codes(w);
    ok(w, atmsae_gradients_create(w->model, &w->gradients));
    ok(w, forward(w, w->codes));
}

/* Two of them, which may be there. */
static void with_bad_rows(world *w)
{
    train(w, 4);
    w->x[3] = w->x[5 * D] = NAN;
    ok(w, atmsae_trainer_set_skip_bad_rows(w->trainer, 5));
}

/* A trainer that leaves out long rows, and one of those. */
static void with_limit(world *w)
{
    atmsae_trainer_destroy(w->trainer);
    ok(w, create_trainer_with(w, 10, &w->trainer));
    w->model = atmsae_trainer_model(w->trainer);
    w->tracker = atmsae_trainer_tracker(w->trainer);
    w->masker = atmsae_trainer_masker(w->trainer);
    w->optimizer = atmsae_trainer_optimizer(w->trainer);
    w->x[2 * D] = 1000;
}

static void with_outlier(world *w)
{
    with_limit(w);
    ok(w, atmsae_trainer_prepare(w->trainer, &w->batch));
}

static void with_metrics(world *w)
{
    train(w, 4);
    ok(w, atmsae_metrics_create(w->model, &w->metrics));
    ok(w, atmsae_metrics_add(w->metrics, &w->batch));
}

static void with_source(world *w)
{
    train(w, 4);
    ok(w, create_source(w, 5, &w->source));
}

static void with_rows(world *w)
{
    with_source(w);
    ok(w, atmsae_source_add_memory(w->source, w->x, N, D, 0, ATMSAE_F32));
}

static void in_the_middle(world *w)
{
    with_rows(w);
    ok(w, atmsae_source_next(w->source, 3, w->out, &w->got));
}

static void with_file(world *w)
{
    with_source(w);
    ok(w, atmsae_source_add_file(w->source, path_of("rows.npy"), NULL, 0));
}

/* Rows with targets of their own width, from files, of which none has been taken. */
static void with_pairs(world *w)
{
    with_file(w);
    ok(w, atmsae_source_add_target_file(w->source, path_of("rows.npy"), NULL, 0));
}

static uint64_t to_feed;
static void with_callback(world *w)
{
    with_source(w);
    to_feed = 40;
    ok(w, atmsae_source_add_callback(w->source, D, feed, &to_feed));
}

static atmsae_status create_synth(world *w, atmsae_synth **out)
{
    atmsae_synth_config c;
    atmsae_synth_config_init(&c, sizeof c);
    c.d = D;
    c.n_parents = 5;
    c.n_children = 2;
    c.n_independent = 4;
    c.p_parent = 0.3;
    return atmsae_synth_create(w->ctx, &c, out);
}

static void with_synth(world *w)
{
    train(w, 4);
    ok(w, create_synth(w, &w->synth));
}

static atmsae_status create_absorption(world *w, atmsae_absorption **out)
{
    int32_t labels[N];
    uint8_t is_train[N];
    for (int r = 0; r < N; r++) {
        labels[r] = r % 3;
        is_train[r] = r < N - 4;
    }
    atmsae_absorption_config c;
    atmsae_absorption_config_init(&c, sizeof c);
    c.n_classes = 3;
    c.min_probe_f1 = 0;
    return atmsae_absorption_create(w->ctx, &c, &w->batch, D, labels, is_train, out);
}

static void with_absorption(world *w)
{
    train(w, 4);
    ok(w, create_absorption(w, &w->absorption));
}

static atmsae_status create_probing(world *w, atmsae_probing **out)
{
    int8_t labels[N];
    uint8_t is_train[N];
    for (int r = 0; r < N; r++) {
        labels[r] = (int8_t)(r % 2);
        is_train[r] = r < N - 4;
    }
    atmsae_probing_config c;
    atmsae_probing_config_init(&c, sizeof c);
    c.n_tasks = 1;
    return atmsae_probing_create(w->ctx, &c, &w->batch, D, labels, is_train, out);
}

static void with_probing(world *w)
{
    train(w, 4);
    ok(w, create_probing(w, &w->probing));
}

/* A model to compare with: of more latents, as hedging wants. */
static void with_wider(world *w)
{
    train(w, 4);
    atmsae_model_config c = model_config(w->v);
    c.d_sae = F + 3;
    ok(w, atmsae_model_create(w->ctx, &c, &w->wider));
}

static void with_tensors(world *w)
{
    train(w, 1);
    ok(w, atmsae_tensors_open(w->ctx, path_of("rows.npy"), &w->tensors));
}

static void with_integers(world *w)
{
    train(w, 1);
    ok(w, atmsae_tensors_open(w->ctx, path_of("integers.npy"), &w->tensors));
}

static atmsae_status call_context_create(world *w) { CREATE(second, new_context(&w->m, 3, &w->second)); }
static atmsae_status call_model_create(world *w)
{
    const atmsae_model_config c = model_config(w->v);
    CREATE(loaded, atmsae_model_create(w->ctx, &c, &w->loaded));
}
static atmsae_status call_model_prepare(world *w) { return atmsae_model_prepare(w->model, &w->batch); }
static atmsae_status call_batch_norms(world *w)
{
    atmsae_row_norms norms = {.size = sizeof norms};
    const atmsae_status status = atmsae_batch_norms(w->ctx, &w->batch, D, &norms);
    if (status == ATMSAE_OK) w->kept = ams_crc64(w->kept, &norms, sizeof norms);
    return status;
}
static atmsae_status call_batch_limit(world *w) { return atmsae_batch_limit(w->ctx, &w->batch, D, 50, w->out, &w->kept); }
static atmsae_status call_codes_create(world *w) { CREATE(spare, atmsae_codes_create(w->ctx, &w->spare)); }
static atmsae_status call_encode(world *w) { return atmsae_encode(w->model, &w->batch, w->codes); }
static atmsae_status call_encode_few(world *w)
{
    atmsae_batch few = w->batch;
    few.n_rows = 2; /* another path: no matrix product */
    return atmsae_encode(w->model, &few, w->codes);
}
static atmsae_status call_model_calibrate(world *w) { return atmsae_model_calibrate(w->model, &w->batch); }
static atmsae_status call_model_save(world *w)
{
    atmsae_save_options o;
    atmsae_save_options_init(&o, sizeof o);
    o.model_name = "tiny";
    return atmsae_model_save(w->model, path_of("sae"), &o);
}
static atmsae_status call_model_load(world *w)
{
    CREATE(loaded, atmsae_model_load(w->ctx, path_of("saved"), &w->loaded));
}
static atmsae_status call_trainer_create(world *w) { CREATE(resumed, create_trainer(w, &w->resumed)); }
static atmsae_status call_trainer_prepare(world *w) { return atmsae_trainer_prepare(w->trainer, &w->batch); }
static atmsae_status call_trainer_step(world *w) { return atmsae_trainer_step(w->trainer, &w->batch, NULL); }
static atmsae_status call_trainer_calibrate(world *w) { return atmsae_trainer_calibrate(w->trainer, &w->batch); }
static atmsae_status call_trainer_save(world *w)
{
    return atmsae_trainer_save(w->trainer, w->source, path_of("checkpoint.safetensors"));
}
static atmsae_status call_trainer_load(world *w)
{
    CREATE(resumed, atmsae_trainer_load(w->ctx, path_of("saved.safetensors"), w->source, &w->resumed));
}
static atmsae_status call_source_create(world *w) { CREATE(fed, create_source(w, 4, &w->fed)); }
static atmsae_status call_source_add_memory(world *w)
{
    return atmsae_source_add_memory(w->source, w->x, N, D, 0, ATMSAE_F32);
}
static atmsae_status call_source_add_file(world *w)
{
    return atmsae_source_add_file(w->source, path_of("rows.npy"), NULL, 0);
}
static atmsae_status call_source_add_target_memory(world *w)
{
    return atmsae_source_add_target_memory(w->source, w->x, N, D, 0, ATMSAE_F32);
}
static atmsae_status call_source_add_target_file(world *w)
{
    return atmsae_source_add_target_file(w->source, path_of("rows.npy"), NULL, 0);
}
static atmsae_status call_source_add_callback(world *w)
{
    to_feed = 40;
    return atmsae_source_add_callback(w->source, D, feed, &to_feed);
}
static atmsae_status call_source_next(world *w) { return atmsae_source_next(w->source, 3, w->out, &w->got); }
static atmsae_status call_source_unread(world *w) { return atmsae_source_unread(w->source); }
static atmsae_status call_source_rewind(world *w) { return atmsae_source_rewind(w->source); }
static atmsae_status call_forward(world *w) { return forward(w, w->codes); }
static atmsae_status call_gradients_create(world *w)
{
    CREATE(gradients, atmsae_gradients_create(w->model, &w->gradients));
}
/* Handles without a place in the world are made, seen and destroyed. */
#define CREATE_SHORTLY(name, ...)                                                              \
    static atmsae_status call_##name##_create(world *w)                                        \
    {                                                                                          \
        atmsae_##name##_config c;                                                              \
        atmsae_##name##_config_init(&c, sizeof c);                                             \
        __VA_ARGS__                                                                            \
        if (status < 0) ck_assert_ptr_null(made);                                              \
        else atmsae_##name##_destroy(made);                                                    \
        return status;                                                                         \
    }
CREATE_SHORTLY(optimizer, atmsae_optimizer *made = (void *)(uintptr_t)1;
               atmsae_status status = atmsae_optimizer_create(w->model, &c, &made);)
CREATE_SHORTLY(tracker, c.d_sae = F; atmsae_tracker *made = (void *)(uintptr_t)1;
               atmsae_status status = atmsae_tracker_create(w->ctx, &c, &made);)
CREATE_SHORTLY(masker, c.d_sae = F; c.kind = ATMSAE_MASK_PERMUTED; atmsae_masker *made = (void *)(uintptr_t)1;
               atmsae_status status = atmsae_masker_create(w->ctx, &c, &made);)
static atmsae_status call_metrics_create(world *w) { CREATE(metrics, atmsae_metrics_create(w->model, &w->metrics)); }
static atmsae_status call_metrics_add(world *w) { return atmsae_metrics_add(w->metrics, &w->batch); }
static atmsae_status call_absorption_create(world *w) { CREATE(absorption, create_absorption(w, &w->absorption)); }
static atmsae_status call_absorption_score(world *w)
{
    w->score.size = sizeof w->score;
    return atmsae_absorption_score(w->absorption, w->model, &w->score, NULL);
}
static atmsae_status call_synth_create(world *w) { CREATE(synth, create_synth(w, &w->synth)); }
static atmsae_status call_synth_rows(world *w) { return atmsae_synth_rows(w->synth, 3, N, w->out, w->active); }
static atmsae_status call_synth_score(world *w)
{
    w->synth_score.size = sizeof w->synth_score;
    return atmsae_synth_score(w->synth, w->model, 0, 50, &w->synth_score);
}

/* ---- of eval.h */

/* Remembers a result, if there is one. */
static atmsae_status keep(world *w, atmsae_status status, const void *result, size_t bytes)
{
    if (status == ATMSAE_OK) w->kept = ams_crc64(w->kept, result, bytes);
    return status;
}
static atmsae_status call_absorption_measure(world *w)
{
    atmsae_absorption_measures r = {.size = sizeof r};
    return keep(w, atmsae_absorption_measure(w->absorption, w->model, &r, NULL, NULL), &r, sizeof r);
}
static atmsae_status call_probing_create(world *w) { CREATE(probing, create_probing(w, &w->probing)); }
static atmsae_status call_probing_score(world *w)
{
    atmsae_probing_entry r[4] = {0};
    return keep(w, atmsae_probing_score(w->probing, w->model, r), r, sizeof r);
}
static atmsae_status call_probing_baseline(world *w)
{
    atmsae_probing_entry r[4] = {0};
    return keep(w, atmsae_probing_baseline(w->probing, r), r, sizeof r);
}
static atmsae_status call_model_similarity(world *w)
{
    double mean;
    return keep(w, atmsae_model_similarity(w->model, ATMSAE_W_DEC, NULL, &mean), &mean, sizeof mean);
}
static atmsae_status call_model_neighbours(world *w)
{
    uint32_t latents[2 * F];
    return keep(w, atmsae_model_neighbours(w->model, ATMSAE_W_ENC, 2, latents, w->out), latents, sizeof latents);
}
static atmsae_status call_top_rows_create(world *w) { CREATE(top, atmsae_top_rows_create(w->ctx, F, 3, &w->top)); }
/* Its loss grows with what the replacement leaves out. */
static int32_t run_lm(void *opaque, uint64_t number, const float *replacement, atmsae_lm_output *out)
{
    world *w = opaque;
    out->n_tokens = N - number;
    out->activations = w->x;
    out->ce = w->ce;
    for (uint64_t r = 0; r < N; r++) {
        w->ce[r] = 1;
        for (uint64_t j = r * D; replacement && r < N - number && j < (r + 1) * D; j++)
            w->ce[r] += (w->x[j] - replacement[j]) * (w->x[j] - replacement[j]);
    }
    return 0;
}
static atmsae_status call_model_language(world *w)
{
    const atmsae_language_model lm = {.size = sizeof lm, .n_batches = 2, .opaque = w, .run = run_lm};
    atmsae_lm_result r = {.size = sizeof r};
    return keep(w, atmsae_model_language(w->model, &lm, &r), &r, sizeof r);
}
static atmsae_status call_model_match(world *w)
{
    atmsae_match_result r = {.size = sizeof r};
    return keep(w, atmsae_model_match(w->model, w->wider, ATMSAE_W_DEC, 0, NULL, &r), &r, sizeof r);
}
static atmsae_status call_model_hedging(world *w)
{
    atmsae_hedging_result r = {.size = sizeof r};
    return keep(w, atmsae_model_hedging(w->model, w->wider, 1, &r), &r, sizeof r);
}
static atmsae_status create_tree(world *w)
{
    static const double probability[] = {0.4, 0.3, 0.3, 0.2};
    static const uint64_t parent[] = {0, 0, 0, 3};
    static const int32_t children[] = {ATMSAE_CHILDREN_KEEP_ONE, 0, 0, 0};
    atmsae_tree_config c;
    atmsae_tree_config_init(&c, sizeof c);
    c.d = D;
    c.n_features = sizeof parent / sizeof *parent;
    c.probability = probability;
    c.parent = parent;
    c.children = children;
    c.compensate = 1;
    c.orthogonal_steps = 1;
    c.correlation_rank = 2;
    return atmsae_synth_create_tree(w->ctx, &c, &w->synth);
}
static void with_tree(world *w)
{
    train(w, 4);
    ok(w, create_tree(w));
}
static atmsae_status call_create_tree(world *w) { CREATE(synth, create_tree(w)); }
static atmsae_status call_create_preset(world *w)
{
    CREATE(synth, atmsae_synth_create_preset(w->ctx, ATMSAE_SYNTH_CHANIN, 0, &w->synth));
}
static atmsae_status call_synth_truth(world *w)
{
    atmsae_truth_result r = {.size = sizeof r};
    return keep(w, atmsae_synth_truth(w->synth, w->model, 0, 300, &r), &r, sizeof r);
}

/* ---- of files */

static atmsae_status call_tensors_open(world *w)
{
    CREATE(opened, atmsae_tensors_open(w->ctx, path_of("saved.safetensors"), &w->opened));
}
static atmsae_status call_tensors_read_f32(world *w) { return atmsae_tensors_read_f32(w->tensors, 0, w->out, N * D); }
static atmsae_status call_tensors_read_i64(world *w) { return atmsae_tensors_read_i64(w->tensors, 0, w->integers, N); }

static const variant plain = {.activation = ATMSAE_BATCHTOPK, .aux = 1};
static const variant each_activation[] = {
    {.activation = ATMSAE_RELU},
    {.activation = ATMSAE_TOPK, .aux = 1},
    {.activation = ATMSAE_BATCHTOPK, .aux = 1},
    {.activation = ATMSAE_BATCHTOPK, .prefixes = 1, .per_row = 1},
    {.activation = ATMSAE_BATCHTOPK, .transcoder = 1, .mask = ATMSAE_MASK_PERMUTED, .b_dec_init = ATMSAE_B_DEC_MEDIAN},
    {.activation = ATMSAE_JUMPRELU, .aux = 1},
    {.activation = ATMSAE_JUMPRELU_TANH, .per_row = 1},
    {.activation = ATMSAE_GATED, .per_row = 1, .second = 1},
    {.activation = ATMSAE_GATED, .aux = 1, .mask = ATMSAE_MASK_UNIFORM},
};
enum { ACTIVATIONS = sizeof each_activation / sizeof *each_activation };

typedef struct call_case {
    const char *function;
    void (*setup)(world *w);
    atmsae_status (*call)(world *w);
    bool each;     /* for each activation */
    bool optional; /* what cannot be had is done without: the call may succeed, or may need no memory */
} call_case;

static const call_case cases[] = {
    {"atmsae_context_create", nothing, call_context_create, false, true},
    {"atmsae_model_create", nothing, call_model_create, true, false},
    {"atmsae_model_prepare", nothing, call_model_prepare, true, false},
    {"atmsae_codes_create", nothing, call_codes_create, false, false},
    {"atmsae_encode", with_codes, call_encode, true, false},
    {"atmsae_encode", with_forward, call_encode, true, true},
    {"atmsae_encode", with_codes, call_encode_few, true, false},
    {"atmsae_model_calibrate", nothing, call_model_calibrate, true, true},
    {"atmsae_model_save", trained, call_model_save, true, false},
    {"atmsae_model_load", trained, call_model_load, false, false},
    {"atmsae_trainer_create", nothing, call_trainer_create, true, false},
    {"atmsae_trainer_prepare", nothing, call_trainer_prepare, false, false},
    {"atmsae_trainer_step", nothing, call_trainer_step, true, false},
    {"atmsae_trainer_step", trained, call_trainer_step, true, true},
    {"atmsae_trainer_step", with_bad_rows, call_trainer_step, true, false},
    {"atmsae_trainer_prepare", with_limit, call_trainer_prepare, true, false},
    {"atmsae_trainer_step", with_outlier, call_trainer_step, true, false},
    {"atmsae_trainer_save", with_outlier, call_trainer_save, false, false},
    {"atmsae_batch_norms", with_limit, call_batch_norms, false, false},
    {"atmsae_batch_limit", with_limit, call_batch_limit, false, false},
    {"atmsae_trainer_calibrate", trained, call_trainer_calibrate, false, false},
    {"atmsae_trainer_save", trained, call_trainer_save, true, false},
    {"atmsae_trainer_save", in_the_middle, call_trainer_save, false, false},
    {"atmsae_trainer_load", trained, call_trainer_load, false, false},
    {"atmsae_trainer_load", with_rows, call_trainer_load, false, false},
    {"atmsae_source_create", trained, call_source_create, false, false},
    {"atmsae_source_add_memory", with_source, call_source_add_memory, false, false},
    {"atmsae_source_add_memory", with_rows, call_source_add_memory, false, true},
    {"atmsae_source_add_file", with_source, call_source_add_file, false, false},
    {"atmsae_source_add_file", with_rows, call_source_add_file, false, false},
    {"atmsae_source_add_target_memory", with_rows, call_source_add_target_memory, false, false},
    {"atmsae_source_add_target_file", with_file, call_source_add_target_file, false, false},
    {"atmsae_source_next", with_pairs, call_source_next, false, false},
    {"atmsae_source_add_callback", with_source, call_source_add_callback, false, false},
    {"atmsae_source_next", with_rows, call_source_next, false, false},
    {"atmsae_source_next", in_the_middle, call_source_next, false, true},
    {"atmsae_source_next", with_file, call_source_next, false, false},
    {"atmsae_source_next", with_callback, call_source_next, false, false},
    {"atmsae_source_unread", in_the_middle, call_source_unread, false, false},
    {"atmsae_source_rewind", in_the_middle, call_source_rewind, false, true},
    {"atmsae_forward", with_codes, call_forward, true, false},
    {"atmsae_gradients_create", nothing, call_gradients_create, true, false},
    {"atmsae_optimizer_create", nothing, call_optimizer_create, true, false},
    {"atmsae_tracker_create", nothing, call_tracker_create, false, false},
    {"atmsae_masker_create", nothing, call_masker_create, false, false},
    {"atmsae_metrics_create", trained, call_metrics_create, false, false},
    {"atmsae_metrics_add", with_metrics, call_metrics_add, true, true},
    {"atmsae_absorption_create", nothing, call_absorption_create, false, false},
    {"atmsae_absorption_score", with_absorption, call_absorption_score, true, false},
    {"atmsae_synth_create", nothing, call_synth_create, false, false},
    {"atmsae_synth_rows", with_synth, call_synth_rows, false, true},
    {"atmsae_synth_score", with_synth, call_synth_score, true, false},
    {"atmsae_absorption_measure", with_absorption, call_absorption_measure, false, false},
    {"atmsae_probing_create", trained, call_probing_create, false, false},
    {"atmsae_probing_score", with_probing, call_probing_score, false, false},
    {"atmsae_probing_baseline", with_probing, call_probing_baseline, false, false},
    {"atmsae_model_similarity", trained, call_model_similarity, false, false},
    {"atmsae_model_neighbours", trained, call_model_neighbours, false, false},
    {"atmsae_top_rows_create", nothing, call_top_rows_create, false, false},
    {"atmsae_model_language", trained, call_model_language, false, false},
    {"atmsae_model_match", with_wider, call_model_match, false, false},
    {"atmsae_model_hedging", with_wider, call_model_hedging, false, false},
    {"atmsae_synth_create_tree", nothing, call_create_tree, false, false},
    {"atmsae_synth_create_preset", nothing, call_create_preset, false, false},
    {"atmsae_synth_rows", with_tree, call_synth_rows, false, true},
    {"atmsae_synth_truth", with_tree, call_synth_truth, false, false},
    {"atmsae_tensors_open", trained, call_tensors_open, false, false},
    {"atmsae_tensors_read_f32", with_tensors, call_tensors_read_f32, false, true},
    {"atmsae_tensors_read_i64", with_integers, call_tensors_read_i64, false, true},
};
enum { CASES = sizeof cases / sizeof *cases };

/* All others, which allocate nothing: checked in others_allocate_nothing. */
static const char *const others[] = {
    "atmsae_model_get_origin",
    "atmsae_version_number", "atmsae_version_string", "atmsae_status_name", "atmsae_last_error", "atmsae_copy_error",
    "atmsae_context_threads", "atmsae_context_cpu", "atmsae_request_stop", "atmsae_clear_stop", "atmsae_stop_requested",
    "atmsae_decode", "atmsae_model_view", "atmsae_model_set", "atmsae_codes_get", "atmsae_trainer_begin_cooldown",
    "atmsae_trainer_steps_done", "atmsae_trainer_model", "atmsae_trainer_tracker", "atmsae_trainer_masker",
    "atmsae_trainer_optimizer", "atmsae_trainer_set_total_rows", "atmsae_source_d", "atmsae_source_d_target", "atmsae_source_rows",
    "atmsae_trainer_bad_rows", "atmsae_trainer_outlier_rows", "atmsae_trainer_norm_limit", "atmsae_trainer_set_skip_bad_rows", "atmsae_source_locate",
    "atmsae_backward", "atmsae_gradients_get", "atmsae_gradients_sums", "atmsae_optimizer_step", "atmsae_optimizer_lr",
    "atmsae_tracker_observe", "atmsae_tracker_importance", "atmsae_tracker_average", "atmsae_tracker_dead",
    "atmsae_tracker_dead_window", "atmsae_masker_update", "atmsae_masker_draw", "atmsae_masker_mask", "atmsae_mask_test",
    "atmsae_masker_mu", "atmsae_masker_sigma", "atmsae_masker_theta", "atmsae_masker_rate", "atmsae_masker_mean_p",
    "atmsae_masker_p", "atmsae_masker_begin_cooldown", "atmsae_metrics_get", "atmsae_metrics_counts",
    "atmsae_synth_features", "atmsae_synth_directions", "atmsae_tensors_count", "atmsae_tensors_info", "atmsae_tensors_find",
    "atmsae_tensors_close", "atmsae_probing_tasks", "atmsae_metrics_get_details", "atmsae_metrics_histogram", "atmsae_metrics_merge",
    "atmsae_top_rows_add", "atmsae_top_rows_merge", "atmsae_top_rows_get",
};

/* ---- each allocation fails --------------------------------------------------------------------------------- */

static long points;

/* The call without a failure: its result, and how many allocations it makes. */
static uint64_t undisturbed(const call_case *c, const variant *v, long *allocations)
{
    world w;
    start(&w, v);
    c->setup(&w);
    long before = w.m.calls;
    ok(&w, c->call(&w));
    *allocations = w.m.calls - before;
    uint64_t sum = results(&w);
    stop(&w);
    return sum;
}

static void fail_each(const call_case *c, const variant *v)
{
    long allocations;
    const uint64_t expected = undisturbed(c, v, &allocations);
    ck_assert_msg(allocations > 0 || c->optional, "%s allocates nothing", c->function);
    for (int go_on = 0; go_on < 2; go_on++)
        for (long n = 1;; n++) {
            world w;
            start_on(&w, v, go_on ? 2 : 1);
            c->setup(&w);
            uint64_t before = state(&w);
            long calls = w.m.calls;
            w.m.go_on = go_on;
            w.m.fail_at = calls + n;
            atmsae_status status = c->call(&w);
            w.m.fail_at = 0;
            bool hit = w.m.refused > 0;
            points += hit;
            /* A growing array that cannot double takes what it needs, so one failure may go unseen. */
            if (hit && (status < 0 || (go_on && !c->optional))) {
                ck_assert_msg(status == ATMSAE_E_NOMEM, "%s, allocation %ld: %s, %s", c->function, n,
                              atmsae_status_name(status), atmsae_last_error(w.ctx));
                ck_assert_msg(c->call == call_context_create || strstr(atmsae_last_error(w.ctx), "memory"), "%s: \"%s\"",
                              c->function, atmsae_last_error(w.ctx));
                ck_assert_msg(state(&w) == before, "%s changed something, allocation %ld", c->function, n);
                ok(&w, c->call(&w));
            } else {
                ok(&w, status);
            }
            ck_assert_msg(results(&w) == expected, "%s gives something else after failure %ld", c->function, n);
            stop(&w);
            if (!hit) break;
        }
}

START_TEST(each_allocation_fails)
{
    const call_case *c = &cases[_i];
    for (int a = 0; a < (c->each ? ACTIVATIONS : 1); a++) {
        if (c->call == call_absorption_score && each_activation[a].transcoder) continue; /* of SAEs only */
        fail_each(c, c->each ? &each_activation[a] : &plain);
    }
    printf("%s: %ld failures\n", c->function, points);
}
END_TEST

/* ---- the rest allocates nothing ------------------------------------------------------------------------- */

START_TEST(others_allocate_nothing)
{
    world w;
    start(&w, &plain);
    with_forward(&w);
    ok(&w, atmsae_metrics_create(w.model, &w.metrics));
    ok(&w, atmsae_metrics_add(w.metrics, &w.batch));
    atmsae_metrics *more;
    ok(&w, atmsae_metrics_create(w.model, &more));
    atmsae_top_rows *top;
    ok(&w, atmsae_top_rows_create(w.ctx, F, 3, &w.top));
    ok(&w, atmsae_top_rows_create(w.ctx, F, 3, &top));
    ok(&w, create_source(&w, 4, &w.source));
    ok(&w, atmsae_source_add_memory(w.source, w.x, N, D, 0, ATMSAE_F32));
    ok(&w, atmsae_source_next(w.source, 3, w.out, &w.got));
    ok(&w, create_synth(&w, &w.synth));
    ok(&w, create_probing(&w, &w.probing));
    ok(&w, atmsae_tensors_open(w.ctx, path_of("saved.safetensors"), &w.tensors));
    const long calls = w.m.calls;
    w.m.limit = 1;
    /* Those that do more than return a field; in the order of the header. */
    float weights[F * D];
    uint64_t count, index;
    atmsae_model_config model = {.size = sizeof model};
    ok(&w, atmsae_model_get_config(w.model, &model));
    atmsae_model_origin origin = {.size = sizeof origin};
    ok(&w, atmsae_model_get_origin(w.model, &origin));
    memcpy(weights, atmsae_model_view(w.model, ATMSAE_W_DEC, &count), sizeof weights);
    ok(&w, atmsae_model_set(w.model, ATMSAE_W_DEC, weights, F * D));
    atmsae_codes_view view = {.size = sizeof view};
    ok(&w, atmsae_codes_get(w.codes, &view));
    ok(&w, atmsae_decode(w.model, w.codes, w.out, 0));
    ok(&w, atmsae_backward(w.model, w.codes, w.gradients));
    ok(&w, atmsae_trainer_begin_cooldown(w.trainer, 5));
    ok(&w, atmsae_trainer_set_total_rows(w.trainer, 1000 * N));
    ok(&w, atmsae_trainer_set_skip_bad_rows(w.trainer, 1));
    atmsae_trainer_config trainer = {.size = sizeof trainer};
    ok(&w, atmsae_trainer_get_config(w.trainer, &trainer));
    ok(&w, atmsae_gradients_get(w.gradients, ATMSAE_W_ENC, weights, F * D));
    atmsae_latent_sums sums = {.size = sizeof sums};
    ok(&w, atmsae_gradients_sums(w.gradients, &sums));
    ok(&w, atmsae_optimizer_step(w.optimizer, w.model, w.gradients, NULL));
    ok(&w, atmsae_tracker_observe(w.tracker, &sums));
    ok(&w, atmsae_masker_update(w.masker, atmsae_tracker_importance(w.tracker), F));
    ok(&w, atmsae_masker_draw(w.masker, 9));
    ok(&w, atmsae_masker_begin_cooldown(w.masker, 9, 9));
    atmsae_metrics_result result = {.size = sizeof result};
    ok(&w, atmsae_metrics_get(w.metrics, &result));
    atmsae_metrics_details details = {.size = sizeof details};
    ok(&w, atmsae_metrics_get_details(w.metrics, &details));
    atmsae_probing_task task = {.size = sizeof task};
    ok(&w, atmsae_probing_tasks(w.probing, &task));
    uint64_t bins[4], rows[3];
    ok(&w, atmsae_metrics_histogram(w.metrics, -3, 0, 4, bins));
    ok(&w, atmsae_metrics_merge(more, w.metrics));
    ok(&w, atmsae_top_rows_add(w.top, w.codes, 7));
    ok(&w, atmsae_top_rows_merge(top, w.top));
    ok(&w, atmsae_top_rows_get(top, 0, rows, weights, &count));
    atmsae_tensor_info info = {.size = sizeof info};
    ok(&w, atmsae_tensors_info(w.tensors, 0, &info));
    ok(&w, atmsae_tensors_find(w.tensors, info.name, &index));
    atmsae_row_origin from = {.size = sizeof from};
    ok(&w, atmsae_source_locate(w.source, 2, &from));
    ck_assert_int_eq(w.m.calls, calls);
    atmsae_metrics_destroy(more);
    atmsae_top_rows_destroy(top);
    stop(&w);
}
END_TEST

static bool listed(const char *name)
{
    const size_t length = strlen(name);
    const char *const ends[] = {"_init", "_destroy", "_get_config"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (length > strlen(ends[i]) && strcmp(name + length - strlen(ends[i]), ends[i]) == 0) return true;
    for (size_t i = 0; i < CASES; i++)
        if (strcmp(cases[i].function, name) == 0) return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i], name) == 0) return true;
    return false;
}

static int is_listed(const char *name, const char *gives)
{
    (void)gives;
    ck_assert_msg(listed(name), "%s is neither in `cases` nor in `others`", name);
    return 1;
}

START_TEST(the_headers_are_covered)
{
    const int at_least[] = {100, 20};
    ck_assert_int_gt(count_functions(_i, is_listed), at_least[_i]);
}
END_TEST

/* ---- sizes: what cannot be is asked for in full, or refused before ------------------------------------- */

/* E_LIMIT or E_ARG without a request, or E_NOMEM after one of at least so many bytes (more than any
 * product that wrapped around would give). */
static void too_much(world *w, const char *what, atmsae_status status, uint64_t at_least)
{
    if (status == ATMSAE_E_NOMEM)
        ck_assert_msg(w->m.refused == 0 || w->m.refused >= at_least, "%s: asked for %llu bytes only", what,
                      (unsigned long long)w->m.refused);
    else
        ck_assert_msg(status == ATMSAE_E_LIMIT || status == ATMSAE_E_ARG, "%s: %s", what, atmsae_status_name(status));
    ck_assert_str_ne(atmsae_last_error(w->ctx), "");
    w->m.refused = 0;
}

START_TEST(huge_shapes)
{
    world w;
    start(&w, &plain);
    w.m.limit = 1 << 20;
    const uint64_t widest = (uint64_t)1 << 22, most = INT32_MAX;

    atmsae_model_config c = model_config(&plain);
    c.n_prefixes = 0;
    const struct {
        const char *name;
        uint64_t d_in, d_out, d_sae, bytes;
    } models[] = {
        {"model", widest, 0, most, widest * most * 4},
        {"wide", widest, widest, 1, 0}, /* 16 MB */
        {"transcoder", 1, widest, most, most * 4},
        {"deep", 1, 0, most, most * 4},
        {"beyond d_in", widest * 8, 0, most, 0},
        {"beyond d_sae", 1, 0, UINT64_MAX, 0},
        {"wraps to 0", (uint64_t)1 << 33, 0, (uint64_t)1 << 31, 0},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        atmsae_model *model;
        c.d_in = models[i].d_in;
        c.d_out = models[i].d_out;
        c.d_sae = models[i].d_sae;
        c.k = 1;
        too_much(&w, models[i].name, atmsae_model_create(w.ctx, &c, &model), ams_max(models[i].bytes, (1 << 20) + 1));
        ck_assert_ptr_null(model);
        atmsae_trainer_config t;
        atmsae_trainer *trainer;
        atmsae_trainer_config_init(&t, sizeof t);
        t.model = &c;
        too_much(&w, models[i].name, atmsae_trainer_create(w.ctx, &t, &trainer), ams_max(models[i].bytes, (1 << 20) + 1));
    }

    for (uint64_t d_sae = most; d_sae; d_sae = d_sae == most ? UINT64_MAX / 8 + 2 : 0) {
        atmsae_tracker_config tc;
        atmsae_tracker *tracker;
        atmsae_tracker_config_init(&tc, sizeof tc);
        tc.d_sae = d_sae;
        too_much(&w, "tracker", atmsae_tracker_create(w.ctx, &tc, &tracker), most);
        atmsae_masker_config mc;
        atmsae_masker *masker;
        atmsae_masker_config_init(&mc, sizeof mc);
        mc.d_sae = d_sae;
        too_much(&w, "masker", atmsae_masker_create(w.ctx, &mc, &masker), most);
    }

    /* Batches: rows are looked at only after their memory was had. */
    const uint64_t rows[] = {most, (uint64_t)1 << 32, UINT64_MAX / 4, UINT64_MAX};
    ok(&w, atmsae_codes_create(w.ctx, &w.codes));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        atmsae_batch b = w.batch;
        b.n_rows = rows[i];
        too_much(&w, "encode", atmsae_model_set(w.model, ATMSAE_BATCH_THRESHOLD, &(float){1}, 1) < 0 ? ATMSAE_E_IO
                                   : atmsae_encode(w.model, &b, w.codes), most * D * 4);
        too_much(&w, "forward", atmsae_forward(w.model, &b, NULL, w.codes, NULL), most * D * 4);
        too_much(&w, "step", atmsae_trainer_step(w.trainer, &b, NULL), most * D * 4);
        too_much(&w, "prepare", atmsae_model_prepare(w.model, &b), most * 8);
        too_much(&w, "calibrate", atmsae_model_calibrate(w.model, &b), most * 4);
    }
    for (uint64_t ld = UINT64_MAX; ld > D; ld /= 16) { /* rows that lie outside of any memory */
        atmsae_batch b = w.batch;
        b.ld_x = ld;
        if (ld <= UINT64_MAX / 4 / N) break;
        too_much(&w, "ld_x", atmsae_encode(w.model, &b, w.codes), UINT64_MAX);
    }

    const uint64_t d_source[][2] = {{1 << 20, UINT64_MAX / 2}, {UINT64_MAX / 4, 4}, {(uint64_t)1 << 33, (uint64_t)1 << 31}};
    for (size_t i = 0; i < 3; i++) {
        atmsae_source *source;
        atmsae_status status = create_source(&w, d_source[i][1], &source);
        if (status == ATMSAE_OK) {
            status = atmsae_source_add_callback(source, d_source[i][0], feed, &to_feed);
            if (status == ATMSAE_OK) status = atmsae_source_next(source, 1, w.out, &w.got);
        }
        too_much(&w, "source", status, 1 << 21);
        atmsae_source_destroy(source);
        ok(&w, create_source(&w, 4, &source));
        too_much(&w, "source in memory",
                 atmsae_source_add_memory(source, w.x, UINT64_MAX / 2, d_source[i][0], 0, ATMSAE_F32), UINT64_MAX);
        atmsae_source_destroy(source);
    }

    const uint64_t synths[][3] = {{1 << 22, 1 << 20, 1 << 10}, {96, UINT64_MAX / 2, 3}, {96, (uint64_t)1 << 33, (uint64_t)1 << 31},
                                  {UINT64_MAX, 2, 2}, {96, 1, UINT64_MAX}};
    for (size_t i = 0; i < 5; i++) {
        atmsae_synth_config sc;
        atmsae_synth *synth;
        atmsae_synth_config_init(&sc, sizeof sc);
        sc.d = synths[i][0];
        sc.n_parents = synths[i][1];
        sc.n_children = synths[i][2];
        too_much(&w, "synth", atmsae_synth_create(w.ctx, &sc, &synth), 1 << 20);
    }

    int32_t labels[1] = {0};
    uint8_t is_train[1] = {1};
    const uint64_t probes[][3] = {{most, D, 3}, {UINT64_MAX / 2, D, 3}, {N, UINT64_MAX / 2, 3}, {(uint64_t)1 << 32, (uint64_t)1 << 32, 3}};
    for (size_t i = 0; i < 4; i++) {
        atmsae_absorption_config ac;
        atmsae_absorption *absorption;
        atmsae_absorption_config_init(&ac, sizeof ac);
        ac.n_classes = probes[i][2];
        atmsae_batch b = w.batch;
        b.n_rows = probes[i][0];
        if (b.n_rows == most) continue; /* labels are read before anything else */
        too_much(&w, "absorption", atmsae_absorption_create(w.ctx, &ac, &b, probes[i][1], labels, is_train, &absorption),
                 1 << 20);
    }
    w.m.limit = 0;
    train(&w, 2); /* all is well still */
    stop(&w);
}
END_TEST

/* ---- past the hook ------------------------------------------------------------------------------------------- */

int64_t bli_info_get_enable_openmp(void); /* blis.h is for lib/kernels/gemm.c only */
int64_t bli_info_get_enable_pthreads(void);

/* What the flavour of BLIS takes in each product and gives back. */
static long blis_a_product(void) { return bli_info_get_enable_openmp() ? 1 : bli_info_get_enable_pthreads() ? 2 : 0; }

/* Creating the context made BLIS take its memory: even the first products take no more. */
START_TEST(products_are_warm)
{
    if (!ALLOC_SHIM) return;
    enum { SIZE = 600, PRODUCTS = 2 }; /* a size that BLIS packs, and one that it does not */
    meter m = {.limit = 0};
    atmsae_context *ctx;
    float *a = calloc(SIZE * SIZE, sizeof *a), *c = calloc(SIZE * SIZE, sizeof *c);
    ck_assert(a && c && new_context(&m, 1, &ctx) == ATMSAE_OK);
    long before = alloc_shim_calls;
    ams_gemm_abt(SIZE, SIZE, SIZE, a, SIZE, a, SIZE, c, SIZE);
    ams_gemm_abt(8, 8, 8, a, SIZE, a, SIZE, c, SIZE);
    long stray = alloc_shim_calls - before;
    ck_assert_msg(stray <= PRODUCTS * blis_a_product(), "%d products made %ld allocations", PRODUCTS, stray);
    atmsae_context_destroy(ctx);
    free(a);
    free(c);
}
END_TEST

START_TEST(nothing_past_the_hook)
{
    if (!ALLOC_SHIM) return;
    for (int a = 0; a < ACTIVATIONS; a++) {
        world w;
        start(&w, &each_activation[a]);
        with_forward(&w);
        ok(&w, atmsae_backward(w.model, w.codes, w.gradients));
        ok(&w, call_trainer_step(&w));
        for (int rows = 2; rows <= N; rows += N - 2) {
            w.batch.n_rows = (uint64_t)rows; /* 2: without matrix products */
            atmsae_status status[15];
            long hook = w.m.calls, before = alloc_shim_calls;
            for (int i = 0; i < 15;) { /* Check's own macros allocate */
                status[i++] = call_trainer_step(&w);
                status[i++] = call_forward(&w);
                status[i++] = atmsae_backward(w.model, w.codes, w.gradients);
                status[i++] = call_encode(&w);
                status[i++] = atmsae_decode(w.model, w.codes, w.out, 0);
            }
            long stray = alloc_shim_calls - before - (w.m.calls - hook);
            for (int i = 0; i < 15; i++)
                ok(&w, status[i]);
            /* A product each worker and search; a search each step, forward and encode, two with AuxK. */
            long products = rows < 5 ? 0 : 3L * (3 + 2) * 2;
            ck_assert_msg(stray <= products * blis_a_product(), "activation %d: %ld allocations past the hook, at most %ld are BLIS's",
                          a, stray, products * blis_a_product());
        }
        stop(&w);
    }
}
END_TEST

/* A step that has its memory needs no more: malloc may fail for ever. Only BLIS built for threads
 * takes something in each product. */
START_TEST(a_warm_step_survives)
{
    if (!ALLOC_SHIM) return;
    world w;
    start(&w, &plain);
    train(&w, 6);
    if (bli_info_get_enable_pthreads()) {
        printf("BLIS for pthreads: products need memory\n");
        stop(&w);
        return;
    }
    alloc_shim_spare_libgomp = 1;
    alloc_shim_go_on = 1;
    alloc_shim_fail_at = alloc_shim_calls + 1;
    atmsae_status status[3];
    for (int i = 0; i < 3; i++)
        status[i] = call_trainer_step(&w);
    alloc_shim_fail_at = 0;
    for (int i = 0; i < 3; i++)
        ok(&w, status[i]);
    stop(&w);
}
END_TEST

/* ---- files that the calls read ------------------------------------------------------------------------------ */

static void write_npy(const char *name, const char *type, const char *shape, const void *data, size_t bytes)
{
    char header[128];
    int length = snprintf(header, sizeof header, "\x93NUMPY\x01%c\x76%c{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                          0, 0, type, shape);
    memset(header + length, ' ', sizeof header - (size_t)length);
    header[sizeof header - 1] = '\n';
    FILE *file = fopen(path_of(name), "wb");
    ck_assert(file && fwrite(header, 1, sizeof header, file) == sizeof header && fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
}

static void write_files(void)
{
    strcpy(folder, "/tmp/test_alloc.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    world w;
    start(&w, &plain);
    int64_t integers[N];
    for (int i = 0; i < N; i++)
        integers[i] = i * i;
    write_npy("rows.npy", "<f4", "(12, 6)", w.x, sizeof w.x);
    write_npy("integers.npy", "<i8", "(12,)", integers, sizeof integers);
    in_the_middle(&w);
    ok(&w, atmsae_model_save(w.model, path_of("saved"), NULL));
    ok(&w, atmsae_trainer_save(w.trainer, w.source, path_of("saved.safetensors")));
    ok(&w, atmsae_model_save(w.model, path_of("sae"), NULL));
    ok(&w, atmsae_trainer_save(w.trainer, NULL, path_of("checkpoint.safetensors")));
    stop(&w);
}

static void remove_files(void)
{
    const char *const names[] = {"sae/cfg.json", "sae/sae_weights.safetensors", "sae", "saved/cfg.json",
                                 "saved/sae_weights.safetensors", "saved", "saved.safetensors", "checkpoint.safetensors",
                                 "rows.npy", "integers.npy", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_msg(remove(path_of(names[i])) == 0, "%s/%s: %s", folder, names[i], strerror(errno));
}

int main(void)
{
    Suite *suite = suite_create("alloc");
    TCase *tcase = tcase_create("alloc");
    tcase_add_checked_fixture(tcase, write_files, remove_files); /* fails if a call left a file behind */
    tcase_set_timeout(tcase, 280);
    suite_add_tcase(suite, tcase);
    tcase_add_loop_test(tcase, each_allocation_fails, 0, CASES);
    tcase_add_test(tcase, others_allocate_nothing);
    tcase_add_loop_test(tcase, the_headers_are_covered, 0, 2);
    tcase_add_test(tcase, huge_shapes);
    tcase_add_test(tcase, products_are_warm);
    tcase_add_test(tcase, nothing_past_the_hook);
    tcase_add_test(tcase, a_warm_step_survives);
    return run_all(suite);
}
