/* SPDX-License-Identifier: MIT
 *
 * The measures of eval.h against plain sums, toy language models and dictionaries whose match is known.
 */
#include "known.h"

/* ---- core ------------------------------------------------------------------------------------------- */

START_TEST(details_equal_plain_sums)
{
    static const uint64_t cuts[] = {0, 400, 650, N};
    atmsae_context *ctx = new_context(2);
    atmsae_model *model = new_model(ctx, D, F, ATMSAE_TOPK, 4, 1);
    float *x = zeros(N * D, sizeof *x), *recon = zeros(N * D, sizeof *recon);
    for (uint64_t i = 0; i < N * D; i++)
        x[i] = (float)(normal(1, i) + 5 * (double)(i % D == 3));
    atmsae_codes *codes;
    atmsae_batch all = rows(x, N);
    ok(ctx, atmsae_codes_create(ctx, &codes));
    ok(ctx, atmsae_encode(model, &all, codes));
    ok(ctx, atmsae_decode(model, codes, recon, 0));
    double sse = 0, norm = 0, ratio = 0, bench_mse = 0, bench_ev = 0, mean[D] = {0}, error_mean[D] = {0}, variance = 0, centred = 0;
    for (uint64_t i = 0; i < N * D; i++) {
        mean[i % D] += (double)x[i] / N;
        error_mean[i % D] += ((double)x[i] - (double)recon[i]) / N;
    }
    for (int c = 0; c < 3; c++) {
        double batch_mean[D] = {0}, batch_sse = 0, n = (double)(cuts[c + 1] - cuts[c]);
        for (uint64_t i = cuts[c] * D; i < cuts[c + 1] * D; i++)
            batch_mean[i % D] += (double)x[i] / n;
        for (uint64_t r = cuts[c]; r < cuts[c + 1]; r++) {
            double e = 0, y = 0, z = 0, b = 0;
            for (uint64_t j = 0; j < D; j++) {
                double a = (double)x[r * D + j], h = (double)recon[r * D + j];
                e += (a - h) * (a - h), y += a * a, z += h * h, b += (a - batch_mean[j]) * (a - batch_mean[j]);
                variance += (a - mean[j]) * (a - mean[j]);
                centred += (a - h - error_mean[j]) * (a - h - error_mean[j]);
            }
            batch_sse += e, norm += sqrt(e), ratio += sqrt(z / y), bench_ev += 1 - e / b;
        }
        sse += batch_sse, bench_mse += batch_sse / n / n / 3;
    }

    /* One handle over all, and three merged, each on a thread's share; the merged one starts empty. */
    atmsae_metrics *whole, *part, *merged;
    ok(ctx, atmsae_metrics_create(model, &whole));
    ok(ctx, atmsae_metrics_create(model, &merged));
    for (int c = 0; c < 3; c++) {
        atmsae_batch batch = rows(x + cuts[c] * D, cuts[c + 1] - cuts[c]);
        ok(ctx, atmsae_metrics_create(model, &part));
        ok(ctx, atmsae_metrics_merge(merged, part)); /* of nothing: no change */
        ok(ctx, atmsae_metrics_add(whole, &batch));
        ok(ctx, atmsae_metrics_add(part, &batch));
        ok(ctx, atmsae_metrics_merge(merged, part));
        atmsae_metrics_destroy(part);
    }
    for (int m = 0; m < 2; m++) {
        const atmsae_metrics *metrics = m ? merged : whole;
        atmsae_metrics_details r = {.size = sizeof r};
        atmsae_metrics_result plain = {.size = sizeof plain};
        ok(ctx, atmsae_metrics_get_details(metrics, &r));
        ok(ctx, atmsae_metrics_get(metrics, &plain));
        ck_assert_uint_eq(r.rows, N);
        near("mse_per_dim", r.mse_per_dim, sse / N / D, 1e-12);
        near("explained_variance", r.explained_variance, 1 - sse / variance, 1e-12);
        near("fvu", plain.fvu, sse / variance, 1e-12);
        near("centred", r.explained_variance_centred, 1 - centred / variance, 1e-12);
        near("error_norm", r.error_norm, norm / N, 1e-12);
        near("norm_ratio", r.norm_ratio, ratio / N, 1e-12);
        near("saebench_mse", r.saebench_mse, bench_mse, 1e-12);
        near("saebench_ev", r.saebench_explained_variance, bench_ev / N, 1e-11);
    }
    ck_assert_mem_eq(atmsae_metrics_counts(whole), atmsae_metrics_counts(merged), F * sizeof(uint64_t));

    const uint64_t *counts = atmsae_metrics_counts(whole);
    uint64_t bins[5], want[5] = {0}, over[2] = {0}, fires = 0, over_fires = 0, alive = 0;
    ok(ctx, atmsae_metrics_histogram(whole, -2, -0.5, 5, bins));
    for (uint64_t i = 0; i < F; i++) {
        double share = (double)counts[i] / N;
        alive += counts[i] > 0;
        over[0] += share > 0.01, over[1] += share > 0.1;
        fires += counts[i];
        if (share > 0.1) over_fires += counts[i];
        if (counts[i] > 0) want[share < 1e-2 ? 0 : (int)fmin(4, floor((log10(share) + 2) / 0.3))]++;
    }
    ck_assert_mem_eq(bins, want, sizeof bins);
    atmsae_metrics_details r = {.size = sizeof r};
    ok(ctx, atmsae_metrics_get_details(whole, &r));
    near("alive", r.alive, (double)alive / F, 0);
    near("over 1 %", r.over_1_percent, (double)over[0] / F, 0);
    near("over 10 %", r.over_10_percent, (double)over[1] / F, 0);
    near("firings over 10 %", r.firings_over_10_percent, (double)over_fires / (double)fires, 1e-15);
    ck_assert_int_eq(atmsae_metrics_histogram(whole, 0, 0, 5, bins), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_metrics_merge(whole, whole), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_metrics_merge(whole, NULL), ATMSAE_E_ARG);
    atmsae_metrics_destroy(whole);
    atmsae_metrics_destroy(merged);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(model);
    atmsae_context_destroy(ctx);
    free(x), free(recon);
}
END_TEST

START_TEST(nearest_latents_equal_a_search)
{
    enum { MANY = 700 }; /* more than a tile */
    atmsae_context *ctx = new_context(2);
    atmsae_model *model = new_model(ctx, D, MANY, ATMSAE_RELU, 1, 2);
    float *dec = zeros(MANY * D, sizeof *dec), *nearest = zeros(MANY, sizeof *nearest);
    for (uint64_t i = 0; i < MANY * D; i++)
        dec[i] = i / D == 5 ? 0 : (float)(normal(2, i) * (1 + (double)(i / D % 7)));
    set(ctx, model, ATMSAE_W_DEC, dec);
    double mean, total = 0;
    ok(ctx, atmsae_model_similarity(model, ATMSAE_W_DEC, nearest, &mean));
    for (uint64_t i = 0; i < MANY; i++) {
        double best = -2;
        for (uint64_t k = 0; k < MANY; k++) {
            double ab = 0, aa = 0, bb = 0;
            for (uint64_t j = 0; j < D; j++) {
                double a = (double)dec[i * D + j], b = (double)dec[k * D + j];
                ab += a * b, aa += a * a, bb += b * b;
            }
            if (k != i && bb > 0) best = fmax(best, ab / sqrt(aa * bb));
        }
        if (i == 5) ck_assert(isnan(nearest[i]));
        else near("nearest", (double)nearest[i], best, 1e-6), total += best;
    }
    near("mean", mean, total / (MANY - 1), 1e-6);
    ck_assert_int_eq(atmsae_model_similarity(model, ATMSAE_B_DEC, NULL, &mean), ATMSAE_E_ARG);
    atmsae_model_destroy(model);
    atmsae_context_destroy(ctx);
    free(dec), free(nearest);
}
END_TEST

START_TEST(neighbours_equal_a_sorted_search)
{
    enum { MANY = 600, BEST = 7 };
    atmsae_context *ctx = new_context(2), *one = new_context(1);
    float *dec = zeros(MANY * D, sizeof *dec), *cosine = zeros(MANY * BEST, sizeof *cosine), *again = zeros(MANY * BEST, sizeof *again);
    uint32_t *latent = zeros(MANY * BEST, sizeof *latent), *latent_again = zeros(MANY * BEST, sizeof *latent_again);
    for (uint64_t i = 0; i < MANY * D; i++)
        dec[i] = i / D == 5 ? 0 : i / D >= 590 ? dec[i - 300 * D] : (float)normal(2, i); /* the last ten are copies: ties */
    atmsae_model *model = new_model(ctx, D, MANY, ATMSAE_RELU, 1, 2), *other = new_model(one, D, MANY, ATMSAE_RELU, 1, 2);
    set(ctx, model, ATMSAE_W_DEC, dec);
    set(one, other, ATMSAE_W_DEC, dec);
    ok(ctx, atmsae_model_neighbours(model, ATMSAE_W_DEC, BEST, latent, cosine));
    ok(one, atmsae_model_neighbours(other, ATMSAE_W_DEC, BEST, latent_again, again));
    ck_assert_mem_eq(latent, latent_again, MANY * BEST * sizeof *latent);
    ck_assert_mem_eq(cosine, again, MANY * BEST * sizeof *cosine);
    for (uint64_t i = 0; i < MANY; i++) {
        double all[MANY];
        for (uint64_t k = 0; k < MANY; k++) {
            double ab = 0, aa = 0, bb = 0;
            for (uint64_t j = 0; j < D; j++) {
                double a = (double)dec[i * D + j], b = (double)dec[k * D + j];
                ab += a * b, aa += a * a, bb += b * b;
            }
            all[k] = k == i || k == 5 ? -2 : ab / sqrt(aa * bb);
        }
        for (uint64_t e = 0; e < BEST; e++) {
            if (i == 5) {
                ck_assert(isnan(cosine[i * BEST + e]) && latent[i * BEST + e] == UINT32_MAX);
                continue;
            }
            uint64_t best = 0;
            for (uint64_t k = 1; k < MANY; k++)
                if (all[k] > all[best]) best = k;
            near("cosine", (double)cosine[i * BEST + e], all[best], 1e-6);
            near("of the latent named", all[latent[i * BEST + e]], all[best], 1e-6);
            if (e > 0 && cosine[i * BEST + e] == cosine[i * BEST + e - 1])
                ck_assert_uint_gt(latent[i * BEST + e], latent[i * BEST + e - 1]);
            all[latent[i * BEST + e]] = -2;
        }
    }
    ck_assert_uint_eq(latent[590 * BEST], 290);
    ck_assert_int_eq(atmsae_model_neighbours(model, ATMSAE_W_DEC, 0, latent, cosine), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_model_neighbours(model, ATMSAE_B_DEC, 1, latent, cosine), ATMSAE_E_ARG);
    atmsae_model_destroy(model);
    atmsae_model_destroy(other);
    atmsae_context_destroy(ctx);
    atmsae_context_destroy(one);
    free(dec), free(cosine), free(again), free(latent), free(latent_again);
}
END_TEST

/* ---- top rows --------------------------------------------------------------------------------------- */

typedef struct fired {
    float value;
    uint64_t row;
} fired;

static int larger_first(const void *a, const void *b)
{
    const fired *x = a, *y = b;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return x->row < y->row ? -1 : 1;
}

/* Adds rows first .. last - 1 of x. */
static void add_range(atmsae_context *ctx, const atmsae_model *model, const float *x, uint64_t first, uint64_t last,
                      atmsae_top_rows *top)
{
    atmsae_codes *codes;
    atmsae_batch batch = rows(x + first * D, last - first);
    ok(ctx, atmsae_codes_create(ctx, &codes));
    ok(ctx, atmsae_encode(model, &batch, codes));
    ok(ctx, atmsae_top_rows_add(top, codes, 1000 + first));
    atmsae_codes_destroy(codes);
}

START_TEST(top_rows_equal_a_sort)
{
    enum { TOP = 9 };
    atmsae_context *ctx = new_context(2);
    atmsae_model *model = new_model(ctx, D, F, ATMSAE_TOPK, 3, 1);
    float *x = zeros(N * D, sizeof *x);
    for (uint64_t i = 0; i < N * D; i++) /* every third row is a copy of an earlier one: ties */
        x[i] = i / D >= 30 && i / D % 3 == 0 ? x[i - 30 * D] : (float)normal(1, i);
    /* All at once; cut, and the pieces in another order; merged. */
    atmsae_top_rows *top[3], *part;
    for (int t = 0; t < 3; t++)
        ok(ctx, atmsae_top_rows_create(ctx, F, TOP, &top[t]));
    add_range(ctx, model, x, 0, N, top[0]);
    static const uint64_t cuts[][2] = {{300, N}, {7, 8}, {0, 7}, {8, 300}};
    for (int c = 0; c < 4; c++) {
        add_range(ctx, model, x, cuts[c][0], cuts[c][1], top[1]);
        ok(ctx, atmsae_top_rows_create(ctx, F, TOP, &part));
        add_range(ctx, model, x, cuts[c][0], cuts[c][1], part);
        ok(ctx, atmsae_top_rows_merge(top[2], part));
        atmsae_top_rows_destroy(part);
    }
    atmsae_codes *codes;
    atmsae_codes_view v = {.size = sizeof v};
    atmsae_batch all = rows(x, N);
    ok(ctx, atmsae_codes_create(ctx, &codes));
    ck_assert_int_eq(atmsae_top_rows_add(top[0], codes, 0), ATMSAE_E_STATE);
    ok(ctx, atmsae_encode(model, &all, codes));
    ok(ctx, atmsae_codes_get(codes, &v));
    fired *list = zeros(N, sizeof *list);
    uint64_t full = 0, ties = 0;
    for (uint64_t i = 0; i < F; i++) {
        uint64_t n = 0;
        for (uint64_t r = 0; r < N; r++)
            for (uint64_t e = v.row_start[r]; e < v.row_start[r + 1]; e++)
                if (v.latent[e] == i) list[n++] = (fired){v.value[e], 1000 + r};
        qsort(list, n, sizeof *list, larger_first);
        full += n > TOP;
        for (int t = 0; t < 3; t++) {
            uint64_t row[TOP], got;
            float value[TOP];
            ok(ctx, atmsae_top_rows_get(top[t], i, row, value, &got));
            ck_assert_uint_eq(got, n < TOP ? n : TOP);
            for (uint64_t e = 0; e < got; e++) {
                ck_assert_uint_eq(row[e], list[e].row);
                ck_assert(value[e] == list[e].value);
                ties += e > 0 && value[e] == value[e - 1];
            }
        }
    }
    ck_assert_uint_gt(full, 0);
    ck_assert_uint_gt(ties, 0);
    uint64_t n = 99;
    ok(ctx, atmsae_top_rows_get(top[0], 0, NULL, NULL, &n));
    ck_assert_uint_le(n, TOP);
    ck_assert_int_eq(atmsae_top_rows_get(top[0], F, NULL, NULL, &n), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_top_rows_add(top[0], codes, UINT64_MAX - 2), ATMSAE_E_LIMIT);
    ck_assert_int_eq(atmsae_top_rows_merge(top[0], top[0]), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_top_rows_create(ctx, F, 0, &part), ATMSAE_E_ARG);
    ck_assert_ptr_null(part);
    ok(ctx, atmsae_top_rows_create(ctx, F + 1, TOP, &part));
    ck_assert_int_eq(atmsae_top_rows_add(part, codes, 0), ATMSAE_E_ARG);
    ck_assert_int_eq(atmsae_top_rows_merge(part, top[0]), ATMSAE_E_ARG);
    atmsae_top_rows_destroy(part);
    for (int t = 0; t < 3; t++)
        atmsae_top_rows_destroy(top[t]);
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(model);
    atmsae_context_destroy(ctx);
    free(x), free(list);
}
END_TEST

/* ---- a language model ------------------------------------------------------------------------------- */

START_TEST(language_model_scores)
{
    atmsae_context *ctx = new_context(1);
    toy_lm *lm = zeros(1, sizeof *lm);
    for (uint64_t i = 0; i < VOCAB * D; i++)
        lm->w[i] = (float)(0.5 * normal(3, i));
    for (uint64_t i = 0; i < BATCHES * TOKENS * D; i++)
        lm->x[i] = (float)fabs(normal(4, i));
    lm->keep[0] = lm->keep[9] = 1;
    atmsae_language_model callback = {.size = sizeof callback, .n_batches = BATCHES, .opaque = lm, .run = run_toy};

    /* A model whose reconstruction is half of x: latents are x's own dimensions. */
    atmsae_model *model = new_model(ctx, D, D, ATMSAE_RELU, 1, 1);
    float eye[D * D] = {0}, half[D * D] = {0};
    for (uint64_t j = 0; j < D; j++)
        eye[j * D + j] = 1, half[j * D + j] = 0.5f;
    set(ctx, model, ATMSAE_W_ENC, eye);
    set(ctx, model, ATMSAE_W_DEC, half);
    atmsae_lm_result r = {.size = sizeof r};
    ok(ctx, atmsae_model_language(model, &callback, &r));

    double ce[3] = {0}, kl[3] = {0}, n = 0;
    for (uint64_t b = 0; b < BATCHES; b++) {
        float x[TOKENS * D], logits[TOKENS * VOCAB];
        atmsae_lm_output out;
        for (int which = 0; which < 3; which++) {
            memcpy(x, lm->x + b * TOKENS * D, sizeof x);
            for (uint64_t i = 0; i < TOKENS * D; i++)
                if (!lm->keep[i / D]) x[i] *= which == 0 ? 1 : which == 1 ? 0.5f : 0;
            run_toy(lm, b, x, &out);
            if (which == 0) memcpy(logits, lm->logits, sizeof logits);
            for (uint64_t t = 0; t < TOKENS; t++) {
                double p = 0, q = 0;
                if (t == 4) continue;
                ce[which] += (double)lm->ce[t];
                for (uint64_t v = 0; v < VOCAB; v++)
                    p += exp((double)logits[t * VOCAB + v]), q += exp((double)lm->logits[t * VOCAB + v]);
                for (uint64_t v = 0; v < VOCAB; v++) {
                    double log_p = (double)logits[t * VOCAB + v] - log(p), log_q = (double)lm->logits[t * VOCAB + v] - log(q);
                    kl[which] += exp(log_p) * (log_p - log_q);
                }
            }
        }
        n += TOKENS - 1;
    }
    ck_assert_uint_eq(r.tokens, (uint64_t)n);
    near("ce original", r.ce_original, ce[0] / n, 1e-6);
    near("ce reconstruction", r.ce_reconstruction, ce[1] / n, 1e-6);
    near("ce zero", r.ce_zero, ce[2] / n, 1e-6);
    near("ce score", r.ce_score, (ce[2] - ce[1]) / (ce[2] - ce[0]), 1e-5);
    near("kl reconstruction", r.kl_reconstruction, kl[1] / n, 1e-5);
    near("kl zero", r.kl_zero, kl[2] / n, 1e-5);
    near("kl score", r.kl_score, 1 - kl[1] / kl[2], 1e-5);

    set(ctx, model, ATMSAE_W_DEC, eye); /* nothing is lost */
    lm->no_logits = true;
    ok(ctx, atmsae_model_language(model, &callback, &r));
    near("ce score", r.ce_score, 1, 1e-9);
    ck_assert(isnan(r.kl_score) && isnan(r.kl_zero));
    lm->calls = 0, lm->fail_at = 5;
    ck_assert_int_eq(atmsae_model_language(model, &callback, &r), ATMSAE_E_CALLBACK);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "7 for batch 1"));
    atmsae_model_destroy(model);
    atmsae_context_destroy(ctx);
    free(lm);
}
END_TEST

/* ---- stability ------------------------------------------------------------------------------------------ */

START_TEST(the_same_latents_match_and_others_do_not)
{
    atmsae_context *ctx = new_context(2);
    atmsae_model *a = new_model(ctx, D, F, ATMSAE_RELU, 1, 1), *b = new_model(ctx, D, F, ATMSAE_RELU, 1, 2);
    const float *dec = atmsae_model_view(a, ATMSAE_W_DEC, NULL);
    float turned[F * D];
    uint32_t partner[F];
    atmsae_match_result r = {.size = sizeof r};
    ok(ctx, atmsae_model_match(a, a, ATMSAE_W_DEC, 0, partner, &r));
    near("the same model", r.mcc, 1, 1e-6);
    near("shared", r.shared, 1, 0);
    for (uint32_t i = 0; i < F; i++) /* b: a's latents in another order, every third one turned round */
        for (uint64_t j = 0; j < D; j++)
            turned[(i * 7 % F) * D + j] = (i % 3 == 0 ? -2 : 3) * dec[i * D + j];
    set(ctx, b, ATMSAE_W_DEC, turned);
    ok(ctx, atmsae_model_match(a, b, ATMSAE_W_DEC, 1, partner, &r));
    near("permuted", r.mcc, 1, 1e-6);
    for (uint32_t i = 0; i < F; i++)
        ck_assert_uint_eq(partner[i], i * 7 % F);
    ok(ctx, atmsae_model_match(a, b, ATMSAE_W_DEC, 0, NULL, &r));
    between("turned round, signed", r.mcc, 0.7, 0.95);
    atmsae_model *c = new_model(ctx, D, F + 9, ATMSAE_RELU, 1, 3);
    ok(ctx, atmsae_model_match(a, c, ATMSAE_W_ENC, 0, NULL, &r));
    between("another seed", r.mcc, 0.2, 0.7);
    ck_assert_uint_eq(r.pairs, F);
    ck_assert_int_eq(atmsae_model_match(a, c, ATMSAE_W_DEC, 2, NULL, &r), ATMSAE_E_ARG);
    atmsae_model_destroy(a);
    atmsae_model_destroy(b);
    atmsae_model_destroy(c);
    atmsae_context_destroy(ctx);
}
END_TEST

START_TEST(hedging_is_the_part_in_the_new_directions)
{
    enum { NEW = 3 };
    atmsae_context *ctx = new_context(2);
    atmsae_model *control = new_model(ctx, D, F, ATMSAE_RELU, 1, 1), *extended = new_model(ctx, D, F + NEW, ATMSAE_RELU, 1, 2);
    float dec[F * D], more[(F + NEW) * D];
    for (uint64_t i = 0; i < F * D; i++)
        dec[i] = more[i] = (float)normal(5, i);
    double size = 0, moves = 0;
    for (uint64_t i = 0; i < F; i++) {
        size += ams_norm(dec + i * D, D) / F;
        more[i * D + i % NEW] += 0.5f; /* within the new ones' span */
        more[i * D + NEW + 4] += 2;    /* and outside of it */
        moves += 0.5 / F;
    }
    for (uint64_t k = 0; k < NEW; k++)
        for (uint64_t j = 0; j < D; j++)
            more[(F + k) * D + j] = j < NEW ? (float)(1 + (double)(k * j) + (k == j)) : 0;
    set(ctx, control, ATMSAE_W_DEC, dec);
    set(ctx, extended, ATMSAE_W_DEC, more);
    atmsae_hedging_result r = {.size = sizeof r};
    ok(ctx, atmsae_model_hedging(control, extended, 1, &r));
    near("projection", r.projection, moves / size, 1e-6);
    double length = sqrt(0.25 + 4) / size; /* of a move; a random subspace takes up sqrt(NEW / D) or so */
    between("random", r.random_projection, 0.8 * length * sqrt((double)NEW / D), 1.1 * length * sqrt((double)NEW / D));
    near("score", r.score, fmax(0, (r.projection - r.random_projection) / (1 - r.random_projection)), 1e-15);
    memcpy(more, dec, sizeof dec);
    set(ctx, extended, ATMSAE_W_DEC, more);
    ok(ctx, atmsae_model_hedging(control, extended, 1, &r));
    near("nothing moved", r.score, 0, 0);
    ck_assert_int_eq(atmsae_model_hedging(extended, control, 1, &r), ATMSAE_E_ARG);
    atmsae_model_destroy(control);
    atmsae_model_destroy(extended);
    atmsae_context_destroy(ctx);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        details_equal_plain_sums,
        nearest_latents_equal_a_search,
        neighbours_equal_a_sorted_search,
        top_rows_equal_a_sort,
        language_model_scores,
        the_same_latents_match_and_others_do_not,
        hedging_is_the_part_in_the_new_directions,
    };
    return run_tests("core", tests, sizeof tests / sizeof *tests);
}
