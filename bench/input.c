/* SPDX-License-Identifier: MIT
 *
 * What input costs a training step: rows of f16 shards through a source, between steps.
 *
 *     bench_input [--F N] [--d N] [--n N] [--batches N] [--threads N] [--folder PATH]
 *
 * Batch by batch a call of atmsae_source_next and a step on its rows: medians of both, the longest call,
 * and the call in percent of the step (only the kernel works for a source between calls). "first" is
 * the call that fills the shuffle buffer. Cold: the file is not in the page cache when the source begins.
 */
#include "worker.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHUFFLE = 65536 };

static void must(int good, const char *what)
{
    if (good) return;
    fprintf(stderr, "bench_input: %s\n", what);
    exit(1);
}

static void write_shard(const char *path, int npy, const uint16_t *rows, size_t n, size_t d)
{
    char head[256];
    memset(head, ' ', sizeof head);
    int length = npy ? snprintf(head + 10, 200, "{'descr': '<f2', 'fortran_order': False, 'shape': (%zu, %zu), }", n, d)
                     : snprintf(head + 8, 200, "{\"x\":{\"dtype\":\"F16\",\"shape\":[%zu,%zu],\"data_offsets\":[0,%zu]}}", n, d, n * d * 2);
    head[(npy ? 10 : 8) + length] = ' ';
    if (npy) {
        memcpy(head, (const char[10]){"\x93NUMPY\x01\x00\xf6"}, 10);
        head[255] = '\n';
    } else {
        memcpy(head, (const uint64_t[]){248}, 8);
    }
    FILE *file = fopen(path, "wb");
    must(file && fwrite(head, 1, 256, file) == 256 && fwrite(rows, 2 * d, n, file) == n && fflush(file) == 0 &&
             fsync(fileno(file)) == 0 && fclose(file) == 0, path);
}

static void page_cache(const char *path, int keep)
{
    int fd = open(path, O_RDONLY);
    must(fd >= 0, path);
    if (keep) {
        static char block[1 << 20];
        while (read(fd, block, sizeof block) > 0)
            continue;
    } else {
        must(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, path);
    }
    close(fd);
}

int main(int argc, char **argv)
{
    size_t F = 2048, d = 768, n = 4096, batches = 24, threads = 0;
    const char *folder = "/tmp";
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *key = argv[i], *value = argv[i + 1];
        size_t number = strtoull(value, NULL, 10);
        if (!strcmp(key, "--F")) F = number;
        else if (!strcmp(key, "--d")) d = number;
        else if (!strcmp(key, "--n")) n = number;
        else if (!strcmp(key, "--batches")) batches = number;
        else if (!strcmp(key, "--threads")) threads = number;
        else if (!strcmp(key, "--folder")) folder = value;
        else must(0, key);
    }
    char paths[2][4096];
    const size_t rows = batches * n + SHUFFLE;
    uint16_t *x = malloc(rows * d * sizeof *x);
    must(x != NULL, "memory");
    uint64_t state = 1;
    for (size_t i = 0; i < rows * d; i++) { /* 0.5 .. 2, of either sign */
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (uint16_t)((state >> 63) << 15 | (0x3800 + (state >> 40 & 0x7ff)));
    }
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/bench-input-%ld%s", folder, (long)getpid(), i ? ".safetensors" : ".npy");
        write_shard(paths[i], !i, x, rows, d);
    }

    atmsae_context_config cc;
    atmsae_context_config_init(&cc, sizeof cc);
    cc.threads = (uint32_t)threads;
    atmsae_context *ctx;
    bench_must(atmsae_context_create(&cc, &ctx), NULL);
    atmsae_model_config mc;
    atmsae_model_config_init(&mc, sizeof mc);
    mc.d_in = d;
    mc.d_sae = F;
    mc.aux_coef = 0;
    atmsae_trainer_config tc;
    atmsae_trainer_config_init(&tc, sizeof tc);
    tc.model = &mc;
    tc.batch_rows = n;
    atmsae_trainer *trainer;
    bench_must(atmsae_trainer_create(ctx, &tc, &trainer), ctx);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    float *out = malloc(n * d * sizeof *out);
    batch.n_rows = n;
    batch.x = out;

    printf("d=%zu F=%zu n=%zu, %u threads\n", d, F, n, atmsae_context_threads(ctx));
    printf("%-18s %8s %9s %8s %8s %8s %6s\n", "input", "shuffle", "first ms", "next ms", "longest", "step ms", "%");
    static const char *const names[] = {"memory", ".npy warm", ".npy cold", ".safetensors warm", ".safetensors cold"};
    double *next = malloc(batches * sizeof *next), *step = malloc(batches * sizeof *step);
    for (int kind = 0; kind < 5; kind++)
        for (uint64_t shuffle = 0; shuffle <= SHUFFLE; shuffle += SHUFFLE) {
            atmsae_source_config sc;
            atmsae_source_config_init(&sc, sizeof sc);
            sc.shuffle_rows = shuffle;
            atmsae_source *source;
            bench_must(atmsae_source_create(ctx, &sc, &source), ctx);
            const char *path = paths[kind > 2];
            if (kind > 0) page_cache(path, kind % 2);
            bench_must(kind ? atmsae_source_add_file(source, path, NULL, 0)
                            : atmsae_source_add_memory(source, x, rows, d, 0, ATMSAE_F16), ctx);
            double first = 0, longest = 0;
            for (size_t i = 0; i <= batches; i++) { /* the first fills the buffer */
                uint64_t got;
                double begin = bench_now();
                must(atmsae_source_next(source, n, out, &got) == 0 && got == n, atmsae_last_error(ctx));
                double middle = bench_now();
                if (kind == 0 && shuffle + i == 0) bench_must(atmsae_trainer_prepare(trainer, &batch), ctx);
                if (i == 0) first = 1e3 * (middle - begin);
                bench_must(atmsae_trainer_step(trainer, &batch, NULL), ctx);
                if (i == 0) continue;
                next[i - 1] = 1e3 * (middle - begin);
                step[i - 1] = 1e3 * (bench_now() - middle);
                longest = fmax(longest, next[i - 1]);
            }
            double call = bench_median(next, batches), of = bench_median(step, batches);
            printf("%-18s %8llu %9.1f %8.2f %8.2f %8.1f %6.2f\n", names[kind], (unsigned long long)shuffle, first, call,
                   longest, of, 100 * call / of);
            fflush(stdout);
            atmsae_source_destroy(source);
        }
    for (int i = 0; i < 2; i++)
        unlink(paths[i]);
    atmsae_trainer_destroy(trainer);
    atmsae_context_destroy(ctx);
    free(x); free(out); free(next); free(step);
    return 0;
}
