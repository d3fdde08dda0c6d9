/* SPDX-License-Identifier: MIT
 *
 * Calls that a caller should not have made: every function with each of its pointers NULL, every one in a
 * child process with what its parent made, and arguments that do not fit each other. A status and a text,
 * never a crash. The table is held to the headers.
 */
#include "handles.h"
#include "headers.h"

#include <atmsae/eval.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

void __gcov_dump(void) __attribute__((weak));

/* ---- a world: one of every handle ------------------------------------------------------------------ */

typedef struct world {
    int null; /* which pointer of a call is left out; 0: none */
    atmsae_context *ctx;
    atmsae_trainer *trainer, *fresh;
    atmsae_model *model, *wider;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    atmsae_optimizer *optimizer;
    atmsae_tracker *tracker;
    atmsae_masker *masker;
    atmsae_metrics *metrics, *more;
    atmsae_absorption *absorption;
    atmsae_probing *probing;
    atmsae_top_rows *top, *other_top;
    atmsae_synth *synth;
    atmsae_source *source;
    atmsae_tensors *tensors;
    atmsae_batch batch;
    atmsae_model_config model_config;
    atmsae_trainer_config trainer_config;
    atmsae_tracker_config tracker_config;
    atmsae_masker_config masker_config;
    atmsae_absorption_config absorption_config;
    atmsae_probing_config probing_config;
    atmsae_tree_config tree_config;
    atmsae_source_config source_config;
    atmsae_optimizer_config optimizer_config;
    atmsae_synth_config synth_config;
    atmsae_language_model lm;
    const uint8_t *keep; /* of the language model */
    char folder[64], file[128];
    float x[N * D], out[F * D];
    int32_t classes[N];
    int8_t labels[N];
    uint8_t is_train[N];
    /* What calls would fill. */
    union {
        atmsae_context *context;
        atmsae_model *model;
        atmsae_codes *codes;
        atmsae_trainer *trainer;
        atmsae_source *source;
        atmsae_gradients *gradients;
        atmsae_optimizer *optimizer;
        atmsae_tracker *tracker;
        atmsae_masker *masker;
        atmsae_metrics *metrics;
        atmsae_absorption *absorption;
        atmsae_probing *probing;
        atmsae_top_rows *top;
        atmsae_synth *synth;
        atmsae_tensors *tensors;
    } made;
    atmsae_model_origin origin;
    atmsae_row_origin row_origin;
    atmsae_row_norms norms;
    atmsae_codes_view view;
    atmsae_latent_sums sums;
    atmsae_metrics_result metrics_result;
    atmsae_metrics_details details;
    atmsae_absorption_result absorption_result;
    atmsae_absorption_measures measures;
    atmsae_probing_entry entries[8];
    atmsae_probing_task probing_task;
    atmsae_synth_result synth_result;
    atmsae_truth_result truth;
    atmsae_tensor_info info;
    atmsae_lm_result lm_result;
    atmsae_match_result match;
    atmsae_hedging_result hedging;
    uint64_t count;
    int64_t integers[4];
    uint32_t latents[F];
} world;

static int32_t run_lm(void *opaque, uint64_t number, const float *replacement, atmsae_lm_output *out)
{
    static float ce[N];
    world *w = opaque;
    (void)number, (void)replacement;
    out->n_tokens = N;
    out->activations = w->x;
    out->ce = ce;
    out->keep = w->keep;
    return 0;
}

static int64_t no_rows(void *opaque, float *out, uint64_t max_rows)
{
    (void)opaque, (void)out, (void)max_rows;
    return 0;
}

static void sizes(world *w)
{
    w->origin.size = sizeof w->origin, w->row_origin.size = sizeof w->row_origin, w->norms.size = sizeof w->norms, w->view.size = sizeof w->view, w->sums.size = sizeof w->sums;
    w->metrics_result.size = sizeof w->metrics_result, w->details.size = sizeof w->details;
    w->absorption_result.size = sizeof w->absorption_result, w->measures.size = sizeof w->measures;
    w->probing_task.size = sizeof w->probing_task;
    w->synth_result.size = sizeof w->synth_result, w->truth.size = sizeof w->truth, w->info.size = sizeof w->info;
    w->lm_result.size = sizeof w->lm_result, w->match.size = sizeof w->match, w->hedging.size = sizeof w->hedging;
}

static void configs(world *w)
{
    static const double probability[] = {0.5, 0.5};
    atmsae_model_config_init(&w->model_config, sizeof w->model_config);
    w->model_config.d_in = D;
    w->model_config.d_sae = F + 2;
    w->model_config.activation = ATMSAE_TOPK;
    w->model_config.k = 4;
    atmsae_trainer_config_init(&w->trainer_config, sizeof w->trainer_config);
    w->trainer_config.model = &w->model_config;
    w->trainer_config.batch_rows = N;
    w->trainer_config.total_rows = N;
    atmsae_tracker_config_init(&w->tracker_config, sizeof w->tracker_config);
    w->tracker_config.d_sae = F;
    atmsae_masker_config_init(&w->masker_config, sizeof w->masker_config);
    w->masker_config.d_sae = F;
    atmsae_absorption_config_init(&w->absorption_config, sizeof w->absorption_config);
    w->absorption_config.n_classes = 2;
    atmsae_probing_config_init(&w->probing_config, sizeof w->probing_config);
    w->probing_config.n_tasks = 1;
    atmsae_tree_config_init(&w->tree_config, sizeof w->tree_config);
    w->tree_config.d = D;
    w->tree_config.n_features = 2;
    w->tree_config.probability = probability;
    atmsae_source_config_init(&w->source_config, sizeof w->source_config);
    atmsae_optimizer_config_init(&w->optimizer_config, sizeof w->optimizer_config);
    atmsae_synth_config_init(&w->synth_config, sizeof w->synth_config);
    w->lm = (atmsae_language_model){.size = sizeof w->lm, .n_batches = 1, .opaque = w, .run = run_lm};
    for (int r = 0; r < N; r++) {
        w->labels[r] = (int8_t)(r % 2);
        w->classes[r] = r % 2;
        w->is_train[r] = r < N - 8;
    }
}

static world *start(void)
{
    world *w = calloc(1, sizeof *w);
    ck_assert_ptr_nonnull(w);
    sizes(w);
    configs(w);
    fill_rows(w->x, N, 3);
    w->batch = batch_of(w->x, N);
    w->ctx = new_context(2);
    strcpy(w->folder, "/tmp/atmsae-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->folder));
    snprintf(w->file, sizeof w->file, "%s/checkpoint", w->folder);
    w->trainer = new_trainer(w->ctx, ATMSAE_BATCHTOPK);
    train(w->ctx, w->trainer, 2, w->x);
    ok(atmsae_trainer_save(w->trainer, NULL, w->file), w->ctx);
    w->model = atmsae_trainer_model(w->trainer);
    w->optimizer = atmsae_trainer_optimizer(w->trainer);
    w->tracker = atmsae_trainer_tracker(w->trainer);
    w->masker = atmsae_trainer_masker(w->trainer);
    ok(atmsae_trainer_create(w->ctx, &w->trainer_config, &w->fresh), w->ctx);
    ok(atmsae_model_create(w->ctx, &w->model_config, &w->wider), w->ctx);
    ok(atmsae_codes_create(w->ctx, &w->codes), w->ctx);
    ok(atmsae_gradients_create(w->model, &w->gradients), w->ctx);
    ok(atmsae_forward(w->model, &w->batch, NULL, w->codes, NULL), w->ctx);
    ok(atmsae_backward(w->model, w->codes, w->gradients), w->ctx);
    ok(atmsae_metrics_create(w->model, &w->metrics), w->ctx);
    ok(atmsae_metrics_create(w->model, &w->more), w->ctx);
    ok(atmsae_absorption_create(w->ctx, &w->absorption_config, &w->batch, D, w->classes, w->is_train, &w->absorption),
       w->ctx);
    ok(atmsae_probing_create(w->ctx, &w->probing_config, &w->batch, D, w->labels, w->is_train, &w->probing), w->ctx);
    ok(atmsae_top_rows_create(w->ctx, F, 2, &w->top), w->ctx);
    ok(atmsae_top_rows_create(w->ctx, F, 2, &w->other_top), w->ctx);
    ok(atmsae_synth_create_tree(w->ctx, &w->tree_config, &w->synth), w->ctx);
    ok(atmsae_source_create(w->ctx, &w->source_config, &w->source), w->ctx);
    ok(atmsae_source_add_memory(w->source, w->x, N, D, 0, ATMSAE_F32), w->ctx);
    ok(atmsae_tensors_open(w->ctx, w->file, &w->tensors), w->ctx);
    return w;
}

static void destroy(world *w)
{
    atmsae_tensors_close(w->tensors);
    atmsae_source_destroy(w->source);
    atmsae_synth_destroy(w->synth);
    atmsae_top_rows_destroy(w->top);
    atmsae_top_rows_destroy(w->other_top);
    atmsae_probing_destroy(w->probing);
    atmsae_absorption_destroy(w->absorption);
    atmsae_metrics_destroy(w->metrics);
    atmsae_metrics_destroy(w->more);
    atmsae_gradients_destroy(w->gradients);
    atmsae_codes_destroy(w->codes);
    atmsae_model_destroy(w->wider);
    atmsae_trainer_destroy(w->fresh);
    atmsae_trainer_destroy(w->trainer);
    atmsae_context_destroy(w->ctx);
}

static void stop(world *w)
{
    destroy(w);
    ck_assert_int_eq(remove(w->file), 0); /* and no call left another file there */
    ck_assert_int_eq(rmdir(w->folder), 0);
    free(w);
}

/* ---- every call ------------------------------------------------------------------------------------ */

/* X(function, pointers that are required, its arguments): P(n, ..) is NULL in the call that leaves pointer
 * n out. */
#define P(n, pointer) (w->null == (n) ? NULL : (pointer))
#define CALLS(X)                                                                                                      \
    X(model_create, 3, P(1, w->ctx), P(2, &w->model_config), P(3, &w->made.model))                                    \
    X(model_get_config, 2, P(1, w->model), P(2, &w->model_config))                                                    \
    X(model_get_origin, 2, P(1, w->model), P(2, &w->origin))                                                          \
    X(codes_get, 2, P(1, w->codes), P(2, &w->view))                                                                   \
    X(trainer_get_config, 2, P(1, w->trainer), P(2, &w->trainer_config))                                              \
    X(gradients_sums, 2, P(1, w->gradients), P(2, &w->sums))                                                          \
    X(model_set, 2, P(1, w->model), ATMSAE_W_DEC, P(2, w->out), F * D)                                                \
    X(model_prepare, 2, P(1, w->model), P(2, &w->batch))                                                              \
    X(batch_norms, 3, P(1, w->ctx), P(2, &w->batch), D, P(3, &w->norms))                                              \
    X(batch_limit, 3, P(1, w->ctx), P(2, &w->batch), D, 1, P(3, w->out), NULL)                                        \
    X(model_calibrate, 2, P(1, w->model), P(2, &w->batch))                                                            \
    X(model_save, 2, P(1, w->model), P(2, w->folder), NULL)                                                           \
    X(model_load, 3, P(1, w->ctx), P(2, w->folder), P(3, &w->made.model))                                             \
    X(codes_create, 2, P(1, w->ctx), P(2, &w->made.codes))                                                            \
    X(encode, 3, P(1, w->model), P(2, &w->batch), P(3, w->codes))                                                     \
    X(decode, 3, P(1, w->model), P(2, w->codes), P(3, w->out), 0)                                                     \
    X(trainer_create, 3, P(1, w->ctx), P(2, &w->trainer_config), P(3, &w->made.trainer))                              \
    X(trainer_prepare, 2, P(1, w->fresh), P(2, &w->batch))                                                            \
    X(trainer_step, 2, P(1, w->trainer), P(2, &w->batch), NULL)                                                       \
    X(trainer_calibrate, 2, P(1, w->trainer), P(2, &w->batch))                                                        \
    X(trainer_begin_cooldown, 1, P(1, w->trainer), 1)                                                                 \
    X(trainer_save, 2, P(1, w->trainer), w->source, P(2, w->file))                                                    \
    X(trainer_load, 3, P(1, w->ctx), P(2, w->file), NULL, P(3, &w->made.trainer))                                     \
    X(trainer_set_total_rows, 1, P(1, w->trainer), 100 * N)                                                           \
    X(trainer_set_skip_bad_rows, 1, P(1, w->trainer), 1)                                                              \
    X(source_create, 3, P(1, w->ctx), P(2, &w->source_config), P(3, &w->made.source))                                 \
    X(source_add_memory, 2, P(1, w->source), P(2, w->x), N, D, 0, ATMSAE_F32)                                         \
    X(source_add_file, 2, P(1, w->source), P(2, w->file), NULL, 0)                                                    \
    X(source_add_callback, 2, P(1, w->source), D, P(2, no_rows), NULL)                                                \
    X(source_add_target_memory, 2, P(1, w->source), P(2, w->x), N, D, 0, ATMSAE_F32)                                  \
    X(source_add_target_file, 2, P(1, w->source), P(2, w->file), NULL, 0)                                             \
    X(source_next, 3, P(1, w->source), 2, P(2, w->out), P(3, &w->count))                                              \
    X(source_unread, 1, P(1, w->source))                                                                              \
    X(source_locate, 2, P(1, w->source), 1, P(2, &w->row_origin))                                                     \
    X(source_rewind, 1, P(1, w->source))                                                                              \
    X(forward, 3, P(1, w->model), P(2, &w->batch), NULL, P(3, w->codes), NULL)                                        \
    X(gradients_create, 2, P(1, w->model), P(2, &w->made.gradients))                                                  \
    X(backward, 3, P(1, w->model), P(2, w->codes), P(3, w->gradients))                                                \
    X(gradients_get, 2, P(1, w->gradients), ATMSAE_W_DEC, P(2, w->out), F * D)                                        \
    X(optimizer_create, 2, P(1, w->model), &w->optimizer_config, P(2, &w->made.optimizer))                            \
    X(optimizer_step, 3, P(1, w->optimizer), P(2, w->model), P(3, w->gradients), NULL)                                \
    X(tracker_create, 3, P(1, w->ctx), P(2, &w->tracker_config), P(3, &w->made.tracker))                              \
    X(tracker_observe, 2, P(1, w->tracker), P(2, &w->sums))                                                           \
    X(masker_create, 3, P(1, w->ctx), P(2, &w->masker_config), P(3, &w->made.masker))                                 \
    X(masker_update, 2, P(1, w->masker), P(2, atmsae_tracker_importance(w->tracker)), F)                              \
    X(masker_draw, 1, P(1, w->masker), 1)                                                                             \
    X(masker_begin_cooldown, 1, P(1, w->masker), 1, 1)                                                                \
    X(metrics_create, 2, P(1, w->model), P(2, &w->made.metrics))                                                      \
    X(metrics_add, 2, P(1, w->metrics), P(2, &w->batch))                                                              \
    X(metrics_get, 2, P(1, w->metrics), P(2, &w->metrics_result))                                                     \
    X(absorption_create, 6, P(1, w->ctx), P(2, &w->absorption_config), P(3, &w->batch), D, P(4, w->classes),          \
      P(5, w->is_train), P(6, &w->made.absorption))                                                                   \
    X(absorption_score, 3, P(1, w->absorption), P(2, w->model), P(3, &w->absorption_result), NULL)                    \
    X(synth_create, 3, P(1, w->ctx), P(2, &w->synth_config), P(3, &w->made.synth))                                    \
    X(synth_rows, 2, P(1, w->synth), 0, 2, P(2, w->out), NULL)                                                        \
    X(synth_score, 3, P(1, w->synth), P(2, w->model), 0, 10, P(3, &w->synth_result))                                  \
    X(tensors_open, 3, P(1, w->ctx), P(2, w->file), P(3, &w->made.tensors))                                           \
    X(tensors_read_f32, 2, P(1, w->tensors), 0, P(2, w->out), 1)                                                      \
    X(tensors_read_i64, 2, P(1, w->tensors), 0, P(2, w->integers), 1)                                                 \
    X(absorption_measure, 3, P(1, w->absorption), P(2, w->model), P(3, &w->measures), NULL, NULL)                     \
    X(probing_create, 6, P(1, w->ctx), P(2, &w->probing_config), P(3, &w->batch), D, P(4, w->labels),                 \
      P(5, w->is_train), P(6, &w->made.probing))                                                                      \
    X(probing_tasks, 2, P(1, w->probing), P(2, &w->probing_task))                                                     \
    X(probing_score, 3, P(1, w->probing), P(2, w->model), P(3, w->entries))                                           \
    X(probing_baseline, 2, P(1, w->probing), P(2, w->entries))                                                        \
    X(metrics_get_details, 2, P(1, w->metrics), P(2, &w->details))                                                    \
    X(metrics_histogram, 2, P(1, w->metrics), -3, 0, 1, P(2, &w->count))                                              \
    X(metrics_merge, 2, P(1, w->metrics), P(2, w->more))                                                              \
    X(model_similarity, 1, P(1, w->model), ATMSAE_W_DEC, NULL, NULL)                                                  \
    X(model_neighbours, 3, P(1, w->model), ATMSAE_W_DEC, 1, P(2, w->latents), P(3, w->out))                           \
    X(top_rows_create, 2, P(1, w->ctx), F, 2, P(2, &w->made.top))                                                     \
    X(top_rows_add, 2, P(1, w->top), P(2, w->codes), 0)                                                               \
    X(top_rows_merge, 2, P(1, w->top), P(2, w->other_top))                                                            \
    X(top_rows_get, 2, P(1, w->top), 0, NULL, NULL, P(2, &w->count))                                                  \
    X(model_language, 3, P(1, w->model), P(2, &w->lm), P(3, &w->lm_result))                                           \
    X(model_match, 3, P(1, w->model), P(2, w->wider), ATMSAE_W_DEC, 0, NULL, P(3, &w->match))                         \
    X(model_hedging, 3, P(1, w->model), P(2, w->wider), 0, P(3, &w->hedging))                                         \
    X(synth_create_tree, 3, P(1, w->ctx), P(2, &w->tree_config), P(3, &w->made.synth))                                \
    X(synth_create_preset, 2, P(1, w->ctx), ATMSAE_SYNTH_CHANIN, 0, P(2, &w->made.synth))                             \
    X(synth_truth, 3, P(1, w->synth), P(2, w->model), 0, 10, P(3, &w->truth))
/* Those that a child may call: a new context is its own, and what a file has does not change. */
#define OTHER_CALLS(X)                                                                                                \
    X(context_create, 1, NULL, P(1, &w->made.context))                                                                \
    X(tensors_info, 2, P(1, w->tensors), 0, P(2, &w->info))                                                           \
    X(tensors_find, 3, P(1, w->tensors), P(2, "W_enc"), P(3, &w->count))

#define DEFINE(name, required, ...) \
    static atmsae_status call_##name(world *w) { return atmsae_##name(__VA_ARGS__); }
CALLS(DEFINE)
OTHER_CALLS(DEFINE)

typedef struct call {
    const char *name;
    atmsae_status (*call)(world *w);
    int required;
} call;
#define ENTRY(name, required, ...) {"atmsae_" #name, call_##name, required},
static const call calls[] = {CALLS(ENTRY) OTHER_CALLS(ENTRY)};
#define ONE(name, required, ...) +1
enum { CLAIMING = 0 CALLS(ONE), ALL = CLAIMING OTHER_CALLS(ONE) };

/* Where the first pointer is NULL, the text goes to the context of another handle among the arguments. */
static const char with_two_handles[] = "encode decode forward backward optimizer_step absorption_score synth_score absorption_measure "
                                       "probing_score metrics_merge top_rows_add top_rows_merge model_match model_hedging synth_truth ";

static bool has_context(const char *name, int null)
{
    char word[64];
    snprintf(word, sizeof word, "%s ", strchr(name, '_') + 1);
    const char *found = strstr(with_two_handles, word);
    return null > 1 || (found && (found == with_two_handles || found[-1] == ' '));
}

START_TEST(null_pointers_are_arguments_in_error)
{
    world *w = start();
    for (int i = 0; i < ALL; i++)
        for (w->null = 1; w->null <= calls[i].required; w->null++) {
            memset(&w->made, 1, sizeof w->made);
            ck_assert_int_lt(atmsae_masker_begin_cooldown(w->masker, 1, 0), 0);
            char before[512];
            atmsae_copy_error(w->ctx, before, sizeof before);
            ck_assert_ptr_null(strstr(before, "NULL"));
            atmsae_status status = calls[i].call(w);
            ck_assert_msg(status == ATMSAE_E_ARG, "%s, pointer %d: %s", calls[i].name, w->null, atmsae_status_name(status));
            if (strstr(calls[i].name, "_create") && w->null < calls[i].required) ck_assert_ptr_null(w->made.model);
            const char *text = atmsae_last_error(w->ctx);
            const bool says = strstr(text, "NULL") != NULL;
            ck_assert_msg(says == has_context(calls[i].name, w->null), "%s, pointer %d: \"%s\"", calls[i].name, w->null, text);
        }
    stop(w);
}
END_TEST

START_TEST(null_handles_have_nothing)
{
    uint64_t n = 9;
    const double numbers[] = {atmsae_optimizer_lr(NULL), atmsae_masker_mu(NULL), atmsae_masker_sigma(NULL),
                              atmsae_masker_theta(NULL), atmsae_masker_rate(NULL), atmsae_masker_mean_p(NULL),
                              atmsae_trainer_norm_limit(NULL, 0)};
    const uint64_t counts[] = {atmsae_trainer_steps_done(NULL), atmsae_trainer_bad_rows(NULL), atmsae_trainer_outlier_rows(NULL),
                               atmsae_source_d(NULL), atmsae_source_d_target(NULL), atmsae_source_rows(NULL),
                               atmsae_tracker_dead_window(NULL), atmsae_synth_features(NULL), atmsae_tensors_count(NULL),
                               (uint64_t)atmsae_mask_test(NULL, 0, 0), atmsae_context_threads(NULL),
                               (uint64_t)atmsae_stop_requested(NULL)};
    const void *pointers[] = {atmsae_trainer_model(NULL), atmsae_trainer_tracker(NULL), atmsae_trainer_masker(NULL),
                              atmsae_trainer_optimizer(NULL), atmsae_tracker_importance(NULL), atmsae_tracker_average(NULL, 0),
                              atmsae_tracker_dead(NULL, NULL), atmsae_tracker_dead(NULL, &n), atmsae_masker_mask(NULL),
                              atmsae_masker_p(NULL), atmsae_metrics_counts(NULL), atmsae_synth_directions(NULL)};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        ck_assert_msg(isnan(numbers[i]), "number %zu: %g", i, numbers[i]);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        ck_assert_msg(counts[i] == 0, "count %zu: %llu", i, (unsigned long long)counts[i]);
    for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++)
        ck_assert_msg(pointers[i] == NULL, "pointer %zu", i);
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_null(atmsae_model_view(NULL, ATMSAE_W_DEC, &n));
    ck_assert_str_eq(atmsae_last_error(NULL), "");
    char text[8] = "before";
    ck_assert_uint_eq(atmsae_copy_error(NULL, text, sizeof text), 0);
    ck_assert_str_eq(text, "");
    ck_assert_uint_eq(atmsae_copy_error(NULL, NULL, 0), 0);
    ck_assert_str_eq(atmsae_context_cpu(NULL), "");
    atmsae_request_stop(NULL);
    atmsae_clear_stop(NULL);
    world none = {0};
    destroy(&none);
}
END_TEST

/* A child has no threads to work with, and says so. */
START_TEST(a_child_computes_nothing_with_its_parents_handles)
{
    world *w = start();
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        int wrong = 0;
        for (int i = 0; i < ALL; i++) {
            atmsae_status status = calls[i].call(w);
            if (status == (i < CLAIMING ? ATMSAE_E_STATE : ATMSAE_OK) &&
                (i >= CLAIMING || strstr(atmsae_last_error(w->ctx), "before fork"))) continue;
            fprintf(stderr, "%s: %s, %s\n", calls[i].name, atmsae_status_name(status), atmsae_last_error(w->ctx));
            wrong++;
        }
        atmsae_context_destroy(w->made.context);
        destroy(w);
        if (__gcov_dump) __gcov_dump(); /* exit would look for leaks, in the memory of the parent's threads too */
        _exit(wrong);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: wait status %x", (unsigned)status);
    stop(w);
}
END_TEST

/* ---- the table against the headers ------------------------------------------------------------------- */

static int is_called(const char *name, const char *gives)
{
    if (!strstr(gives, "atmsae_status")) return 0;
    int found = 0;
    for (int i = 0; i < ALL; i++)
        found += strcmp(calls[i].name, name) == 0;
    ck_assert_msg(found == 1, "%s is not in the table", name);
    return 1;
}

START_TEST(the_headers_are_covered)
{
    ck_assert_int_gt(count_functions(_i, is_called), _i ? 15 : 50);
}
END_TEST

/* ---- arguments that do not fit ------------------------------------------------------------------------- */

/* The call fails with E_ARG, and its text has this in it. */
#define REFUSED(part, call)                                                                     \
    do {                                                                                        \
        atmsae_status status_ = (call);                                                         \
        ck_assert_msg(status_ == ATMSAE_E_ARG, "%s: %s", #call, atmsae_status_name(status_));   \
        ck_assert_msg(strstr(atmsae_last_error(w->ctx), part), "\"%s\"", atmsae_last_error(w->ctx)); \
    } while (0)

START_TEST(probing_refuses)
{
    world *w = start();
    const atmsae_probing_config good = w->probing_config;
    const uint64_t ks[17] = {1, 2000};
    uint64_t texts[N] = {0};
    atmsae_probing *p;
#define CREATE atmsae_probing_create(w->ctx, &w->probing_config, &w->batch, D, w->labels, w->is_train, &p)
    w->probing_config.ks = NULL, w->probing_config.n_ks = 2;
    REFUSED("n_ks = 2", CREATE);
    w->probing_config.ks = ks, w->probing_config.n_ks = 17;
    REFUSED("n_ks = 17", CREATE);
    w->probing_config.n_ks = 2;
    REFUSED("ks[1] = 2000", CREATE);
    w->probing_config = good, w->probing_config.protocol = 3;
    REFUSED("protocol = 3", CREATE);
    w->probing_config = good, w->probing_config.c = NAN;
    REFUSED("c = nan", CREATE);
    w->probing_config = good, w->probing_config.c = 1e13;
    REFUSED("c = 1e+13", CREATE);
    w->probing_config = good, w->probing_config.texts = texts;
    texts[4] = 2;
    REFUSED("texts[4] = 2", CREATE);
    texts[4] = 1; /* and then 0 again */
    REFUSED("texts[5] = 0", CREATE);
    w->probing_config = good;
    w->is_train[2] = 2;
    REFUSED("is_train[2] = 2", CREATE);
    w->is_train[2] = 1;
    REFUSED("d = 0", atmsae_probing_create(w->ctx, &good, &w->batch, 0, w->labels, w->is_train, &p));
    stop(w);
}
END_TEST

START_TEST(models_and_measures_that_do_not_fit)
{
    world *w = start();
    atmsae_model *narrow, *wide;
    w->model_config.d_in = D - 1;
    ok(atmsae_model_create(w->ctx, &w->model_config, &narrow), w->ctx);
    w->model_config.d_in = D, w->model_config.d_sae = F + D;
    ok(atmsae_model_create(w->ctx, &w->model_config, &wide), w->ctx);
    REFUSED("d_in = 19", atmsae_probing_score(w->probing, narrow, w->entries));
    REFUSED("19", atmsae_absorption_measure(w->absorption, narrow, &w->measures, NULL, NULL));
    REFUSED("rows of 20 and of 19", atmsae_model_match(w->model, narrow, ATMSAE_W_DEC, 0, NULL, &w->match));
    REFUSED("match", atmsae_model_match(w->model, wide, ATMSAE_B_ENC, 0, NULL, &w->match));
    REFUSED("match", atmsae_model_match(w->model, wide, ATMSAE_W_DEC, 2, NULL, &w->match));
    REFUSED("match", atmsae_model_match(w->model, wide, ATMSAE_W_DEC, -1, NULL, &w->match));
    REFUSED("hedging", atmsae_model_hedging(w->model, narrow, 0, &w->hedging));
    REFUSED("hedging", atmsae_model_hedging(w->model, w->model, 0, &w->hedging));
    REFUSED("20 latents were added", atmsae_model_hedging(w->model, wide, 0, &w->hedging));
    REFUSED("19", atmsae_synth_truth(w->synth, narrow, 0, 10, &w->truth));
    REFUSED("10", atmsae_synth_truth(w->synth, w->model, UINT64_MAX - 5, 10, &w->truth));
    const atmsae_model *const others[] = {narrow, wide};
    for (int i = 0; i < 2; i++) {
        atmsae_metrics *metrics;
        ok(atmsae_metrics_create(others[i], &metrics), w->ctx);
        REFUSED("one shape", atmsae_metrics_merge(w->metrics, metrics));
        atmsae_metrics_destroy(metrics);
    }
    static const double ends[][2] = {{0, 0}, {NAN, 0}, {-INFINITY, 0}, {0, INFINITY}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        REFUSED("histogram", atmsae_metrics_histogram(w->metrics, ends[i][0], ends[i][1], 1, &w->count));
    REFUSED("histogram", atmsae_metrics_histogram(w->metrics, -1, 0, 0, &w->count));
    REFUSED("histogram", atmsae_metrics_histogram(w->metrics, -1, 0, 1000001, &w->count));
    REFUSED("W_DEC", atmsae_model_neighbours(w->model, ATMSAE_B_ENC, 1, w->latents, w->out));
    REFUSED("n = 257", atmsae_model_neighbours(w->model, ATMSAE_W_DEC, 257, w->latents, w->out));
    REFUSED("n_top = 1025", atmsae_top_rows_create(w->ctx, F, 1025, &w->made.top));
    REFUSED("d_sae = 0", atmsae_top_rows_create(w->ctx, 0, 1, &w->made.top));
    REFUSED("d_sae = 2147483648", atmsae_top_rows_create(w->ctx, (uint64_t)1 << 31, 1, &w->made.top));
    ok(atmsae_top_rows_create(w->ctx, F, 3, &w->made.top), w->ctx);
    REFUSED("the other has", atmsae_top_rows_merge(w->top, w->made.top));
    atmsae_top_rows_destroy(w->made.top);
    REFUSED("room for 1", atmsae_gradients_get(w->gradients, ATMSAE_W_DEC, w->out, 1));
    REFUSED("no parameter", atmsae_gradients_get(w->gradients, ATMSAE_R_MAG, w->out, F));
    atmsae_optimizer *optimizer;
    ok(atmsae_optimizer_create(wide, &w->optimizer_config, &optimizer), w->ctx);
    ck_assert_int_eq(atmsae_optimizer_step(optimizer, w->model, w->gradients, NULL), ATMSAE_E_STATE);
    ck_assert_int_eq(atmsae_optimizer_step(optimizer, wide, w->gradients, NULL), ATMSAE_E_STATE);
    atmsae_optimizer_destroy(optimizer);
    REFUSED("decode: out: ld = 1", atmsae_decode(w->model, w->codes, w->out, 1));
    float *const odd = (float *)((char *)w->out + 1);
    REFUSED("not aligned", atmsae_decode(w->model, w->codes, odd, 0));
    REFUSED("not aligned", atmsae_source_next(w->source, 2, odd, &w->count));
    REFUSED("not aligned", atmsae_batch_limit(w->ctx, &w->batch, D, 1, odd, NULL));
    static const double no_limits[] = {0, -1, NAN, -INFINITY};
    for (size_t i = 0; i < sizeof no_limits / sizeof *no_limits; i++)
        REFUSED("expected above 0", atmsae_batch_limit(w->ctx, &w->batch, D, no_limits[i], w->out, NULL));
    REFUSED("d = 0", atmsae_batch_norms(w->ctx, &w->batch, 0, &w->norms));
    REFUSED("d = 4194305", atmsae_batch_limit(w->ctx, &w->batch, (1 << 22) + 1, 1, w->out, NULL));
    ck_assert_double_eq(atmsae_trainer_norm_limit(w->trainer, 2), 0);
    ck_assert_double_eq(atmsae_trainer_norm_limit(w->trainer, -1), 0);
    static const double no_factors[] = {-1, 0.5, NAN, INFINITY, 2e9};
    for (size_t i = 0; i < sizeof no_factors / sizeof *no_factors; i++) {
        w->trainer_config.max_norm = no_factors[i];
        REFUSED("max_norm", atmsae_trainer_create(w->ctx, &w->trainer_config, &w->made.trainer));
    }
    w->trainer_config.max_norm = 0;
    REFUSED("not aligned", atmsae_gradients_get(w->gradients, ATMSAE_W_DEC, odd, F * D));
    REFUSED("not aligned", atmsae_synth_rows(w->synth, 0, 2, odd, NULL));
    REFUSED("not aligned", atmsae_model_neighbours(w->model, ATMSAE_W_DEC, 1, (uint32_t *)odd, w->out));
    REFUSED("not aligned", atmsae_model_neighbours(w->model, ATMSAE_W_DEC, 1, w->latents, odd));
    REFUSED("not aligned", atmsae_metrics_histogram(w->metrics, -3, 0, 1, (uint64_t *)odd));
    atmsae_tensor_info info = {.size = sizeof info};
    for (uint64_t i = 0; i < atmsae_tensors_count(w->tensors); i++) {
        ok(atmsae_tensors_info(w->tensors, i, &info), w->ctx);
        if (info.rank != 1 || info.shape[0] != F) continue;
        REFUSED("not aligned", atmsae_tensors_read_f32(w->tensors, i, odd, F));
        REFUSED("not aligned", atmsae_tensors_read_i64(w->tensors, i, (int64_t *)odd, F));
    }
    for (int bits = 61; bits < 64; bits++) { /* rows beyond what a pointer reaches, or whose places overflow */
        ck_assert_int_eq(atmsae_decode(w->model, w->codes, w->out, (uint64_t)1 << bits), ATMSAE_E_LIMIT);
        ck_assert_int_eq(atmsae_decode(w->model, w->codes, w->out, UINT64_MAX >> (63 - bits)), ATMSAE_E_LIMIT);
    }
    atmsae_masker *masker;
    atmsae_forward_options options;
    w->masker_config.d_sae = F + 1;
    ok(atmsae_masker_create(w->ctx, &w->masker_config, &masker), w->ctx);
    ok(atmsae_masker_draw(masker, 1), w->ctx);
    atmsae_forward_options_init(&options, sizeof options);
    options.mask = atmsae_masker_mask(masker);
    REFUSED("97 latents", atmsae_forward(w->model, &w->batch, &options, w->codes, NULL));
    atmsae_masker_destroy(masker);
    w->trainer_config.model = NULL;
    REFUSED("config.model is NULL", atmsae_trainer_create(w->ctx, &w->trainer_config, &w->made.trainer));
    static const float flat[2 * D], huge[2 * D] = {3e38f, 3e38f};
    w->tree_config.directions = flat;
    REFUSED("feature 0 has norm 0", atmsae_synth_create_tree(w->ctx, &w->tree_config, &w->made.synth));
    w->tree_config.directions = huge;
    REFUSED("feature 1 has norm 0", atmsae_synth_create_tree(w->ctx, &w->tree_config, &w->made.synth));
    atmsae_model_destroy(narrow);
    atmsae_model_destroy(wide);
    stop(w);
}
END_TEST

/* Of other outputs than inputs: what has no targets is refused. */
START_TEST(a_transcoder_needs_targets)
{
    world *w = start();
    const uint8_t keep[N] = {1};
    w->model_config.d_out = D + 1;
    atmsae_model *model;
    atmsae_metrics *metrics;
    ok(atmsae_model_create(w->ctx, &w->model_config, &model), w->ctx);
    ok(atmsae_metrics_create(model, &metrics), w->ctx);
    REFUSED("y is NULL", atmsae_metrics_add(metrics, &w->batch));
    REFUSED("y is NULL", atmsae_forward(model, &w->batch, NULL, w->codes, NULL));
    w->keep = keep;
    REFUSED("keep needs outputs", atmsae_model_language(model, &w->lm, &w->lm_result));
    atmsae_metrics_destroy(metrics);
    atmsae_model_destroy(model);
    stop(w);
}
END_TEST

/* ---- a language model's callback ------------------------------------------------------------------------ */

enum { GOOD, NO_CE, NO_ACTIVATIONS, NO_VOCAB, FEWER_TOKENS, LOGITS_GONE, OTHER_VOCAB };
static int how;
static int32_t run_badly(void *opaque, uint64_t number, const float *replacement, atmsae_lm_output *out)
{
    static const float logits[N * 3];
    run_lm(opaque, number, replacement, out);
    out->logits = logits;
    out->vocab = 3;
    if (how == NO_CE) out->ce = NULL;
    if (how == NO_ACTIVATIONS && !replacement) out->activations = NULL;
    if (how == NO_VOCAB) out->vocab = 0;
    if (how == FEWER_TOKENS && replacement) out->n_tokens = N - 1;
    if (how == LOGITS_GONE && replacement) out->logits = NULL;
    if (how == OTHER_VOCAB && replacement) out->vocab = 2;
    return 0;
}

START_TEST(a_language_model_must_answer_in_full)
{
    world *w = start();
    w->lm.run = run_badly;
    ok(atmsae_model_language(w->model, &w->lm, &w->lm_result), w->ctx);
    ck_assert_uint_eq(w->lm_result.tokens, N);
    for (how = NO_CE; how <= OTHER_VOCAB; how++)
        REFUSED(how < FEWER_TOKENS ? "missing" : "first run", atmsae_model_language(w->model, &w->lm, &w->lm_result));
    w->lm.run = NULL;
    REFUSED("run is NULL", atmsae_model_language(w->model, &w->lm, &w->lm_result));
    stop(w);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, null_pointers_are_arguments_in_error);
    tcase_add_test(tests, null_handles_have_nothing);
    tcase_add_test(tests, a_child_computes_nothing_with_its_parents_handles);
    tcase_add_loop_test(tests, the_headers_are_covered, 0, 2);
    tcase_add_test(tests, probing_refuses);
    tcase_add_test(tests, models_and_measures_that_do_not_fit);
    tcase_add_test(tests, a_transcoder_needs_targets);
    tcase_add_test(tests, a_language_model_must_answer_in_full);
}

int main(void) { return run_suite("misuse", add); }
