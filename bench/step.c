/* SPDX-License-Identifier: MIT
 *
 * bench_step: time and memory of training steps, in units of one fp32 product n x d x F of the same run.
 *
 *     bench_step [--arch NAME] [--mask NAME] [--precision fp32|bf16] [--d N] [--F N] [--n N] [--k N]
 *                [--threads N] [--steps N] [--warm N] [--l0 N] [--dead PERCENT] [--phases]      or, for bench_drive, [--serve]
 *
 * Steps and products alternate, so that a machine that slows down slows both; medians are reported.
 * The model is first trained for --warm steps of 1024 rows, so that codes, thresholds and importances
 * are those of training and not of its first step. Phases come from the same step made by the calls of
 * the header's section 6, on the same state. "Alone" is what a step spends outside parallel sections, where
 * the other threads wait: its wall time less that of the sections, which the library adds up.
 */
#include "base/base.h"
#include "product.h"
#include "worker.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int32_t value;
} archs[] = {{"standard", ATMSAE_RELU}, {"topk", ATMSAE_TOPK}, {"batchtopk", ATMSAE_BATCHTOPK},
             {"jumprelu", ATMSAE_JUMPRELU}, {"jumprelu-tanh", ATMSAE_JUMPRELU_TANH}, {"gated", ATMSAE_GATED}},
  masks[] = {{"none", ATMSAE_MASK_NONE}, {"atm", ATMSAE_MASK_ATM}, {"hard", ATMSAE_MASK_ATM}}; /* hard: a mask a step, masked latents cannot fire */

#define LOOK_UP(table, wanted, result)                                             \
    do {                                                                           \
        size_t i_ = 0;                                                             \
        while (i_ < sizeof(table) / sizeof *(table) && strcmp((table)[i_].name, (wanted)) != 0) i_++; \
        if (i_ == sizeof(table) / sizeof *(table)) {                               \
            fprintf(stderr, "bench_step: unknown name %s\n", (wanted));            \
            exit(2);                                                               \
        }                                                                          \
        (result) = (table)[i_].value;                                                \
    } while (0)

enum { WARM_ROWS = 1024 };
enum { FORWARD, BACKWARD, UPDATE, REST, PHASES };
static const char *const phase_name[PHASES] = {"forward", "backward", "update", "rest"};

typedef struct bench {
    bench_options o;
    atmsae_context *ctx;
    atmsae_trainer *trainer;
    atmsae_codes *codes;         /* of the loop by hand */
    atmsae_gradients *gradients;
    atmsae_step_stats stats;
    float *x;
    size_t count;                /* rows in x */
    uint64_t batches;            /* given out so far; also the step number of draws by hand */
    uint32_t *dead;              /* the latents that fire least, for AuxK */
    uint64_t n_dead;
    double base_mb, peak_mb;
    double parallel_s, alone_s;  /* of the last whole step: in parallel sections, and outside */
} bench;

static atmsae_batch next_batch(bench *b, size_t rows)
{
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = rows;
    batch.x = b->x + (size_t)(b->batches++ * rows % (b->count - rows + 1)) * b->o.d;
    return batch;
}

static double whole_step(bench *b, size_t rows)
{
    atmsae_batch batch = next_batch(b, rows);
    b->parallel_s = 0;
    ams_context_time_parallel(b->ctx, &b->parallel_s);
    double t = bench_now();
    bench_must(atmsae_trainer_step(b->trainer, &batch, &b->stats), b->ctx);
    double s = bench_now() - t;
    ams_context_time_parallel(b->ctx, NULL);
    b->alone_s = s - b->parallel_s;
    return s;
}

/* Writes the seconds of each phase; `aux`: AuxK with the latents of b->dead. */
static double step_by_hand(bench *b, bool aux, double phase[PHASES])
{
    atmsae_batch batch = next_batch(b, b->o.n);
    atmsae_model *model = atmsae_trainer_model(b->trainer);
    atmsae_tracker *tracker = atmsae_trainer_tracker(b->trainer);
    atmsae_masker *masker = atmsae_trainer_masker(b->trainer);
    atmsae_forward_options options;
    atmsae_forward_options_init(&options, sizeof options);
    atmsae_loss loss = {.size = sizeof loss};
    atmsae_latent_sums sums = {.size = sizeof sums};
    double t0 = bench_now();
    bench_must(atmsae_masker_draw(masker, b->batches), b->ctx);
    options.mask = atmsae_masker_mask(masker);
    options.dead = aux ? b->dead : atmsae_tracker_dead(tracker, &options.n_dead);
    if (aux) options.n_dead = b->n_dead;
    double t1 = bench_now();
    bench_must(atmsae_forward(model, &batch, &options, b->codes, &loss), b->ctx);
    double t2 = bench_now();
    bench_must(atmsae_backward(model, b->codes, b->gradients), b->ctx);
    double t3 = bench_now();
    bench_must(atmsae_optimizer_step(atmsae_trainer_optimizer(b->trainer), model, b->gradients, NULL), b->ctx);
    double t4 = bench_now();
    bench_must(atmsae_gradients_sums(b->gradients, &sums), b->ctx);
    bench_must(atmsae_tracker_observe(tracker, &sums), b->ctx);
    bench_must(atmsae_masker_update(masker, atmsae_tracker_importance(tracker), sums.d_sae), b->ctx);
    double t5 = bench_now();
    phase[FORWARD] = t2 - t1;
    phase[BACKWARD] = t3 - t2;
    phase[UPDATE] = t4 - t3;
    phase[REST] = t1 - t0 + t5 - t4;
    return t5 - t0;
}

/* Moves the common limit of all latents (theta, or -b_enc of a standard SAE) until L0 is about l0. */
static void set_l0(bench *b)
{
    atmsae_model *model = atmsae_trainer_model(b->trainer);
    const bool standard = !strcmp(b->o.arch, "standard");
    float *limit = bench_alloc(b->o.F, sizeof *limit);
    atmsae_codes *codes;
    bench_must(atmsae_codes_create(b->ctx, &codes), b->ctx);
    atmsae_batch batch = next_batch(b, b->o.n < 256 ? b->o.n : 256);
    atmsae_loss loss = {.size = sizeof loss};
    double low = 0, high = 4 * sqrt((double)b->o.d); /* the norm of a row is sqrt(d) */
    for (int i = 0; i < 12; i++) {
        double middle = (low + high) / 2;
        for (size_t j = 0; j < b->o.F; j++)
            limit[j] = (float)(standard ? -middle : middle);
        bench_must(atmsae_model_set(model, standard ? ATMSAE_B_ENC : ATMSAE_THRESHOLD, limit, b->o.F), b->ctx);
        bench_must(atmsae_forward(model, &batch, NULL, codes, &loss), b->ctx);
        *(loss.l0 > (double)b->o.l0 ? &low : &high) = middle;
    }
    atmsae_codes_destroy(codes);
    free(limit);
}

/* The step that counts. Training goes on from one to the next, so L0 is set anew each time. */
static double timed_step(bench *b)
{
    if (b->o.l0) set_l0(b);
    return whole_step(b, b->o.n);
}

static void note_peak(bench *b) { b->peak_mb = fmax(b->peak_mb, bench_memory("VmHWM") - b->base_mb); }

/* Its memory is not the step's. */
static void set_l0_apart(bench *b)
{
    note_peak(b);
    set_l0(b);
    malloc_trim(0);
    bench_forget_peak();
}

static const double *frequency; /* of by_frequency; qsort has no argument for it */
static int by_frequency(const void *a, const void *b)
{
    double x = frequency[*(const uint32_t *)a], y = frequency[*(const uint32_t *)b];
    return (x > y) - (x < y);
}
static int by_index(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void choose_dead(bench *b)
{
    b->n_dead = b->o.F * b->o.dead / 100;
    b->dead = bench_alloc(b->o.F, sizeof *b->dead);
    for (size_t i = 0; i < b->o.F; i++)
        b->dead[i] = (uint32_t)i;
    frequency = atmsae_tracker_average(atmsae_trainer_tracker(b->trainer), 1);
    qsort(b->dead, b->o.F, sizeof *b->dead, by_frequency);
    qsort(b->dead, b->n_dead, sizeof *b->dead, by_index);
}

static void set_up(bench *b)
{
    const bench_options *o = &b->o;
    b->ctx = bench_context(&b->o);
    b->x = bench_rows(b->ctx, o->n > 8192 ? o->n : 8192, o->d, &b->count);
    b->base_mb = bench_memory("VmRSS");
    bench_forget_peak();

    atmsae_model_config mc;
    atmsae_model_config_init(&mc, sizeof mc);
    mc.d_in = o->d;
    mc.d_sae = o->F;
    mc.k = (double)o->k;
    LOOK_UP(archs, o->arch, mc.activation);
    atmsae_masker_config kc;
    atmsae_masker_config_init(&kc, sizeof kc);
    kc.warmup_steps = 2; /* from then on r is constant */
    LOOK_UP(masks, o->mask, kc.kind);
    if (strcmp(o->mask, "hard") == 0) kc.effect = ATMSAE_EFFECT_HARD;
    atmsae_trainer_config tc;
    atmsae_trainer_config_init(&tc, sizeof tc);
    tc.model = &mc;
    tc.masker = &kc;
    tc.batch_rows = o->n;
    bench_must(atmsae_trainer_create(b->ctx, &tc, &b->trainer), b->ctx);
    atmsae_batch first = next_batch(b, 8192);
    bench_must(atmsae_trainer_prepare(b->trainer, &first), b->ctx);
    b->stats.size = sizeof b->stats;
    if (o->l0) set_l0_apart(b);
    for (size_t i = 0; i < o->warm; i++)
        whole_step(b, o->n < WARM_ROWS ? o->n : WARM_ROWS);
    for (int i = 0; i < 2; i++) {
        if (o->l0) set_l0_apart(b);
        whole_step(b, o->n);
    }
    note_peak(b);
    if (o->dead) choose_dead(b);
    if (o->phases) {
        double phase[PHASES];
        bench_must(atmsae_codes_create(b->ctx, &b->codes), b->ctx);
        bench_must(atmsae_gradients_create(atmsae_trainer_model(b->trainer), &b->gradients), b->ctx);
        step_by_hand(b, o->dead > 0, phase); /* allocates */
    }
}

static void take_down(bench *b)
{
    atmsae_gradients_destroy(b->gradients);
    atmsae_codes_destroy(b->codes);
    atmsae_trainer_destroy(b->trainer);
    atmsae_context_destroy(b->ctx);
    free(b->x);
    free(b->dead);
}

static double parameters_mb(const bench *b) /* and Adam's two moments of each */
{
    double d = (double)b->o.d, F = (double)b->o.F;
    return (F * (2 * d + 1) + d) * 4 * 3 / 1048576;
}

/* What a step has to compute and move at the least, see doc/performance.md. */
static double model_gflop(const bench *b, double live)
{
    double n = (double)b->o.n, d = (double)b->o.d, F = (double)b->o.F;
    return 1e-9 * (2 * n * d * F * live + 8 * n * d * b->stats.l0);
}
static double model_gbytes(const bench *b, double live)
{
    double n = (double)b->o.n, d = (double)b->o.d, F = (double)b->o.F;
    return 4e-9 * (2 * n * d + live * F * d + 3 * n * d * b->stats.l0 + 12 * F * d);
}

static void serve(bench *b)
{
    const int phases = b->o.phases ? PHASES : 0;
    const char *cpu = atmsae_context_cpu(b->ctx); /* "avx2, BLIS ..." */
    printf("ready level=%.*s threads=%zu\n", (int)strcspn(cpu, ","), cpu, b->o.threads);
    while (bench_next()) {
        double step[BENCH_MOST], outside[BENCH_MOST], part[PHASES][BENCH_MOST], phase[PHASES];
        const double end = bench_now() + BENCH_TURN;
        size_t n = 0;
        do {
            step[n] = timed_step(b);
            outside[n] = b->alone_s;
            if (phases) step_by_hand(b, false, phase);
            for (int p = 0; p < phases; p++)
                part[p][n] = phase[p];
        } while (++n < BENCH_MOST && bench_now() < end);
        printf("step=%.6f alone=%.6f", bench_median(step, n), bench_median(outside, n));
        for (int p = 0; p < phases; p++)
            printf(" %s=%.6f", phase_name[p], bench_median(part[p], n));
        if (b->o.dead) printf(" aux=%.6f", step_by_hand(b, true, phase));
        printf("\n");
    }
    double live = 1 - (double)b->stats.masked / (double)b->o.F;
    printf("end l0=%.1f fvu=%.3f mean_p=%.4f parameters_mb=%.1f peak_mb=%.1f gflop=%.3f gbytes=%.4f update_gbytes=%.4f\n",
           b->stats.l0, b->stats.fvu, b->stats.mean_p, parameters_mb(b), b->peak_mb, model_gflop(b, live),
           model_gbytes(b, live), 48e-9 * (double)b->o.F * (double)b->o.d);
}

static void alone(bench *b)
{
    const size_t n = b->o.n, d = b->o.d, F = b->o.F, steps = b->o.steps;
    const unsigned threads = (unsigned)b->o.threads;
    float *w = bench_alloc(F * d, sizeof *w), *c = bench_alloc(n * F, sizeof *c);
    memcpy(w, atmsae_model_view(atmsae_trainer_model(b->trainer), ATMSAE_W_ENC, NULL), F * d * sizeof *w);
    double *product_s = bench_alloc(steps, sizeof *product_s), *step_s = bench_alloc(steps, sizeof *step_s);
    double *alone_s = bench_alloc(steps, sizeof *alone_s);
    double *aux_s = bench_alloc(steps, sizeof *aux_s), *part[PHASES], phase[PHASES];
    for (int p = 0; p < PHASES; p++)
        part[p] = bench_alloc(steps, sizeof **part);
    bench_product(n, F, d, b->x, w, c, threads, 1);
    for (size_t i = 0; i < steps; i++) {
        double t = bench_now();
        bench_product(n, F, d, b->x, w, c, threads, 1);
        product_s[i] = bench_now() - t;
        step_s[i] = timed_step(b);
        alone_s[i] = b->alone_s;
        if (b->o.phases) step_by_hand(b, false, phase);
        for (int p = 0; p < PHASES; p++)
            part[p][i] = b->o.phases ? phase[p] : 0;
        if (b->o.dead) aux_s[i] = step_by_hand(b, true, phase);
    }
    double unit = bench_median(product_s, steps), step = bench_median(step_s, steps);
    printf("%s, %u threads\n", atmsae_context_cpu(b->ctx), threads);
    printf("%-13s mask %-5s d=%zu F=%zu n=%zu k=%zu: product %.3f s (%.0f GFLOP/s), step %.3f s = %.2f products "
           "(%.2f to %.2f), %.2f %% of it outside parallel sections, peak %.0f MB = %.2f x (parameters + Adam %.0f MB), L0 %.1f, fvu %.3f, mean p %.3f\n",
           b->o.arch, b->o.mask, d, F, n, b->o.k, unit, 2e-9 * (double)n * (double)d * (double)F / unit, step, step / unit,
           step_s[0] / unit, step_s[steps - 1] / unit, 100 * bench_median(alone_s, steps) / step, b->peak_mb, b->peak_mb / parameters_mb(b), parameters_mb(b),
           b->stats.l0, b->stats.fvu, b->stats.mean_p);
    double sum = 0;
    for (int p = 0; b->o.phases && p < PHASES; p++) {
        double m = bench_median(part[p], steps) / unit;
        sum += m;
        printf("%s%s %.3f%s", p ? " + " : "  ", phase_name[p], m, p + 1 < PHASES ? "" : " = ");
    }
    if (b->o.phases) printf("%.3f products\n", sum);
    if (b->o.dead) printf("  with AuxK on %zu %% dead latents %.3f products\n", b->o.dead, bench_median(aux_s, steps) / unit);
    free(w); free(c); free(product_s); free(step_s); free(alone_s); free(aux_s);
    for (int p = 0; p < PHASES; p++)
        free(part[p]);
}

int main(int argc, char **argv)
{
    bench b = {.o = bench_parse(argc, argv)};
    if (b.o.dead) b.o.phases = true;
    set_up(&b);
    if (b.o.serve) serve(&b);
    else alone(&b);
    take_down(&b);
    return 0;
}
