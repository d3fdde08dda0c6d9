/* SPDX-License-Identifier: MIT
 *
 * Training runs against PyTorch: fixtures/reference_*.safetensors hold configurations, initial
 * parameters, batches, and what reference/make_reference.py computed from them in float64.
 */
#include "format/format.h"
#include "suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The same PyTorch program in float32 is off by up to 2e-6 in losses, 3e-7 of the largest element
 * in gradients and 6e-7 in final parameters (make_reference.py prints it); ours adds in another
 * order, so ten times that. A wrong formula is off by per cents. */
static const double loss_tolerance = 1e-5, gradient_tolerance = 3e-6, final_tolerance = 6e-6;
/* p is a difference of nearly equal numbers: absolute. Masks are cut MASK_MARGIN = 1e-5 off. */
static const double p_tolerance = 5e-6;

static const char *const cases[] = {
    "relu", "topk", "batchtopk", "matryoshka", "jumprelu", "jumprelu_target",
    "relu_target", "tanh_target", "gated_target", "jumprelu_tanh", "gated", "transcoder", "auxk", "atm", "atm_rows", "atm_tanh_rows", "atm_relu_paper",
    "atm_gated", "atm_frozen", "uniform", "narrow", "everything", "second_rows", "second_jumprelu", "second_tanh", "second_gated",
    "second_everything",
};
enum { N_CASES = sizeof cases / sizeof *cases, MAX_ARRAYS = 64, MAX_PREFIXES = 4 };

static const struct {
    const char *name;
    int32_t id;
} parameters[] = {
    {"W_enc", ATMSAE_W_ENC}, {"b_enc", ATMSAE_B_ENC}, {"W_dec", ATMSAE_W_DEC}, {"b_dec", ATMSAE_B_DEC},
    {"threshold", ATMSAE_THRESHOLD}, {"r_mag", ATMSAE_R_MAG}, {"b_mag", ATMSAE_B_MAG},
};
enum { N_PARAMETERS = sizeof parameters / sizeof *parameters };

/* ---- fixtures ------------------------------------------------------------------------------------ */

struct setup {
    atmsae_model_config model;
    atmsae_optimizer_config optimizer;
    atmsae_tracker_config tracker;
    atmsae_masker_config masker;
    atmsae_trainer_config trainer;
    uint64_t steps, n, prefixes[MAX_PREFIXES];
    double input_scale, output_scale;
};

struct fixture {
    atmsae_context *ctx;
    atmsae_tensors *file;
    struct setup s;
    void *arrays[MAX_ARRAYS]; /* freed together */
    unsigned n_arrays;
};

#define ok(ctx, call) \
    do { \
        atmsae_status ok_ = (call); \
        ck_assert_msg(ok_ == ATMSAE_OK, "%s: %s: %s", #call, atmsae_status_name(ok_), atmsae_last_error(ctx)); \
    } while (0)

static void read_setup(struct fixture *f)
{
    struct setup *s = &f->s;
    atmsae_model_config_init(&s->model, sizeof s->model);
    atmsae_optimizer_config_init(&s->optimizer, sizeof s->optimizer);
    atmsae_tracker_config_init(&s->tracker, sizeof s->tracker);
    atmsae_masker_config_init(&s->masker, sizeof s->masker);
    atmsae_trainer_config_init(&s->trainer, sizeof s->trainer);
#define D(key, field) {key, 'd', &s->field}
#define I(key, field) {key, 'i', &s->field}
#define U(key, field) {key, 'u', &s->field}
    const struct {
        const char *key;
        char type;
        void *at;
    } keys[] = {
        U("steps", steps), U("n", n), U("trainer.batch_rows", trainer.batch_rows),
        U("trainer.total_rows", trainer.total_rows), D("trainer.sparsity_warmup", trainer.sparsity_warmup),
        U("model.d_in", model.d_in), U("model.d_out", model.d_out), U("model.d_sae", model.d_sae),
        I("model.activation", model.activation), I("model.decoder_norm", model.decoder_norm),
        I("model.transcoder", model.transcoder), D("model.k", model.k),
        D("model.sparsity_coef", model.sparsity_coef), D("model.target_l0", model.target_l0),
        D("model.bandwidth", model.bandwidth), D("model.tanh_scale", model.tanh_scale),
        D("model.pre_act_coef", model.pre_act_coef), D("model.aux_coef", model.aux_coef),
        U("model.aux_k", model.aux_k), D("model.input_scale", input_scale),
        D("model.output_scale", output_scale), D("optimizer.lr", optimizer.lr),
        D("optimizer.beta1", optimizer.beta1), D("optimizer.beta2", optimizer.beta2),
        D("optimizer.eps", optimizer.eps), D("optimizer.clip", optimizer.clip),
        U("optimizer.warmup_steps", optimizer.warmup_steps), U("optimizer.decay_steps", optimizer.decay_steps),
        I("optimizer.freeze_masked", optimizer.freeze_masked), D("tracker.decay", tracker.decay),
        D("tracker.weight_magnitude", tracker.weight_magnitude),
        D("tracker.weight_frequency", tracker.weight_frequency),
        D("tracker.weight_contribution", tracker.weight_contribution), I("tracker.combine", tracker.combine),
        U("tracker.dead_window", tracker.dead_window), I("masker.kind", masker.kind),
        I("masker.per_row", masker.per_row), U("masker.seed", masker.seed), D("masker.c", masker.c),
        D("masker.r", masker.r), U("masker.warmup_steps", masker.warmup_steps),
        D("masker.cooldown_start", masker.cooldown_start), D("masker.cooldown_end", masker.cooldown_end),
        I("masker.effect", masker.effect), D("masker.alpha", masker.alpha),
    };
    s->masker.effect = ATMSAE_EFFECT_HARD;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text = ams_tensors_metadata(f->file, keys[i].key);
        const bool later = keys[i].at == (void *)&s->masker.effect || keys[i].at == (void *)&s->masker.alpha;
        ck_assert_msg(text != NULL || later, "the fixture lacks %s", keys[i].key);
        if (!text) continue; /* written before there was a second loss */
        double value = ams_strtod(text, NULL);
        if (keys[i].type == 'd') *(double *)keys[i].at = value;
        if (keys[i].type == 'i') *(int32_t *)keys[i].at = (int32_t)value;
        if (keys[i].type == 'u') *(uint64_t *)keys[i].at = (uint64_t)value;
    }
    for (; s->model.n_prefixes < MAX_PREFIXES; s->model.n_prefixes++) {
        char key[] = "model.prefix0";
        key[sizeof key - 2] = (char)('0' + s->model.n_prefixes);
        const char *text = ams_tensors_metadata(f->file, key);
        if (!text) break;
        s->prefixes[s->model.n_prefixes] = (uint64_t)ams_strtod(text, NULL);
    }
    s->model.prefixes = s->prefixes;
    s->model.seed = s->masker.seed;
    s->trainer.model = &s->model;
    s->trainer.optimizer = &s->optimizer;
    s->trainer.tracker = &s->tracker;
    s->trainer.masker = &s->masker;
}

static void *keep(struct fixture *f, void *memory)
{
    ck_assert(memory != NULL && f->n_arrays < MAX_ARRAYS);
    return f->arrays[f->n_arrays++] = memory;
}

/* The tensor "group.name" with `rows` * `cols` elements; NULL if there is none. */
static uint64_t locate(struct fixture *f, const char *group, const char *name, uint64_t *index)
{
    char full[64];
    ams_format(full, sizeof full, "%s%s", group, name);
    if (atmsae_tensors_find(f->file, full, index) < 0) return 0;
    atmsae_tensor_info info = {.size = sizeof info};
    ok(f->ctx, atmsae_tensors_info(f->file, *index, &info));
    uint64_t count = 1;
    for (uint64_t i = 0; i < info.rank; i++) count *= info.shape[i];
    return count;
}

static const float *floats(struct fixture *f, const char *group, const char *name, uint64_t want)
{
    uint64_t index, count = locate(f, group, name, &index);
    if (!count) return NULL;
    ck_assert_msg(count == want, "%s%s has %llu elements", group, name, (unsigned long long)count);
    float *out = keep(f, malloc(count * sizeof *out));
    ok(f->ctx, atmsae_tensors_read_f32(f->file, index, out, count));
    return out;
}

static const int64_t *integers(struct fixture *f, const char *group, const char *name, uint64_t want)
{
    uint64_t index, count = locate(f, group, name, &index);
    ck_assert_msg(count == want, "%s%s has %llu elements", group, name, (unsigned long long)count);
    int64_t *out = keep(f, malloc(count * sizeof *out));
    ok(f->ctx, atmsae_tensors_read_i64(f->file, index, out, count));
    return out;
}

static void open_fixture(struct fixture *f, const char *name)
{
    const char *tests = getenv("ATMSAE_TESTS");
    char path[1024];
    ams_format(path, sizeof path, "%s/fixtures/reference_%s.safetensors", tests ? tests : "tests", name);
    *f = (struct fixture){0};
    ck_assert_int_eq(atmsae_context_create(NULL, &f->ctx), ATMSAE_OK);
    ok(f->ctx, atmsae_tensors_open(f->ctx, path, &f->file));
    read_setup(f);
}

static void close_fixture(struct fixture *f)
{
    for (unsigned i = 0; i < f->n_arrays; i++) free(f->arrays[i]);
    atmsae_tensors_close(f->file);
    atmsae_context_destroy(f->ctx);
}

/* ---- comparing -------------------------------------------------------------------------------------- */

static void near(const char *what, uint64_t step, double got, double want, double rtol, double atol)
{
    ck_assert_msg(fabs(got - want) <= rtol * fabs(want) + atol, "step %llu: %s is %.9g, PyTorch has %.9g",
                  (unsigned long long)step, what, got, want);
}

/* Every element within `tolerance` of the largest one's size. */
static void near_all(const char *group, const char *name, const float *got, const float *want, uint64_t count,
                     double tolerance)
{
    double largest = 0;
    for (uint64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)want[i]));
    for (uint64_t i = 0; i < count; i++)
        ck_assert_msg(fabs((double)got[i] - (double)want[i]) <= tolerance * largest,
                      "%s%s[%llu] is %.9g, PyTorch has %.9g (largest: %.3g)", group, name, (unsigned long long)i,
                      (double)got[i], (double)want[i], largest);
}

static void near_doubles(struct fixture *f, const char *name, const double *got, double tolerance)
{
    uint64_t F = f->s.model.d_sae;
    const float *want = floats(f, "final.", name, F);
    float *rounded = keep(f, malloc(F * sizeof *rounded));
    for (uint64_t i = 0; i < F; i++) rounded[i] = (float)got[i];
    near_all("final.", name, rounded, want, F, tolerance);
}

static void set_initial(struct fixture *f, atmsae_model *model)
{
    for (unsigned i = 0; i < N_PARAMETERS; i++) {
        uint64_t count;
        if (!atmsae_model_view(model, parameters[i].id, &count)) continue;
        const float *values = floats(f, "initial.", parameters[i].name, count);
        ck_assert_msg(values != NULL, "the fixture lacks %s", parameters[i].name);
        ok(f->ctx, atmsae_model_set(model, parameters[i].id, values, count));
    }
    float in = (float)f->s.input_scale, out = (float)f->s.output_scale;
    ok(f->ctx, atmsae_model_set(model, ATMSAE_INPUT_SCALE, &in, 1));
    ok(f->ctx, atmsae_model_set(model, ATMSAE_OUTPUT_SCALE, &out, 1));
}

struct data {
    const float *x, *y, *w;
};
static struct data read_data(struct fixture *f)
{
    const struct setup *s = &f->s;
    uint64_t rows = s->steps * s->n;
    struct data d = {floats(f, "", "x", rows * s->model.d_in), floats(f, "", "y", rows * s->model.d_out),
                     floats(f, "", "row_weights", rows)};
    ck_assert(d.x && d.w);
    return d;
}
static atmsae_batch batch_of(const struct fixture *f, struct data d, uint64_t step)
{
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = f->s.n;
    b.x = d.x + step * f->s.n * f->s.model.d_in;
    b.y = d.y ? d.y + step * f->s.n * f->s.model.d_out : NULL;
    b.row_weights = d.w + step * f->s.n;
    return b;
}

/* ---- tests ------------------------------------------------------------------------------------------- */

static void check_mask(struct fixture *f, const atmsae_mask *mask, const int64_t *want, uint64_t step)
{
    uint64_t F = f->s.model.d_sae, rows = f->s.masker.per_row ? f->s.n : 1;
    if (f->s.masker.kind == ATMSAE_MASK_NONE) return;
    ck_assert(mask != NULL);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; i < F; i++) {
            int64_t got = atmsae_mask_test(mask, r, i);
            ck_assert_msg(got == want[(step * rows + r) * F + i], "step %llu: mask of row %llu, latent %llu is %lld",
                          (unsigned long long)step, (unsigned long long)r, (unsigned long long)i, (long long)got);
        }
}

START_TEST(run_of_steps)
{
    struct fixture f;
    open_fixture(&f, cases[_i]);
    const struct setup *s = &f.s;
    uint64_t F = s->model.d_sae, T = s->steps, mask_rows = s->masker.per_row ? s->n : 1;
    struct data d = read_data(&f);
    atmsae_trainer *trainer;
    ok(f.ctx, atmsae_trainer_create(f.ctx, &s->trainer, &trainer));
    atmsae_model *model = atmsae_trainer_model(trainer);
    atmsae_masker *masker = atmsae_trainer_masker(trainer);
    const atmsae_tracker *tracker = atmsae_trainer_tracker(trainer);
    set_initial(&f, model);

    atmsae_step_stats stats = {.size = sizeof stats};
    const struct {
        const char *name;
        const double *got;
        const float *want;
    } columns[] = {
#define COLUMN(name, at) {name, &at, floats(&f, "step.", name, T)}
        COLUMN("total", stats.loss), COLUMN("mse", stats.mse), COLUMN("sparsity", stats.sparsity),
        COLUMN("aux", stats.aux), COLUMN("l0", stats.l0), COLUMN("fvu", stats.fvu),
        COLUMN("grad_norm", stats.grad_norm), COLUMN("lr", stats.lr), COLUMN("r", stats.r),
        COLUMN("mean_p", stats.mean_p), COLUMN("masked_loss", stats.masked_loss),
    };
    const float *mu = floats(&f, "step.", "mu", T), *sigma = floats(&f, "step.", "sigma", T);
    const float *theta = floats(&f, "step.", "theta", T), *p = floats(&f, "step.", "p", T * F);
    const float *dead = floats(&f, "step.", "dead", T);
    const int64_t *masked = integers(&f, "step.", "masked", T * mask_rows * F);
    for (uint64_t t = 0; t < T; t++) {
        atmsae_batch batch = batch_of(&f, d, t);
        ok(f.ctx, atmsae_trainer_step(trainer, &batch, &stats));
        for (unsigned i = 0; i < sizeof columns / sizeof *columns; i++)
            if (columns[i].want) near(columns[i].name, t, *columns[i].got, (double)columns[i].want[t], loss_tolerance, 1e-7);
        ck_assert_uint_eq(stats.step, t);
        near("dead", t, (double)stats.dead, (double)dead[t], 0, 0);
        check_mask(&f, atmsae_masker_mask(masker), masked, t);
        if (s->masker.kind == ATMSAE_MASK_NONE) continue;
        near("mu", t, atmsae_masker_mu(masker), (double)mu[t], loss_tolerance, 0);
        near("sigma", t, atmsae_masker_sigma(masker), (double)sigma[t], loss_tolerance, 0);
        near("theta", t, atmsae_masker_theta(masker), (double)theta[t], loss_tolerance, 0);
        const double *now = atmsae_masker_p(masker);
        for (uint64_t i = 0; i < F; i++) near("p", t, now[i], (double)p[t * F + i], 0, p_tolerance);
    }

    for (unsigned i = 0; i < N_PARAMETERS; i++) {
        uint64_t count;
        const float *got = atmsae_model_view(model, parameters[i].id, &count);
        if (got) near_all("final.", parameters[i].name, got, floats(&f, "final.", parameters[i].name, count), count,
                          final_tolerance);
    }
    near_doubles(&f, "importance", atmsae_tracker_importance(tracker), loss_tolerance);
    near_doubles(&f, "average_magnitude", atmsae_tracker_average(tracker, 0), loss_tolerance);
    near_doubles(&f, "average_frequency", atmsae_tracker_average(tracker, 1), loss_tolerance);
    near_doubles(&f, "average_contribution", atmsae_tracker_average(tracker, 2), loss_tolerance);
    if (s->model.activation == ATMSAE_BATCHTOPK) {
        uint64_t one;
        near_all("final.", "batch_threshold", atmsae_model_view(model, ATMSAE_BATCH_THRESHOLD, &one),
                 floats(&f, "final.", "batch_threshold", 1), 1, loss_tolerance);
        atmsae_batch last = batch_of(&f, d, T - 1);
        ok(f.ctx, atmsae_trainer_calibrate(trainer, &last));
        near_all("final.", "calibrated", atmsae_model_view(model, ATMSAE_BATCH_THRESHOLD, &one),
                 floats(&f, "final.", "calibrated", 1), 1, loss_tolerance);
    }
    atmsae_trainer_destroy(trainer);
    close_fixture(&f);
}
END_TEST

START_TEST(first_gradients)
{
    struct fixture f;
    open_fixture(&f, cases[_i]);
    struct data d = read_data(&f);
    atmsae_model *model;
    atmsae_codes *codes;
    atmsae_gradients *gradients;
    ok(f.ctx, atmsae_model_create(f.ctx, &f.s.model, &model));
    set_initial(&f, model);
    ok(f.ctx, atmsae_codes_create(f.ctx, &codes));
    ok(f.ctx, atmsae_gradients_create(model, &gradients));

    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    double warm = f.s.trainer.sparsity_warmup * (double)f.s.steps;
    if (warm > 1) options.sparsity_scale = 1 / warm;
    const atmsae_mask of_nothing = {.size = sizeof of_nothing, .d_sae = f.s.model.d_sae, .effect = f.s.masker.effect,
                                    .alpha = f.s.masker.alpha}; /* as the first step's is */
    options.mask = &of_nothing;
    atmsae_batch batch = batch_of(&f, d, 0);
    atmsae_loss loss = {.size = sizeof loss};
    ok(f.ctx, atmsae_forward(model, &batch, &options, codes, &loss));
    near("prefix", 0, loss.prefix, (double)floats(&f, "step.", "prefix", f.s.steps)[0], loss_tolerance, 0);
    near("total", 0, loss.total, (double)floats(&f, "step.", "total", f.s.steps)[0], loss_tolerance, 0);
    ok(f.ctx, atmsae_backward(model, codes, gradients));
    for (unsigned i = 0; i < N_PARAMETERS; i++) {
        uint64_t count;
        if (!atmsae_model_view(model, parameters[i].id, &count)) continue;
        float *got = keep(&f, malloc(count * sizeof *got));
        ok(f.ctx, atmsae_gradients_get(gradients, parameters[i].id, got, count));
        const float *want = floats(&f, "gradient.", parameters[i].name, count);
        ck_assert(want != NULL);
        near_all("gradient.", parameters[i].name, got, want, count, gradient_tolerance);
    }
    atmsae_gradients_destroy(gradients);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(model);
    close_fixture(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reference");
    TCase *tc = tcase_create("pytorch");
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, first_gradients, 0, N_CASES);
    tcase_add_loop_test(tc, run_of_steps, 0, N_CASES);
    suite_add_tcase(suite, tc);
    return run_all(suite);
}
