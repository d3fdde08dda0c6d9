/* SPDX-License-Identifier: MIT
 *
 * Time and memory of training steps, in units of one fp32 product n x d x F of the same run.
 *
 *     bench_step [--arch NAME] [--mask NAME] [--d N] [--F N] [--n N] [--k N] [--threads N] [--steps N]
 *
 * Steps and products alternate, so that a machine that slows down slows both; medians are reported.
 * Rows are random directions in a few hundred dimensions plus noise: enough structure for codes to be
 * spread over latents as those of real activations are.
 */
#include "product.h"

#include <atmsae/atmsae.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void must(atmsae_status status, atmsae_context *ctx)
{
    if (status >= 0) return;
    fprintf(stderr, "bench_step: %s: %s\n", atmsae_status_name(status), atmsae_last_error(ctx));
    exit(1);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static const struct {
    const char *name;
    int32_t value;
} archs[] = {{"standard", ATMSAE_RELU}, {"topk", ATMSAE_TOPK}, {"batchtopk", ATMSAE_BATCHTOPK},
             {"jumprelu", ATMSAE_JUMPRELU}, {"jumprelu-tanh", ATMSAE_JUMPRELU_TANH}, {"gated", ATMSAE_GATED}},
  masks[] = {{"none", ATMSAE_MASK_NONE}, {"atm", ATMSAE_MASK_ATM}};

static float gaussian(uint64_t *state)
{
    float sum = 0; /* of 12 uniforms */
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) * 0x1p-24f;
    }
    return sum - 6;
}

static void fill_rows(float *x, size_t n, size_t d)
{
    const size_t features = 2048, active = 24;
    uint64_t state = 1;
    float *directions = malloc(features * d * sizeof *directions);
    for (size_t i = 0; i < features * d; i++)
        directions[i] = gaussian(&state) / sqrtf((float)d);
    for (size_t r = 0; r < n; r++) {
        for (size_t j = 0; j < d; j++)
            x[r * d + j] = 0.3f * gaussian(&state) / sqrtf((float)d);
        for (size_t a = 0; a < active; a++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            size_t f = (size_t)(((state >> 33) * (state >> 33)) >> 31) * features >> 31;
            float size = 1 + 0.2f * gaussian(&state);
            for (size_t j = 0; j < d; j++)
                x[r * d + j] += size * directions[f * d + j];
        }
    }
    free(directions);
}

int main(int argc, char **argv)
{
    size_t d = 768, F = 16384, n = 4096, k = 32, steps = 9, threads = 0;
    const char *arch = "batchtopk", *mask = "none";
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *key = argv[i], *value = argv[i + 1];
        size_t number = strtoull(value, NULL, 10);
        if (!strcmp(key, "--arch")) arch = value;
        else if (!strcmp(key, "--mask")) mask = value;
        else if (!strcmp(key, "--d")) d = number;
        else if (!strcmp(key, "--F")) F = number;
        else if (!strcmp(key, "--n")) n = number;
        else if (!strcmp(key, "--k")) k = number;
        else if (!strcmp(key, "--threads")) threads = number;
        else if (!strcmp(key, "--steps")) steps = number;
        else { fprintf(stderr, "bench_step: unknown option %s\n", key); return 2; }
    }
    atmsae_context_config cc;
    atmsae_context_config_init(&cc, sizeof cc);
    cc.threads = (uint32_t)threads;
    atmsae_context *ctx;
    must(atmsae_context_create(&cc, &ctx), NULL);
    threads = atmsae_context_threads(ctx);

    float *x = malloc(n * d * sizeof *x);
    fill_rows(x, n, d);
    double base = peak_mb();

    atmsae_model_config mc;
    atmsae_model_config_init(&mc, sizeof mc);
    mc.d_in = d;
    mc.d_sae = F;
    mc.k = (double)k;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].name, arch)) mc.activation = archs[i].value;
    if (mc.activation == ATMSAE_JUMPRELU) mc.init_threshold = 2;
    atmsae_masker_config kc;
    atmsae_masker_config_init(&kc, sizeof kc);
    kc.warmup_steps = 2;
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++)
        if (!strcmp(masks[i].name, mask)) kc.kind = masks[i].value;
    atmsae_trainer_config tc;
    atmsae_trainer_config_init(&tc, sizeof tc);
    tc.model = &mc;
    tc.masker = &kc;
    tc.batch_rows = n;
    atmsae_trainer *trainer;
    must(atmsae_trainer_create(ctx, &tc, &trainer), ctx);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = n;
    batch.x = x;
    must(atmsae_trainer_prepare(trainer, &batch), ctx);

    double *step_s = malloc(steps * sizeof *step_s), *product_s = malloc(steps * sizeof *product_s);
    atmsae_step_stats stats = {.size = sizeof stats};
    for (int i = 0; i < 3; i++)
        must(atmsae_trainer_step(trainer, &batch, &stats), ctx);
    for (size_t i = 0; i < 3; i++) {
        double t = now();
        must(atmsae_trainer_step(trainer, &batch, &stats), ctx);
        step_s[i] = now() - t;
    }
    double peak = peak_mb() - base; /* before the products allocate their n x F result */
    float *w = calloc(F * d, sizeof *w), *c = malloc(n * F * sizeof *c);
    memcpy(w, atmsae_model_view(atmsae_trainer_model(trainer), ATMSAE_W_ENC, NULL), F * d * sizeof *w);
    bench_product(n, F, d, x, w, c, (unsigned)threads);
    for (size_t i = 0; i < steps; i++) {
        double t = now();
        bench_product(n, F, d, x, w, c, (unsigned)threads);
        product_s[i] = now() - t;
        t = now();
        must(atmsae_trainer_step(trainer, &batch, &stats), ctx);
        step_s[i] = now() - t;
    }
    double product = median(product_s, steps), step = median(step_s, steps);
    double parameters = (double)F * (2 * (double)d + 1) * 4 * 3 / 1048576;
    printf("%s, %zu threads\n", atmsae_context_cpu(ctx), threads);
    printf("%-13s mask %-5s d=%zu F=%zu n=%zu k=%zu: product %.3f s (%.0f GFLOP/s), step %.3f s = %.2f products "
           "(%.2f to %.2f), peak %.0f MB = %.2f x (parameters + Adam %.0f MB), L0 %.1f, fvu %.3f, mean p %.3f\n",
           arch, mask, d, F, n, k, product, 2e-9 * (double)n * (double)d * (double)F / product, step, step / product,
           step_s[0] / product, step_s[steps - 1] / product, peak, peak / parameters, parameters, stats.l0, stats.fvu,
           stats.mean_p);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
    free(x); free(w); free(c); free(step_s); free(product_s);
    return 0;
}
