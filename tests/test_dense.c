/* SPDX-License-Identifier: MIT
 *
 * Codes that are some per cent full, as AuxK's are, take paths of their own: sums over packed columns
 * (gather.c), candidates rescored in groups (search.c), rows in blocks for many latents (backward.c). Here
 * they against the plain loops that define them, bit for bit, over sizes that cross every block.
 */
#include "kernels/vec.h"
#include "sae/sae.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 1;
static uint32_t next32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) ^ (uint32_t)(state >> 51);
}
static float next_float(void) { return ((float)(next32() % 20001) - 10000) * 1e-4f; }
static float *floats(uint64_t n)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (uint64_t i = 0; i < n; i++)
        x[i] = next_float();
    return x;
}

static atmsae_context *context(uint32_t threads)
{
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = threads;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    return ctx;
}

static atmsae_model *new_model(atmsae_context *ctx, uint64_t d, uint64_t F, double k)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = d;
    config.d_sae = F;
    config.k = k;
    atmsae_model *m;
    ck_assert_int_eq(atmsae_model_create(ctx, &config, &m), ATMSAE_OK);
    return m;
}

START_TEST(gather_64)
{
    enum { ROWS = 50, ENTRIES = 70 };
    float *rows = floats(ROWS * 64), *a = floats(ENTRIES), *start = floats(64), want[64], got[64];
    uint32_t at[ENTRIES];
    for (int count = 0; count <= ENTRIES; count++) {
        memcpy(want, start, sizeof want);
        for (int e = 0; e < count; e++) {
            at[e] = 7 + next32() % ROWS;
            ams_axpy(want, a[e], rows + (at[e] - 7) * 64, 64);
        }
        for (unsigned level = 0; level < ams_vec_levels(); level++) {
            memcpy(got, start, sizeof got);
            ams_vec_level(level)->gather_64(got, a, at, 7, rows, (uint64_t)count);
            ck_assert_mem_eq(got, want, sizeof got);
        }
    }
    free(rows);
    free(a);
    free(start);
}
END_TEST

static int descending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

START_TEST(kth)
{
    float values[300], sorted[300], rest[300];
    for (uint64_t n = 1; n <= 300; n += n < 20 ? 1 : 35)
        for (uint64_t k = 1; k <= n; k++)
            for (uint32_t distinct = 1; distinct < 1000; distinct *= 9) {
                for (uint64_t i = 0; i < n; i++)
                    values[i] = sorted[i] = (float)(next32() % distinct) - 3;
                qsort(sorted, n, sizeof *sorted, descending);
                ck_assert(ams_kth(values, rest, n, k) == sorted[k - 1]);
            }
}
END_TEST

START_TEST(lower_bound)
{
    uint32_t v[200];
    for (uint32_t i = 0; i < 200; i++)
        v[i] = 3 * (i / 2);
    for (uint64_t from = 0; from < 200; from += 7)
        for (uint64_t to = from; to <= 200; to += 11)
            for (uint64_t value = 0; value < 310; value++) {
                uint64_t want = from;
                while (want < to && v[want] < value)
                    want++;
                ck_assert_uint_eq(ams_lower_bound(v, from, to, value), want);
            }
}
END_TEST

/* A random sparse matrix, one entry in `one_in`. */
static void fill(atmsae_context *ctx, ams_sparse *s, uint64_t n, uint64_t columns, uint32_t one_in)
{
    ck_assert_int_eq(ams_sparse_reserve(ctx, s, n, n * columns), ATMSAE_OK);
    uint64_t p = 0;
    s->n = n;
    for (uint64_t r = 0; r < n; r++) {
        s->start[r] = p;
        for (uint32_t j = 0; j < columns; j++)
            if (next32() % one_in == 0 && r % 5 != 4) {
                s->latent[p] = j;
                s->value[p++] = next_float();
            }
    }
    s->start[n] = p;
}

START_TEST(gather)
{
    static const struct {
        uint64_t n, columns, d;
        uint32_t one_in;
    } cases[] = {{1, 1, 1, 1}, {3, 2, 63, 1}, {1500, 40, 65, 3}, {60, 2100, 130, 4}, {2049, 1025, 64, 50}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            const uint64_t n = cases[i].n, F = cases[i].columns, d = cases[i].d;
            atmsae_context *ctx = context(threads);
            ams_sparse s = {0};
            ams_index by_latent = {0};
            ams_gather_memory *memory = NULL;
            uint64_t capacity = 0;
            fill(ctx, &s, n, F, cases[i].one_in);
            ck_assert_int_eq(ams_gather_reserve(ctx, &memory, &capacity), ATMSAE_OK);
            ck_assert_int_eq(ams_index_build(ctx, &by_latent, AMS_INDEX_VALUES, &s, F), ATMSAE_OK);

            /* Rows of latents into rows: latent j stands in row 2 j of its table. */
            float *dec = floats(2 * F * d), *got = floats(n * d), *want = malloc(n * d * sizeof *want), *scaled = malloc(d * sizeof *scaled);
            uint32_t *twice = malloc(F * sizeof *twice);
            for (uint32_t j = 0; j < F; j++)
                twice[j] = 2 * j;
            memcpy(want, got, n * d * sizeof *want);
            for (uint64_t r = 0; r < n; r++)
                for (uint64_t p = s.start[r]; p < s.start[r + 1]; p++)
                    ams_axpy(want + r * d, -s.value[p], dec + 2 * s.latent[p] * d, d);
            const ams_gather to_rows = {.start = s.start, .at = s.latent, .value = s.value, .n = n, .d = d, .rows = dec,
                                        .row_of = twice, .n_rows = F, .factor = -1, .out = got};
            ams_gather_run(ctx, memory, &to_rows);
            ck_assert_mem_eq(got, want, n * d * sizeof *want);

            /* Weighted rows into latents: latent j's sum goes to place F - 1 - j / 2 of twice as many names. */
            float *weights = floats(n), *sums = floats(F * d), *want_sums = malloc(F * d * sizeof *want_sums);
            uint32_t *place = malloc(2 * F * sizeof *place);
            for (uint32_t j = 0; j < 2 * F; j++)
                place[j] = (uint32_t)F - 1 - j / 2;
            memcpy(want_sums, sums, F * d * sizeof *sums);
            for (uint64_t r = 0; r < n; r++) {
                const float times = (float)(-0.3 * (double)weights[r]);
                for (uint64_t c = 0; c < d; c++)
                    scaled[c] = times * want[r * d + c];
                for (uint64_t p = s.start[r]; p < s.start[r + 1]; p++)
                    ams_axpy(want_sums + place[twice[s.latent[p]]] * d, s.value[p], scaled, d);
            }
            const ams_gather to_latents = {.start = by_latent.start, .at = by_latent.row, .value = by_latent.value, .n = F,
                                           .d = d, .rows = got, .n_rows = n, .factor = -0.3, .weights = weights,
                                           .out = sums, .out_of = place, .out_names = twice};
            ams_gather_run(ctx, memory, &to_latents);
            ck_assert_mem_eq(sums, want_sums, F * d * sizeof *sums);

            void *arrays[] = {dec, got, want, scaled, twice, weights, sums, want_sums, place};
            for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++)
                free(arrays[k]);
            ams_sparse_free(ctx, &s);
            ams_index_free(ctx, &by_latent);
            ams_free(ctx, memory);
            atmsae_context_destroy(ctx);
        }
}
END_TEST

/* Many more candidates than k, with ties by the dozen, over a list of eligible latents. */
START_TEST(row_topk)
{
    enum { N = 131, D = 5, F = 700 };
    const uint64_t ks[] = {1, 3, 60, 200, F};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        atmsae_context *ctx = context(2);
        atmsae_model *m = new_model(ctx, D, F, 1);
        for (uint64_t f = 1; f < F; f += 3) /* ties: a third of the latents are copies of the one before */
            memcpy(m->w_enc + f * D, m->w_enc + (f - 1) * D, D * sizeof *m->w_enc);
        float *x = floats(N * D), z[F];
        uint32_t list[F], n_list = 0;
        for (uint32_t f = 0; f < F; f++)
            if (i % 2 == 0 || f % 7 != 3) list[n_list++] = f;
        ams_search *search;
        ck_assert_int_eq(ams_search_create(ctx, &search), ATMSAE_OK);
        const ams_query q = {.kind = AMS_ROW_TOPK, .k = ks[i], .x = x, .n = N, .list = list, .n_list = n_list};
        ams_sparse out = {0};
        ck_assert_int_eq(ams_search_run(search, m, &q, &out), ATMSAE_OK);
        for (uint64_t r = 0; r < N; r++) {
            uint64_t p = out.start[r];
            for (uint32_t j = 0; j < n_list; j++)
                z[j] = ams_dot(m->w_enc + list[j] * D, x + r * D, D) + m->b_enc[list[j]];
            for (uint32_t j = 0; j < n_list; j++) {
                uint64_t before = 0; /* how many come first */
                for (uint32_t o = 0; o < n_list; o++)
                    before += z[o] > z[j] || (z[o] == z[j] && o < j);
                if (!(z[j] > 0) || before >= ks[i]) continue;
                ck_assert_uint_lt(p, out.start[r + 1]);
                ck_assert_uint_eq(out.latent[p], list[j]);
                ck_assert(out.value[p++] == z[j]);
            }
            ck_assert_uint_eq(p, out.start[r + 1]);
        }
        free(x);
        ams_sparse_free(ctx, &out);
        ams_search_destroy(search);
        atmsae_model_destroy(m);
        atmsae_context_destroy(ctx);
    }
}
END_TEST

/* k of F latents a row on average, so that latents have few entries, many, or one in every few rows. */
START_TEST(backward)
{
    enum { N = 1600, D = 7, F = 200 };
    const double ks[] = {1, 8, 40};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            atmsae_context *ctx = context(threads);
            atmsae_model *m = new_model(ctx, D, F, ks[i]);
            atmsae_codes *c;
            atmsae_gradients *g;
            ck_assert_int_eq(atmsae_codes_create(ctx, &c), ATMSAE_OK);
            ck_assert_int_eq(atmsae_gradients_create(m, &g), ATMSAE_OK);
            float *x = floats(N * D), weights[N];
            for (int r = 0; r < N; r++)
                weights[r] = (float)(r % 4);
            atmsae_batch batch;
            atmsae_batch_init(&batch, sizeof batch);
            batch.n_rows = N;
            batch.x = x;
            batch.row_weights = weights;
            ck_assert_int_eq(atmsae_forward(m, &batch, NULL, c, NULL), ATMSAE_OK);
            ck_assert_int_eq(atmsae_backward(m, c, g), ATMSAE_OK);

            uint64_t entries = 0;
            for (uint32_t latent = 0; latent < F; latent++) {
                float enc[D] = {0}, dec[D] = {0};
                const float *d = m->w_dec + latent * D;
                bool any = false;
                for (uint64_t r = 0; r < N; r++)
                    for (uint64_t p = c->main.start[r]; p < c->main.start[r + 1]; p++) {
                        if (c->main.latent[p] != latent) continue;
                        const double w = (double)weights[r] / c->weight_sum;
                        const float *e = c->residual + r * D;
                        ams_axpy(dec, (float)(-2 * w * (double)c->main.value[p]), e, D);
                        ams_axpy(enc, (float)(-2 * w * (double)ams_dot(e, d, D)), c->x + r * D, D);
                        any = true;
                        entries++;
                    }
                ck_assert(any == (g->slot[latent] != AMS_NO_SLOT));
                if (!any) continue;
                ck_assert_mem_eq(ams_gradient(g, ATMSAE_W_ENC) + g->slot[latent] * D, enc, sizeof enc);
                ck_assert_mem_eq(ams_gradient(g, ATMSAE_W_DEC) + g->slot[latent] * D, dec, sizeof dec);
            }
            ck_assert_uint_eq(entries, c->main.start[N]);
            ck_assert_uint_gt(entries, N / 2);
            free(x);
            atmsae_gradients_destroy(g);
            atmsae_codes_destroy(c);
            atmsae_model_destroy(m);
            atmsae_context_destroy(ctx);
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dense codes");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, gather_64);
    tcase_add_test(tcase, kth);
    tcase_add_test(tcase, lower_bound);
    tcase_add_test(tcase, gather);
    tcase_add_test(tcase, row_topk);
    tcase_add_test(tcase, backward);
    suite_add_tcase(suite, tcase);
    return run_all(suite);
}
