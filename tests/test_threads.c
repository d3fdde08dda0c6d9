/* SPDX-License-Identifier: MIT
 *
 * Threads: what may overlap gives the bits of a serial run; what may not gives E_STATE and changes
 * nothing, be it another thread or a callback that calls back in; a signal stops training.
 */
#include "handles.h"
#include "sae/sae.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

enum { THREADS = 4 };

/* ---- what may overlap --------------------------------------------------------------------------- */

typedef struct reader {
    const atmsae_model *model;
    atmsae_codes *codes;
    const float *x;
    long rounds;
    uint64_t first, hash; /* of the first round and of the last; rounds that differ leave first != hash */
    float out[N * D];
} reader;

static void *read_model(void *arg)
{
    reader *r = arg;
    const atmsae_batch batch = batch_of(r->x, N);
    for (long i = 0; i < r->rounds && (i == 0 || r->hash == r->first); i++) {
        ck_assert_int_eq(atmsae_encode(r->model, &batch, r->codes), ATMSAE_OK);
        ck_assert_int_eq(atmsae_decode(r->model, r->codes, r->out, 0), ATMSAE_OK);
        r->hash = hash_bytes(hash_codes(r->codes), r->out, sizeof r->out);
        if (i == 0) r->first = r->hash;
    }
    return NULL;
}

/* _i: the activation. One model and one context, each thread with codes of its own. */
START_TEST(concurrent_encode)
{
    float x[THREADS][N * D];
    atmsae_context *ctx = new_context(3);
    atmsae_trainer *trainer = new_trainer(ctx, _i);
    fill_rows(x[0], N, 1);
    train(ctx, trainer, 3, x[0]);
    static reader readers[THREADS];
    uint64_t serial[THREADS];
    for (int t = 0; t < THREADS; t++) {
        fill_rows(x[t], N, (uint64_t)t + 1);
        readers[t] = (reader){.model = atmsae_trainer_model(trainer), .x = x[t], .rounds = 1};
        ok(atmsae_codes_create(ctx, &readers[t].codes), ctx);
        read_model(&readers[t]);
        serial[t] = readers[t].hash;
        readers[t].rounds = 50 * scale();
    }
    pthread_t threads[THREADS];
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, read_model, &readers[t]), 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    for (int t = 0; t < THREADS; t++) {
        ck_assert_uint_eq(readers[t].first, serial[t]);
        ck_assert_uint_eq(readers[t].hash, serial[t]);
        if (t > 0) ck_assert_uint_ne(serial[t], serial[0]);
        atmsae_codes_destroy(readers[t].codes);
    }
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
}
END_TEST

typedef struct training {
    atmsae_context *ctx;
    atmsae_trainer *trainer;
    const float *x;
} training;

static void *train_alone(void *arg)
{
    training *t = arg;
    train(t->ctx, t->trainer, 12, t->x);
    return NULL;
}

/* Trainers of one context, each of another activation, all at once. */
START_TEST(concurrent_trainers)
{
    float x[N * D];
    fill_rows(x, N, 5);
    training runs[THREADS];
    uint64_t serial[THREADS];
    atmsae_context *ctx = new_context(3);
    for (int t = 0; t < THREADS; t++) {
        runs[t] = (training){ctx, new_trainer(ctx, ATMSAE_TOPK + t), x};
        train_alone(&runs[t]);
        serial[t] = hash_trainer(runs[t].trainer);
        atmsae_trainer_destroy(runs[t].trainer);
        runs[t].trainer = new_trainer(ctx, ATMSAE_TOPK + t);
    }
    pthread_t threads[THREADS];
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, train_alone, &runs[t]), 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    for (int t = 0; t < THREADS; t++) {
        ck_assert_uint_eq(hash_trainer(runs[t].trainer), serial[t]);
        atmsae_trainer_destroy(runs[t].trainer);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- what may not --------------------------------------------------------------------------------- */

typedef struct contender {
    atmsae_trainer *trainer;
    const float *x;
    atomic_long *accepted, *refused;
    long wanted;
} contender;

static void *contend(void *arg)
{
    const contender *c = arg;
    const atmsae_batch batch = batch_of(c->x, N);
    /* Relaxed: the test's own counters must not order what the library is to order. */
    while (atomic_load_explicit(c->accepted, memory_order_relaxed) < c->wanted) {
        atmsae_status status = atmsae_trainer_step(c->trainer, &batch, NULL);
        ck_assert(status == ATMSAE_OK || status == ATMSAE_E_STATE);
        atomic_fetch_add_explicit(status == ATMSAE_OK ? c->accepted : c->refused, 1, memory_order_relaxed);
    }
    return NULL;
}

/* Threads fight over one trainer: the calls that were let in add up to a run of one thread. */
START_TEST(one_trainer_many_threads)
{
    float x[N * D];
    fill_rows(x, N, 3);
    atmsae_context *ctx = new_context(2);
    atmsae_trainer *trainer = new_trainer(ctx, ATMSAE_BATCHTOPK), *serial = new_trainer(ctx, ATMSAE_BATCHTOPK);
    train(ctx, trainer, 0, x);
    atomic_long accepted = 0, refused = 0;
    const contender c = {trainer, x, &accepted, &refused, 100 * scale()};
    pthread_t threads[THREADS];
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, contend, (void *)(uintptr_t)&c), 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    ck_assert_int_gt(atomic_load(&refused), 0);
    ck_assert_uint_eq(atmsae_trainer_steps_done(trainer), (uint64_t)atomic_load(&accepted));
    train(ctx, serial, (uint64_t)atomic_load(&accepted), x);
    ck_assert_uint_eq(hash_trainer(trainer), hash_trainer(serial));
    atmsae_trainer_destroy(serial);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
}
END_TEST

/* A set of handles, and a question to them that is asked from inside a call: the hooks for memory and
 * log messages and the source's callback are where a call can be caught at work. */
typedef struct scene {
    atmsae_context *ctx;
    atmsae_trainer *trainer;
    atmsae_model *model; /* not the trainer's */
    atmsae_codes *codes, *other_codes, *trained_codes;
    atmsae_gradients *gradients;
    atmsae_optimizer *optimizer;
    atmsae_metrics *metrics;
    atmsae_source *source;
    float x[N * D], out[N * D];
    atmsae_status (*ask)(struct scene *);
    atomic_int armed; /* the next hook asks; hooks for memory are called by worker threads, too */
    bool in_thread;   /* ask from another thread */
    bool asked;
    atmsae_status answer;
} scene;

static void *ask_now(void *arg)
{
    scene *s = arg;
    s->answer = s->ask(s);
    return NULL;
}

static void maybe_ask(scene *s)
{
    if (!atomic_exchange(&s->armed, 0)) return;
    s->asked = true;
    pthread_t thread;
    if (s->in_thread) {
        ck_assert_int_eq(pthread_create(&thread, NULL, ask_now, s), 0);
        pthread_join(thread, NULL);
    } else {
        ask_now(s);
    }
}

static void *hooked_alloc(void *opaque, size_t align, size_t bytes)
{
    maybe_ask(opaque);
    void *memory = NULL;
    return posix_memalign(&memory, align, bytes) == 0 ? memory : NULL;
}

static void hooked_free(void *opaque, void *memory)
{
    (void)opaque;
    free(memory);
}

static void hooked_log(void *opaque, int32_t level, const char *message)
{
    (void)level;
    (void)message;
    maybe_ask(opaque);
}

static int64_t hooked_read(void *opaque, float *out, uint64_t max_rows)
{
    scene *s = opaque;
    maybe_ask(s);
    uint64_t n = max_rows < N ? max_rows : N;
    memcpy(out, s->x, n * D * sizeof *out);
    return (int64_t)n;
}

static void set_scene(scene *s)
{
    memset(s, 0, sizeof *s);
    fill_rows(s->x, N, 4);
    const atmsae_allocator allocator = {s, hooked_alloc, hooked_free};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    config.allocator = &allocator;
    config.log = hooked_log;
    config.log_opaque = s;
    ck_assert_int_eq(atmsae_context_create(&config, &s->ctx), ATMSAE_OK);
    s->trainer = new_trainer(s->ctx, ATMSAE_BATCHTOPK);
    train(s->ctx, s->trainer, 2, s->x);
    atmsae_model_config model = {.size = sizeof model};
    ok(atmsae_model_get_config(atmsae_trainer_model(s->trainer), &model), s->ctx);
    ok(atmsae_model_create(s->ctx, &model, &s->model), s->ctx);
    const float threshold = 0.1f;
    ok(atmsae_model_set(s->model, ATMSAE_BATCH_THRESHOLD, &threshold, 1), s->ctx);
    ok(atmsae_codes_create(s->ctx, &s->codes), s->ctx);
    ok(atmsae_codes_create(s->ctx, &s->other_codes), s->ctx);
    ok(atmsae_codes_create(s->ctx, &s->trained_codes), s->ctx);
    const atmsae_batch batch = batch_of(s->x, N);
    ok(atmsae_forward(s->model, &batch, NULL, s->trained_codes, NULL), s->ctx);
    ok(atmsae_gradients_create(s->model, &s->gradients), s->ctx);
    ok(atmsae_optimizer_create(s->model, NULL, &s->optimizer), s->ctx);
    ok(atmsae_metrics_create(s->model, &s->metrics), s->ctx);
    atmsae_source_config source;
    atmsae_source_config_init(&source, sizeof source);
    source.shuffle_rows = 64;
    ok(atmsae_source_create(s->ctx, &source, &s->source), s->ctx);
    ok(atmsae_source_add_callback(s->source, D, hooked_read, s), s->ctx);
}

static void clear_scene(scene *s)
{
    atmsae_source_destroy(s->source);
    atmsae_metrics_destroy(s->metrics);
    atmsae_optimizer_destroy(s->optimizer);
    atmsae_gradients_destroy(s->gradients);
    atmsae_codes_destroy(s->trained_codes);
    atmsae_codes_destroy(s->other_codes);
    atmsae_codes_destroy(s->codes);
    atmsae_model_destroy(s->model);
    atmsae_trainer_destroy(s->trainer);
    atmsae_context_destroy(s->ctx);
}

/* A mask per row needs memory that a forward without one does not. */
static atmsae_status forward_with_mask(scene *s, const atmsae_batch *batch)
{
    static const double p[F];
    const atmsae_mask mask = {.size = sizeof mask, .d_sae = F, .p = p};
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    options.mask = &mask;
    return atmsae_forward(s->model, batch, &options, s->trained_codes, NULL);
}

#define CALL(name, call)                          \
    static atmsae_status name(scene *s)           \
    {                                             \
        const atmsae_batch batch = batch_of(s->x, N); \
        (void)batch;                              \
        return call;                              \
    }
CALL(model_encode, atmsae_encode(s->model, &batch, s->codes))
CALL(model_encode_other, atmsae_encode(s->model, &batch, s->other_codes))
CALL(model_decode, atmsae_decode(s->model, s->codes, s->out, 0))
CALL(model_calibrate, atmsae_model_calibrate(s->model, &batch))
CALL(model_prepare, atmsae_model_prepare(s->model, &batch))
CALL(model_set, atmsae_model_set(s->model, ATMSAE_B_DEC, s->x, D))
CALL(model_save, atmsae_model_save(s->model, "unreachable/folder", NULL))
CALL(model_config, atmsae_model_get_config(s->model, &(atmsae_model_config){.size = sizeof(atmsae_model_config)}))
CALL(codes_get, atmsae_codes_get(s->codes, &(atmsae_codes_view){.size = sizeof(atmsae_codes_view)}))
CALL(forward, atmsae_forward(s->model, &batch, NULL, s->codes, NULL))
CALL(backward, atmsae_backward(s->model, s->trained_codes, s->gradients))
CALL(trained_codes_forward, forward_with_mask(s, &batch))
CALL(trained_codes_encode, atmsae_encode(s->model, &batch, s->trained_codes))
CALL(gradients_get, atmsae_gradients_get(s->gradients, ATMSAE_B_DEC, s->out, D))
CALL(gradients_sums, atmsae_gradients_sums(s->gradients, &(atmsae_latent_sums){.size = sizeof(atmsae_latent_sums)}))
CALL(optimizer_step, atmsae_optimizer_step(s->optimizer, s->model, s->gradients, NULL))
CALL(metrics_add, atmsae_metrics_add(s->metrics, &batch))
CALL(metrics_get, atmsae_metrics_get(s->metrics, &(atmsae_metrics_result){.size = sizeof(atmsae_metrics_result)}))
CALL(source_next, atmsae_source_next(s->source, 8, s->out, &(uint64_t){0}))
CALL(source_rewind, atmsae_source_rewind(s->source))
CALL(source_add, atmsae_source_add_memory(s->source, s->x, N, D, 0, ATMSAE_F32))
CALL(trainer_save_source, atmsae_trainer_save(s->trainer, s->source, "unreachable/file"))
CALL(trainer_step, atmsae_trainer_step(s->trainer, &batch, NULL))
CALL(trainer_calibrate, atmsae_trainer_calibrate(s->trainer, &batch))
CALL(trainer_length, atmsae_trainer_set_total_rows(s->trainer, 500 * N))
CALL(trainer_cooldown, atmsae_trainer_begin_cooldown(s->trainer, 5))
CALL(trainer_save, atmsae_trainer_save(s->trainer, NULL, "unreachable/file"))
CALL(trainer_config,
     atmsae_trainer_get_config(s->trainer, &(atmsae_trainer_config){.size = sizeof(atmsae_trainer_config)}))
CALL(part_encode, atmsae_encode(atmsae_trainer_model(s->trainer), &batch, s->other_codes))
CALL(part_draw, atmsae_masker_draw(atmsae_trainer_masker(s->trainer), 1))
CALL(part_update, atmsae_masker_update(atmsae_trainer_masker(s->trainer),
                                       atmsae_tracker_importance(atmsae_trainer_tracker(s->trainer)), F))
CALL(part_observe, atmsae_tracker_observe(atmsae_trainer_tracker(s->trainer),
                                          &(atmsae_latent_sums){.size = sizeof(atmsae_latent_sums)}))
CALL(part_optimize, atmsae_optimizer_step(atmsae_trainer_optimizer(s->trainer), s->model, s->gradients, NULL))

/* During the first call the second one is made, and must be refused, or not. */
static const struct {
    const char *name;
    atmsae_status (*during)(scene *), (*ask)(scene *);
    atmsae_status answer;
} contests[] = {
    {"encode, encode: same codes", model_encode, model_encode, ATMSAE_E_STATE},
    {"encode, encode: other codes", model_encode, model_encode_other, ATMSAE_OK},
    {"encode, decode", model_encode, model_decode, ATMSAE_E_STATE},
    {"encode, codes_get", model_encode, codes_get, ATMSAE_E_STATE},
    {"encode, model_set", model_encode, model_set, ATMSAE_E_STATE},
    {"encode, calibrate", model_encode, model_calibrate, ATMSAE_E_STATE},
    {"encode, get_config", model_encode, model_config, ATMSAE_OK},
    {"forward, forward", forward, forward, ATMSAE_E_STATE},
    {"forward, model_set", forward, model_set, ATMSAE_E_STATE},
    {"forward, encode: other codes", forward, model_encode_other, ATMSAE_OK},
    {"calibrate, encode", model_calibrate, model_encode, ATMSAE_E_STATE},
    {"calibrate, save", model_calibrate, model_save, ATMSAE_E_STATE},
    {"calibrate, metrics_add", model_calibrate, metrics_add, ATMSAE_E_STATE},
    {"prepare, encode", model_prepare, model_encode, ATMSAE_E_STATE},
    {"prepare, get_config", model_prepare, model_config, ATMSAE_E_STATE},
    {"prepare, prepare", model_prepare, model_prepare, ATMSAE_E_STATE},
    {"forward, backward: same codes", trained_codes_forward, backward, ATMSAE_E_STATE},
    {"forward, encode: same codes", trained_codes_forward, trained_codes_encode, ATMSAE_E_STATE},
    {"metrics_add, metrics_add", metrics_add, metrics_add, ATMSAE_E_STATE},
    {"metrics_add, metrics_get", metrics_add, metrics_get, ATMSAE_E_STATE},
    {"metrics_add, model_set", metrics_add, model_set, ATMSAE_E_STATE},
    {"metrics_add, encode", metrics_add, model_encode, ATMSAE_OK},
    {"source_next, source_next", source_next, source_next, ATMSAE_E_STATE},
    {"source_next, rewind", source_next, source_rewind, ATMSAE_E_STATE},
    {"source_next, add_memory", source_next, source_add, ATMSAE_E_STATE},
    {"source_next, trainer_save", source_next, trainer_save_source, ATMSAE_E_STATE},
    {"source_next, trainer_step", source_next, trainer_step, ATMSAE_OK},
    {"set_total_rows, trainer_step", trainer_length, trainer_step, ATMSAE_E_STATE},
    {"set_total_rows, set_total_rows", trainer_length, trainer_length, ATMSAE_E_STATE},
    {"set_total_rows, begin_cooldown", trainer_length, trainer_cooldown, ATMSAE_E_STATE},
    {"set_total_rows, trainer_save", trainer_length, trainer_save, ATMSAE_E_STATE},
    {"set_total_rows, get_config", trainer_length, trainer_config, ATMSAE_E_STATE},
    {"set_total_rows, encode: its model", trainer_length, part_encode, ATMSAE_E_STATE},
    {"set_total_rows, draw: its masker", trainer_length, part_draw, ATMSAE_E_STATE},
    {"set_total_rows, update: its masker", trainer_length, part_update, ATMSAE_E_STATE},
    {"set_total_rows, observe: its tracker", trainer_length, part_observe, ATMSAE_E_STATE},
    {"set_total_rows, step: its optimizer", trainer_length, part_optimize, ATMSAE_E_STATE},
    {"trainer_calibrate, trainer_step", trainer_calibrate, trainer_step, ATMSAE_E_STATE},
};

/* _i: contest, and whether another thread asks or the callback itself. */
START_TEST(contest)
{
    static scene s;
    const int c = _i / 2;
    set_scene(&s);
    s.in_thread = _i % 2;
    s.ask = contests[c].ask;
    atomic_store(&s.armed, 1);
    uint64_t model = hash_model(s.model);
    atmsae_status status = contests[c].during(&s);
    ck_assert_msg(status == ATMSAE_OK, "%s: the first call: %s", contests[c].name, atmsae_last_error(s.ctx));
    ck_assert_msg(s.asked, "%s: no hook was called", contests[c].name);
    ck_assert_msg(s.answer == contests[c].answer, "%s: %s (%s)", contests[c].name, atmsae_status_name(s.answer),
                  atmsae_last_error(s.ctx));
    if (s.answer == ATMSAE_E_STATE) ck_assert_ptr_nonnull(strstr(atmsae_last_error(s.ctx), "in use by another call"));
    if (contests[c].ask == model_set) ck_assert_uint_eq(hash_model(s.model), model);
    /* Nothing stays claimed. */
    ok(model_encode(&s), s.ctx);
    ok(model_set(&s), s.ctx);
    ok(model_calibrate(&s), s.ctx);
    ok(codes_get(&s), s.ctx);
    ok(metrics_add(&s), s.ctx);
    ok(trainer_step(&s), s.ctx);
    ok(part_encode(&s), s.ctx);
    ok(source_next(&s), s.ctx);
    clear_scene(&s);
}
END_TEST

/* No call that uses gradients allocates or calls back, so the test claims them itself. */
START_TEST(gradients_in_use)
{
    static scene s;
    set_scene(&s);
    atmsae_status (*const calls[])(scene *) = {backward, gradients_get, gradients_sums, optimizer_step};
    const ams_claim claims[] = {AMS_CHANGES("gradients", s.gradients), {0}};
    ams_call call = {.claims = claims};
    ok(backward(&s), s.ctx);
    ok(ams_call_begin(&call, s.ctx, "test"), s.ctx);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        ck_assert_int_eq(calls[i](&s), ATMSAE_E_STATE);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(s.ctx), "gradients is in use by another call"));
    }
    ams_call_end(&call);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        ok(calls[i](&s), s.ctx);
    clear_scene(&s);
}
END_TEST

/* ---- the text of the last failure ----------------------------------------------------------------------- */

/* Threads fail on one context with texts of one letter each, and take the text each time: all of one
 * failure, whosever. A text that another thread wrote over while it was copied has two letters. */
static void *fail_and_copy(void *arg)
{
    atmsae_context *ctx = *(atmsae_context *const *)arg;
    static atomic_int threads;
    char mine[1000], text[1024];
    memset(mine, 'a' + atomic_fetch_add(&threads, 1), sizeof mine - 1);
    mine[sizeof mine - 1] = 0;
    for (int i = 0; i < 20000; i++) {
        ams_fail(ctx, ATMSAE_E_ARG, "%s", mine);
        const size_t length = atmsae_copy_error(ctx, text, sizeof text);
        if (length != sizeof mine - 1 || strspn(text, (char[]){text[0], 0}) != length) return arg;
    }
    return NULL;
}

START_TEST(error_texts_are_whole)
{
    atmsae_context *ctx = new_context(1);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fail_and_copy, &ctx), 0);
    for (int i = 0; i < 4; i++) {
        void *mixed;
        ck_assert_int_eq(pthread_join(threads[i], &mixed), 0);
        ck_assert_ptr_null(mixed);
    }
    atmsae_context_destroy(ctx);
}
END_TEST

/* ---- stop ----------------------------------------------------------------------------------------------- */

START_TEST(stop_changes_nothing)
{
    float x[N * D];
    fill_rows(x, N, 3);
    atmsae_context *ctx = new_context(2);
    atmsae_trainer *trainer = new_trainer(ctx, ATMSAE_TOPK);
    const atmsae_batch batch = batch_of(x, N);
    train(ctx, trainer, 2, x);
    ck_assert_int_eq(atmsae_stop_requested(ctx), 0);
    uint64_t before = hash_trainer(trainer);
    double rate = atmsae_masker_rate(atmsae_trainer_masker(trainer));
    atmsae_request_stop(ctx);
    ck_assert_int_eq(atmsae_stop_requested(ctx), 1);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(atmsae_trainer_step(trainer, &batch, NULL), ATMSAE_E_STOPPED);
    ck_assert_str_eq(atmsae_status_name(ATMSAE_E_STOPPED), "ATMSAE_E_STOPPED");
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "after 2 steps"));
    ck_assert_uint_eq(hash_trainer(trainer), before);
    ck_assert_double_eq(atmsae_masker_rate(atmsae_trainer_masker(trainer)), rate);
    ok(atmsae_trainer_calibrate(trainer, &batch), ctx);
    atmsae_clear_stop(ctx);
    ck_assert_int_eq(atmsae_stop_requested(ctx), 0);
    train(ctx, trainer, 1, x);
    atmsae_request_stop(NULL);
    atmsae_clear_stop(NULL);
    ck_assert_int_eq(atmsae_stop_requested(NULL), 0);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
}
END_TEST

static atmsae_context *signalled;
static void on_signal(int number)
{
    (void)number;
    atmsae_request_stop(signalled);
}

/* A signal comes at any point of a step; the run that goes on after it is the one without it. */
START_TEST(stop_by_signal)
{
    float x[N * D];
    fill_rows(x, N, 3);
    atmsae_context *ctx = signalled = new_context(2);
    atmsae_trainer *trainer = new_trainer(ctx, ATMSAE_BATCHTOPK), *calm = new_trainer(ctx, ATMSAE_BATCHTOPK);
    const atmsae_batch batch = batch_of(x, N);
    train(ctx, trainer, 0, x);
    struct sigaction action = {.sa_handler = on_signal};
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    uint64_t done = 0;
    for (long i = 0; i < 20 * scale(); i++) {
        const struct itimerval soon = {.it_value = {.tv_usec = 500 + 137 * (i % 20)}};
        ck_assert_int_eq(setitimer(ITIMER_REAL, &soon, NULL), 0);
        atmsae_status status;
        while ((status = atmsae_trainer_step(trainer, &batch, NULL)) == ATMSAE_OK)
            done++;
        ck_assert_int_eq(status, ATMSAE_E_STOPPED);
        atmsae_clear_stop(ctx);
    }
    ck_assert_uint_eq(atmsae_trainer_steps_done(trainer), done);
    train(ctx, calm, done, x);
    ck_assert_uint_eq(hash_trainer(trainer), hash_trainer(calm));
    atmsae_trainer_destroy(calm);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, concurrent_encode, ATMSAE_RELU, ACTIVATIONS + 1);
    tcase_add_test(tests, concurrent_trainers);
    tcase_add_test(tests, one_trainer_many_threads);
    tcase_add_loop_test(tests, contest, 0, 2 * (int)(sizeof contests / sizeof *contests));
    tcase_add_test(tests, gradients_in_use);
    tcase_add_test(tests, error_texts_are_whole);
    tcase_add_test(tests, stop_changes_nothing);
    tcase_add_test(tests, stop_by_signal);
}

int main(void) { return run_suite("threads", add); }
