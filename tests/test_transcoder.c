/* SPDX-License-Identifier: MIT
 *
 * Transcoders: what they compute, are trained on and measured against is another tensor than their input, so a source
 * hands out pairs. And SAEs whose input is not centred, which are none.
 */
#include "base/base.h"
#include "data/source.h"

#include <atmsae/eval.h>
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D_IN = 5, D_OUT = 4, F = 20, ROWS = 700 };

static atmsae_context *ctx;
static char folder[64];
static float x[ROWS * D_IN], y[ROWS * D_OUT];

static void ok_at(int line, atmsae_status status)
{
    ck_assert_msg(status == ATMSAE_OK, "line %d: %s: %s", line, atmsae_status_name(status), atmsae_last_error(ctx));
}
#define ok(call) ok_at(__LINE__, call)
#define REFUSED(status, text, call)                                                                          \
    do {                                                                                                     \
        ck_assert_int_eq(call, status);                                                                      \
        ck_assert_msg(strstr(atmsae_last_error(ctx), text) != NULL, "\"%s\" not in: %s", text, atmsae_last_error(ctx)); \
    } while (0)

static double noise(uint64_t seed, uint64_t i) /* -1 .. 1 */
{
    uint64_t z = (seed << 32) + i + 0x9E3779B97F4A7C15u * (i + 1);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

static const char *path_of(const char *name)
{
    static char paths[8][128];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_npy(const char *path, const float *data, uint64_t n, uint64_t d)
{
    char head[128] = "\x93NUMPY\x01\x00\x76\x00";
    const int used = snprintf(head + 10, 118, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %llu), }", (unsigned long long)n,
                              (unsigned long long)d);
    memset(head + 10 + used, ' ', 118 - (size_t)used);
    head[127] = '\n';
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(head, 1, 128, file), 128);
    ck_assert_uint_eq(fwrite(data, sizeof *data * d, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

/* The map that is to be learnt: y = ReLU(x W + b) D + c, in double. */
static double w_of(int i, int j) { return noise(1, (uint64_t)(i * D_IN + j)); }
static double b_of(int i) { return 0.3 * noise(2, (uint64_t)i) - 0.4; }
static double d_of(int i, int j) { return noise(3, (uint64_t)(i * D_OUT + j)); }
static double c_of(int j) { return noise(4, (uint64_t)j); }

static void make_pairs(void)
{
    for (int r = 0; r < ROWS; r++) {
        double out[D_OUT];
        for (int j = 0; j < D_IN; j++) x[r * D_IN + j] = (float)(1.5 * noise(5, (uint64_t)(r * D_IN + j)));
        for (int j = 0; j < D_OUT; j++) out[j] = c_of(j);
        for (int i = 0; i < F; i++) {
            double z = b_of(i);
            for (int j = 0; j < D_IN; j++) z += w_of(i, j) * (double)x[r * D_IN + j];
            for (int j = 0; j < D_OUT; j++) out[j] += fmax(z, 0) * d_of(i, j);
        }
        for (int j = 0; j < D_OUT; j++) y[r * D_OUT + j] = (float)out[j];
    }
}

static void setup(void)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), 0);
    strcpy(folder, "/tmp/atmsae-transcoder-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    make_pairs();
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    atmsae_context_destroy(ctx);
}

/* The map as a model. */
static atmsae_model *exact_model(void)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_out = D_OUT;
    config.d_sae = F;
    config.activation = ATMSAE_RELU;
    atmsae_model *m;
    float enc[F * D_IN], dec[F * D_OUT], b[F], c[D_OUT];
    for (int i = 0; i < F; i++) {
        for (int j = 0; j < D_IN; j++) enc[i * D_IN + j] = (float)w_of(i, j);
        for (int j = 0; j < D_OUT; j++) dec[i * D_OUT + j] = (float)d_of(i, j);
        b[i] = (float)b_of(i);
    }
    for (int j = 0; j < D_OUT; j++) c[j] = (float)c_of(j);
    ok(atmsae_model_create(ctx, &config, &m));
    ok(atmsae_model_set(m, ATMSAE_W_ENC, enc, F * D_IN));
    ok(atmsae_model_set(m, ATMSAE_W_DEC, dec, F * D_OUT));
    ok(atmsae_model_set(m, ATMSAE_B_ENC, b, F));
    ok(atmsae_model_set(m, ATMSAE_B_DEC, c, D_OUT));
    return m;
}

static atmsae_batch batch_of(uint64_t n, bool targets)
{
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.n_rows = n;
    b.x = x;
    if (targets) b.y = y;
    return b;
}

static double fvu_of(const atmsae_model *m, const atmsae_batch *b)
{
    atmsae_metrics *metrics;
    atmsae_metrics_result r = {.size = sizeof r};
    ok(atmsae_metrics_create(m, &metrics));
    ok(atmsae_metrics_add(metrics, b));
    ok(atmsae_metrics_get(metrics, &r));
    atmsae_metrics_destroy(metrics);
    return r.fvu;
}

/* ---- measured and trained against its targets ------------------------------------------------------------ */

START_TEST(an_exact_transcoder_has_no_error)
{
    atmsae_model *m = exact_model();
    const atmsae_batch b = batch_of(ROWS, true);
    ck_assert_double_lt(fvu_of(m, &b), 1e-12);
    ok(atmsae_model_save(m, path_of("sae"), NULL));
    atmsae_model_destroy(m);
    ok(atmsae_model_load(ctx, path_of("sae"), &m));
    ck_assert_double_lt(fvu_of(m, &b), 1e-12);
    atmsae_model_destroy(m);
}
END_TEST

/* Also where input and targets are of one width, so that it could be done without a word. */
START_TEST(without_targets_nothing_is_measured)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_sae = F;
    config.k = 3;
    config.transcoder = 1;
    atmsae_model *m;
    atmsae_metrics *metrics;
    atmsae_codes *codes;
    ok(atmsae_model_create(ctx, &config, &m));
    ok(atmsae_metrics_create(m, &metrics));
    ok(atmsae_codes_create(ctx, &codes));
    const atmsae_batch b = batch_of(ROWS, false);
    REFUSED(ATMSAE_E_ARG, "y is NULL", atmsae_metrics_add(metrics, &b));
    REFUSED(ATMSAE_E_ARG, "uncentred = 1", atmsae_forward(m, &b, NULL, codes, NULL));
    REFUSED(ATMSAE_E_ARG, "y is NULL", atmsae_model_prepare(m, &b));
    ok(atmsae_model_calibrate(m, &b)); /* what is about latents alone needs none */
    ok(atmsae_encode(m, &b, codes));
    const uint8_t is_train[8] = {1, 1, 1, 1, 0, 0, 0, 0};
    const int32_t labels[8] = {0, 1, 0, 1, 0, 1, 0, 1};
    atmsae_absorption_config absorption_config;
    atmsae_absorption_config_init(&absorption_config, sizeof absorption_config);
    absorption_config.n_classes = 2;
    const atmsae_batch words = batch_of(8, false);
    atmsae_absorption *absorption;
    atmsae_absorption_result result = {.size = sizeof result};
    ok(atmsae_absorption_create(ctx, &absorption_config, &words, D_IN, labels, is_train, &absorption));
    REFUSED(ATMSAE_E_UNSUPPORTED, "transcoder", atmsae_absorption_score(absorption, m, &result, NULL));
    atmsae_absorption_destroy(absorption);
    atmsae_codes_destroy(codes);
    atmsae_metrics_destroy(metrics);
    atmsae_model_destroy(m);
}
END_TEST

/* With b_enc' = b_enc - W_enc b_dec an uncentred SAE has the latents of a centred one, and b_dec is added all the same. */
START_TEST(uncentred_is_not_a_transcoder)
{
    atmsae_model_config config, got = {.size = sizeof got};
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_sae = F;
    config.activation = ATMSAE_RELU;
    atmsae_model *centred, *uncentred;
    ok(atmsae_model_create(ctx, &config, &centred));
    config.uncentred = 1;
    ok(atmsae_model_create(ctx, &config, &uncentred));
    ok(atmsae_model_get_config(uncentred, &got));
    ck_assert_int_eq(got.uncentred, 1);
    ck_assert_int_eq(got.transcoder, 0);
    const float *enc = atmsae_model_view(centred, ATMSAE_W_ENC, NULL), *same = atmsae_model_view(uncentred, ATMSAE_W_ENC, NULL);
    ck_assert_mem_eq(enc, same, sizeof(float) * F * D_IN); /* its decoder transposed, as of any SAE */
    float b_dec[D_IN], b_enc[F];
    for (int j = 0; j < D_IN; j++) b_dec[j] = (float)noise(7, (uint64_t)j);
    for (int i = 0; i < F; i++) {
        double sum = 0;
        for (int j = 0; j < D_IN; j++) sum += (double)enc[i * D_IN + j] * (double)b_dec[j];
        b_enc[i] = (float)-sum;
    }
    ok(atmsae_model_set(centred, ATMSAE_B_DEC, b_dec, D_IN));
    ok(atmsae_model_set(uncentred, ATMSAE_B_DEC, b_dec, D_IN));
    ok(atmsae_model_set(uncentred, ATMSAE_B_ENC, b_enc, F));
    const atmsae_batch b = batch_of(ROWS, false);
    const double of_centred = fvu_of(centred, &b);
    ck_assert_double_gt(of_centred, 0.01);
    ck_assert_double_eq_tol(fvu_of(uncentred, &b), of_centred, 1e-5);
    atmsae_codes *codes;
    atmsae_loss loss = {.size = sizeof loss}, uncentred_loss = {.size = sizeof uncentred_loss};
    ok(atmsae_codes_create(ctx, &codes));
    ok(atmsae_forward(centred, &b, NULL, codes, &loss));
    ok(atmsae_forward(uncentred, &b, NULL, codes, &uncentred_loss));
    ck_assert_double_eq_tol(uncentred_loss.mse, loss.mse, 1e-4 * loss.mse);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(centred);
    atmsae_model_destroy(uncentred);
}
END_TEST

/* ---- sources of pairs -------------------------------------------------------------------------------------- */

/* Row r of the stream holds r in each number of its input, and r + 0.5 in each of its target: exact in f16 below 1024. */
static void *numbered(int type, uint64_t first, uint64_t n, uint64_t d, float plus)
{
    uint16_t *half = calloc(n * d, sizeof *half);
    float *full = calloc(n * d, sizeof *full);
    ck_assert(half && full);
    for (uint64_t i = 0; i < n * d; i++) {
        const float value = (float)(first + i / d) + plus;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        full[i] = value;
        half[i] = value == 0 ? 0 : (uint16_t)(((bits >> 23) - 112) << 10 | (bits >> 13 & 0x3ff)); /* f16 */
    }
    free(type == ATMSAE_F32 ? (void *)half : (void *)full);
    return type == ATMSAE_F32 ? (void *)full : (void *)half;
}

typedef struct pairs {
    void *memory[4];
    atmsae_source *source;
} pairs;

enum { FIRST = 90, SECOND = 37, ALL_ROWS = FIRST + SECOND, D_A = 3, D_B = 2, WIDTH = D_A + D_B };

static atmsae_source *new_source(uint64_t shuffle, uint64_t epochs)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = shuffle;
    config.epochs = epochs;
    config.seed = 3;
    atmsae_source *source;
    ok(atmsae_source_create(ctx, &config, &source));
    return source;
}

/* Two inputs, one in memory and one in a file, or the other way round; types x_type and y_type. */
static pairs make_source(uint64_t shuffle, uint64_t epochs, int x_type, int y_type, bool targets)
{
    pairs p = {.source = new_source(shuffle, epochs)};
    p.memory[0] = numbered(x_type, 0, FIRST, D_A, 0);
    p.memory[1] = numbered(y_type, 0, FIRST, D_B, 0.5f);
    float *a = numbered(ATMSAE_F32, FIRST, SECOND, D_A, 0), *b = numbered(ATMSAE_F32, FIRST, SECOND, D_B, 0.5f);
    write_npy(path_of("a.npy"), a, SECOND, D_A);
    write_npy(path_of("b.npy"), b, SECOND, D_B);
    free(a);
    free(b);
    ok(atmsae_source_add_memory(p.source, p.memory[0], FIRST, D_A, 0, x_type));
    if (targets) ok(atmsae_source_add_target_memory(p.source, p.memory[1], FIRST, D_B, 0, y_type));
    ok(atmsae_source_add_file(p.source, path_of("a.npy"), NULL, 0));
    if (targets) ok(atmsae_source_add_target_file(p.source, path_of("b.npy"), NULL, 0));
    return p;
}

static void finish(pairs *p)
{
    atmsae_source_destroy(p->source);
    for (int i = 0; i < 4; i++) free(p->memory[i]);
}

START_TEST(pairs_stay_together)
{
    static const int types[][2] = {{ATMSAE_F32, ATMSAE_F32}, {ATMSAE_F16, ATMSAE_F16}, {ATMSAE_F16, ATMSAE_F32}, {ATMSAE_F32, ATMSAE_F16}};
    static const uint64_t shuffles[] = {0, 1, 40, 1000};
    for (size_t t = 0; t < 4; t++)
        for (size_t s = 0; s < 4; s++) {
            pairs with = make_source(shuffles[s], 2, types[t][0], types[t][1], true);
            pairs without = make_source(shuffles[s], 2, types[t][0], types[t][1], false);
            ck_assert_uint_eq(atmsae_source_d(with.source), D_A);
            ck_assert_uint_eq(atmsae_source_d_target(with.source), D_B);
            ck_assert_uint_eq(atmsae_source_d_target(without.source), 0);
            ck_assert_uint_eq(atmsae_source_rows(with.source), ALL_ROWS);
            float rows[2 * ALL_ROWS * WIDTH], alone[2 * ALL_ROWS * D_A];
            uint64_t got, times[ALL_ROWS] = {0}, total = 0;
            for (uint64_t n = 7; n > 0; total += n) {
                float *out = rows + total * WIDTH;
                ok(atmsae_source_next(with.source, 7, out, &n));
                ok(atmsae_source_next(without.source, 7, alone + total * D_A, &got));
                ck_assert_uint_eq(n, got);
                for (uint64_t r = 0; r < n; r++) {
                    const float number = out[r * WIDTH];
                    for (uint64_t j = 0; j < WIDTH; j++) ck_assert(out[r * WIDTH + j] == number + (j < D_A ? 0.0f : 0.5f));
                    ck_assert(alone[(total + r) * D_A] == number); /* the order is that of the inputs alone */
                    times[(uint64_t)number]++;
                    atmsae_row_origin origin = {.size = sizeof origin};
                    ok(atmsae_source_locate(with.source, r, &origin));
                    const bool second = number >= FIRST;
                    ck_assert_uint_eq(origin.row, (uint64_t)number - (second ? FIRST : 0));
                    ck_assert(second ? strstr(origin.path, "a.npy") && strstr(origin.target_path, "b.npy") : !origin.path && !origin.target_path);
                }
            }
            ck_assert_uint_eq(total, 2 * ALL_ROWS);
            for (int i = 0; i < ALL_ROWS; i++) ck_assert_uint_eq(times[i], 2);
            finish(&with);
            finish(&without);
        }
}
END_TEST

START_TEST(pairs_that_are_put_back_come_again)
{
    for (int drained = 0; drained < 2; drained++) {
        pairs p = make_source(40, 1, ATMSAE_F16, ATMSAE_F32, true);
        static float before[ALL_ROWS * WIDTH], again[ALL_ROWS * WIDTH];
        uint64_t n, got;
        ok(atmsae_source_next(p.source, drained ? ALL_ROWS - 10 : 20, before, &n));
        ok(atmsae_source_next(p.source, 30, before, &n));
        ok(atmsae_source_unread(p.source));
        ok(atmsae_source_next(p.source, 30, again, &got));
        ck_assert_uint_eq(n, got);
        ck_assert_mem_eq(before, again, n * WIDTH * sizeof *before);
        finish(&p);
    }
}
END_TEST

static int64_t no_rows(void *opaque, float *out, uint64_t most)
{
    (void)opaque, (void)out, (void)most;
    return 0;
}

START_TEST(targets_that_do_not_belong)
{
    pairs p = make_source(40, 1, ATMSAE_F32, ATMSAE_F32, true);
    atmsae_source *s = new_source(10, 1);
    float out[WIDTH];
    uint64_t got;
    REFUSED(ATMSAE_E_STATE, "there is none yet", atmsae_source_add_target_file(s, path_of("b.npy"), NULL, 0));
    ok(atmsae_source_add_memory(s, p.memory[0], FIRST, D_A, 0, ATMSAE_F32));
    REFUSED(ATMSAE_E_ARG, "b.npy has 37 targets, but rows in memory has 90 rows", atmsae_source_add_target_file(s, path_of("b.npy"), NULL, 0));
    ck_assert_uint_eq(atmsae_source_d_target(s), 0); /* nothing was added */
    ok(atmsae_source_add_target_memory(s, p.memory[1], FIRST, D_B, 0, ATMSAE_F32));
    REFUSED(ATMSAE_E_STATE, "has its targets already", atmsae_source_add_target_memory(s, p.memory[1], FIRST, D_B, 0, ATMSAE_F32));
    ok(atmsae_source_add_file(s, path_of("a.npy"), NULL, 0));
    REFUSED(ATMSAE_E_STATE, "a.npy) has no targets, but others have", atmsae_source_next(s, 1, out, &got));
    REFUSED(ATMSAE_E_ARG, "a.npy: targets of d = 3 elements, but those of the inputs before it have 2",
            atmsae_source_add_target_file(s, path_of("a.npy"), NULL, 0));
    REFUSED(ATMSAE_E_ARG, "rows of d = 2 elements", atmsae_source_add_file(s, path_of("b.npy"), NULL, 0));
    ok(atmsae_source_add_target_file(s, path_of("b.npy"), NULL, 0));
    ok(atmsae_source_next(s, 1, out, &got));
    REFUSED(ATMSAE_E_STATE, "after the first row was taken", atmsae_source_add_target_file(s, path_of("b.npy"), NULL, 0));
    atmsae_source_destroy(s);
    s = new_source(10, 1);
    ok(atmsae_source_add_callback(s, D_A, no_rows, NULL));
    REFUSED(ATMSAE_E_UNSUPPORTED, "callback", atmsae_source_add_target_memory(s, p.memory[1], FIRST, D_B, 0, ATMSAE_F32));
    atmsae_source_destroy(s);
    /* A file of targets that was written to since it was added. */
    float *other = numbered(ATMSAE_F32, FIRST, SECOND, D_B, 0.25f);
    write_npy(path_of("b.npy"), other, SECOND, D_B);
    float *all = malloc(sizeof(float) * ALL_ROWS * WIDTH);
    REFUSED(ATMSAE_E_STATE, "b.npy: the file has changed", atmsae_source_next(p.source, ALL_ROWS, all, &got));
    free(all);
    free(other);
    finish(&p);
}
END_TEST

/* ---- training on pairs --------------------------------------------------------------------------------------- */

static atmsae_source *data_source(const char *targets)
{
    atmsae_source *source = new_source(200, 0);
    ok(atmsae_source_add_memory(source, x, ROWS, D_IN, 0, ATMSAE_F32));
    if (targets) ok(atmsae_source_add_target_file(source, targets, NULL, 0));
    return source;
}

static atmsae_trainer *new_trainer(uint64_t steps)
{
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D_IN;
    model.d_out = D_OUT;
    model.d_sae = 2 * F;
    model.k = 8;
    atmsae_optimizer_config optimizer;
    atmsae_optimizer_config_init(&optimizer, sizeof optimizer);
    optimizer.lr = 3e-3;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.optimizer = &optimizer;
    config.batch_rows = 64;
    config.total_rows = steps * 64;
    config.skip_bad_rows = 3;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &config, &t));
    return t;
}

static void train(atmsae_trainer *t, atmsae_source *source, int steps)
{
    float rows[64 * (D_IN + D_OUT)];
    atmsae_batch b;
    atmsae_batch_init(&b, sizeof b);
    b.x = rows;
    b.y = rows + D_IN;
    b.ld_x = b.ld_y = D_IN + D_OUT;
    for (int i = 0; i < steps; i++) {
        ok(atmsae_source_next(source, 64, rows, &b.n_rows));
        if (i == 0 && atmsae_trainer_steps_done(t) == 0) ok(atmsae_trainer_prepare(t, &b));
        ok(atmsae_trainer_step(t, &b, NULL));
    }
}

START_TEST(training_on_pairs_learns_the_map)
{
    write_npy(path_of("y.npy"), y, ROWS, D_OUT);
    atmsae_source *source = data_source(path_of("y.npy"));
    atmsae_trainer *t = new_trainer(1500);
    train(t, source, 1);
    const atmsae_batch b = batch_of(ROWS, true);
    ok(atmsae_trainer_calibrate(t, &b));
    const double before = fvu_of(atmsae_trainer_model(t), &b);
    train(t, source, 1499);
    ok(atmsae_trainer_calibrate(t, &b));
    const double after = fvu_of(atmsae_trainer_model(t), &b);
    ck_assert_msg(before > 0.5 && after < 0.1, "FVU %g, then %g", before, after);
    atmsae_trainer_destroy(t);
    atmsae_source_destroy(source);
}
END_TEST

START_TEST(a_checkpoint_goes_on_with_its_pairs)
{
    write_npy(path_of("y.npy"), y, ROWS, D_OUT);
    atmsae_source *whole = data_source(path_of("y.npy")), *first = data_source(path_of("y.npy")), *second = data_source(path_of("y.npy"));
    atmsae_trainer *a = new_trainer(40), *b = new_trainer(40), *c;
    train(a, whole, 40);
    train(b, first, 23);
    ok(atmsae_trainer_save(b, first, path_of("checkpoint.safetensors")));
    ok(atmsae_trainer_load(ctx, path_of("checkpoint.safetensors"), second, &c));
    train(c, second, 17);
    for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_B_DEC; p++) {
        uint64_t n;
        const float *want = atmsae_model_view(atmsae_trainer_model(a), p, &n), *got = atmsae_model_view(atmsae_trainer_model(c), p, NULL);
        ck_assert_mem_eq(want, got, n * sizeof *want);
    }
    atmsae_trainer_destroy(c);

    /* Not with other targets, nor with none; and what had none does not go on with some. */
    y[0] += 1;
    write_npy(path_of("other.npy"), y, ROWS, D_OUT);
    y[0] -= 1;
    atmsae_source *other = data_source(path_of("other.npy")), *none = data_source(NULL);
    REFUSED(ATMSAE_E_STATE, "other.npy) is not what it was: its targets' checksum", atmsae_trainer_load(ctx, path_of("checkpoint.safetensors"), other, &c));
    REFUSED(ATMSAE_E_STATE, "it has no targets, but the state was saved with them", atmsae_trainer_load(ctx, path_of("checkpoint.safetensors"), none, &c));
    ok(atmsae_trainer_save(b, none, path_of("without.safetensors")));
    REFUSED(ATMSAE_E_STATE, "it has targets, but the state was saved without them", atmsae_trainer_load(ctx, path_of("without.safetensors"), other, &c));
    atmsae_source *const sources[] = {whole, first, second, other, none};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) atmsae_source_destroy(sources[i]);
    atmsae_trainer_destroy(a);
    atmsae_trainer_destroy(b);
}
END_TEST

/* A NaN in a target leaves the pair out, as one in an input does. */
START_TEST(a_bad_target_is_a_bad_row)
{
    const float kept[2] = {y[5 * D_OUT + 1], x[9 * D_IN]};
    atmsae_trainer *t = new_trainer(10);
    atmsae_step_stats stats = {.size = sizeof stats};
    atmsae_batch b = batch_of(64, true);
    ok(atmsae_trainer_prepare(t, &b));
    y[5 * D_OUT + 1] = NAN;
    x[9 * D_IN] = INFINITY;
    ok(atmsae_trainer_step(t, &b, &stats));
    ck_assert_uint_eq(stats.bad_rows, 2);
    ck_assert_uint_eq(stats.rows, 62);
    b.y = NULL; /* of which calibration has no use */
    ok(atmsae_trainer_calibrate(t, &b));
    y[5 * D_OUT + 1] = kept[0];
    x[9 * D_IN] = kept[1];
    atmsae_trainer_destroy(t);
}
END_TEST

/* ---- checkpoints and files say which it is ------------------------------------------------------------------- */

static void expect_kind(const atmsae_model *m, int transcoder, int uncentred, const char *what)
{
    atmsae_model_config config = {.size = sizeof config};
    ok(atmsae_model_get_config(m, &config));
    ck_assert_msg(config.transcoder == transcoder && config.uncentred == uncentred, "%s: transcoder %d, uncentred %d", what,
                  (int)config.transcoder, (int)config.uncentred);
}

static bool file_has(const char *path, const char *text)
{
    static char bytes[1 << 16];
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s", path);
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    return memmem(bytes, n, text, strlen(text)) != NULL;
}

/* Checkpoints of 0.1.0 hold "transcoder" alone. */
START_TEST(old_checkpoints_mean_what_they_meant)
{
    const char *tests = getenv("ATMSAE_TESTS");
    char path[600];
    snprintf(path, sizeof path, "%s/golden/0.1/jumprelu-transcoder.safetensors", tests ? tests : "tests");
    ck_assert(!file_has(path, "uncentred"));
    atmsae_trainer *t;
    ok(atmsae_trainer_load(ctx, path, NULL, &t));
    expect_kind(atmsae_trainer_model(t), 1, 1, "an old transcoder");
    ok(atmsae_trainer_save(t, NULL, path_of("again.safetensors")));
    ck_assert(!file_has(path_of("again.safetensors"), "uncentred")); /* 0.1.0 can go on with it */
    atmsae_trainer_destroy(t);
    snprintf(path, sizeof path, "%s/golden/0.1/topk.safetensors", tests ? tests : "tests");
    ok(atmsae_trainer_load(ctx, path, NULL, &t));
    expect_kind(atmsae_trainer_model(t), 0, 0, "an old SAE");
    atmsae_trainer_destroy(t);
}
END_TEST

static const struct kind {
    const char *name;
    int transcoder, uncentred;
} kinds[] = {{"SAE", 0, 0}, {"uncentred SAE", 0, 1}, {"transcoder", 1, 1}};

static atmsae_trainer *trainer_of(const struct kind *kind, int32_t activation)
{
    atmsae_model_config model;
    atmsae_model_config_init(&model, sizeof model);
    model.d_in = D_IN;
    model.d_sae = F;
    model.k = 3;
    model.activation = activation;
    model.transcoder = kind->transcoder;
    model.uncentred = kind->uncentred;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    config.model = &model;
    config.batch_rows = 64;
    atmsae_trainer *t;
    ok(atmsae_trainer_create(ctx, &config, &t));
    atmsae_batch b = batch_of(64, false);
    float other[64 * D_IN];
    for (int i = 0; i < 64 * D_IN; i++) other[i] = 3 * x[64 * D_IN - 1 - i];
    if (kind->transcoder) b.y = other;
    ok(atmsae_trainer_prepare(t, &b));
    ok(atmsae_trainer_step(t, &b, NULL));
    return t;
}

START_TEST(files_keep_what_it_is)
{
    static const struct {
        int32_t activation;
        const char *sae, *transcoder; /* as SAELens calls them */
    } forms[] = {{ATMSAE_RELU, "standard", "transcoder"}, {ATMSAE_TOPK, "topk", "topk"}, {ATMSAE_BATCHTOPK, "jumprelu", "jumprelu_transcoder"},
                 {ATMSAE_JUMPRELU, "jumprelu", "jumprelu_transcoder"}, {ATMSAE_JUMPRELU_TANH, "jumprelu", "jumprelu_transcoder"},
                 {ATMSAE_GATED, "gated", "gated"}};
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.hook_name = "blocks.0.hook_mlp_in";
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
        for (size_t k = 0; k < 3; k++) {
            atmsae_trainer *t = trainer_of(&kinds[k], forms[f].activation), *again;
            ok(atmsae_trainer_save(t, NULL, path_of("c.safetensors")));
            ok(atmsae_trainer_load(ctx, path_of("c.safetensors"), NULL, &again));
            expect_kind(atmsae_trainer_model(again), kinds[k].transcoder, kinds[k].uncentred, kinds[k].name);
            atmsae_trainer_destroy(again);

            char text[80];
            atmsae_model *m, *twice;
            options.hook_name_out = kinds[k].transcoder ? "blocks.0.hook_mlp_out" : NULL;
            ok(atmsae_model_save(atmsae_trainer_model(t), path_of("sae"), &options));
            snprintf(text, sizeof text, "\"architecture\": \"%s\"", kinds[k].transcoder ? forms[f].transcoder : forms[f].sae);
            ck_assert_msg(file_has(path_of("sae/cfg.json"), text), "%s, activation %d: %s", kinds[k].name, (int)forms[f].activation, text);
            snprintf(text, sizeof text, "\"apply_b_dec_to_input\": %s", kinds[k].uncentred ? "false" : "true");
            ck_assert(file_has(path_of("sae/cfg.json"), text));
            ok(atmsae_model_load(ctx, path_of("sae"), &m));
            expect_kind(m, kinds[k].transcoder, kinds[k].uncentred, kinds[k].name);
            atmsae_model_origin origin = {.size = sizeof origin};
            ok(atmsae_model_get_origin(m, &origin));
            ck_assert_pstr_eq(origin.hook_name_out, options.hook_name_out);
            ck_assert_int_eq(origin.may_transcode, kinds[k].transcoder);
            ok(atmsae_model_save(m, path_of("twice"), NULL)); /* names come from the file */
            ok(atmsae_model_load(ctx, path_of("twice"), &twice));
            expect_kind(twice, kinds[k].transcoder, kinds[k].uncentred, kinds[k].name);
            ck_assert(file_has(path_of("twice/cfg.json"), "blocks.0.hook_mlp_in"));
            ck_assert(file_has(path_of("twice/cfg.json"), "blocks.0.hook_mlp_out") == (kinds[k].transcoder == 1));
            if (!kinds[k].transcoder) {
                options.hook_name_out = "blocks.0.hook_mlp_out";
                REFUSED(ATMSAE_E_ARG, "no transcoder", atmsae_model_save(m, path_of("no"), &options));
                ck_assert_int_ne(access(path_of("no"), F_OK), 0);
            }
            atmsae_model_destroy(twice);
            atmsae_model_destroy(m);
            atmsae_trainer_destroy(t);
        }
}
END_TEST

/* Gemma Scope's arrays do not say it where the widths are the same; the caller may. */
START_TEST(formats_that_do_not_say_it)
{
    atmsae_trainer *t = trainer_of(&kinds[2], ATMSAE_JUMPRELU);
    atmsae_model *m;
    atmsae_model_origin origin = {.size = sizeof origin};
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.hook_name_out = "out";
    ok(atmsae_model_save(atmsae_trainer_model(t), path_of("params.npz"), NULL));
    atmsae_trainer_destroy(t);
    ok(atmsae_model_load(ctx, path_of("params.npz"), &m));
    expect_kind(m, 0, 1, "params.npz");
    ok(atmsae_model_get_origin(m, &origin));
    ck_assert_int_eq(origin.may_transcode, 1);
    ok(atmsae_model_save(m, path_of("plain"), NULL));
    ck_assert(file_has(path_of("plain/cfg.json"), "\"architecture\": \"jumprelu\""));
    ok(atmsae_model_save(m, path_of("tc"), &options));
    atmsae_model_destroy(m);
    ok(atmsae_model_load(ctx, path_of("tc"), &m));
    expect_kind(m, 1, 1, "with hook_name_out");
    atmsae_model_destroy(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("transcoder");
    TCase *t = tcase_create("transcoder");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, an_exact_transcoder_has_no_error);
    tcase_add_test(t, without_targets_nothing_is_measured);
    tcase_add_test(t, uncentred_is_not_a_transcoder);
    tcase_add_test(t, pairs_stay_together);
    tcase_add_test(t, pairs_that_are_put_back_come_again);
    tcase_add_test(t, targets_that_do_not_belong);
    tcase_add_test(t, training_on_pairs_learns_the_map);
    tcase_add_test(t, a_checkpoint_goes_on_with_its_pairs);
    tcase_add_test(t, a_bad_target_is_a_bad_row);
    tcase_add_test(t, old_checkpoints_mean_what_they_meant);
    tcase_add_test(t, files_keep_what_it_is);
    tcase_add_test(t, formats_that_do_not_say_it);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
