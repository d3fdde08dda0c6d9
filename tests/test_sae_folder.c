/* SPDX-License-Identifier: MIT
 *
 * SAE folders. What is saved is read back with SAELens's formulas, written out here in double
 * precision on the file's own layout, and must give what the model gives; loading must give that
 * model again; malformed folders must be refused with the right status and leave nothing behind.
 */
#include "counted.h"
#include "format/format.h"
#include "suite.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { D_IN = 12, D_OUT = 9, F = 40, ROWS = 50 };

static atmsae_context *ctx;
static char root[64], logged[2048];

static void keep(void *opaque, int32_t level, const char *message)
{
    (void)opaque, (void)level;
    snprintf(logged, sizeof logged, "%s", message);
}

static void setup(void)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    config.log = keep;
    config.allocator = &counted;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    strcpy(root, "/tmp/atmsae_folder_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    logged[0] = '\0';
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char inner[400];
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (unlink(inner) < 0) remove_tree(inner);
    }
    closedir(d);
    rmdir(path);
}

static void teardown(void)
{
    atmsae_context_destroy(ctx);
    ck_assert_int_eq(live, 0);
    ck_assert_uint_le(largest_request, 64u << 20); /* whatever a small file claims */
    remove_tree(root);
}

static const char *in_root(const char *name)
{
    static char memory[8][128];
    static unsigned turn;
    char *path = memory[turn++ % 8];
    snprintf(path, sizeof memory[0], "%s/%s", root, name);
    return path;
}

static size_t get(const char *path, char *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    size_t n = fread(bytes, 1, room - 1, f);
    ck_assert(feof(f));
    fclose(f);
    bytes[n] = '\0';
    return n;
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    ck_assert_int_eq(fclose(f), 0);
}

static bool same_files(const char *a, const char *b)
{
    static char x[1 << 17], y[1 << 17];
    size_t n = get(a, x, sizeof x);
    return n == get(b, y, sizeof y) && memcmp(x, y, n) == 0;
}

/* ---- models with known parameters --------------------------------------------------------------- */

static uint32_t state = 1;
static float draw(void) /* -1 .. 1 */
{
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-23f - 1;
}

static void set_random(atmsae_model *m, int32_t parameter, float scale, float shift)
{
    uint64_t count;
    if (!atmsae_model_view(m, parameter, &count)) return;
    float *values = malloc(count * sizeof *values);
    for (uint64_t i = 0; i < count; i++)
        values[i] = shift + scale * draw();
    ck_assert_int_eq(atmsae_model_set(m, parameter, values, count), ATMSAE_OK);
    free(values);
}

static atmsae_model *make(int32_t activation, int transcoder, uint64_t d_out, int matryoshka, float s, float t)
{
    static const uint64_t prefixes[] = {8, 16};
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_out = d_out;
    config.d_sae = F;
    config.k = 5;
    config.activation = activation;
    config.transcoder = transcoder;
    config.n_prefixes = matryoshka ? 2 : 0;
    config.prefixes = prefixes;
    atmsae_model *m;
    ck_assert_msg(atmsae_model_create(ctx, &config, &m) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
    set_random(m, ATMSAE_W_ENC, 0.5f, 0);
    set_random(m, ATMSAE_B_ENC, 0.2f, 0);
    set_random(m, ATMSAE_W_DEC, 0.5f, 0);
    set_random(m, ATMSAE_B_DEC, 0.5f, 0.1f);
    set_random(m, ATMSAE_THRESHOLD, 0.3f, 0.4f);
    set_random(m, ATMSAE_R_MAG, 0.4f, 0);
    set_random(m, ATMSAE_B_MAG, 0.2f, 0);
    set_random(m, ATMSAE_BATCH_THRESHOLD, 0.1f, 0.4f);
    ck_assert_int_eq(atmsae_model_set(m, ATMSAE_INPUT_SCALE, &s, 1), ATMSAE_OK);
    ck_assert_int_eq(atmsae_model_set(m, ATMSAE_OUTPUT_SCALE, &t, 1), ATMSAE_OK);
    return m;
}

/* Dense latents and reconstruction. */
static void run(const atmsae_model *m, const float *x, float *f, float *y, uint64_t d_out)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = ROWS;
    batch.x = x;
    atmsae_codes *codes;
    atmsae_codes_view view = {.size = sizeof view};
    ck_assert_int_eq(atmsae_codes_create(ctx, &codes), ATMSAE_OK);
    ck_assert_msg(atmsae_encode(m, &batch, codes) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
    ck_assert_int_eq(atmsae_codes_get(codes, &view), ATMSAE_OK);
    memset(f, 0, sizeof *f * ROWS * F);
    for (uint64_t r = 0; r < ROWS; r++)
        for (uint64_t e = view.row_start[r]; e < view.row_start[r + 1]; e++)
            f[r * F + view.latent[e]] = view.value[e];
    ck_assert_int_eq(atmsae_decode(m, codes, y, d_out), ATMSAE_OK);
    atmsae_codes_destroy(codes);
}

/* ---- SAELens's inference, from the files -------------------------------------------------------- */

typedef struct folder {
    char cfg[4096];
    char architecture[64];
    bool centred, rescale;
    unsigned k;
    uint64_t d_out;
    float *w_enc, *w_dec, *b_enc, *b_dec, *threshold, *b_gate, *b_mag, *r_mag;
} folder;

static float *tensor(const atmsae_tensors *t, const char *name, uint64_t rank, uint64_t rows, uint64_t cols, unsigned *found)
{
    uint64_t i;
    atmsae_tensor_info info = {.size = sizeof info};
    if (atmsae_tensors_find(t, name, &i) < 0) return NULL;
    ck_assert_int_eq(atmsae_tensors_info(t, i, &info), ATMSAE_OK);
    ck_assert_uint_eq(info.rank, rank);
    ck_assert_uint_eq(info.shape[0], rows);
    if (rank == 2) ck_assert_uint_eq(info.shape[1], cols);
    float *values = malloc(rows * cols * sizeof *values);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, i, values, rows * cols), ATMSAE_OK);
    ++*found;
    return values;
}

static void read_folder(const char *dir, folder *x, uint64_t d_out)
{
    memset(x, 0, sizeof *x);
    char path[200];
    snprintf(path, sizeof path, "%s/cfg.json", dir);
    get(path, x->cfg, sizeof x->cfg);
    ck_assert_int_eq(sscanf(strstr(x->cfg, "\"architecture\": \""), "\"architecture\": \"%63[a-z_]", x->architecture), 1);
    const char *k = strstr(x->cfg, "\"k\": ");
    if (k) ck_assert_int_eq(sscanf(k, "\"k\": %u,", &x->k), 1);
    x->centred = strstr(x->cfg, "\"apply_b_dec_to_input\": true") != NULL;
    x->rescale = strstr(x->cfg, "\"rescale_acts_by_decoder_norm\": true") != NULL;
    x->d_out = d_out;
    snprintf(path, sizeof path, "%s/sae_weights.safetensors", dir);
    atmsae_tensors *t;
    unsigned found = 0;
    ck_assert_int_eq(atmsae_tensors_open(ctx, path, &t), ATMSAE_OK);
    x->w_enc = tensor(t, "W_enc", 2, D_IN, F, &found);
    x->w_dec = tensor(t, "W_dec", 2, F, d_out, &found);
    x->b_dec = tensor(t, "b_dec", 1, d_out, 1, &found);
    x->b_enc = tensor(t, "b_enc", 1, F, 1, &found);
    x->threshold = tensor(t, "threshold", 1, F, 1, &found);
    x->b_gate = tensor(t, "b_gate", 1, F, 1, &found);
    x->b_mag = tensor(t, "b_mag", 1, F, 1, &found);
    x->r_mag = tensor(t, "r_mag", 1, F, 1, &found);
    ck_assert_uint_eq(found, atmsae_tensors_count(t)); /* and nothing else */
    atmsae_tensors_close(t);
    bool gated = strcmp(x->architecture, "gated") == 0;
    ck_assert_uint_eq(found, gated ? 6 : strstr(x->architecture, "jumprelu") ? 5 : 4);
    ck_assert(gated == (x->r_mag != NULL) && gated == (x->b_enc == NULL));
}

static void free_folder(folder *x)
{
    float *all[] = {x->w_enc, x->w_dec, x->b_enc, x->b_dec, x->threshold, x->b_gate, x->b_mag, x->r_mag};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void saelens(const folder *s, const float *x, double *f, double *y)
{
    double norm[F];
    for (int i = 0; i < F; i++) {
        norm[i] = 0;
        for (uint64_t j = 0; j < s->d_out; j++)
            norm[i] += (double)s->w_dec[(uint64_t)i * s->d_out + j] * (double)s->w_dec[(uint64_t)i * s->d_out + j];
        norm[i] = s->rescale ? sqrt(norm[i]) : 1;
    }
    for (int i = 0; i < F; i++) {
        double z = 0;
        for (int j = 0; j < D_IN; j++)
            z += ((double)x[j] - (s->centred ? (double)s->b_dec[j] : 0)) * (double)s->w_enc[j * F + i];
        if (s->r_mag) {
            double magnitude = z * exp((double)s->r_mag[i]) + (double)s->b_mag[i];
            f[i] = z + (double)s->b_gate[i] > 0 && magnitude > 0 ? magnitude : 0;
            continue;
        }
        z = (z + (double)s->b_enc[i]) * norm[i];
        f[i] = z > 0 && (!s->threshold || z > (double)s->threshold[i]) ? z : 0;
    }
    if (strcmp(s->architecture, "topk") == 0) {
        double kept[F] = {0};
        for (unsigned k = 0; k < s->k; k++) {
            int best = 0;
            for (int i = 1; i < F; i++)
                if (f[i] > f[best]) best = i;
            kept[best] = f[best] > 0 ? f[best] : kept[best];
            f[best] = 0;
        }
        memcpy(f, kept, sizeof kept);
    }
    for (uint64_t j = 0; j < s->d_out; j++) {
        y[j] = (double)s->b_dec[j];
        for (int i = 0; i < F; i++)
            y[j] += f[i] / (s->rescale ? norm[i] : 1) * (double)s->w_dec[(uint64_t)i * s->d_out + j];
    }
}

/* Does the model give what SAELens would make of the folder? */
static void expect_agreement(const atmsae_model *m, const folder *s)
{
    static float x[ROWS * D_IN], f[ROWS * F], y[ROWS * D_IN];
    double want_f[F], want_y[D_IN];
    unsigned fired = 0;
    for (int i = 0; i < ROWS * D_IN; i++)
        x[i] = 1.5f * draw();
    run(m, x, f, y, s->d_out);
    for (int r = 0; r < ROWS; r++) {
        saelens(s, x + r * D_IN, want_f, want_y);
        for (int i = 0; i < F; i++) {
            ck_assert_msg(fabs((double)f[r * F + i] - want_f[i]) < 1e-5, "%s: row %d, latent %d: %g, SAELens %g",
                          s->architecture, r, i, (double)f[r * F + i], want_f[i]);
            fired += want_f[i] > 0;
        }
        for (uint64_t j = 0; j < s->d_out; j++)
            ck_assert_double_eq_tol((double)y[(uint64_t)r * s->d_out + j], want_y[j], 2e-5);
    }
    ck_assert_uint_gt(fired, ROWS);     /* the comparison is not of zeros */
    ck_assert_uint_lt(fired, ROWS * F);
}

/* ---- saving and loading ------------------------------------------------------------------------- */

static const struct {
    int32_t activation;
    int transcoder;
    uint64_t d_out;
    int matryoshka;
    float s, t;
    const char *architecture, *trained_as;
} kinds[] = {
    {ATMSAE_RELU, 0, 0, 0, 1, 1, "standard", "standard"},
    {ATMSAE_RELU, 0, 0, 0, 0.3f, 0.3f, "standard", "standard"},
    {ATMSAE_TOPK, 0, 0, 0, 2.5f, 2.5f, "topk", "topk"},
    {ATMSAE_BATCHTOPK, 0, 0, 0, 0.7f, 0.7f, "jumprelu", "batchtopk"},
    {ATMSAE_BATCHTOPK, 0, 0, 1, 1.7f, 1.7f, "jumprelu", "matryoshka_batchtopk"},
    {ATMSAE_TOPK, 0, 0, 1, 1, 1, "topk", "matryoshka_topk"},
    {ATMSAE_JUMPRELU, 0, 0, 0, 1.2f, 1.2f, "jumprelu", "jumprelu"},
    {ATMSAE_JUMPRELU_TANH, 0, 0, 0, 0.9f, 0.9f, "jumprelu", "jumprelu"},
    {ATMSAE_GATED, 0, 0, 0, 1.3f, 1.3f, "gated", "gated"},
    {ATMSAE_RELU, 1, D_OUT, 0, 0.8f, 1.4f, "transcoder", "standard"},
    {ATMSAE_RELU, 1, 0, 0, 0.8f, 1.4f, "transcoder", "standard"},
    {ATMSAE_BATCHTOPK, 1, D_OUT, 0, 1.5f, 0.6f, "jumprelu_transcoder", "batchtopk"},
    {ATMSAE_JUMPRELU, 1, D_OUT, 0, 1.5f, 0.6f, "jumprelu_transcoder", "jumprelu"},
    {ATMSAE_TOPK, 1, 0, 0, 1.5f, 0.6f, "topk", "topk"},
    {ATMSAE_GATED, 1, 0, 0, 1.5f, 0.6f, "gated", "gated"},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

START_TEST(saved_and_loaded)
{
    for (int i = 0; i < KINDS; i++) {
        uint64_t d_out = kinds[i].d_out ? kinds[i].d_out : D_IN;
        atmsae_model *m = make(kinds[i].activation, kinds[i].transcoder, kinds[i].d_out, kinds[i].matryoshka, kinds[i].s, kinds[i].t);
        atmsae_model *again = NULL;
        ck_assert_msg(atmsae_model_save(m, in_root("a"), NULL) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
        folder s;
        read_folder(in_root("a"), &s, d_out);
        ck_assert_str_eq(s.architecture, kinds[i].architecture);
        char trained[80];
        snprintf(trained, sizeof trained, "\"training_architecture\": \"%s\"", kinds[i].trained_as);
        ck_assert_ptr_nonnull(strstr(s.cfg, trained));
        ck_assert_ptr_nonnull(strstr(s.cfg, "\"sae_lens_version\": \"6."));
        ck_assert(s.centred == !kinds[i].transcoder);
        expect_agreement(m, &s);

        ck_assert_msg(atmsae_model_load(ctx, in_root("a"), &again) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
        ck_assert_str_eq(logged, ""); /* nothing of ours is unknown to us */
        atmsae_model_config config = {.size = sizeof config};
        ck_assert_int_eq(atmsae_model_get_config(again, &config), ATMSAE_OK);
        ck_assert_int_eq(config.transcoder, kinds[i].transcoder);
        ck_assert_int_eq(config.uncentred, kinds[i].transcoder);
        ck_assert_int_eq(config.decoder_norm, ATMSAE_DECODER_FREE);
        ck_assert_uint_eq(config.d_out, d_out);
        ck_assert(*atmsae_model_view(again, ATMSAE_INPUT_SCALE, NULL) == 1);
        expect_agreement(again, &s);
        ck_assert_int_eq(atmsae_model_save(again, in_root("b"), NULL), ATMSAE_OK);
        ck_assert(same_files(in_root("a/sae_weights.safetensors"), in_root("b/sae_weights.safetensors")));
        if (strcmp(kinds[i].architecture, kinds[i].trained_as) == 0)
            ck_assert(same_files(in_root("a/cfg.json"), in_root("b/cfg.json")));
        free_folder(&s);
        atmsae_model_destroy(again);
        atmsae_model_destroy(m);
    }
}
END_TEST

START_TEST(options_and_refusals)
{
    char text[4096];
    atmsae_model *m = make(ATMSAE_RELU, 0, 0, 0, 1, 1);
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.model_name = "gpt2 \"small\"\n";
    options.hook_name = "blocks.8.hook_resid_pre";
    ck_assert_int_eq(atmsae_model_save(m, in_root("o"), &options), ATMSAE_OK);
    get(in_root("o/cfg.json"), text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "\"model_name\": \"gpt2 \\\"small\\\"\\n\""));
    ck_assert_ptr_nonnull(strstr(text, "\"hook_name\": \"blocks.8.hook_resid_pre\""));
    options.model_name = "\xff";
    ck_assert_int_eq(atmsae_model_save(m, in_root("never"), &options), ATMSAE_E_ARG);
    options.size = 3;
    ck_assert_int_eq(atmsae_model_save(m, in_root("never"), &options), ATMSAE_E_ABI);
    ck_assert_int_eq(atmsae_model_save(m, in_root("missing/never"), NULL), ATMSAE_E_IO);
    ck_assert_int_eq(atmsae_model_save(m, in_root("o/cfg.json"), NULL), ATMSAE_E_IO);
    ck_assert_int_eq(atmsae_model_save(m, NULL, NULL), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_model_save(NULL, "x", NULL), ATMSAE_E_ARG);

    /* Weights cannot be replaced: cfg.json is not either. */
    ck_assert_int_eq(mkdir(in_root("half"), 0700), 0);
    ck_assert_int_eq(mkdir(in_root("half/sae_weights.safetensors"), 0700), 0);
    put(in_root("half/cfg.json"), "old");
    ck_assert_int_eq(atmsae_model_save(m, in_root("half"), NULL), ATMSAE_E_IO);
    get(in_root("half/cfg.json"), text, sizeof text);
    ck_assert_str_eq(text, "old");
    ck_assert_int_ne(access(in_root("half/.cfg.json.tmp"), F_OK), 0);
    atmsae_model_destroy(m);

    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_sae = F;
    ck_assert_int_eq(atmsae_model_create(ctx, &config, &m), ATMSAE_OK);
    ck_assert_int_eq(atmsae_model_save(m, in_root("never"), NULL), ATMSAE_E_STATE);
    atmsae_model_destroy(m);
    m = make(ATMSAE_TOPK, 1, D_OUT, 0, 1, 1);
    ck_assert_int_eq(atmsae_model_save(m, in_root("never"), NULL), ATMSAE_E_UNSUPPORTED);
    atmsae_model_destroy(m);
    m = make(ATMSAE_GATED, 1, D_OUT, 0, 1, 1);
    ck_assert_int_eq(atmsae_model_save(m, in_root("never"), NULL), ATMSAE_E_UNSUPPORTED);
    atmsae_model_destroy(m);
    ck_assert_int_ne(access(in_root("never"), F_OK), 0);
}
END_TEST

/* ---- folders of others -------------------------------------------------------------------------- */

/* A small folder, d_in 2, F 3, that the tests below change. */
static float w_enc[6] = {1, 2, 3, -1, 0.5f, 2}, w_dec[6] = {3, 4, 0, 2, 1, 0}, b3[3] = {0.5f, -0.5f, 0}, b2[2] = {0.25f, 1},
             theta[3] = {0, 0.5f, 2};
static ams_tensor_out parts[] = {
    {.name = "W_enc", .dtype = "F32", .rank = 2, .shape = {2, 3}, .data = w_enc},
    {.name = "b_enc", .dtype = "F32", .rank = 1, .shape = {3}, .data = b3},
    {.name = "W_dec", .dtype = "F32", .rank = 2, .shape = {3, 2}, .data = w_dec},
    {.name = "b_dec", .dtype = "F32", .rank = 1, .shape = {2}, .data = b2},
    {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = theta},
};

static atmsae_status load_parts(const char *cfg, const ams_tensor_out *tensors, uint64_t n, atmsae_model **m)
{
    mkdir(in_root("x"), 0700);
    put(in_root("x/cfg.json"), cfg);
    ck_assert_int_eq(ams_safetensors_write(ctx, in_root("x/sae_weights.safetensors"), tensors, n, NULL, 0, false), ATMSAE_OK);
    *m = (atmsae_model *)&ctx;
    atmsae_status status = atmsae_model_load(ctx, in_root("x"), m);
    if (status < 0) {
        ck_assert_ptr_null(*m);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), root));
    }
    return status;
}

#define CFG "{\"d_in\":2,\"d_sae\":3,\"dtype\":\"float32\""
#define STANDARD CFG ",\"architecture\":\"standard\""
#define TOPK CFG ",\"architecture\":\"topk\",\"k\":2"

START_TEST(config_table)
{
    static const struct {
        const char *cfg;
        atmsae_status status;
        const char *text; /* of the error, or of the last log line */
    } cases[] = {
        {STANDARD "}", ATMSAE_OK, ""},
        {STANDARD ",\"metadata\":{\"sae_lens_version\":\"9.9.9\",\"a\":{\"b\":[1]}},\"device\":null}", ATMSAE_OK, ""},
        {STANDARD ",\"l1_coefficient\":1.5,\"lr\":[{}],\"k\":7.5}", ATMSAE_OK, "ignored: l1_coefficient, lr"},
        {STANDARD ",\"normalize_activations\":\"expected_average_only_in\"}", ATMSAE_OK, "expected_average_only_in"},
        {STANDARD ",\"reshape_activations\":\"hook_z\",\"apply_b_dec_to_input\":false}", ATMSAE_OK, ""},
        {"{\"d_in\":2,\"d_sae\":3,\"dtype\":\"torch.bfloat16\",\"architecture\":\"standard\"}", ATMSAE_OK, ""},
        {TOPK "}", ATMSAE_OK, ""},
        {CFG ",\"architecture\":\"topk\"}", ATMSAE_E_FORMAT, "cfg.json: \"k\" is missing"},
        {CFG ",\"architecture\":\"topk\",\"k\":null}", ATMSAE_E_FORMAT, "cfg.json: \"k\" is missing"},
        {CFG ",\"architecture\":\"topk\",\"k\":NaN}", ATMSAE_E_FORMAT, "k must be a number"},
        {CFG ",\"architecture\":\"batchtopk\"}", ATMSAE_E_FORMAT, "cfg.json: \"k\" is missing"},
        {CFG ",\"architecture\":\"topk\",\"k\":0}", ATMSAE_E_FORMAT, "k = 0"},
        {CFG ",\"architecture\":\"topk\",\"k\":4}", ATMSAE_E_FORMAT, "1 to d_sae = 3"},
        {CFG ",\"architecture\":\"topk\",\"k\":1.5}", ATMSAE_E_FORMAT, "k = 1.5"},
        {CFG ",\"architecture\":\"topk\",\"k\":-1}", ATMSAE_E_FORMAT, "k = -1"},
        {CFG ",\"architecture\":\"topk\",\"k\":\"2\"}", ATMSAE_E_FORMAT, "k must be"},
        {CFG ",\"architecture\":\"topk\",\"k\":1e999}", ATMSAE_E_FORMAT, "too large"},
        {CFG ",\"k\":2}", ATMSAE_E_FORMAT, "\"architecture\" is missing"},
        {CFG ",\"metadata\":{\"sae_lens_version\":\"6.1.0\"}}", ATMSAE_E_FORMAT, "\"architecture\" is missing"},
        {"{\"architecture\":\"standard\",\"d_sae\":3,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "\"d_in\" is missing"},
        {"{\"architecture\":\"standard\",\"d_in\":2,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "\"d_sae\" is missing"},
        {"{\"architecture\":\"standard\",\"d_in\":2,\"d_sae\":3}", ATMSAE_E_FORMAT, "\"dtype\" is missing"},
        {"{\"architecture\":\"standard\",\"d_in\":2,\"d_sae\":3,\"dtype\":\"F32\"}", ATMSAE_E_FORMAT, "dtype \"F32\""},
        {"{\"architecture\":\"standard\",\"d_in\":0,\"d_sae\":3,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "d_in = 0, allowed: 1 to 16777216"},
        {"{\"architecture\":\"standard\",\"d_in\":2,\"d_sae\":9223372036854775808,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "d_sae = 9223372036854775808"},
        {"{\"architecture\":\"standard\",\"d_in\":2,\"d_sae\":2147483647,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "[2, 2147483647]"},
        {"{\"architecture\":\"standard\",\"d_in\":2.0,\"d_sae\":3,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "d_in must be"},
        {"{\"architecture\":\"standard\",\"d_in\":2,\"d_sae\":3,\"d_sae\":3,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "duplicate key \"d_sae\""},
        {CFG ",\"architecture\":7}", ATMSAE_E_FORMAT, "architecture must be"},
        {"{\"d_in\":null,\"d_sae\":3,\"dtype\":\"float32\"}", ATMSAE_E_FORMAT, "d_in must be"},
        {CFG ",\"architecture\":\"atm\"}", ATMSAE_E_UNSUPPORTED, "\"atm\""},
        {CFG ",\"architecture\":\"batchtopk\",\"k\":2}", ATMSAE_E_FORMAT, "\"topk_threshold\" of architecture batchtopk is missing"},
        {CFG ",\"architecture\":\"batchtopk\",\"k\":0}", ATMSAE_E_FORMAT, "cfg.json: k = 0, allowed: above 0"},
        {CFG ",\"architecture\":\"skip_transcoder\",\"d_out\":2}", ATMSAE_E_UNSUPPORTED, "linear path W_skip"},
        {CFG ",\"architecture\":\"jumprelu_skip_transcoder\",\"d_out\":2}", ATMSAE_E_UNSUPPORTED, "linear path W_skip"},
        {CFG ",\"architecture\":\"abstopk\",\"k\":2}", ATMSAE_E_UNSUPPORTED, "may be negative"},
        {CFG ",\"architecture\":\"temporal\"}", ATMSAE_E_UNSUPPORTED, "depend on other rows"},
        {CFG ",\"architecture\":\"matching_pursuit\"}", ATMSAE_E_UNSUPPORTED, "dependent passes"},
        {CFG ",\"architecture\":\"transcoder\"}", ATMSAE_E_FORMAT, "\"d_out\" is missing"},
        {CFG ",\"architecture\":\"transcoder\",\"d_out\":5}", ATMSAE_E_FORMAT, "W_dec"},
        {CFG ",\"architecture\":\"transcoder\",\"d_out\":2}", ATMSAE_OK, ""},
        {CFG ",\"architecture\":\"jumprelu\"}", ATMSAE_E_FORMAT, "\"threshold\" of architecture jumprelu is missing"},
        {CFG ",\"architecture\":\"gated\"}", ATMSAE_E_FORMAT, "is missing"},
        {STANDARD ",\"normalize_activations\":0}", ATMSAE_E_FORMAT, "normalize_activations must be"},
        {STANDARD ",\"normalize_activations\":true}", ATMSAE_OK, "normalize_activations is expected_average_only_in without a factor"},
        {STANDARD ",\"normalize_activations\":\"layer_norm\"}", ATMSAE_E_UNSUPPORTED, "\"layer_norm\" is not read: each row"},
        {STANDARD ",\"normalize_activations\":\"covariance_whitening\"}", ATMSAE_E_UNSUPPORTED, "whitening matrix"},
        {STANDARD ",\"normalize_activations\":\"constant_norm_rescale\"}", ATMSAE_E_UNSUPPORTED, NULL},
        {STANDARD ",\"reshape_activations\":\"x\"}", ATMSAE_E_UNSUPPORTED, NULL},
        {STANDARD ",\"apply_b_dec_to_input\":1}", ATMSAE_E_FORMAT, "true or false"},
        {STANDARD ",\"activation_fn_str\":\"tanh-relu\"}", ATMSAE_E_UNSUPPORTED, "tanh-relu"},
        {STANDARD ",\"activation_fn\":\"relu\",\"finetuning_scaling_factor\":false}", ATMSAE_OK, ""},
        {STANDARD ",\"finetuning_scaling_factor\":true}", ATMSAE_OK, ""}, /* without the tensor, which decides */
        {STANDARD, ATMSAE_E_FORMAT, "byte"},
        {STANDARD "}}", ATMSAE_E_FORMAT, "byte"},
        {STANDARD ",\"metadata\":{\"l0\":NaN,\"x\":[-Infinity,Infinity]}}", ATMSAE_OK, ""},
        {STANDARD ",\"metadata\":{\"l0\":nan}}", ATMSAE_E_FORMAT, "byte"},
        {"", ATMSAE_E_FORMAT, "byte 0"},
        {"[]", ATMSAE_E_FORMAT, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atmsae_model *m;
        logged[0] = '\0';
        atmsae_status status = load_parts(cases[i].cfg, parts, 4, &m);
        const char *text = status < 0 ? atmsae_last_error(ctx) : logged;
        ck_assert_msg(status == cases[i].status, "%s: %s: %s", cases[i].cfg, atmsae_status_name(status), text);
        if (status == ATMSAE_OK) {
            atmsae_model_destroy(m);
            if (!*cases[i].text) ck_assert_str_eq(logged, "");
        }
        if (cases[i].text) ck_assert_msg(strstr(text, cases[i].text) != NULL, "%s: %s", cases[i].cfg, text);
    }
}
END_TEST

static void expect_values(const atmsae_model *m, int32_t parameter, const float *want, uint64_t n)
{
    uint64_t count;
    const float *values = atmsae_model_view(m, parameter, &count);
    ck_assert_uint_eq(count, n);
    for (uint64_t i = 0; i < n; i++)
        ck_assert_msg(fabsf(values[i] - want[i]) < 1e-6f, "parameter %d, value %d: %g, not %g", parameter, (int)i,
                      (double)values[i], (double)want[i]);
}

/* What is no regular file, or longer than any of its kind, in the place of each file of a folder: an error, at once and
 * without memory (teardown looks), and nobody waits for a pipe's writer. */
/* Folders of SAELens 2 to 5 mean what SAELens 6 takes them for; what it would take for another SAE is refused. */
START_TEST(before_version_6)
{
    static const struct {
        const char *cfg;
        int32_t activation; /* 0: refused */
        double k;
        const char *text; /* hook_name, or of the error */
    } cases[] = {
        {"{\"d_in\":2,\"d_sae\":3,\"dtype\":\"torch.float32\",\"hook_point\":\"h\",\"hook_point_head_index\":null,\"use_ghost_grads\":true}", ATMSAE_RELU, 0, "h"},
        {CFG ",\"architecture\":null,\"hook_name\":\"n\"}", ATMSAE_RELU, 0, "n"},
        {CFG ",\"sae_lens_version\":\"5.9.1\",\"l1_coefficient\":NaN}", ATMSAE_RELU, 0, NULL},
        {STANDARD ",\"normalize_activations\":false,\"activation_fn_str\":\"relu\",\"activation_fn_kwargs\":{}}", ATMSAE_RELU, 0, NULL},
        {STANDARD ",\"normalize_activations\":null,\"activation_fn\":null,\"activation_fn_kwargs\":null,\"apply_b_dec_to_input\":null,"
                  "\"reshape_activations\":null,\"rescale_acts_by_decoder_norm\":null,\"d_out\":null,\"metadata\":null}", ATMSAE_RELU, 0, NULL},
        {STANDARD ",\"activation_fn_str\":\"topk\",\"activation_fn_kwargs\":{\"k\":2}}", ATMSAE_TOPK, 2, NULL},
        {CFG ",\"activation_fn\":\"topk\",\"activation_fn_kwargs\":{\"k\":1}}", ATMSAE_TOPK, 1, NULL},
        {CFG ",\"architecture\":\"topk\",\"activation_fn_kwargs\":{\"k\":2}}", ATMSAE_TOPK, 2, NULL},
        {TOPK ",\"activation_fn_str\":\"topk\",\"activation_fn_kwargs\":{\"k\":2}}", ATMSAE_TOPK, 2, NULL},
        {TOPK ",\"activation_fn_kwargs\":{\"k\":1}}", 0, 0, "k = 2, but activation_fn_kwargs has k = 1"},
        {STANDARD ",\"activation_fn_str\":\"topk\",\"activation_fn_kwargs\":{}}", 0, 0, "\"k\" is missing"},
        {CFG ",\"architecture\":\"jumprelu\",\"activation_fn_str\":\"topk\"}", 0, 0, "activation_fn \"topk\" of architecture \"jumprelu\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atmsae_model *m;
        atmsae_status status = load_parts(cases[i].cfg, parts, 4, &m);
        ck_assert_msg((status == ATMSAE_OK) == (cases[i].activation != 0), "%s: %s", cases[i].cfg, atmsae_last_error(ctx));
        if (status < 0) {
            ck_assert_msg(strstr(atmsae_last_error(ctx), cases[i].text) != NULL, "%s: %s", cases[i].cfg, atmsae_last_error(ctx));
            continue;
        }
        atmsae_model_config config;
        atmsae_model_config_init(&config, sizeof config);
        atmsae_model_origin origin = {.size = sizeof origin};
        ck_assert_int_eq(atmsae_model_get_config(m, &config), ATMSAE_OK);
        ck_assert_int_eq(atmsae_model_get_origin(m, &origin), ATMSAE_OK);
        ck_assert_int_eq(config.activation, cases[i].activation);
        if (cases[i].k > 0) ck_assert_double_eq(config.k, cases[i].k);
        ck_assert_int_eq(config.transcoder, 0); /* b_dec is subtracted */
        if (cases[i].text) ck_assert_str_eq(origin.hook_name, cases[i].text);
        expect_values(m, ATMSAE_B_DEC, b2, 2);
        atmsae_model_destroy(m);
    }
}
END_TEST

START_TEST(tensor_faults)
{
    static const float nan_values[3] = {0, NAN, 0}, inf_values[3] = {0, 0, INFINITY}, negative[3] = {0, 0, -0.5f};
    static const struct {
        unsigned n, which; /* tensors in the file; the one that is replaced */
        ams_tensor_out with;
        atmsae_status status;
        const char *text;
    } cases[] = {
        {5, 4, {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = theta}, ATMSAE_OK, NULL},
        {5, 4, {.name = "threshold", .dtype = "F32", .rank = 0, .data = theta}, ATMSAE_E_FORMAT, "threshold"},
        {5, 4, {.name = "threshold", .dtype = "F32", .rank = 2, .shape = {3, 1}, .data = theta}, ATMSAE_E_FORMAT, "rank 2"},
        {5, 4, {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {2}, .data = theta}, ATMSAE_E_FORMAT, "threshold"},
        {5, 4, {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = negative}, ATMSAE_OK, NULL}, /* as 0: f >= 0 */
        {5, 4, {.name = "log_threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = theta}, ATMSAE_E_FORMAT, "is missing"},
        {5, 4, {.name = "threshold", .dtype = "I32", .rank = 1, .shape = {3}, .data = theta}, ATMSAE_E_UNSUPPORTED, "I32"},
        {5, 4, {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = nan_values}, ATMSAE_E_NONFINITE, "threshold"},
        {5, 1, {.name = "b_enc", .dtype = "F32", .rank = 1, .shape = {3}, .data = inf_values}, ATMSAE_E_NONFINITE, "b_enc"},
        {5, 0, {.name = "W_enc", .dtype = "F32", .rank = 2, .shape = {3, 2}, .data = w_enc}, ATMSAE_E_FORMAT, "W_enc"},
        {5, 2, {.name = "w_dec", .dtype = "F32", .rank = 2, .shape = {3, 2}, .data = w_dec}, ATMSAE_E_FORMAT, "\"W_dec\""},
        {6, 5, {.name = "W_skip", .dtype = "F32", .rank = 2, .shape = {2, 2}, .data = w_dec}, ATMSAE_E_FORMAT, "\"W_skip\" does not belong"},
        {6, 5, {.name = "", .dtype = "U8", .rank = 1, .shape = {0}}, ATMSAE_E_FORMAT, "does not belong"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ams_tensor_out changed[6];
        memcpy(changed, parts, sizeof parts);
        changed[cases[i].which] = cases[i].with;
        atmsae_model *m;
        atmsae_status status = load_parts(CFG ",\"architecture\":\"jumprelu\"}", changed, cases[i].n, &m);
        ck_assert_msg(status == cases[i].status, "case %zu: %s: %s", i, atmsae_status_name(status), atmsae_last_error(ctx));
        if (status == ATMSAE_OK) atmsae_model_destroy(m);
        if (cases[i].text) ck_assert_msg(strstr(atmsae_last_error(ctx), cases[i].text) != NULL, "%s", atmsae_last_error(ctx));
    }
    atmsae_model *m = (atmsae_model *)&ctx;
    ck_assert_int_eq(atmsae_model_load(ctx, in_root("nowhere"), &m), ATMSAE_E_IO);
    ck_assert_ptr_null(m);
    ck_assert_int_eq(unlink(in_root("x/sae_weights.safetensors")), 0);
    ck_assert_int_eq(atmsae_model_load(ctx, in_root("x"), &m), ATMSAE_E_IO);
    put(in_root("x/sae_weights.safetensors"), "short");
    ck_assert_int_eq(atmsae_model_load(ctx, in_root("x"), &m), ATMSAE_E_TRUNCATED);
    ck_assert_int_eq(atmsae_model_load(ctx, NULL, &m), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_model_load(NULL, root, &m), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_model_load(ctx, root, NULL), ATMSAE_E_ARG);
}
END_TEST

/* Elements of one parameter. */
START_TEST(odd_files)
{
    static const char *const files[] = {"cfg.json", "sae_weights.safetensors", "sae_weights.staged.safetensors"};
    enum { PIPE, FOLDER, ENDLESS, SPARSE, SELF, NOWHERE, ODD };
    atmsae_model *m = make(ATMSAE_RELU, 0, 0, 0, 1, 1), *again;
    for (int i = 0; i < 3; i++)
        for (int kind = 0; kind < ODD; kind++) {
            char path[128];
            ck_assert_int_eq(atmsae_model_save(m, in_root("odd"), NULL), ATMSAE_OK);
            snprintf(path, sizeof path, "%s/odd/%s", root, files[i]);
            (void)unlink(path);
            if (kind == PIPE) ck_assert_int_eq(mkfifo(path, 0600), 0);
            if (kind == FOLDER) ck_assert_int_eq(mkdir(path, 0700), 0);
            if (kind == ENDLESS) ck_assert_int_eq(symlink("/dev/zero", path), 0);
            if (kind == SPARSE) put(path, "{");
            if (kind == SPARSE) ck_assert_int_eq(truncate(path, 6ll << 30), 0);
            if (kind == SELF) ck_assert_int_eq(symlink("/proc/self/maps", path), 0);
            if (kind == NOWHERE) ck_assert_int_eq(symlink("nothing", path), 0);
            const atmsae_status status = atmsae_model_load(ctx, in_root("odd"), &again);
            /* A staged file that cfg.json does not name says nothing. (The sparse one has to be read to know.) */
            if (i == 2) ck_assert_msg(status == ATMSAE_OK, "kind %d: %s", kind, atmsae_last_error(ctx));
            else ck_assert_msg(status == ATMSAE_E_IO || status == ATMSAE_E_LIMIT || status == ATMSAE_E_FORMAT || status == ATMSAE_E_TRUNCATED,
                               "%s, kind %d: %s", files[i], kind, atmsae_status_name(status));
            atmsae_model_destroy(again);
            ck_assert_int_eq(remove(path), 0);
        }
    atmsae_model_destroy(m);
}
END_TEST

START_TEST(layouts_and_folds)
{
    atmsae_model *m;
    const float transposed[] = {1, -1, 2, 0.5f, 3, 2};
    ck_assert_int_eq(load_parts(CFG ",\"architecture\":\"jumprelu\"}", parts, 5, &m), ATMSAE_OK);
    expect_values(m, ATMSAE_W_ENC, transposed, 6);
    expect_values(m, ATMSAE_W_DEC, w_dec, 6);
    expect_values(m, ATMSAE_B_ENC, b3, 3);
    expect_values(m, ATMSAE_B_DEC, b2, 2);
    expect_values(m, ATMSAE_THRESHOLD, theta, 3);
    atmsae_model_destroy(m);

    /* Rows of W_dec have norms 5, 2, 1. */
    const float folded_enc[] = {5, -5, 4, 1, 3, 2}, folded_dec[] = {0.6f, 0.8f, 0, 1, 1, 0}, folded_b[] = {2.5f, -1, 0};
    ck_assert_int_eq(load_parts(TOPK ",\"rescale_acts_by_decoder_norm\":true}", parts, 4, &m), ATMSAE_OK);
    expect_values(m, ATMSAE_W_ENC, folded_enc, 6);
    expect_values(m, ATMSAE_W_DEC, folded_dec, 6);
    expect_values(m, ATMSAE_B_ENC, folded_b, 3);
    expect_values(m, ATMSAE_B_DEC, b2, 2);
    atmsae_model_destroy(m);
    ck_assert_int_eq(load_parts(TOPK ",\"rescale_acts_by_decoder_norm\":false}", parts, 4, &m), ATMSAE_OK);
    expect_values(m, ATMSAE_W_DEC, w_dec, 6);
    atmsae_model_destroy(m);

    /* A dead row of zeros stays one. */
    const float zero_row[6] = {0, 0, 0, 2, 1, 0}, zero_enc[] = {0, 0, 4, 1, 3, 2};
    ams_tensor_out changed[4];
    memcpy(changed, parts, sizeof changed);
    changed[2].data = zero_row;
    ck_assert_int_eq(load_parts(TOPK ",\"rescale_acts_by_decoder_norm\":true}", changed, 4, &m), ATMSAE_OK);
    expect_values(m, ATMSAE_W_ENC, zero_enc, 6);
    atmsae_model_destroy(m);

    /* Without centring. */
    atmsae_model_config config = {.size = sizeof config};
    ck_assert_int_eq(load_parts(STANDARD ",\"apply_b_dec_to_input\":false}", parts, 4, &m), ATMSAE_OK);
    ck_assert_int_eq(atmsae_model_get_config(m, &config), ATMSAE_OK);
    ck_assert_int_eq(config.uncentred, 1);
    ck_assert_int_eq(config.transcoder, 0); /* what is reconstructed is its input all the same */
    ck_assert_uint_eq(config.d_out, 2);
    atmsae_model_destroy(m);

    /* Half-precision and double weights. */
    const uint16_t half[3] = {0x3800, 0xb800, 0}, brain[2] = {0x3e80, 0x3f80};
    const double wide[6] = {3, 4, 0, 2, 1, 0};
    memcpy(changed, parts, sizeof changed);
    changed[1].dtype = "F16", changed[1].data = half;
    changed[2].dtype = "F64", changed[2].data = wide;
    changed[3].dtype = "BF16", changed[3].data = brain;
    ck_assert_int_eq(load_parts(STANDARD "}", changed, 4, &m), ATMSAE_OK);
    expect_values(m, ATMSAE_B_ENC, b3, 3);
    expect_values(m, ATMSAE_W_DEC, w_dec, 6);
    expect_values(m, ATMSAE_B_DEC, b2, 2);
    atmsae_model_destroy(m);
}
END_TEST

START_TEST(rescaled_topk)
{
    /* As SAELens computes it with the norms left in place. */
    atmsae_model *m = make(ATMSAE_TOPK, 0, 0, 0, 1, 1), *again;
    ck_assert_int_eq(atmsae_model_save(m, in_root("r"), NULL), ATMSAE_OK);
    atmsae_model_destroy(m);
    char text[4096];
    get(in_root("r/cfg.json"), text, sizeof text);
    char *value = strstr(text, "norm\": false");
    ck_assert_ptr_nonnull(value);
    memcpy(value, "norm\":  true", 12);
    put(in_root("r/cfg.json"), text);
    folder s;
    read_folder(in_root("r"), &s, D_IN);
    s.rescale = true;
    ck_assert_int_eq(atmsae_model_load(ctx, in_root("r"), &again), ATMSAE_OK);
    expect_agreement(again, &s);
    free_folder(&s);
    atmsae_model_destroy(again);
}
END_TEST

/* More columns and rows than any block or tile of the transposing reader and writer. */
START_TEST(large_transpose)
{
    enum { D = 600, N = 3001 };
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D;
    config.d_sae = N;
    config.activation = ATMSAE_RELU;
    atmsae_model *m, *again;
    uint64_t count;
    ck_assert_int_eq(atmsae_model_create(ctx, &config, &m), ATMSAE_OK);
    set_random(m, ATMSAE_W_ENC, 1, 0);
    ck_assert_int_eq(atmsae_model_save(m, in_root("l"), NULL), ATMSAE_OK);
    ck_assert_int_eq(atmsae_model_load(ctx, in_root("l"), &again), ATMSAE_OK);
    const float *a = atmsae_model_view(m, ATMSAE_W_ENC, &count), *b = atmsae_model_view(again, ATMSAE_W_ENC, &count);
    ck_assert_uint_eq(count, D * N);
    ck_assert_mem_eq(a, b, sizeof *a * D * N);
    atmsae_tensors *t;
    uint64_t i;
    ck_assert_int_eq(atmsae_tensors_open(ctx, in_root("l/sae_weights.safetensors"), &t), ATMSAE_OK);
    ck_assert_int_eq(atmsae_tensors_find(t, "W_enc", &i), ATMSAE_OK);
    float *file = malloc(sizeof *file * D * N);
    ck_assert_int_eq(atmsae_tensors_read_f32(t, i, file, D * N), ATMSAE_OK);
    for (uint64_t r = 0; r < D; r++)
        for (uint64_t c = 0; c < N; c++)
            ck_assert(file[r * N + c] == a[c * D + r]);
    free(file);
    atmsae_tensors_close(t);
    atmsae_model_destroy(again);
    atmsae_model_destroy(m);
}
END_TEST

/* ---- allocations -------------------------------------------------------------------------------- */

START_TEST(failing_allocations)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &counted;
    atmsae_context *outer = ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    atmsae_model *m = make(ATMSAE_GATED, 0, 0, 0, 1.5f, 1.5f), *again;
    ck_assert_int_eq(atmsae_model_save(m, in_root("first"), NULL), ATMSAE_OK);
    long before = live, n = 1;
    for (atmsae_status status = ATMSAE_E_NOMEM; status < 0; n++) {
        ck_assert_int_lt(n, 200);
        countdown = n;
        status = atmsae_model_save(m, in_root("second"), NULL);
        ck_assert(status == ATMSAE_OK || status == ATMSAE_E_NOMEM);
        ck_assert_int_eq(live, before);
        if (status < 0) ck_assert_int_ne(access(in_root("second"), F_OK), 0);
    }
    ck_assert_int_gt(n, 5);
    n = 1;
    for (atmsae_status status = ATMSAE_E_NOMEM; status < 0; n++) {
        ck_assert_int_lt(n, 200);
        countdown = n;
        status = atmsae_model_load(ctx, in_root("first"), &again);
        ck_assert(status == ATMSAE_OK || status == ATMSAE_E_NOMEM);
        if (status < 0) ck_assert_ptr_null(again);
        atmsae_model_destroy(again);
        ck_assert_int_eq(live, before);
    }
    ck_assert_int_gt(n, 10);
    countdown = 0;
    atmsae_model_destroy(m);
    atmsae_context_destroy(ctx);
    ctx = outer;
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        saved_and_loaded, options_and_refusals, config_table, before_version_6, tensor_faults, odd_files, layouts_and_folds, rescaled_topk,
        large_transpose, failing_allocations,
    };
    Suite *suite = suite_create("sae folder");
    TCase *tcase = tcase_create("sae folder");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return run_all(suite);
}
