/* SPDX-License-Identifier: MIT
 *
 * SAEs in the formats of other packages. tests/fixtures/formats holds small ones that those packages
 * wrote themselves, with what they make of some rows (tests/reference/make_formats.py); the library must
 * make the same of them, and again after saving in its own formats. Malformed files, files cut at every
 * byte and files with any bit flipped must be refused by name or give the same model.
 */
#include "archive.h"
#include "counted.h"
#include "format/format.h"
#include "suite.h"

#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atmsae_context *ctx;
static char root[64], fixtures[400];
static bool torch; /* not a build with -Dtorch=false */

static void setup(void)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &counted;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    strcpy(root, access("/dev/shm", W_OK) == 0 ? "/dev/shm/atmsae_formats_XXXXXX" : "/tmp/atmsae_formats_XXXXXX"); /* thousands of files */
    ck_assert_ptr_nonnull(mkdtemp(root));
    const char *tests = getenv("ATMSAE_TESTS");
    snprintf(fixtures, sizeof fixtures, "%s/fixtures/formats", tests ? tests : "tests");
    char path[800];
    atmsae_tensors *t;
    snprintf(path, sizeof path, "%s/dictionary_AutoEncoder/ae.pt", fixtures);
    torch = atmsae_tensors_open(ctx, path, &t) == ATMSAE_OK;
    if (!torch) ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "built without the reader of PyTorch's files"));
    atmsae_tensors_close(t);
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char inner[600];
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

static const char *join(const char *a, const char *b)
{
    static char memory[64][800];
    static unsigned turn;
    char path[sizeof memory[0]]; /* a or b may lie in memory */
    snprintf(path, sizeof path, "%s/%s", a, b);
    return strcpy(memory[turn++ % 64], path);
}

static void ok(atmsae_status status)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(ctx));
}

static size_t get(const char *path, unsigned char *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    size_t n = fread(bytes, 1, room, f);
    ck_assert(n < room);
    fclose(f);
    return n;
}

static void put(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
}

/* ---- results ---------------------------------------------------------------------------------------- */

typedef struct results {
    uint64_t n, d_in, d_out, d_sae;
    float x[400], codes[800], decoded[400];
} results;

static uint64_t read_part(const atmsae_tensors *t, const char *name, uint64_t *rows, float *out, uint64_t room)
{
    uint64_t i;
    atmsae_tensor_info info = {.size = sizeof info};
    ok(atmsae_tensors_find(t, name, &i));
    ok(atmsae_tensors_info(t, i, &info));
    ck_assert(info.rank == 2 && info.shape[0] * info.shape[1] <= room);
    ok(atmsae_tensors_read_f32(t, i, out, info.shape[0] * info.shape[1]));
    *rows = info.shape[0];
    return info.shape[1];
}

static void read_expected(const char *name, results *r)
{
    char path[800];
    atmsae_tensors *t;
    snprintf(path, sizeof path, "%s/%s.expected.safetensors", fixtures, name);
    ok(atmsae_tensors_open(ctx, path, &t));
    r->d_in = read_part(t, "x", &r->n, r->x, 400);
    r->d_sae = read_part(t, "codes", &r->n, r->codes, 800);
    r->d_out = read_part(t, "decoded", &r->n, r->decoded, 400);
    atmsae_tensors_close(t);
}

static void run(const atmsae_model *m, const results *from, results *r)
{
    *r = *from;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = r->n;
    batch.x = r->x;
    atmsae_codes *codes;
    atmsae_codes_view view = {.size = sizeof view};
    ok(atmsae_codes_create(ctx, &codes));
    ok(atmsae_encode(m, &batch, codes));
    ok(atmsae_codes_get(codes, &view));
    ck_assert_uint_eq(view.d_sae, r->d_sae);
    memset(r->codes, 0, sizeof r->codes);
    for (uint64_t row = 0; row < r->n; row++)
        for (uint64_t e = view.row_start[row]; e < view.row_start[row + 1]; e++)
            r->codes[row * r->d_sae + view.latent[e]] = view.value[e];
    ok(atmsae_decode(m, codes, r->decoded, 0));
    atmsae_codes_destroy(codes);
}

static void close_to(const char *name, const char *what, const float *got, const float *want, uint64_t n)
{
    float largest = 0;
    for (uint64_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(want[i]));
    ck_assert(largest > 0.1f);
    for (uint64_t i = 0; i < n; i++)
        ck_assert_msg(fabsf(got[i] - want[i]) <= 1e-5f * largest, "%s: %s %d: %g, not %g", name, what, (int)i, (double)got[i],
                      (double)want[i]);
}

static void expect(const char *name, const atmsae_model *m, const results *want, bool codes)
{
    results got;
    run(m, want, &got);
    if (codes) close_to(name, "code", got.codes, want->codes, want->n * want->d_sae);
    close_to(name, "output", got.decoded, want->decoded, want->n * want->d_out);
}

static atmsae_model *load(const char *path)
{
    atmsae_model *m;
    ck_assert_msg(atmsae_model_load(ctx, path, &m) == ATMSAE_OK, "%s", atmsae_last_error(ctx));
    return m;
}

static const struct {
    const char *name, *format, *weights, *model_name, *hook_name;
    int32_t activation;
    int centred;
    const char *architecture; /* when saved as saelens */
} sources[] = {
    {"dictionary_AutoEncoder", "dictionary-learning", "ae.pt", "EleutherAI/pythia-70m-deduped", NULL, ATMSAE_RELU, 1, "standard"},
    {"dictionary_AutoEncoderNew", "dictionary-learning", "ae.pt", "EleutherAI/pythia-70m-deduped", NULL, ATMSAE_RELU, 0, "standard"},
    {"dictionary_AutoEncoderTopK", "dictionary-learning", "ae.pt", "EleutherAI/pythia-70m-deduped", NULL, ATMSAE_TOPK, 1, "topk"},
    {"dictionary_BatchTopKSAE", "dictionary-learning", "ae.pt", "EleutherAI/pythia-70m-deduped", NULL, ATMSAE_BATCHTOPK, 1, "jumprelu"},
    {"dictionary_GatedAutoEncoder", "dictionary-learning", "ae.pt", "EleutherAI/pythia-70m-deduped", NULL, ATMSAE_GATED, 1, "gated"},
    {"dictionary_JumpReluAutoEncoder", "dictionary-learning", "ae.pt", "EleutherAI/pythia-70m-deduped", NULL, ATMSAE_JUMPRELU, 0, "jumprelu"},
    {"dictionary_MatryoshkaBatchTopKSAE", "dictionary-learning", "ae.pt", "EleutherAI/pythia-70m-deduped", NULL, ATMSAE_BATCHTOPK, 1, "jumprelu"},
    {"gemma_scope", "gemma-scope", "params.npz", NULL, NULL, ATMSAE_JUMPRELU, 0, "jumprelu"},
    {"gemma_scope_transcoder", "gemma-scope", "params.npz", NULL, NULL, ATMSAE_JUMPRELU, 0, "jumprelu_transcoder"},
    {"gemma_scope_2", "gemma-scope-2", "params.safetensors", "gemma-v3-270m-pt", NULL, ATMSAE_JUMPRELU, 0, "jumprelu"},
    {"gemma_scope_2_transcoder", "gemma-scope-2", "params.safetensors", "gemma-v3-270m-pt", NULL, ATMSAE_JUMPRELU, 0, "jumprelu_transcoder"},
    {"sparsify_topk", "sparsify", "sae.safetensors", NULL, NULL, ATMSAE_TOPK, 1, "topk"},
    {"sparsify_multi", "sparsify", "sae.safetensors", NULL, NULL, ATMSAE_TOPK, 1, "topk"},
    {"sparsify_transcode", "sparsify", "sae.safetensors", NULL, NULL, ATMSAE_TOPK, 0, "topk"},
    {"saelens_batchtopk", "saelens", "sae_weights.safetensors", "gpt2", "blocks.8.hook_resid_pre", ATMSAE_BATCHTOPK, 1, "jumprelu"},
    {"saelens_matryoshka", "saelens", "sae_weights.safetensors", "gpt2", "blocks.8.hook_resid_pre", ATMSAE_BATCHTOPK, 1, "jumprelu"},
    {"saelens_topk", "saelens", "sae_weights.safetensors", "gpt2", "blocks.8.hook_resid_pre", ATMSAE_TOPK, 1, "topk"},
    {"saelens_uncentred", "saelens", "sae_weights.safetensors", "gpt2", "blocks.8.hook_resid_pre", ATMSAE_JUMPRELU, 0, "jumprelu"},
    {"saelens_transcoder", "saelens", "sae_weights.safetensors", "gpt2", "blocks.8.hook_resid_pre", ATMSAE_JUMPRELU, 0, "jumprelu_transcoder"},
};
enum { SOURCES = sizeof sources / sizeof *sources };

static bool can_read(const char *fixture) { return torch || strncmp(fixture, "dictionary", 10) != 0; }

START_TEST(as_the_original)
{
    for (int i = 0; i < SOURCES; i++) {
        results want;
        if (!can_read(sources[i].name)) continue;
        read_expected(sources[i].name, &want);
        for (int file = 0; file < 2; file++) { /* the folder, and the file in it */
            const char *path = join(fixtures, sources[i].name);
            if (file) path = join(path, sources[i].weights);
            atmsae_model *m = load(path);
            expect(sources[i].name, m, &want, true);
            atmsae_model_config config = {.size = sizeof config};
            ok(atmsae_model_get_config(m, &config));
            ck_assert_int_eq(config.activation, sources[i].activation);
            ck_assert_int_eq(config.uncentred, !sources[i].centred);
            ck_assert_msg(config.transcoder == (strstr(sources[i].name, "transcode") != NULL), "%s", sources[i].name);
            atmsae_model_origin origin = {.size = sizeof origin};
            ok(atmsae_model_get_origin(m, &origin));
            ck_assert_str_eq(origin.format, sources[i].format);
            ck_assert_pstr_eq(origin.model_name, sources[i].model_name);
            ck_assert_pstr_eq(origin.hook_name, sources[i].hook_name);
            const bool unsaid = !sources[i].centred && (strcmp(sources[i].format, "gemma-scope") == 0 || strcmp(sources[i].format, "dictionary-learning") == 0);
            ck_assert_int_eq(origin.may_transcode, config.transcoder || unsaid);
            atmsae_model_destroy(m);
        }
    }
    atmsae_model *m = load(join(fixtures, "saelens_topk/cfg.json"));
    atmsae_model_destroy(m);
}
END_TEST

/* ---- saving in the library's formats -------------------------------------------------------------------- */

static bool contains(const char *path, const char *text)
{
    static unsigned char bytes[1 << 16];
    size_t n = get(path, bytes, sizeof bytes);
    return memmem(bytes, n, text, strlen(text)) != NULL;
}

static bool same_files(const char *a, const char *b)
{
    static unsigned char x[1 << 16], y[1 << 16];
    size_t n = get(a, x, sizeof x);
    return n == get(b, y, sizeof y) && memcmp(x, y, n) == 0;
}

static void expect_unit_rows(const atmsae_model *m, const results *r)
{
    const float *dec = atmsae_model_view(m, ATMSAE_W_DEC, NULL);
    for (uint64_t i = 0; i < r->d_sae; i++) {
        double sum = 0;
        for (uint64_t j = 0; j < r->d_out; j++)
            sum += (double)dec[i * r->d_out + j] * (double)dec[i * r->d_out + j];
        ck_assert_double_eq_tol(sqrt(sum), 1, 1e-6);
    }
}

/* Folds, checks, folds again: the same bytes, as if nothing had been folded. */
static void check_fold(const char *name, const atmsae_model *m, const results *want, const char *first, const char *second,
                       const char *file)
{
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.fold_decoder_norm = 1;
    ok(atmsae_model_save(m, first, &options));
    atmsae_model *folded = load(first);
    expect(name, folded, want, false);
    expect_unit_rows(folded, want);
    results got;
    run(folded, want, &got);
    const float *dec = atmsae_model_view(m, ATMSAE_W_DEC, NULL);
    for (uint64_t e = 0; e < want->n * want->d_sae; e++) {
        double sum = 0;
        for (uint64_t j = 0; j < want->d_out; j++)
            sum += pow((double)dec[e % want->d_sae * want->d_out + j], 2);
        ck_assert_double_eq_tol((double)got.codes[e], (double)want->codes[e] * sqrt(sum), 2e-5);
    }
    ok(atmsae_model_save(folded, second, &options));
    ck_assert(*file ? same_files(join(first, file), join(second, file)) : same_files(first, second));
    options.fold_decoder_norm = 0;
    ok(atmsae_model_save(folded, second, &options));
    ck_assert(*file ? same_files(join(first, file), join(second, file)) : same_files(first, second));
    atmsae_model_destroy(folded);
}

START_TEST(saved_again)
{
    for (int i = 0; i < SOURCES; i++) {
        results want;
        const char *name = sources[i].name;
        if (!can_read(name)) continue;
        read_expected(name, &want);
        atmsae_model *m = load(join(fixtures, name));
        char architecture[80];
        ok(atmsae_model_save(m, join(root, name), NULL));
        snprintf(architecture, sizeof architecture, "\"architecture\": \"%s\"", sources[i].architecture);
        ck_assert_msg(contains(join(join(root, name), "cfg.json"), architecture), "%s: %s", name, architecture);
        if (sources[i].hook_name) ck_assert(contains(join(join(root, name), "cfg.json"), sources[i].hook_name));
        atmsae_model *again = load(join(root, name));
        expect(name, again, &want, true);
        atmsae_model_config config = {.size = sizeof config}, config_again = {.size = sizeof config_again};
        ok(atmsae_model_get_config(m, &config));
        ok(atmsae_model_get_config(again, &config_again));
        ck_assert_int_eq(config_again.transcoder, config.transcoder);
        ck_assert_int_eq(config_again.uncentred, config.uncentred);
        atmsae_model_destroy(again);

        bool topk = sources[i].activation == ATMSAE_TOPK, gated = sources[i].activation == ATMSAE_GATED;
        if (topk) {
            atmsae_save_options options;
            atmsae_save_options_init(&options, sizeof options);
            options.fold_decoder_norm = 1;
            atmsae_status status = atmsae_model_save(m, join(root, "topk"), &options);
            bool unit = strcmp(name, "saelens_topk") == 0; /* folded when it was read */
            ck_assert_int_eq(status, unit ? ATMSAE_OK : ATMSAE_E_UNSUPPORTED);
            if (!unit) ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "TOPK selects by pre-activation"));
        } else {
            check_fold(name, m, &want, join(root, "f1"), join(root, "f2"), "sae_weights.safetensors");
        }
        if (topk || gated) {
            ck_assert_int_eq(atmsae_model_save(m, join(root, "x.npz"), NULL), ATMSAE_E_UNSUPPORTED);
            ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), topk ? "not TOPK" : "not GATED"));
            ck_assert_int_ne(access(join(root, "x.npz"), F_OK), 0);
        } else {
            ok(atmsae_model_save(m, join(root, "y.npz"), NULL));
            again = load(join(root, "y.npz"));
            expect(name, again, &want, true);
            atmsae_model_destroy(again);
            check_fold(name, m, &want, join(root, "f1.npz"), join(root, "f2.npz"), "");
            if (strcmp(name, "gemma_scope") == 0) { /* the arrays come back as they were */
                atmsae_model *a = load(join(root, "y.npz"));
                for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_THRESHOLD; p++) {
                    uint64_t count, same;
                    const float *was = atmsae_model_view(m, p, &count), *is = atmsae_model_view(a, p, &same);
                    ck_assert_uint_eq(count, same);
                    ck_assert_mem_eq(was, is, count * sizeof *was);
                }
                atmsae_model_destroy(a);
            }
        }
        atmsae_model_destroy(m);
    }
}
END_TEST

/* Scales of a model go into every format. */
START_TEST(scales_are_folded)
{
    results r = {.n = 10, .d_in = 6, .d_out = 6, .d_sae = 16}, want, got;
    uint32_t state = 7;
    for (int i = 0; i < 60; i++)
        r.x[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1;
    for (int32_t activation = ATMSAE_RELU; activation <= ATMSAE_JUMPRELU_TANH; activation++) {
        if (activation == ATMSAE_TOPK) continue;
        atmsae_model_config config;
        atmsae_model_config_init(&config, sizeof config);
        config.d_in = 6;
        config.d_sae = 16;
        config.k = 3;
        config.activation = activation;
        atmsae_model *m;
        ok(atmsae_model_create(ctx, &config, &m));
        const float scale = 2.5f, threshold = 0.2f, centre[6] = {0.5f, -0.25f, 0, 1, 0.125f, -1};
        ok(atmsae_model_set(m, ATMSAE_INPUT_SCALE, &scale, 1));
        ok(atmsae_model_set(m, ATMSAE_B_DEC, centre, 6));
        if (activation == ATMSAE_BATCHTOPK) ok(atmsae_model_set(m, ATMSAE_BATCH_THRESHOLD, &threshold, 1));
        run(m, &r, &want);
        for (int fold = 0; fold < 2; fold++)
            for (int npz = 0; npz < 2; npz++) {
                atmsae_save_options options;
                atmsae_save_options_init(&options, sizeof options);
                options.fold_decoder_norm = fold;
                options.format = npz ? "gemma-scope" : "saelens";
                const char *path = join(root, npz ? "s.bin.npz" : "s");
                ok(atmsae_model_save(m, path, &options));
                atmsae_model *again = load(path);
                run(again, &r, &got);
                close_to("scales", "output", got.decoded, want.decoded, 60);
                if (fold) expect_unit_rows(again, &r);
                atmsae_model_destroy(again);
            }
        atmsae_model_destroy(m);
    }
}
END_TEST

/* ---- GGUF ---------------------------------------------------------------------------------------------- */

static uint64_t take(const unsigned char **p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = n; i-- > 0;)
        v = v << 8 | (*p)[i];
    *p += n;
    return v;
}

static bool take_text(const unsigned char **p, const char *text)
{
    uint64_t n = take(p, 8);
    bool same = n == strlen(text) && memcmp(*p, text, n) == 0;
    *p += n;
    return same;
}

START_TEST(gguf)
{
    atmsae_model *m = load(join(fixtures, "saelens_batchtopk"));
    uint64_t count;
    const float *dec = atmsae_model_view(m, ATMSAE_W_DEC, &count);
    const uint32_t latents[] = {3, 15};
    const float strengths[] = {2, -0.5f}, scale = 4;
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    options.latents = latents;
    options.strengths = strengths;
    options.n_latents = 2;
    options.layer = 12;
    options.model_name = "llama";
    const char *path = join(root, "c.gguf");
    ok(atmsae_model_set(m, ATMSAE_INPUT_SCALE, &scale, 1));
    ok(atmsae_model_save(m, path, &options));
    static unsigned char bytes[4096];
    size_t n = get(path, bytes, sizeof bytes);
    const unsigned char *p = bytes;
    ck_assert(memcmp(p, "GGUF", 4) == 0);
    p += 4;
    ck_assert_uint_eq(take(&p, 4), 3);
    ck_assert_uint_eq(take(&p, 8), 1);
    ck_assert_uint_eq(take(&p, 8), 3);
    ck_assert(take_text(&p, "general.architecture") && take(&p, 4) == 8 && take_text(&p, "controlvector"));
    ck_assert(take_text(&p, "controlvector.model_hint") && take(&p, 4) == 8 && take_text(&p, "llama"));
    ck_assert(take_text(&p, "controlvector.layer_count") && take(&p, 4) == 4 && take(&p, 4) == 1);
    ck_assert(take_text(&p, "direction.12") && take(&p, 4) == 1 && take(&p, 8) == 6 && take(&p, 4) == 0 && take(&p, 8) == 0);
    size_t at = ((size_t)(p - bytes) + 31) / 32 * 32;
    ck_assert_uint_eq(n, at + 32); /* 6 floats, padded */
    for (int j = 0; j < 6; j++) {
        float v;
        memcpy(&v, bytes + at + 4 * j, 4);
        ck_assert_float_eq_tol(v, (2 * dec[3 * 6 + j] - 0.5f * dec[15 * 6 + j]) / 4, 1e-6f);
    }
    const struct {
        uint32_t layer, latent;
        float strength;
        const char *text;
    } cases[] = {{0, 3, 1, "layer = 0"}, {70000, 3, 1, "layer = 70000"}, {1, 16, 1, "latents[0] = 16, allowed: 0 to d_sae - 1 = 15"},
                 {1, 3, NAN, "strengths[0]"}};
    options.n_latents = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options.layer = cases[i].layer;
        options.latents = &cases[i].latent;
        options.strengths = &cases[i].strength;
        ck_assert_int_eq(atmsae_model_save(m, path, &options), ATMSAE_E_ARG);
        ck_assert_msg(strstr(atmsae_last_error(ctx), cases[i].text) != NULL, "%s", atmsae_last_error(ctx));
    }
    ck_assert_int_eq(atmsae_model_save(m, path, NULL), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "latents"));
    static const uint32_t three = 3;
    char long_name[258];
    memset(long_name, 'm', 257);
    long_name[257] = '\0';
    options.latents = &three;
    options.strengths = NULL;
    options.model_name = long_name;
    ck_assert_int_eq(atmsae_model_save(m, path, &options), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "model_name of 257 bytes, at most 256"));
    options.format = "ggml";
    ck_assert_int_eq(atmsae_model_save(m, path, &options), ATMSAE_E_ARG);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "saelens, gemma-scope, gguf"));
    options.format = "sparsify"; /* is only read */
    ck_assert_int_eq(atmsae_model_save(m, path, &options), ATMSAE_E_ARG);
    options.format = NULL;
    options.fold_decoder_norm = 2;
    ck_assert_int_eq(atmsae_model_save(m, path, &options), ATMSAE_E_ARG);
    atmsae_model *other;
    ck_assert_int_eq(atmsae_model_load(ctx, path, &other), ATMSAE_E_UNSUPPORTED);
    atmsae_model_destroy(m);
}
END_TEST

/* ---- malformed ------------------------------------------------------------------------------------------- */

/* Copies a fixture's folder to root/name. */
static const char *copy(const char *fixture, const char *name)
{
    const char *from = join(fixtures, fixture), *to = join(root, name);
    static unsigned char bytes[1 << 16];
    DIR *d = opendir(from);
    ck_assert_ptr_nonnull(d);
    remove_tree(to);
    ck_assert_int_eq(mkdir(to, 0700), 0);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') put(join(to, e->d_name), bytes, get(join(from, e->d_name), bytes, sizeof bytes));
    closedir(d);
    return to;
}

static void refused(const char *path, atmsae_status status, const char *text)
{
    atmsae_model *m = (atmsae_model *)&ctx;
    atmsae_status got = atmsae_model_load(ctx, path, &m);
    ck_assert_msg(got == status, "%s: %s: %s", text, atmsae_status_name(got), atmsae_last_error(ctx));
    ck_assert_ptr_null(m);
    ck_assert_msg(strstr(atmsae_last_error(ctx), text) != NULL, "%s, not: %s", atmsae_last_error(ctx), text);
    ck_assert_msg(strstr(atmsae_last_error(ctx), root) != NULL, "no path in: %s", atmsae_last_error(ctx));
}

START_TEST(configurations)
{
    static const struct {
        const char *fixture, *file, *text;
        atmsae_status status;
        const char *error;
    } cases[] = {
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 4, \"num_latents\": 16, \"activation\": \"groupmax\"}", ATMSAE_E_UNSUPPORTED, "cfg.json: activation \"groupmax\""},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 4, \"num_latents\": 16, \"signed\": true}", ATMSAE_E_UNSUPPORTED, "signed: its latents may be negative"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 4, \"num_latents\": 16, \"skip_connection\": true}", ATMSAE_E_UNSUPPORTED, "skip_connection: a linear path"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"num_latents\": 16}", ATMSAE_E_FORMAT, "\"k\" is missing"},
        {"sparsify_topk", "cfg.json", "{\"k\": 4, \"num_latents\": 16}", ATMSAE_E_FORMAT, "\"d_in\" is missing"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 0, \"num_latents\": 16}", ATMSAE_E_FORMAT, "k = 0, allowed: 1 to"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 17, \"num_latents\": 16}", ATMSAE_E_FORMAT, "k = 17, allowed: whole numbers from 1 to d_sae = 16"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 4.5, \"num_latents\": 16}", ATMSAE_E_FORMAT, "k must be"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 4, \"num_latents\": 15}", ATMSAE_E_FORMAT, "\"encoder.weight\" has rank 2, shape [16, 6]; cfg.json asks for rank 2, [15, 6]"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 6, \"k\": 4}", ATMSAE_E_FORMAT, "[192, 6]"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 16777216, \"k\": 4, \"expansion_factor\": 2147483647}", ATMSAE_E_FORMAT, "d_in = 16777216"},
        {"sparsify_topk", "cfg.json", "{\"d_in\": 4000000, \"k\": 4, \"expansion_factor\": 2147483647}", ATMSAE_E_FORMAT, "d_sae = 8589934588000000"},
        {"sparsify_topk", "cfg.json", "[", ATMSAE_E_FORMAT, "cfg.json"},
        {"gemma_scope_2", "config.json", "{\"architecture\": \"topk\"}", ATMSAE_E_UNSUPPORTED, "config.json: architecture \"topk\""},
        {"gemma_scope_2", "config.json", "{\"model_name\": \"x\"}", ATMSAE_E_FORMAT, "\"architecture\" is missing"},
        {"gemma_scope_2", "config.json", "{\"architecture\": \"jump_relu\", \"affine_connection\": true}", ATMSAE_E_UNSUPPORTED, "affine_connection: a linear path"},
        {"dictionary_BatchTopKSAE", "config.json", "{\"buffer\": {}}", ATMSAE_E_FORMAT, "\"trainer\" is missing"},
        {"dictionary_BatchTopKSAE", "config.json", "{\"trainer\": 3}", ATMSAE_E_FORMAT, "\"trainer\" is no object"},
        {"dictionary_BatchTopKSAE", "config.json", "{\"trainer\": {\"activation_dim\": 6, \"dict_size\": 16}}", ATMSAE_E_FORMAT, "\"dict_class\" is missing"},
        {"dictionary_BatchTopKSAE", "config.json", "{\"trainer\": {\"dict_class\": \"CrossCoder\", \"activation_dim\": 6, \"dict_size\": 16}}", ATMSAE_E_UNSUPPORTED, "dict_class \"CrossCoder\""},
        {"dictionary_BatchTopKSAE", "config.json", "{\"trainer\": {\"dict_class\": \"AutoEncoder\", \"activation_dim\": 6, \"dict_size\": 16}}", ATMSAE_E_FORMAT, "\"bias\" of architecture AutoEncoder is missing"},
        {"dictionary_BatchTopKSAE", "config.json", "{\"trainer\": {\"dict_class\": \"BatchTopKSAE\", \"activation_dim\": 7, \"dict_size\": 16, \"k\": 4}}", ATMSAE_E_FORMAT, "config.json asks for rank 2, [16, 7]"},
        {"dictionary_BatchTopKSAE", "config.json", "{\"trainer\": {\"dict_class\": \"BatchTopKSAE\", \"activation_dim\": 6, \"dict_size\": 16, \"k\": 5}}", ATMSAE_E_FORMAT, "ae.pt: k = 4, but "},
        {"dictionary_BatchTopKSAE", "config.json", "{\"trainer\": {\"dict_class\": \"BatchTopKSAE\", \"activation_dim\": 6, \"dict_size\": 16, \"k\": 5}}", ATMSAE_E_FORMAT, "config.json has k = 5"},
        {"dictionary_AutoEncoderTopK", "config.json", "{\"trainer\": {\"dict_class\": \"AutoEncoderTopK\", \"activation_dim\": 6, \"dict_size\": 16, \"k\": 3}}", ATMSAE_E_FORMAT, "ae.pt: k = 4, but "},
        {"dictionary_AutoEncoder", "config.json", "{\"trainer\": {\"dict_class\": \"AutoEncoderNew\", \"activation_dim\": 6, \"dict_size\": 16}}", ATMSAE_E_FORMAT, "\"decoder.bias\""},
        {"saelens_batchtopk", "cfg.json", "{\"d_in\": 6, \"d_sae\": 16, \"dtype\": \"float32\", \"architecture\": \"jumprelu\"}", ATMSAE_E_FORMAT, "\"threshold\" of architecture jumprelu is missing"},
        {"saelens_batchtopk", "cfg.json", "{\"d_in\": 6, \"d_sae\": 16, \"dtype\": \"float32\", \"architecture\": \"standard\"}", ATMSAE_E_FORMAT, "\"topk_threshold\" does not belong to architecture standard"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!can_read(cases[i].fixture)) continue;
        const char *folder = copy(cases[i].fixture, "m");
        put(join(folder, cases[i].file), cases[i].text, strlen(cases[i].text));
        refused(folder, cases[i].status, cases[i].error);
    }
    if (!torch) return;
    const char *folder = copy("dictionary_BatchTopKSAE", "m");
    ck_assert_int_eq(unlink(join(folder, "config.json")), 0);
    refused(folder, ATMSAE_E_IO, "config.json");
    ck_assert_int_eq(unlink(join(folder, "ae.pt")), 0);
    refused(folder, ATMSAE_E_IO, "no SAE: there is no sae_weights.safetensors");
    refused(join(folder, "nothing.npz"), ATMSAE_E_IO, "nothing.npz");
    put(join(folder, "text.txt"), "x", 1);
    refused(join(folder, "text.txt"), ATMSAE_E_UNSUPPORTED, "not a file of an SAE by its name");

    /* A checkpoint of dictionary_learning lies one folder below config.json. */
    static unsigned char bytes[1 << 16];
    folder = copy("dictionary_BatchTopKSAE", "m");
    ck_assert_int_eq(mkdir(join(folder, "checkpoints"), 0700), 0);
    put(join(folder, "checkpoints/ae_100.pt"), bytes, get(join(folder, "ae.pt"), bytes, sizeof bytes));
    atmsae_model_destroy(load(join(folder, "checkpoints/ae_100.pt")));
    /* ae.pt has the k that config.json lacks. */
    static const char no_k[] = "{\"trainer\": {\"dict_class\": \"AutoEncoderTopK\", \"activation_dim\": 6, \"dict_size\": 16, \"k\": null}}";
    folder = copy("dictionary_AutoEncoderTopK", "m");
    put(join(folder, "config.json"), no_k, sizeof no_k - 1);
    atmsae_model *m = load(folder);
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    ok(atmsae_model_get_config(m, &config));
    ck_assert_double_eq(config.k, 4);
    atmsae_model_destroy(m);
    /* Gemma Scope 2 without its config.json. */
    folder = copy("gemma_scope_2", "g");
    ck_assert_int_eq(unlink(join(folder, "config.json")), 0);
    atmsae_model_destroy(load(folder));
}
END_TEST

static const float w_enc[6] = {1, 2, 3, -1, 0.5f, 2}, w_dec[6] = {3, 4, 0, 2, 1, 0}, b3[3] = {0.5f, -0.5f, 0}, b2[2] = {0.25f, 1},
                   ones[3] = {1, 1, 1}, nans[3] = {0, NAN, 0}, negative[3] = {0.5f, -1, 0.25f};

START_TEST(gemma_tensors)
{
    const ams_tensor_out parts[] = {
        {.name = "w_enc", .dtype = "F32", .rank = 2, .shape = {2, 3}, .data = w_enc}, {.name = "b_enc", .dtype = "F32", .rank = 1, .shape = {3}, .data = b3},
        {.name = "w_dec", .dtype = "F32", .rank = 2, .shape = {3, 2}, .data = w_dec}, {.name = "b_dec", .dtype = "F32", .rank = 1, .shape = {2}, .data = b2},
        {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = ones},
    };
    const struct {
        int which, n; /* the tensor that is replaced; how many are in the file */
        ams_tensor_out with;
        atmsae_status status;
        const char *text;
    } cases[] = {
        {5, 6, {.name = "scaling_factor", .dtype = "F32", .rank = 1, .shape = {3}, .data = ones}, ATMSAE_OK, ""},
        {5, 6, {.name = "scaling_factor", .dtype = "F32", .rank = 1, .shape = {3}, .data = b3}, ATMSAE_E_UNSUPPORTED, "\"scaling_factor\" is not all ones"},
        {5, 6, {.name = "affine_skip_connection", .dtype = "F32", .rank = 2, .shape = {2, 2}, .data = w_dec}, ATMSAE_E_UNSUPPORTED, "\"affine_skip_connection\": a linear path"},
        {5, 6, {.name = "sparsity", .dtype = "F32", .rank = 1, .shape = {3}, .data = b3}, ATMSAE_E_FORMAT, "\"sparsity\" does not belong"},
        {2, 5, {.name = "w_dec", .dtype = "F32", .rank = 3, .shape = {3, 1, 2}, .data = w_dec}, ATMSAE_E_UNSUPPORTED, "cross-layer"},
        {2, 5, {.name = "w_dec", .dtype = "F32", .rank = 2, .shape = {2, 3}, .data = w_dec}, ATMSAE_E_FORMAT, "\"w_dec\" has rank 2, shape [2, 3]; W_enc and W_dec asks for rank 2, [3, 3]"},
        {0, 5, {.name = "W_e", .dtype = "F32", .rank = 2, .shape = {2, 3}, .data = w_enc}, ATMSAE_E_FORMAT, "\"w_enc\" is missing"},
        {0, 5, {.name = "w_enc", .dtype = "F32", .rank = 2, .shape = {0, 3}, .data = w_enc}, ATMSAE_E_FORMAT, "d_in = 0, allowed: 1 to"},
        {0, 5, {.name = "w_enc", .dtype = "F32", .rank = 1, .shape = {6}, .data = w_enc}, ATMSAE_E_FORMAT, "\"w_enc\" has 1 dimensions, not 2"},
        {4, 5, {.name = "threshold", .dtype = "I32", .rank = 1, .shape = {3}, .data = ones}, ATMSAE_E_UNSUPPORTED, "I32"},
        {4, 5, {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = nans}, ATMSAE_E_NONFINITE, "\"threshold\""},
        {4, 5, {.name = "threshold", .dtype = "F32", .rank = 1, .shape = {3}, .data = negative}, ATMSAE_OK, ""},
        {4, 4, {0}, ATMSAE_E_FORMAT, "\"threshold\" of architecture jumprelu is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ams_tensor_out changed[6];
        memcpy(changed, parts, sizeof parts);
        changed[cases[i].which] = cases[i].with;
        const char *path = join(root, "p.safetensors");
        ok(ams_safetensors_write(ctx, path, changed, (uint64_t)cases[i].n, NULL, 0, false));
        if (cases[i].status < 0) refused(path, cases[i].status, cases[i].text);
        else atmsae_model_destroy(load(path));
    }
}
END_TEST

/* ---- archives, byte by byte -------------------------------------------------------------------------------- */

static const struct {
    const char *fixture, *weights;
    bool checked; /* the format has checksums */
} binaries[] = {
    {"gemma_scope", "params.npz", true},
    {"dictionary_AutoEncoderTopK", "ae.pt", true},
    {"dictionary_MatryoshkaBatchTopKSAE", "ae.pt", true},
    {"gemma_scope_2", "params.safetensors", false},
    {"sparsify_topk", "sae.safetensors", false},
};

START_TEST(cut_at_every_byte)
{
    static unsigned char bytes[1 << 16];
    if (!can_read(binaries[_i].fixture)) return;
    const char *folder = copy(binaries[_i].fixture, "c");
    char path[800];
    snprintf(path, sizeof path, "%s", join(folder, binaries[_i].weights));
    size_t n = get(path, bytes, sizeof bytes);
    for (size_t cut = 0; cut < n; cut++) {
        put(path, bytes, cut);
        atmsae_model *m;
        atmsae_status status = atmsae_model_load(ctx, path, &m);
        ck_assert_msg(status == ATMSAE_E_TRUNCATED || status == ATMSAE_E_FORMAT, "%d of %d bytes: %s: %s", (int)cut, (int)n,
                      atmsae_status_name(status), atmsae_last_error(ctx));
        ck_assert_ptr_null(m);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path));
    }
}
END_TEST

static void expect_same(const atmsae_model *a, const atmsae_model *b)
{
    for (int32_t p = ATMSAE_W_ENC; p <= ATMSAE_BATCH_THRESHOLD; p++) {
        uint64_t count, other;
        const float *x = atmsae_model_view(a, p, &count), *y = atmsae_model_view(b, p, &other);
        ck_assert(count == other && (count == 0 || memcmp(x, y, count * sizeof *x) == 0));
    }
}

START_TEST(any_bit_flipped)
{
    static unsigned char bytes[1 << 16];
    if (!can_read(binaries[_i].fixture)) return;
    const char *folder = copy(binaries[_i].fixture, "b");
    char path[800];
    snprintf(path, sizeof path, "%s", join(folder, binaries[_i].weights));
    atmsae_model *original = load(path);
    size_t n = get(path, bytes, sizeof bytes), taken = 0;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        put(path, bytes, n);
        atmsae_model *m;
        atmsae_status status = atmsae_model_load(ctx, path, &m);
        ck_assert(status != ATMSAE_E_IO && status != ATMSAE_E_ARG && status != ATMSAE_E_NOMEM);
        if (status == ATMSAE_OK && binaries[_i].checked) expect_same(m, original);
        taken += status == ATMSAE_OK;
        atmsae_model_destroy(m);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    ck_assert_uint_lt(taken, binaries[_i].checked ? 4 * n : 8 * n); /* dates, flags and padding do not matter */
    atmsae_model_destroy(original);
}
END_TEST

/* A .pt with this pickle and a storage "0" of 6 floats. */
static const char *torch_file(const void *pickle, size_t size)
{
    static archive a;
    memset(&a, 0, sizeof a);
    const char *path = join(root, "t.pt");
    add_entry(&a, "r/data.pkl", pickle, size);
    add_entry(&a, "r/byteorder", "little", 6);
    add_entry(&a, "r/data/0", w_enc, sizeof w_enc);
    end_archive(&a);
    put(path, a.bytes, a.n);
    return path;
}

#define P(text) text, sizeof text - 1
#define STORAGE "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\6tQ"
#define TENSOR(offset, shape, stride) "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE offset shape stride "\x89" "ccollections\nOrderedDict\n)RtR"
#define PARTS(word, class, key, device, count) "(" word class key device count "tQ."
#define WORD "X\7\0\0\0storage"
#define KEY "X\1\0\0\0" "0"
#define CPU "X\3\0\0\0cpu"
#define A "X\1\0\0\0a"
#define M23 "K\2K\3\x86"
#define M31 "K\3K\1\x86"
#define M12 "K\1K\2\x86"

START_TEST(pickles)
{
    static const struct {
        const char *pickle;
        size_t size;
        atmsae_status status;
        const char *text;
    } cases[] = {
        {P("\x80\2}" A TENSOR("K\0", M23, M31) "s."), ATMSAE_OK, "1 2 3 -1 0.5 2"},
        {P("\x80\2}" A TENSOR("K\0", M23, M12) "s."), ATMSAE_OK, "1 3 0.5 2 -1 2"},
        {P("\x80\2}" A TENSOR("K\2", "K\2\x85", "K\1\x85") "s."), ATMSAE_OK, "3 -1"},
        {P("\x80\2}" A TENSOR("K\5", ")", ")") "s."), ATMSAE_OK, "2"},
        {P("\x80\2}(" A TENSOR("K\0", M23, M31) "X\1\0\0\0bNX\1\0\0\0c}u."), ATMSAE_OK, "1 2 3 -1 0.5 2"},
        {P("\x80\2}" A TENSOR("K\0", "K\1K\6\x86", "K\0K\1\x86") "s."), ATMSAE_OK, "1 2 3 -1 0.5 2"},
        {P("\x80\2}" A TENSOR("M\0\0", "K\1K\2K\3\x87", "K\6K\3K\1\x87") "s."), ATMSAE_OK, "1 2 3 -1 0.5 2"},
        {P("\x80\2}(" A "r\0\0\0\0" TENSOR("K\0", M23, M31) "X\1\0\0\0bj\0\0\0\0u."), ATMSAE_OK, "1 2 3 -1 0.5 2"},
        {P("\x80\2}X\1\0\0\0b\x88s" A TENSOR("K\0", M23, M31) "s."), ATMSAE_OK, "1 2 3 -1 0.5 2"},
        {P("\x80\2}" A TENSOR("K\1", M23, M31) "s."), ATMSAE_E_FORMAT, "a tensor of 6 elements at 1 of a storage of 6"},
        {P("\x80\2}" A TENSOR("J\xff\xff\xff\xff", M23, M31) "s."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2}" A TENSOR("K\0", "K\2J\xff\xff\xff\xff\x86", M31) "s."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2}" A TENSOR("K\0", "\x8a\10\0\0\0\0\0\0\0\x40\x8a\10\0\0\0\0\0\0\0\x40\x86", M31) "s."), ATMSAE_E_LIMIT, "overflows"},
        {P("\x80\2}" A TENSOR("K\0", M23, "K\0K\0\x86") "s."), ATMSAE_E_UNSUPPORTED, "neither contiguous nor"},
        {P("\x80\2}" A TENSOR("K\0", "K\2\x85", "K\2\x85") "s."), ATMSAE_E_UNSUPPORTED, "neither contiguous nor"},
        {P("\x80\2}" A TENSOR("K\0", "K\2\x85", M31) "s."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2cos\nsystem\nX\2\0\0\0ls\x85R."), ATMSAE_E_UNSUPPORTED, "data.pkl byte 3: it asks for os.system"},
        {P("\x80\2cbuiltins\neval\n."), ATMSAE_E_UNSUPPORTED, "builtins.eval"},
        {P("\x80\2ctorch\nload\n."), ATMSAE_E_UNSUPPORTED, "torch.load"},
        {P("\x80\2\x8c\2os\x8c\6system\x93."), ATMSAE_E_UNSUPPORTED, "instruction 0x8c"},
        {P("\x80\4}."), ATMSAE_E_UNSUPPORTED, "pickle protocol 4"},
        {P("\x80\2(ios\nsystem\n."), ATMSAE_E_UNSUPPORTED, "instruction 0x69"},
        {P("\x80\2]."), ATMSAE_E_UNSUPPORTED, "instruction 0x5d"},
        {P("\x80\2cos\nsys\x1b[2m\n."), ATMSAE_E_FORMAT, "not printable"},
        {P("\x80\2c"), ATMSAE_E_FORMAT, "ends inside a name"},
        {P("\x80\2}"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2}X\5\0\0\0a."), ATMSAE_E_FORMAT, "ends inside a text"},
        {P("\x80\2}X\1\0\0\0\377."), ATMSAE_E_FORMAT, "not printable ASCII"},
        {P("\x80\2."), ATMSAE_E_FORMAT, "stack is empty"},
        {P("\x80\2K\1."), ATMSAE_E_FORMAT, "a number where a dict is needed"},
        {P("\x80\2}}."), ATMSAE_E_FORMAT, "something is left over"},
        {P("\x80\2}.."), ATMSAE_E_FORMAT, "something is left over"},
        {P("\x80\2}u."), ATMSAE_E_FORMAT, "there is no mark"},
        {P("\x80\2}(Nu."), ATMSAE_E_FORMAT, "odd number"},
        {P("\x80\2(NNu."), ATMSAE_E_FORMAT, "without a dict"},
        {P("\x80\2N(NNu."), ATMSAE_E_FORMAT, "what is no dict"},
        {P("\x80\2s."), ATMSAE_E_FORMAT, "without a dict"},
        {P("\x80\2}h\0s."), ATMSAE_E_FORMAT, "memo entry that was not made"},
        {P("\x80\2}q\1."), ATMSAE_E_FORMAT, "memo entries out of order"},
        {P("\x80\2q\0."), ATMSAE_E_FORMAT, "memo entries out of order"},
        {P("\x80\2N\x86."), ATMSAE_E_FORMAT, "stack is empty"},
        {P("\x80\2(N\x86."), ATMSAE_E_FORMAT, "a mark inside a tuple"},
        {P("\x80\2}N(s."), ATMSAE_E_FORMAT, "a mark inside a dict"},
        {P("\x80\2)Q."), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2NQ."), ATMSAE_E_FORMAT, "None where a tuple is needed"},
        {P("\x80\2(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "1X\3\0\0\0cpuK\6tQ."), ATMSAE_E_FORMAT, "no entry \"r/data/1\""},
        {P("\x80\2(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\7tQ."), ATMSAE_E_FORMAT, "\"r/data/0\" has 24 bytes, not 7 elements of F32"},
        {P("\x80\2(X\7\0\0\0storageccollections\nOrderedDict\nX\1\0\0\0" "0X\3\0\0\0cpuK\6tQ."), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2ccollections\nOrderedDict\nN\x85R."), ATMSAE_E_FORMAT, "made with arguments"},
        {P("\x80\2ctorch\nFloatStorage\n)R."), ATMSAE_E_FORMAT, "a storage class is called"},
        {P("\x80\2ctorch._utils\n_rebuild_tensor_v2\n)R."), ATMSAE_E_FORMAT, "other arguments"},
        {P("\x80\2ctorch._utils\n_rebuild_parameter\n)R."), ATMSAE_E_FORMAT, "without a tensor"},
        {P("\x80\2N)R."), ATMSAE_E_FORMAT, "None where a class is needed"},
        {P("\x80\2}Nb."), ATMSAE_E_FORMAT, "None where a dict is needed"},
        {P("\x80\2}b."), ATMSAE_E_FORMAT, "attributes of what is no dict"},
        {P("\x80\2\x8a\x09\0\0\0\0\0\0\0\0\0."), ATMSAE_E_FORMAT, "more than 64 bits"},
        {P("\x80\2}K\1" TENSOR("K\0", M23, M31) "s."), ATMSAE_E_FORMAT, "a tensor whose key is no text"},
        {P("\x80\2}" A TENSOR("K\0", M23, M31) "s" A TENSOR("K\0", M23, M31) "s."), ATMSAE_E_FORMAT, "two tensors \"a\""},
        {P(""), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2}" A TENSOR("\x8a\0", M23, M31) "sX\1\0\0\0b}" A TENSOR("K\2", "K\2\x85", "K\1\x85") "ss."), ATMSAE_OK, "1 2 3 -1 0.5 2"},
        {P("\x80\2}" A "ctorch._utils\n_rebuild_parameter\n(" TENSOR("K\5", ")", ")") "\x88" "ccollections\nOrderedDict\n)RtRs."), ATMSAE_OK, "2"},
        {P("\x80\2" PARTS("X\7\0\0\0stOrage", "ctorch\nFloatStorage\n", KEY, CPU, "K\6")), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2" PARTS("N", "ctorch\nFloatStorage\n", KEY, CPU, "K\6")), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2" PARTS(WORD, "N", KEY, CPU, "K\6")), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2" PARTS(WORD, "ctorch\nFloatStorage\n", "N", CPU, "K\6")), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2" PARTS(WORD, "ctorch\nFloatStorage\n", KEY, "N", "K\6")), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2" PARTS(WORD, "ctorch\nFloatStorage\n", KEY, CPU, "N")), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2" PARTS(WORD, "ctorch\nFloatStorage\n", KEY, CPU, "J\xff\xff\xff\xff")), ATMSAE_E_FORMAT, "no storage"},
        {P("\x80\2" PARTS(WORD, "ctorch\nFloatStorage\n", KEY, CPU, "\x8a\10\6\0\0\0\0\0\0\x40")), ATMSAE_E_FORMAT, "has 24 bytes, not 4611686018427387910"},
        {P("\x80\2}" A TENSOR("K\7", "K\0\x85", "K\1\x85") "s."), ATMSAE_E_FORMAT, "0 elements at 7 of a storage of 6"},
        {P("\x80\2}" A TENSOR("N", M23, M31) "s."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2}" A TENSOR("K\0", "N", M31) "s."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2}" A TENSOR("K\0", M23, "N\x85") "s."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2}" A TENSOR("K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", M31) "s."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2}" A TENSOR("K\0", M23, "K\1K\5\x86") "s."), ATMSAE_E_UNSUPPORTED, "neither contiguous nor"},
        {P("\x80\2ctorch._utils\n_rebuild_tensor_v2\n(NK\0" M23 M31 "NNtR."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNNNtR."), ATMSAE_E_FORMAT, "_rebuild_tensor_v2 has other arguments"},
        {P("\x80\2ctorch._utils\n_rebuild_parameter\n(NNNtR."), ATMSAE_E_FORMAT, "without a tensor"},
        {P("\x80\2R."), ATMSAE_E_FORMAT, "stack is empty"},
        {P("\x80\2t."), ATMSAE_E_FORMAT, "there is no mark"},
        {P("\x80\2}(Ns."), ATMSAE_E_FORMAT, "a mark inside a dict"},
        {P("\x80"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2J\1\2"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2\x8a"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2\x8a\4\1"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2X\1"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2}q"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2}h"), ATMSAE_E_FORMAT, "ends inside an instruction"},
        {P("\x80\2}j\1\1"), ATMSAE_E_FORMAT, "ends inside an instruction"},
    };
    for (size_t i = 0; torch && i < sizeof cases / sizeof *cases; i++) {
        const char *path = torch_file(cases[i].pickle, cases[i].size);
        atmsae_tensors *t;
        atmsae_status status = atmsae_tensors_open(ctx, path, &t);
        ck_assert_msg(status == cases[i].status, "case %d: %s: %s", (int)i, atmsae_status_name(status), atmsae_last_error(ctx));
        if (status < 0) {
            ck_assert_msg(strstr(atmsae_last_error(ctx), cases[i].text) != NULL, "case %d: %s", (int)i, atmsae_last_error(ctx));
            ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path));
            continue;
        }
        atmsae_tensor_info info = {.size = sizeof info};
        ck_assert_uint_eq(atmsae_tensors_count(t), 1);
        ok(atmsae_tensors_info(t, 0, &info));
        ck_assert_str_eq(info.name, "a");
        float values[6];
        char text[100] = "";
        uint64_t n = 1;
        for (uint64_t r = 0; r < info.rank; r++)
            n *= info.shape[r];
        ok(atmsae_tensors_read_f32(t, 0, values, n));
        for (uint64_t v = 0; v < n; v++)
            ams_format(text + strlen(text), sizeof text - strlen(text), "%s%g", v ? " " : "", (double)values[v]);
        ck_assert_str_eq(text, cases[i].text);
        atmsae_tensors_close(t);
    }
    if (!torch) return;
    static const char columns[] = "\x80\2}" A "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nIntStorage\nX\1\0\0\0"
                                  "0X\3\0\0\0cpuK\6tQK\0" M23 M12 "\x89" "ccollections\nOrderedDict\n)RtRs.";
    atmsae_tensors *t;
    int64_t whole[6];
    ok(atmsae_tensors_open(ctx, torch_file(P(columns)), &t));
    ck_assert_int_eq(atmsae_tensors_read_i64(t, 0, whole, 6), ATMSAE_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "integers stored column by column"));
    atmsae_tensors_close(t);
    /* As rows of a source, whichever way they lie. */
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    atmsae_source *source;
    ok(atmsae_source_create(ctx, &config, &source));
    ok(atmsae_source_add_file(source, torch_file(cases[0].pickle, cases[0].size), NULL, 0));
    ck_assert_uint_eq(atmsae_source_d(source), 3);
    atmsae_source_destroy(source);
    config.shuffle_rows = 0;
    ok(atmsae_source_create(ctx, &config, &source));
    ok(atmsae_source_add_file(source, torch_file(cases[1].pickle, cases[1].size), NULL, 0));
    float got[6], want[6];
    uint64_t n;
    ok(atmsae_tensors_open(ctx, torch_file(cases[1].pickle, cases[1].size), &t));
    ok(atmsae_tensors_read_f32(t, 0, want, 6));
    ok(atmsae_source_next(source, 6 / atmsae_source_d(source), got, &n));
    ck_assert_mem_eq(got, want, sizeof want);
    atmsae_tensors_close(t);
    atmsae_source_destroy(source);
}
END_TEST

/* SAEs of other packages get a sentence that says what they are. */
START_TEST(saes_of_others)
{
#define NAMED(n, name) "X" n "\0\0\0" name TENSOR("K\0", M23, M31) "s"
    static const struct {
        const char *pickle;
        size_t size;
        const char *text;
    } cases[] = {
        {P("\x80\2}" NAMED("\x8", "pre_bias") NAMED("\xb", "latent_bias") NAMED("\xe", "encoder.weight") NAMED("\xe", "decoder.weight") "."), "OpenAI"},
        {P("\x80\2}" NAMED("\5", "W_enc") NAMED("\5", "W_dec") NAMED("\5", "b_enc") NAMED("\5", "b_dec") "."), "Qwen-Scope"},
        {P("\x80\2}" NAMED("\x15", "encoder_linear.weight") NAMED("\x13", "encoder_linear.bias") NAMED("\x15", "decoder_linear.weight") "."), "Goodfire"},
        /* As Qwen-Scope's, and one more: not known. */
        {P("\x80\2}" NAMED("\5", "W_enc") NAMED("\5", "W_dec") NAMED("\5", "b_enc") NAMED("\5", "b_dec") NAMED("\1", "x") "."), NULL},
    };
    for (size_t i = 0; torch && i < sizeof cases / sizeof *cases; i++) {
        const char *path = torch_file(cases[i].pickle, cases[i].size);
        if (cases[i].text) refused(path, ATMSAE_E_UNSUPPORTED, cases[i].text);
        else refused(path, ATMSAE_E_IO, "config.json");
    }
    const ams_tensor_out llama[] = {
        {.name = "encoder.weight", .dtype = "F32", .rank = 2, .shape = {3, 2}, .data = w_enc}, {.name = "encoder.bias", .dtype = "F32", .rank = 1, .shape = {3}, .data = b3},
        {.name = "decoder.weight", .dtype = "F32", .rank = 2, .shape = {2, 3}, .data = w_dec}, {.name = "decoder.bias", .dtype = "F32", .rank = 1, .shape = {2}, .data = b2},
    };
    ok(ams_safetensors_write(ctx, join(root, "final.safetensors"), llama, 4, NULL, 0, false));
    refused(join(root, "final.safetensors"), ATMSAE_E_UNSUPPORTED, "Llama Scope: not read, as the factor of its rows stands in hyperparams.json");
}
END_TEST

/* Many values for few bytes, and long searches. */
START_TEST(greedy_pickles)
{
    static char pickle[1 << 16];
    if (!torch) return;
    static const char start[] = "\x80\2}" A TENSOR("K\0", M23, M31) "sq\0";
    size_t n = sizeof start - 1;
    memcpy(pickle, start, n);
    while (n + 2 < 1 << 15) { /* BINGET by BINGET */
        pickle[n++] = 'h';
        pickle[n++] = 0;
    }
    pickle[n++] = '.';
    atmsae_tensors *t;
    ck_assert_int_eq(atmsae_tensors_open(ctx, torch_file(pickle, n), &t), ATMSAE_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "left over"));
    static const char storages[] = "\x80\2(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\6tq\0";
    n = sizeof storages - 1;
    memcpy(pickle, storages, n);
    while (n + 3 < 1 << 15) {
        pickle[n++] = 'Q';
        pickle[n++] = 'h';
        pickle[n++] = 0;
    }
    ck_assert_int_eq(atmsae_tensors_open(ctx, torch_file(pickle, n), &t), ATMSAE_E_LIMIT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "more than 4096 storages"));

    /* Names that are longer than any; a byte order that is another, or none. */
    memcpy(pickle, "\x80\2(" WORD "ctorch\nFloatStorage\nX\0\2\0\0", n = sizeof "\x80\2(" WORD "ctorch\nFloatStorage\nX\0\2\0\0" - 1);
    memset(pickle + n, 'k', 512);
    memcpy(pickle + n + 512, CPU "K\6tQ.", sizeof CPU "K\6tQ.");
    ck_assert_int_eq(atmsae_tensors_open(ctx, torch_file(pickle, n + 512 + sizeof CPU "K\6tQ." - 1), &t), ATMSAE_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "long name"));
    static const char *const orders[] = {"big", "little-endian"};
    for (int i = 0; i < 3; i++) {
        static archive strange;
        char name[160] = "";
        memset(&strange, 0, sizeof strange);
        memset(name, 'r', i < 2 ? 1 : 130);
        add_entry(&strange, strcat(name, "/data.pkl"), "\x80\2}.", 4);
        if (i < 2) add_entry(&strange, "r/byteorder", orders[i], strlen(orders[i]));
        end_archive(&strange);
        put(join(root, "t.pt"), strange.bytes, strange.n);
        ck_assert_int_eq(atmsae_tensors_open(ctx, join(root, "t.pt"), &t), i < 2 ? ATMSAE_E_UNSUPPORTED : ATMSAE_E_LIMIT);
        ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), i < 2 ? "is not \"little\"" : "long name"));
    }
    /* 4 MiB and a byte of pickle, as a hole in the file. */
    static archive a;
    const long size = (1 << 22) + 1;
    add_entry(&a, "r/data.pkl", "", 0);
    le(a.directory + 20, 4, (uint64_t)size);
    le(a.directory + 24, 4, (uint64_t)size);
    const size_t local = a.n;
    end_archive(&a);
    le(a.bytes + a.n - 6, 4, local + (uint64_t)size);
    FILE *f = fopen(join(root, "t.pt"), "wb");
    ck_assert(f && fwrite(a.bytes, 1, local, f) == local && fseek(f, size, SEEK_CUR) == 0 && fwrite(a.bytes + local, 1, a.n - local, f) == a.n - local);
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_int_eq(atmsae_tensors_open(ctx, join(root, "t.pt"), &t), ATMSAE_E_LIMIT);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "data.pkl has 4194305 bytes, at most 4194304"));
}
END_TEST

#define NPY6 "\x93NUMPY\1\0\x46\0" "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }            \n" "\0\0\x80?"

START_TEST(archives)
{
    /* What is changed in an archive of one array: field, bytes, value. */
    static const struct {
        size_t back; /* from the end of the file: 22 is the end record, 22 + 51 the entry of "a.npy" */
        unsigned n;
        uint64_t value;
        atmsae_status status;
        const char *text;
    } cases[] = {
        {0, 0, 0, ATMSAE_OK, ""},
        {22 + 51 - 8, 2, 1, ATMSAE_E_UNSUPPORTED, "\"a.npy\" is encrypted"},
        {22 + 51 - 10, 2, 8, ATMSAE_E_UNSUPPORTED, "\"a.npy\" is compressed (method 8)"},
        {22 + 51 - 20, 4, 5, ATMSAE_E_FORMAT, "\"a.npy\": its sizes contradict"},
        {22 + 51 - 24, 4, 5, ATMSAE_E_FORMAT, "\"a.npy\": its sizes contradict"},
        {22 + 51 - 28, 2, 400, ATMSAE_E_FORMAT, "directory is malformed"},
        {22 + 51 - 28, 2, 4, ATMSAE_E_FORMAT, "no header of it"},
        {22 + 51 - 30, 2, 4, ATMSAE_E_FORMAT, "directory is malformed"},
        {22 + 51 - 42, 4, 1, ATMSAE_E_FORMAT, "no header of it at byte 1"},
        {22 + 51 - 42, 4, 170, ATMSAE_E_FORMAT, "begins at the end"},
        {22 + 51 - 42, 4, 999999, ATMSAE_E_FORMAT, "sizes contradict"},
        {22 + 51 - 46, 1, 7, ATMSAE_E_FORMAT, "strange name"},
        {22 + 51 - 50, 1, 'x', ATMSAE_E_FORMAT, "does not end in .npy"},
        {22 + 51, 1, 7, ATMSAE_E_FORMAT, "directory is malformed"},
        {22 - 4, 2, 1, ATMSAE_E_UNSUPPORTED, "several parts"},
        {22 - 8, 2, 2, ATMSAE_E_UNSUPPORTED, "several parts"},
        {22 - 12, 4, 1000, ATMSAE_E_FORMAT, "directory does not fit"},
        {22 - 12, 4, 45, ATMSAE_E_FORMAT, "directory does not fit"},
        {22 - 16, 4, 3, ATMSAE_E_FORMAT, "directory is malformed"},
        {22 - 16, 4, 0xffffffff, ATMSAE_E_FORMAT, "ZIP64 end record is missing"},
        {22 - 20, 2, 1, ATMSAE_E_TRUNCATED, "the end of the ZIP archive is missing"},
        {22, 1, 7, ATMSAE_E_TRUNCATED, "the end of the ZIP archive is missing"},
    };
    static archive a;
    const char *path = join(root, "a.npz");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&a, 0, sizeof a);
        add_entry(&a, "a.npy", NPY6, sizeof NPY6 - 1);
        end_archive(&a);
        if (cases[i].n) le(a.bytes + a.n - cases[i].back, cases[i].n, cases[i].value);
        put(path, a.bytes, a.n);
        atmsae_tensors *t;
        atmsae_status status = atmsae_tensors_open(ctx, path, &t);
        ck_assert_msg(status == cases[i].status, "case %d: %s: %s", (int)i, atmsae_status_name(status), atmsae_last_error(ctx));
        if (status < 0) {
            ck_assert_msg(strstr(atmsae_last_error(ctx), cases[i].text) != NULL, "case %d: %s", (int)i, atmsae_last_error(ctx));
            ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), path));
            continue;
        }
        float value;
        ok(atmsae_tensors_read_f32(t, 0, &value, 1));
        ck_assert(value == 1);
        atmsae_tensors_close(t);
    }
}
END_TEST

/* The same archive with every size and place in ZIP64 fields. */
START_TEST(zip64)
{
    enum { NPY = sizeof NPY6 - 1, ENTRY = 46 + 5 + 28, END64 = 56, LOCATOR = 20, END = 22 };
    unsigned char bytes[512] = {0}, *p = bytes;
    memcpy(p, "PK\3\4", 4);
    le(p + 18, 4, UINT32_MAX);
    le(p + 22, 4, UINT32_MAX);
    le(p + 26, 2, 5);
    le(p + 28, 2, 20);
    memcpy(p + 30, "a.npy", 5);
    le(p + 35, 2, 1);
    le(p + 37, 2, 16);
    le(p + 39, 8, NPY);
    le(p + 47, 8, NPY);
    memcpy(p + 55, NPY6, NPY);
    p += 55 + NPY;
    size_t directory = (size_t)(p - bytes);
    memcpy(p, "PK\1\2", 4);
    le(p + 16, 4, ams_crc32(0, NPY6, NPY));
    le(p + 20, 4, UINT32_MAX);
    le(p + 24, 4, UINT32_MAX);
    le(p + 28, 2, 5);
    le(p + 30, 2, 28);
    le(p + 42, 4, UINT32_MAX);
    memcpy(p + 46, "a.npy", 5);
    le(p + 51, 2, 1);
    le(p + 53, 2, 24);
    le(p + 55, 8, NPY);
    le(p + 63, 8, NPY); /* the place is 0 */
    p += ENTRY;
    size_t end64 = (size_t)(p - bytes);
    memcpy(p, "PK\6\6", 4);
    le(p + 4, 8, END64 - 12);
    le(p + 24, 8, 1);
    le(p + 32, 8, 1);
    le(p + 40, 8, ENTRY);
    le(p + 48, 8, directory);
    p += END64;
    memcpy(p, "PK\6\7", 4);
    le(p + 8, 8, end64);
    le(p + 16, 4, 1);
    p += LOCATOR;
    memcpy(p, "PK\5\6", 4);
    memset(p + 8, 0xff, 12);
    p += END;
    const char *path = join(root, "z.npz");
    const struct {
        size_t at;
        unsigned n;
        uint64_t value;
        atmsae_status status;
        const char *text;
    } cases[] = {
        {0, 0, 0, ATMSAE_OK, ""},
        {end64, 1, 7, ATMSAE_E_FORMAT, "no ZIP64 end record"},
        {end64 + END64, 1, 7, ATMSAE_E_FORMAT, "a ZIP64 end record is missing"},
        {end64 + END64 + 8, 8, end64 + 1, ATMSAE_E_FORMAT, "a ZIP64 end record is missing"},
        {end64 + 32, 8, 4097, ATMSAE_E_LIMIT, "a ZIP directory of 4097 entries"},
        {end64 + 40, 8, (1 << 24) + 1, ATMSAE_E_LIMIT, "a ZIP directory of 1 entries and 16777217 bytes"},
        {end64 + 48, 8, UINT64_MAX, ATMSAE_E_FORMAT, "directory does not fit"},
        {directory + 51, 2, 2, ATMSAE_E_FORMAT, "sizes contradict"}, /* an extra field of another kind */
        {directory + 53, 2, 16, ATMSAE_E_FORMAT, "malformed"},        /* and one too short for all three */
        {directory + 53, 2, 26, ATMSAE_E_FORMAT, "extra field"},      /* or too long */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char changed[sizeof bytes];
        memcpy(changed, bytes, sizeof bytes);
        le(changed + cases[i].at, cases[i].n, cases[i].value);
        put(path, changed, (size_t)(p - bytes));
        atmsae_tensors *t;
        atmsae_status status = atmsae_tensors_open(ctx, path, &t);
        ck_assert_msg(status == cases[i].status && (status == ATMSAE_OK || strstr(atmsae_last_error(ctx), cases[i].text)),
                      "case %zu: %s", i, atmsae_last_error(ctx));
        if (status < 0) continue;
        float value;
        ok(atmsae_tensors_read_f32(t, 0, &value, 1));
        ck_assert(value == 1);
        atmsae_tensors_close(t);
    }
    for (int i = 0; i < 2; i++) { /* the end alone, and the locator with it */
        atmsae_tensors *t;
        const size_t n = END + (size_t)i * LOCATOR;
        put(path, p - n, n);
        ck_assert_int_eq(atmsae_tensors_open(ctx, path, &t), ATMSAE_E_FORMAT);
        ck_assert_msg(strstr(atmsae_last_error(ctx), "a ZIP64 end record is missing") != NULL, "%s", atmsae_last_error(ctx));
    }
}
END_TEST

/* ---- allocations ------------------------------------------------------------------------------------------- */

START_TEST(failing_allocations)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1;
    config.allocator = &counted;
    atmsae_context *outer = ctx;
    ok(atmsae_context_create(&config, &ctx));
    for (int i = 0; i < SOURCES; i++) {
        if (!can_read(sources[i].name)) continue;
        const long before = live;
        atmsae_model *m = NULL;
        atmsae_status status = ATMSAE_E_NOMEM;
        for (long n = 1; status < 0; n++) {
            ck_assert_int_lt(n, 300);
            countdown = n;
            status = atmsae_model_load(ctx, join(fixtures, sources[i].name), &m);
            countdown = 0;
            ck_assert_msg(status == ATMSAE_OK || status == ATMSAE_E_NOMEM, "%s: %s", sources[i].name, atmsae_last_error(ctx));
            if (status < 0) ck_assert_int_eq(live, before);
        }
        const long loaded = live;
        static const char *const outs[] = {"a", "a.npz", "a.gguf"};
        const uint32_t latent = 2;
        atmsae_save_options options;
        atmsae_save_options_init(&options, sizeof options);
        options.latents = &latent;
        options.n_latents = 1;
        options.layer = 3;
        options.fold_decoder_norm = sources[i].activation != ATMSAE_TOPK;
        for (int o = 0; o < 3; o++) {
            if (o == 1 && (sources[i].activation == ATMSAE_TOPK || sources[i].activation == ATMSAE_GATED)) continue;
            status = ATMSAE_E_NOMEM;
            for (long n = 1; status < 0; n++) {
                ck_assert_int_lt(n, 300);
                countdown = n;
                status = atmsae_model_save(m, join(root, outs[o]), &options);
                countdown = 0;
                ck_assert_msg(status == ATMSAE_OK || status == ATMSAE_E_NOMEM, "%s: %s", sources[i].name, atmsae_last_error(ctx));
                ck_assert_int_eq(live, loaded);
                if (status < 0) ck_assert_int_ne(access(join(root, outs[o]), F_OK), 0);
            }
            remove_tree(join(root, outs[o]));
            unlink(join(root, outs[o]));
        }
        atmsae_model_destroy(m);
        ck_assert_int_eq(live, before);
    }
    atmsae_context_destroy(ctx);
    ctx = outer;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("formats");
    TCase *tcase = tcase_create("formats");
    tcase_set_timeout(tcase, 240);
    tcase_add_checked_fixture(tcase, setup, teardown);
    const TTest *const tests[] = {as_the_original, saved_again, scales_are_folded, gguf, configurations, gemma_tensors,
                                  pickles, saes_of_others, greedy_pickles, archives, zip64, failing_allocations};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, cut_at_every_byte, 0, sizeof binaries / sizeof *binaries);
    tcase_add_loop_test(tcase, any_bit_flipped, 0, sizeof binaries / sizeof *binaries);
    suite_add_tcase(suite, tcase);
    return run_all(suite);
}
