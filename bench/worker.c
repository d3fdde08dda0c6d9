/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bench_options bench_parse(int argc, char **argv)
{
    bench_options o = {.d = 768, .F = 16384, .n = 4096, .k = 32, .steps = 9, .warm = 8, .arch = "batchtopk", .mask = "none",
                       .precision = "fp32"};
    const struct {
        const char *key;
        size_t *number;
        const char **text;
        bool *flag;
    } table[] = {
        {"--d", &o.d, NULL, NULL},         {"--F", &o.F, NULL, NULL},         {"--n", &o.n, NULL, NULL},
        {"--k", &o.k, NULL, NULL},         {"--threads", &o.threads, NULL, NULL}, {"--steps", &o.steps, NULL, NULL},
        {"--warm", &o.warm, NULL, NULL},   {"--l0", &o.l0, NULL, NULL},       {"--dead", &o.dead, NULL, NULL},
        {"--arch", NULL, &o.arch, NULL},   {"--mask", NULL, &o.mask, NULL},   {"--phases", NULL, NULL, &o.phases},
        {"--precision", NULL, &o.precision, NULL}, {"--serve", NULL, NULL, &o.serve},
    };
    const size_t rows = sizeof table / sizeof *table;
    for (int i = 1; i < argc; i++) {
        size_t t = 0;
        while (t < rows && strcmp(table[t].key, argv[i]) != 0)
            t++;
        if (t == rows || (!table[t].flag && i + 1 == argc)) {
            fprintf(stderr, "%s: unknown option, or one without a value: %s\n", argv[0], argv[i]);
            exit(2);
        }
        if (table[t].flag) *table[t].flag = true;
        else if (table[t].text) *table[t].text = argv[++i];
        else *table[t].number = strtoull(argv[++i], NULL, 10);
    }
    return o;
}

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

void bench_must(atmsae_status status, const atmsae_context *ctx)
{
    if (status >= 0) return;
    fprintf(stderr, "bench: %s: %s\n", atmsae_status_name(status), ctx ? atmsae_last_error(ctx) : "");
    exit(1);
}

void *bench_alloc(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p) return p;
    fprintf(stderr, "bench: no memory for %zu x %zu bytes\n", count, size);
    exit(1);
}

atmsae_context *bench_context(bench_options *o)
{
    atmsae_context_config c;
    atmsae_context_config_init(&c, sizeof c);
    c.threads = (uint32_t)o->threads;
    if (strcmp(o->precision, "bf16") == 0) c.precision = ATMSAE_PRECISION_BF16;
    atmsae_context *ctx;
    bench_must(atmsae_context_create(&c, &ctx), NULL);
    o->threads = atmsae_context_threads(ctx);
    return ctx;
}

double bench_memory(const char *key)
{
    char line[256];
    unsigned long long kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key))) kb = strtoull(line + strlen(key) + 1, NULL, 10);
    if (file) fclose(file);
    return (double)kb / 1024;
}

void bench_forget_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

bool bench_next(void)
{
    char line[64];
    fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL;
}

/* ---- rows ---------------------------------------------------------------------------------------- */

enum { SAMPLE_ROWS = 25000, ROUNDS = 16 };

static uint64_t random_u64(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Rounds of rotations by 45 degrees in random pairs of coordinates: an isometry that mixes all of them. */
static void make_pairs(uint32_t *pairs, size_t width)
{
    uint64_t state = 1;
    for (size_t r = 0; r < ROUNDS; r++) {
        uint32_t *p = pairs + r * width;
        for (size_t i = 0; i < width; i++) {
            size_t j = random_u64(&state) % (i + 1);
            p[i] = p[j];
            p[j] = (uint32_t)i;
        }
    }
}

static void rotate(float *x, const uint32_t *pairs, size_t width)
{
    const float half = sqrtf(0.5f);
    for (size_t r = 0; r < ROUNDS; r++)
        for (size_t i = 0; i + 1 < width; i += 2) {
            float *a = x + pairs[r * width + i], *b = x + pairs[r * width + i + 1];
            float sum = half * (*a + *b), difference = half * (*a - *b);
            *a = sum;
            *b = difference;
        }
}

float *bench_rows(atmsae_context *ctx, size_t n, size_t d, size_t *count)
{
    atmsae_source_config config;
    atmsae_source_config_init(&config, sizeof config);
    config.shuffle_rows = 0;
    config.epochs = 1;
    atmsae_source *source;
    bench_must(atmsae_source_create(ctx, &config, &source), ctx);
    bench_must(atmsae_source_add_file(source, BENCH_SAMPLE, NULL, 0), ctx);
    const size_t own = (size_t)atmsae_source_d(source), width = own > d ? own : d;
    float *sample = bench_alloc(SAMPLE_ROWS * own, sizeof *sample), *row = bench_alloc(width, sizeof *row);
    uint64_t got;
    bench_must(atmsae_source_next(source, SAMPLE_ROWS, sample, &got), ctx);
    atmsae_source_destroy(source);

    uint32_t *pairs = bench_alloc(ROUNDS * width, sizeof *pairs);
    make_pairs(pairs, width);
    *count = n > got ? n : (size_t)got;
    float *x = bench_alloc(*count * d, sizeof *x);
    for (size_t r = 0; r < *count; r++) {
        if (r >= got) {
            memcpy(x + r * d, x + (r - got) * d, d * sizeof *x);
            continue;
        }
        memset(row, 0, width * sizeof *row);
        memcpy(row, sample + r * own, own * sizeof *row);
        if (d != own) rotate(row, pairs, width);
        memcpy(x + r * d, row, d * sizeof *x);
    }
    free(sample); free(row); free(pairs);
    return x;
}
