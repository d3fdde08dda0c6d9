/* SPDX-License-Identifier: MIT
 *
 * The measures of eval.h against the original packages, on the problems of reference/make_measures.py: those
 * in fixtures/, or in the folder that ATMSAE_MEASURES names (peers/measures.sh).
 */
#include "base/base.h"
#include "data/synth.h"
#include "eval/absorption.h"
#include "eval/match.h"
#include "suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct problem {
    atmsae_context *ctx;
    atmsae_tensors *file;
} problem;

/* A tensor of the problem, as floats or as whole numbers. */
typedef struct array {
    uint64_t shape[3], n;
    float *f;
    int64_t *i;
} array;

static void ok(const problem *p, atmsae_status status)
{
    ck_assert_msg(status == ATMSAE_OK, "%s: %s", atmsae_status_name(status), atmsae_last_error(p->ctx));
}

static void near(const char *what, double got, double want, double tolerance)
{
    ck_assert_msg(fabs(got - want) <= tolerance, "%s is %.9g, expected %.9g", what, got, want);
}

static void *zeros(uint64_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

/* ctx NULL in what comes back: this folder has no problem of the package. */
static problem open_problem(const char *package)
{
    const char *tests = getenv("ATMSAE_TESTS"), *measures = getenv("ATMSAE_MEASURES");
    char path[1024];
    problem p = {0};
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    ck_assert_int_eq(atmsae_context_create(&config, &p.ctx), ATMSAE_OK);
    if (measures) ams_format(path, sizeof path, "%s/measures_%s.safetensors", measures, package);
    else ams_format(path, sizeof path, "%s/fixtures/measures_%s.safetensors", tests ? tests : "tests", package);
    if (atmsae_tensors_open(p.ctx, path, &p.file) == ATMSAE_OK) return p;
    ck_assert_msg(measures != NULL, "%s", atmsae_last_error(p.ctx));
    atmsae_context_destroy(p.ctx);
    return (problem){0};
}

static void close_problem(problem *p)
{
    atmsae_tensors_close(p->file);
    atmsae_context_destroy(p->ctx);
}

static array get(const problem *p, const char *name)
{
    uint64_t index;
    atmsae_tensor_info info = {.size = sizeof info};
    array a = {{1, 1, 1}, 1, NULL, NULL};
    ok(p, atmsae_tensors_find(p->file, name, &index));
    ok(p, atmsae_tensors_info(p->file, index, &info));
    for (uint64_t k = 0; k < info.rank; k++) {
        a.shape[k] = info.shape[k];
        a.n *= info.shape[k];
    }
    if (info.dtype[0] == 'F') {
        a.f = zeros(a.n, sizeof *a.f);
        ok(p, atmsae_tensors_read_f32(p->file, index, a.f, a.n));
    } else {
        a.i = zeros(a.n, sizeof *a.i);
        ok(p, atmsae_tensors_read_i64(p->file, index, a.i, a.n));
    }
    return a;
}

static void drop(array *a) { free(a->f), free(a->i); }

static void *bytes(const array *a) /* int8_t or uint8_t */
{
    int8_t *out = zeros(a->n, 1);
    for (uint64_t i = 0; i < a->n; i++)
        out[i] = (int8_t)a->i[i];
    return out;
}

/* The ReLU SAE `prefix`.W_enc .. */
static atmsae_model *get_model(const problem *p, const char *prefix)
{
    static const struct {
        const char *name;
        int32_t id;
    } parts[] = {{"W_enc", ATMSAE_W_ENC}, {"b_enc", ATMSAE_B_ENC}, {"W_dec", ATMSAE_W_DEC}, {"b_dec", ATMSAE_B_DEC}};
    atmsae_model *model = NULL;
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        char name[64];
        ams_format(name, sizeof name, "%s.%s", prefix, parts[k].name);
        array a = get(p, name);
        if (!model) {
            atmsae_model_config config;
            atmsae_model_config_init(&config, sizeof config);
            config.d_sae = a.shape[0];
            config.d_in = a.shape[1];
            config.activation = ATMSAE_RELU;
            config.input_norm = ATMSAE_INPUT_RAW;
            ok(p, atmsae_model_create(p->ctx, &config, &model));
        }
        ok(p, atmsae_model_set(model, parts[k].id, a.f, a.n));
        drop(&a);
    }
    return model;
}

/* ---- sae-bench ------------------------------------------------------------------------------------ */

START_TEST(absorption_of_words_equals_saebench)
{
    problem p = open_problem("saebench");
    if (!p.ctx) return;
    array acts = get(&p, "words.acts"), dec = get(&p, "words.W_dec"), probe = get(&p, "words.probe");
    array projection = get(&p, "words.projection"), fraction = get(&p, "words.fraction"), full = get(&p, "words.full");
    uint64_t n = acts.shape[0], f = acts.shape[1], d = dec.shape[1], partial = 0, fulls = 0;
    double *cosine = zeros(f, sizeof *cosine);
    uint32_t *latent = zeros(f, sizeof *latent);
    float *value = zeros(f, sizeof *value);
    static const uint32_t split[] = {0, 1};
    for (uint64_t i = 0; i < f; i++)
        for (uint64_t j = 0; j < d; j++)
            cosine[i] += (double)dec.f[i * d + j] * (double)probe.f[j];
    for (uint64_t r = 0; r < n; r++) {
        ams_absorption_row row = {0, latent, value, cosine, split, 2, (double)projection.f[r]};
        for (uint32_t i = 0; i < f; i++) {
            if (!(acts.f[r * f + i] > 0)) continue;
            latent[row.count] = i;
            value[row.count++] = acts.f[r * f + i];
        }
        bool positive = projection.f[r] > 0; /* else the original divides by a negative number, and we say 0 */
        near("fraction", ams_absorbed_fraction_v060(&row), positive ? (double)fraction.f[r] : 0, 1e-5);
        ck_assert_int_eq(ams_absorbed_fully(&row), positive ? (int)full.i[r] : 0);
        partial += fraction.f[r] > 0 && fraction.f[r] < 1;
        fulls += full.i[r] != 0;
    }
    ck_assert_uint_ge(partial, 3); /* the problem has all kinds */
    ck_assert_uint_ge(fulls, 3);
    free(cosine), free(latent), free(value);
    drop(&acts), drop(&dec), drop(&probe), drop(&projection), drop(&fraction), drop(&full);
    close_problem(&p);
}
END_TEST

START_TEST(probing_equals_saebench)
{
    problem p = open_problem("saebench");
    if (!p.ctx) return;
    array tokens = get(&p, "texts.tokens"), label = get(&p, "texts.label"), train = get(&p, "texts.is_train");
    uint64_t n = tokens.shape[0], length = tokens.shape[1], d = tokens.shape[2], rows = 0, n_test = 0;
    uint64_t *texts = zeros(n * length, sizeof *texts);
    float *x = zeros(tokens.n, sizeof *x);
    for (uint64_t t = 0; t < n * length; t++) { /* padding is left out */
        if (tokens.f[t * d] == 0) continue;
        memcpy(x + rows * d, tokens.f + t * d, d * sizeof *x);
        texts[rows++] = t / length;
    }
    for (uint64_t t = 0; t < n; t++)
        n_test += train.i[t] == 0;
    int8_t *labels = bytes(&label);
    uint8_t *is_train = bytes(&train);
    atmsae_probing_config config;
    atmsae_probing_config_init(&config, sizeof config);
    config.n_tasks = label.shape[1];
    config.texts = texts;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = rows;
    batch.x = x;
    atmsae_probing *probing;
    ok(&p, atmsae_probing_create(p.ctx, &config, &batch, d, labels, is_train, &probing));
    atmsae_model *model = get_model(&p, "texts.sae");
    atmsae_probing_entry *entries = zeros(config.n_tasks * 4, sizeof *entries);
    for (int of_model = 0; of_model < 2; of_model++) {
        array want = get(&p, of_model ? "texts.sae.results" : "texts.x.results");
        ok(&p, of_model ? atmsae_probing_score(probing, model, entries) : atmsae_probing_baseline(probing, entries));
        for (uint64_t k = 0; k < config.n_tasks * 4; k++) {
            near("accuracy, solved tightly", entries[k].accuracy, (double)want.f[3 * k + 1], 1e-6);
            near("accuracy, scikit-learn's tolerance", entries[k].accuracy, (double)want.f[3 * k], 1.5 / (double)n_test);
            if (k % 4 == 0) ck_assert_int_eq((int)entries[k].best, (int)want.f[3 * k + 2]);
        }
        drop(&want);
    }
    atmsae_model_destroy(model);
    atmsae_probing_destroy(probing);
    free(entries), free(labels), free(is_train), free(texts), free(x);
    drop(&tokens), drop(&label), drop(&train);
    close_problem(&p);
}
END_TEST

/* ---- sae-probes ------------------------------------------------------------------------------------- */

START_TEST(probing_equals_sae_probes)
{
    problem p = open_problem("saeprobes");
    if (!p.ctx) return;
    array rows = get(&p, "probe.x"), label = get(&p, "probe.label"), train = get(&p, "probe.is_train");
    array ks = get(&p, "probe.ks"), want = get(&p, "probe.results");
    uint64_t *k = zeros(ks.n, sizeof *k), n_test = 0;
    for (uint64_t i = 0; i < ks.n; i++)
        k[i] = (uint64_t)ks.i[i];
    for (uint64_t t = 0; t < train.n; t++)
        n_test += train.i[t] == 0;
    int8_t *labels = bytes(&label);
    uint8_t *is_train = bytes(&train);
    atmsae_probing_config config;
    atmsae_probing_config_init(&config, sizeof config);
    config.n_tasks = 1;
    config.ks = k;
    config.n_ks = ks.n;
    config.protocol = ATMSAE_PROBING_SAE_PROBES;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = rows.shape[0];
    batch.x = rows.f;
    atmsae_probing *probing;
    ok(&p, atmsae_probing_create(p.ctx, &config, &batch, rows.shape[1], labels, is_train, &probing));
    atmsae_model *model = get_model(&p, "probe.sae");
    atmsae_probing_entry *entries = zeros(ks.n + 1, sizeof *entries);
    ok(&p, atmsae_probing_score(probing, model, entries));
    for (uint64_t i = 0; i < ks.n; i++) {
        ck_assert_int_eq((int)entries[i].best, (int)want.f[3 * i + 2]);
        near("auc", entries[i].auc, (double)want.f[3 * i + 1], 2e-3);
        near("accuracy", entries[i].accuracy, (double)want.f[3 * i], 1.5 / (double)n_test);
    }
    atmsae_model_destroy(model);
    atmsae_probing_destroy(probing);
    free(entries), free(labels), free(is_train), free(k);
    drop(&rows), drop(&label), drop(&train), drop(&ks), drop(&want);
    close_problem(&p);
}
END_TEST

/* ---- sae-lens ---------------------------------------------------------------------------------------- */

START_TEST(truth_equals_saelens)
{
    problem p = open_problem("saelens");
    if (!p.ctx) return;
    array rows = get(&p, "truth.seed_rows"), want = get(&p, "truth.results");
    uint64_t n = (uint64_t)rows.i[1];
    atmsae_synth *synth;
    ok(&p, atmsae_synth_create_preset(p.ctx, ATMSAE_SYNTH_MATRYOSHKA, (uint64_t)rows.i[0], &synth));
    atmsae_model *model = get_model(&p, "truth.sae");
    atmsae_truth_result r = {.size = sizeof r};
    ok(&p, atmsae_synth_truth(synth, model, 0, n, &r));
    const double got[] = {r.mcc, r.uniqueness, r.precision, r.recall, r.f1, r.accuracy, r.l0, r.true_l0, (double)r.dead};
    static const char *const names[] = {"mcc", "uniqueness", "precision", "recall", "f1", "accuracy", "l0", "true_l0", "dead"};
    for (size_t k = 0; k < sizeof got / sizeof *got; k++)
        near(names[k], got[k], (double)want.f[k], 2e-5 * fmax(1, got[k]));

    float *x = zeros(n * 20, sizeof *x);
    ok(&p, atmsae_synth_rows(synth, 0, n, x, NULL));
    atmsae_metrics *metrics;
    atmsae_metrics_details details = {.size = sizeof details};
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = n;
    batch.x = x;
    ok(&p, atmsae_metrics_create(model, &metrics));
    ok(&p, atmsae_metrics_add(metrics, &batch));
    ok(&p, atmsae_metrics_get_details(metrics, &details));
    near("explained variance", details.explained_variance, (double)want.f[9], 1e-5);
    near("norm ratio", details.norm_ratio, (double)want.f[10], 1e-5);
    atmsae_metrics_destroy(metrics);
    atmsae_model_destroy(model);
    atmsae_synth_destroy(synth);
    free(x);
    drop(&rows), drop(&want);
    close_problem(&p);
}
END_TEST

START_TEST(matches_equal_saelens_and_scipy)
{
    problem p = open_problem("saelens");
    if (!p.ctx) return;
    array a = get(&p, "match.a"), b = get(&p, "match.b"), want = get(&p, "match.results");
    for (int swap = 0; swap < 2; swap++)
        for (int absolute = 0; absolute < 2; absolute++) {
            const array *first = swap ? &b : &a, *second = swap ? &a : &b;
            atmsae_match_result r = {.size = sizeof r};
            uint32_t partner[64];
            bool taken[64] = {false};
            ok(&p, ams_match(p.ctx, first->f, first->shape[0], second->f, second->shape[0], a.shape[1], absolute, partner, &r));
            near("mcc", r.mcc, (double)want.f[absolute], 1e-6);
            ck_assert_uint_eq(r.pairs, a.shape[0]);
            for (uint64_t i = 0; i < first->shape[0]; i++) {
                if (partner[i] == UINT32_MAX) continue;
                ck_assert(partner[i] < second->shape[0] && !taken[partner[i]]);
                taken[partner[i]] = true;
            }
        }
    drop(&a), drop(&b), drop(&want);
    close_problem(&p);
}
END_TEST

START_TEST(compensated_probabilities_equal_saelens)
{
    problem p = open_problem("saelens");
    if (!p.ctx) return;
    array base = get(&p, "tree.p"), exclusive = get(&p, "tree.exclusive"), want = get(&p, "tree.compensated");
    double probability[64];
    uint64_t parent[64];
    int32_t children[64];
    for (uint64_t i = 0; i < base.n; i++) {
        probability[i] = (double)base.f[i];
        parent[i] = i < 6 ? i : (i - 6) / 4;
        children[i] = exclusive.i[i] ? ATMSAE_CHILDREN_KEEP_ONE : ATMSAE_CHILDREN_FREE;
    }
    atmsae_tree_config config;
    atmsae_tree_config_init(&config, sizeof config);
    config.d = 8;
    config.n_features = base.n;
    config.probability = probability;
    config.parent = parent;
    config.children = children;
    config.compensate = 1;
    atmsae_synth *synth;
    ok(&p, atmsae_synth_create_tree(p.ctx, &config, &synth));
    for (uint64_t i = 0; i < base.n; i++)
        near("probability", synth->tree->p[i], (double)want.f[i], 1e-6);
    atmsae_synth_destroy(synth);
    drop(&base), drop(&exclusive), drop(&want);
    close_problem(&p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("measures");
    TCase *tcase = tcase_create("packages");
    tcase_add_test(tcase, absorption_of_words_equals_saebench);
    tcase_add_test(tcase, probing_equals_saebench);
    tcase_add_test(tcase, probing_equals_sae_probes);
    tcase_add_test(tcase, truth_equals_saelens);
    tcase_add_test(tcase, matches_equal_saelens_and_scipy);
    tcase_add_test(tcase, compensated_probabilities_equal_saelens);
    suite_add_tcase(suite, tcase);
    return run_all(suite);
}
