/* SPDX-License-Identifier: MIT
 *
 * Every struct of the public interface, from both sides of the ABI: callers whose struct is larger
 * than this library's (a newer header), as large, as small as in the struct's first release, or of no
 * known size.
 */
#include "suite.h"

#include <atmsae/eval.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D = 8, F = 16, N = 32, TAIL = 64, LARGEST = 4096 };

typedef struct world {
    atmsae_context *ctx;
    atmsae_model *model;
    atmsae_trainer *trainer;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    atmsae_synth *synth;
    atmsae_absorption *absorption;
    atmsae_metrics *metrics;
    atmsae_model *wider; /* more latents than model */
    atmsae_source *source;
    atmsae_tensors *tensors;
    atmsae_batch batch;
    float x[N * D];
    int32_t labels[N];
    uint8_t is_train[N];
    int8_t task[N];
    char dir[32];
} world;

typedef atmsae_status use(world *w, void *caller);

/* ---- what the library reads ----------------------------------------------------------------- */

#define CREATES(name, type, handle, call)                    \
    static atmsae_status name(world *w, void *caller)        \
    {                                                        \
        const type *config = caller;                         \
        handle *made = NULL;                                 \
        atmsae_status status = call;                         \
        ck_assert_int_eq(status == ATMSAE_OK, made != NULL); \
        handle##_destroy(made);                              \
        return (void)w, status;                              \
    }
CREATES(context, atmsae_context_config, atmsae_context, atmsae_context_create(config, &made))
CREATES(model, atmsae_model_config, atmsae_model, atmsae_model_create(w->ctx, config, &made))
CREATES(optimizer, atmsae_optimizer_config, atmsae_optimizer, atmsae_optimizer_create(w->model, config, &made))
CREATES(tracker, atmsae_tracker_config, atmsae_tracker, atmsae_tracker_create(w->ctx, config, &made))
CREATES(masker, atmsae_masker_config, atmsae_masker, atmsae_masker_create(w->ctx, config, &made))
CREATES(trainer, atmsae_trainer_config, atmsae_trainer, atmsae_trainer_create(w->ctx, config, &made))
CREATES(source, atmsae_source_config, atmsae_source, atmsae_source_create(w->ctx, config, &made))
CREATES(synth, atmsae_synth_config, atmsae_synth, atmsae_synth_create(w->ctx, config, &made))
CREATES(absorption, atmsae_absorption_config, atmsae_absorption,
        atmsae_absorption_create(w->ctx, config, &w->batch, D, w->labels, w->is_train, &made))

CREATES(probing, atmsae_probing_config, atmsae_probing,
        atmsae_probing_create(w->ctx, config, &w->batch, D, w->task, w->is_train, &made))
/* Trees make handles of another type's name. */
static atmsae_status tree(world *w, void *caller)
{
    atmsae_synth *made = NULL;
    atmsae_status status = atmsae_synth_create_tree(w->ctx, caller, &made);
    ck_assert_int_eq(status == ATMSAE_OK, made != NULL);
    atmsae_synth_destroy(made);
    return status;
}
static int32_t no_tokens(void *opaque, uint64_t batch, const float *replacement, atmsae_lm_output *out)
{
    return (void)opaque, (void)batch, (void)replacement, (void)out, 0;
}
static atmsae_status language_model(world *w, void *caller)
{
    atmsae_lm_result result = {.size = sizeof result};
    return atmsae_model_language(w->model, caller, &result);
}

static atmsae_status batch(world *w, void *caller) { return atmsae_encode(w->model, caller, w->codes); }
static atmsae_status save_options(world *w, void *caller) { return atmsae_model_save(w->model, w->dir, caller); }
static atmsae_status forward_options(world *w, void *caller)
{
    return atmsae_forward(w->model, &w->batch, caller, w->codes, NULL);
}
static atmsae_status mask(world *w, void *caller)
{
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    options.mask = caller;
    return atmsae_forward(w->model, &w->batch, &options, w->codes, NULL);
}
static atmsae_status observed_sums(world *w, void *caller)
{
    return atmsae_tracker_observe(atmsae_trainer_tracker(w->trainer), caller);
}

/* Their defaults, with what is required. */
static void fill_context(world *w, void *c) { (void)w, atmsae_context_config_init(c, sizeof(atmsae_context_config)); }
static void fill_model(world *w, void *c)
{
    (void)w;
    atmsae_model_config *config = c;
    atmsae_model_config_init(config, sizeof *config);
    config->d_in = D;
    config->d_sae = F;
    config->k = 4;
}
static void fill_optimizer(world *w, void *c) { (void)w, atmsae_optimizer_config_init(c, sizeof(atmsae_optimizer_config)); }
static void fill_tracker(world *w, void *c)
{
    (void)w;
    atmsae_tracker_config_init(c, sizeof(atmsae_tracker_config));
    ((atmsae_tracker_config *)c)->d_sae = F;
}
static void fill_masker(world *w, void *c)
{
    (void)w;
    atmsae_masker_config_init(c, sizeof(atmsae_masker_config));
    ((atmsae_masker_config *)c)->d_sae = F;
}
static void fill_trainer(world *w, void *c)
{
    static atmsae_model_config config;
    fill_model(w, &config);
    atmsae_trainer_config_init(c, sizeof(atmsae_trainer_config));
    ((atmsae_trainer_config *)c)->model = &config;
}
static void fill_source(world *w, void *c) { (void)w, atmsae_source_config_init(c, sizeof(atmsae_source_config)); }
static void fill_synth(world *w, void *c)
{
    (void)w;
    atmsae_synth_config_init(c, sizeof(atmsae_synth_config));
}
static void fill_absorption(world *w, void *c)
{
    (void)w;
    atmsae_absorption_config_init(c, sizeof(atmsae_absorption_config));
    ((atmsae_absorption_config *)c)->n_classes = 2;
}
static void fill_probing(world *w, void *c)
{
    (void)w;
    atmsae_probing_config_init(c, sizeof(atmsae_probing_config));
    ((atmsae_probing_config *)c)->n_tasks = 1;
}
static void fill_tree(world *w, void *c)
{
    static const double probability[] = {0.5, 0.5};
    atmsae_tree_config *config = c;
    (void)w;
    atmsae_tree_config_init(c, sizeof *config);
    config->d = D;
    config->n_features = 2;
    config->probability = probability;
}
static void fill_language(world *w, void *c)
{
    (void)w;
    memcpy(c, &(atmsae_language_model){.size = sizeof(atmsae_language_model), .run = no_tokens}, sizeof(atmsae_language_model));
}
static void fill_batch(world *w, void *c) { memcpy(c, &w->batch, sizeof w->batch); }
static void fill_save(world *w, void *c) { (void)w, atmsae_save_options_init(c, sizeof(atmsae_save_options)); }
static void fill_forward(world *w, void *c) { (void)w, atmsae_forward_options_init(c, sizeof(atmsae_forward_options)); }
static void fill_mask(world *w, void *c)
{
    memcpy(c, atmsae_masker_mask(atmsae_trainer_masker(w->trainer)), sizeof(atmsae_mask));
}
static void fill_sums(world *w, void *c)
{
    atmsae_latent_sums sums = {.size = sizeof sums};
    ck_assert_int_eq(atmsae_gradients_sums(w->gradients, &sums), ATMSAE_OK);
    memcpy(c, &sums, sizeof sums);
}

static const struct {
    const char *name;
    size_t size, first; /* now, and in the first release: a number here never changes (64-bit machines) */
    void (*fill)(world *, void *);
    use *read;
} inputs[] = {
#define IN(type, first, fill, read) {#type, sizeof(type), first, fill, read}
    IN(atmsae_context_config, 40, fill_context, context),
    IN(atmsae_model_config, 160, fill_model, model),
    IN(atmsae_batch, 64, fill_batch, batch),
    IN(atmsae_save_options, 24, fill_save, save_options),
    IN(atmsae_optimizer_config, 80, fill_optimizer, optimizer),
    IN(atmsae_tracker_config, 64, fill_tracker, tracker),
    IN(atmsae_masker_config, 80, fill_masker, masker),
    IN(atmsae_trainer_config, 64, fill_trainer, trainer),
    IN(atmsae_source_config, 32, fill_source, source),
    IN(atmsae_mask, 48, fill_mask, mask),
    IN(atmsae_forward_options, 40, fill_forward, forward_options),
    IN(atmsae_latent_sums, 48, fill_sums, observed_sums),
    IN(atmsae_absorption_config, 40, fill_absorption, absorption),
    IN(atmsae_synth_config, 96, fill_synth, synth),
    IN(atmsae_probing_config, 56, fill_probing, probing),
    IN(atmsae_tree_config, 128, fill_tree, tree),
    IN(atmsae_language_model, 32, fill_language, language_model),
};

/* ---- what the library writes ---------------------------------------------------------------- */

static atmsae_status get_model(world *w, void *c) { return atmsae_model_get_config(w->model, c); }
static atmsae_status get_origin(world *w, void *c) { return atmsae_model_get_origin(w->model, c); }
static atmsae_status get_trainer(world *w, void *c) { return atmsae_trainer_get_config(w->trainer, c); }
static atmsae_status get_codes(world *w, void *c) { return atmsae_codes_get(w->codes, c); }
static atmsae_status get_stats(world *w, void *c) { return atmsae_trainer_step(w->trainer, &w->batch, c); }
static atmsae_status get_loss(world *w, void *c) { return atmsae_forward(w->model, &w->batch, NULL, w->codes, c); }
static atmsae_status get_sums(world *w, void *c) { return atmsae_gradients_sums(w->gradients, c); }
static atmsae_status get_metrics(world *w, void *c) { return atmsae_metrics_get(w->metrics, c); }
static atmsae_status get_absorption(world *w, void *c) { return atmsae_absorption_score(w->absorption, w->model, c, NULL); }
static atmsae_status get_synth(world *w, void *c) { return atmsae_synth_score(w->synth, w->model, 0, N, c); }
static atmsae_status get_measures(world *w, void *c) { return atmsae_absorption_measure(w->absorption, w->model, c, NULL, NULL); }
static atmsae_status get_tasks(world *w, void *c)
{
    atmsae_probing_config config;
    fill_probing(w, &config);
    atmsae_probing *probing;
    ck_assert_int_eq(atmsae_probing_create(w->ctx, &config, &w->batch, D, w->task, w->is_train, &probing), ATMSAE_OK);
    atmsae_status status = atmsae_probing_tasks(probing, c);
    atmsae_probing_destroy(probing);
    return status;
}
static atmsae_status get_details(world *w, void *c) { return atmsae_metrics_get_details(w->metrics, c); }
static atmsae_status get_norms(world *w, void *c) { return atmsae_batch_norms(w->ctx, &w->batch, D, c); }
static atmsae_status get_lm(world *w, void *c)
{
    const atmsae_language_model lm = {.size = sizeof lm, .run = no_tokens};
    return atmsae_model_language(w->model, &lm, c);
}
static atmsae_status get_match(world *w, void *c) { return atmsae_model_match(w->model, w->wider, ATMSAE_W_DEC, 0, NULL, c); }
static atmsae_status get_hedging(world *w, void *c) { return atmsae_model_hedging(w->model, w->wider, 0, c); }
static atmsae_status get_truth(world *w, void *c) { return atmsae_synth_truth(w->synth, w->model, 0, N, c); }
static atmsae_status get_tensor(world *w, void *c) { return atmsae_tensors_info(w->tensors, 0, c); }

static atmsae_status get_row(world *w, void *c) { return atmsae_source_locate(w->source, 1, c); }

static const struct {
    const char *name;
    size_t size, first;
    use *write;
} outputs[] = {
#define OUT(type, first, write) {#type, sizeof(type), first, write}
    OUT(atmsae_model_config, 160, get_model),
    OUT(atmsae_trainer_config, 64, get_trainer),
    OUT(atmsae_model_origin, 32, get_origin),
    OUT(atmsae_codes_view, 48, get_codes),
    OUT(atmsae_step_stats, 120, get_stats),
    OUT(atmsae_loss, 72, get_loss),
    OUT(atmsae_latent_sums, 48, get_sums),
    OUT(atmsae_metrics_result, 80, get_metrics),
    OUT(atmsae_absorption_result, 64, get_absorption),
    OUT(atmsae_synth_result, 72, get_synth),
    OUT(atmsae_tensor_info, 96, get_tensor),
    OUT(atmsae_absorption_measures, 144, get_measures),
    OUT(atmsae_probing_task, 56, get_tasks),
    OUT(atmsae_metrics_details, 112, get_details),
    OUT(atmsae_lm_result, 72, get_lm),
    OUT(atmsae_match_result, 32, get_match),
    OUT(atmsae_hedging_result, 32, get_hedging),
    OUT(atmsae_truth_result, 152, get_truth),
    OUT(atmsae_row_origin, 32, get_row),
    OUT(atmsae_row_norms, 48, get_norms),
};

/* ---- a small world -------------------------------------------------------------------------- */

#define OK(call) ck_assert_int_eq(call, ATMSAE_OK)

static void open_world(world *w)
{
    memset(w, 0, sizeof *w);
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    OK(atmsae_context_create(&config, &w->ctx));
    uint32_t state = 1;
    for (int i = 0; i < N * D; i++) {
        state = state * 1664525u + 1013904223u;
        w->x[i] = (float)(state >> 8) / (float)(1 << 24) - 0.5f;
    }
    for (int i = 0; i < N; i++) {
        w->labels[i] = i & 1;
        w->task[i] = i & 1;
        w->is_train[i] = i % 4 < 2;
        w->x[i * D] += i & 1 ? 2 : -2;
    }
    atmsae_batch_init(&w->batch, sizeof w->batch);
    w->batch.n_rows = N;
    w->batch.x = w->x;

    atmsae_trainer_config trainer_config;
    fill_trainer(w, &trainer_config);
    OK(atmsae_trainer_create(w->ctx, &trainer_config, &w->trainer));
    OK(atmsae_trainer_step(w->trainer, &w->batch, NULL));
    w->model = atmsae_trainer_model(w->trainer);
    OK(atmsae_codes_create(w->ctx, &w->codes));
    OK(atmsae_gradients_create(w->model, &w->gradients));
    OK(atmsae_forward(w->model, &w->batch, NULL, w->codes, NULL));
    OK(atmsae_backward(w->model, w->codes, w->gradients));
    OK(atmsae_metrics_create(w->model, &w->metrics));
    OK(atmsae_metrics_add(w->metrics, &w->batch));
    atmsae_model_config model_config;
    fill_model(w, &model_config);
    model_config.d_sae = F + 3;
    OK(atmsae_model_create(w->ctx, &model_config, &w->wider));
    atmsae_synth_config synth_config;
    fill_synth(w, &synth_config);
    synth_config.d = D;
    synth_config.n_parents = 2;
    synth_config.n_children = 2;
    synth_config.n_independent = 2;
    OK(atmsae_synth_create(w->ctx, &synth_config, &w->synth));
    atmsae_absorption_config absorption_config;
    fill_absorption(w, &absorption_config);
    OK(atmsae_absorption_create(w->ctx, &absorption_config, &w->batch, D, w->labels, w->is_train, &w->absorption));
    float rows[2 * D];
    uint64_t got;
    atmsae_source_config source_config;
    fill_source(w, &source_config);
    OK(atmsae_source_create(w->ctx, &source_config, &w->source));
    OK(atmsae_source_add_memory(w->source, w->x, N, D, 0, ATMSAE_F32));
    OK(atmsae_source_next(w->source, 2, rows, &got));
    strcpy(w->dir, "structs-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    OK(atmsae_model_save(w->model, w->dir, NULL));
    char path[64];
    snprintf(path, sizeof path, "%s/sae_weights.safetensors", w->dir);
    OK(atmsae_tensors_open(w->ctx, path, &w->tensors));
}

static void close_world(world *w)
{
    char path[64];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", w->dir, i ? "cfg.json" : "sae_weights.safetensors");
        unlink(path);
    }
    rmdir(w->dir);
    atmsae_tensors_close(w->tensors);
    atmsae_source_destroy(w->source);
    atmsae_absorption_destroy(w->absorption);
    atmsae_model_destroy(w->wider);
    atmsae_synth_destroy(w->synth);
    atmsae_metrics_destroy(w->metrics);
    atmsae_gradients_destroy(w->gradients);
    atmsae_codes_destroy(w->codes);
    atmsae_trainer_destroy(w->trainer);
    atmsae_context_destroy(w->ctx);
}

static const size_t wrong_sizes[] = {0, 1, sizeof(size_t), LARGEST + 1, SIZE_MAX};

START_TEST(inputs_of_all_ages)
{
    world w;
    open_world(&w);
    _Alignas(16) unsigned char caller[1024];
    size_t *size = (size_t *)caller;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        const char *name = inputs[i].name;
        const size_t ours = inputs[i].size;
        memset(caller, 0, sizeof caller);
        inputs[i].fill(&w, caller);
        ck_assert_msg(*size == ours, "%s: size %zu", name, *size);
        ck_assert_msg(inputs[i].read(&w, caller) == ATMSAE_OK, "%s: %s", name, atmsae_last_error(w.ctx));
        *size = inputs[i].first; /* the oldest caller */
        ck_assert_msg(inputs[i].read(&w, caller) == ATMSAE_OK, "%s, oldest: %s", name, atmsae_last_error(w.ctx));
        *size = ours + TAIL; /* a newer caller that sets nothing new */
        ck_assert_msg(inputs[i].read(&w, caller) == ATMSAE_OK, "%s, newer: %s", name, atmsae_last_error(w.ctx));
        for (size_t at = ours; at < ours + TAIL; at += TAIL - 1) { /* ... and one that does */
            caller[at] = 1;
            ck_assert_msg(inputs[i].read(&w, caller) == ATMSAE_E_ABI, "%s: byte %zu is set", name, at);
            caller[at] = 0;
        }
        for (size_t s = 0; s < sizeof wrong_sizes / sizeof *wrong_sizes + 1; s++) {
            *size = s ? wrong_sizes[s - 1] : inputs[i].first - 1;
            ck_assert_msg(inputs[i].read(&w, caller) == ATMSAE_E_ABI, "%s: size %zu", name, *size);
        }
    }
    close_world(&w);
}
END_TEST

START_TEST(outputs_of_all_ages)
{
    world w;
    open_world(&w);
    _Alignas(16) unsigned char caller[1024], before[1024];
    size_t *size = (size_t *)caller;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        const char *name = outputs[i].name;
        const size_t ours = outputs[i].size;
        memset(caller, 0xA5, sizeof caller);
        *size = outputs[i].first; /* the oldest caller: nothing is written behind what it has */
        ck_assert_msg(outputs[i].write(&w, caller) == ATMSAE_OK, "%s, oldest: %s", name, atmsae_last_error(w.ctx));
        for (size_t at = outputs[i].first; at < sizeof caller; at++)
            ck_assert_msg(caller[at] == 0xA5, "%s, oldest: byte %zu was written", name, at);
        for (size_t grown = 0; grown <= TAIL; grown += TAIL) { /* a newer caller's fields stay as they were */
            *size = ours + grown;
            ck_assert_msg(outputs[i].write(&w, caller) == ATMSAE_OK, "%s: %s", name, atmsae_last_error(w.ctx));
            ck_assert_msg(*size == ours + grown, "%s: size %zu", name, *size);
            for (size_t at = ours; at < sizeof caller; at++)
                ck_assert_msg(caller[at] == 0xA5, "%s: byte %zu was written", name, at);
            memset(before, 0xA5, sizeof before);
            ck_assert_msg(memcmp(caller + sizeof *size, before, ours - sizeof *size) != 0, "%s: nothing written", name);
        }
        memset(caller, 0xA5, sizeof caller);
        for (size_t s = 0; s < sizeof wrong_sizes / sizeof *wrong_sizes + 1; s++) {
            *size = s ? wrong_sizes[s - 1] : outputs[i].first - 1;
            memcpy(before, caller, sizeof before);
            ck_assert_msg(outputs[i].write(&w, caller) == ATMSAE_E_ABI, "%s: size %zu", name, *size);
            ck_assert_msg(memcmp(before, caller, sizeof before) == 0, "%s: written despite size %zu", name, *size);
        }
    }
    close_world(&w);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("structs");
    TCase *tcase = tcase_create("ages");
    tcase_add_test(tcase, inputs_of_all_ages);
    tcase_add_test(tcase, outputs_of_all_ages);
    suite_add_tcase(s, tcase);
    return s;
}

int main(void)
{
    return run_all(suite());
}
