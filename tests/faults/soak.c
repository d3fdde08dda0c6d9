/* SPDX-License-Identifier: MIT
 *
 * A run of days in minutes: train, save, die and resume, evaluate, export, load, over every set-up and
 * 1 to 3 threads, for 3 s x ATMSAE_SCALE (200: ten minutes). Memory, file descriptors and threads of
 * the process must end where they were once everything had been done a few times, and every round
 * must leave the checkpoint of the first.
 */
#include "small_run.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* they keep freed memory */
enum { MEMORY_IS_OURS = 0 };
#else
enum { MEMORY_IS_OURS = 1 };
#endif
enum { WARM = 4 * SMALL_SETUPS, ALLOWED_KB = 1024, ALLOWED_LATE_KB = 128 };

static void must(bool good, const char *what)
{
    if (good) return;
    printf("soak: %s\n0 passed, 1 failed\n", what);
    exit(1);
}

static void ok(atmsae_status status, const atmsae_context *ctx) { must(status == ATMSAE_OK, atmsae_last_error(ctx)); }

static long memory_kb(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    must(file && fscanf(file, "%ld %ld", &pages, &resident) == 2, "no /proc/self/statm");
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static unsigned entries(const char *folder) { return small_entries(folder); }

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The model through a folder and back, and its measures. */
static void use(const atmsae_model *trained, const char *folder, atmsae_context *ctx)
{
    char path[100];
    snprintf(path, sizeof path, "%s/sae", folder);
    atmsae_model_config config = {.size = sizeof config};
    ok(atmsae_model_get_config(trained, &config), ctx);
    if (config.transcoder && (config.activation == ATMSAE_TOPK ||
                              config.activation == ATMSAE_GATED)) return; /* SAELens has none */
    ok(atmsae_model_save(trained, path, NULL), ctx);
    atmsae_model *model;
    ok(atmsae_model_load(ctx, path, &model), ctx);
    atmsae_metrics *metrics;
    ok(atmsae_metrics_create(model, &metrics), ctx);
    float rows[32 * SMALL_D], targets[32 * 8] = {0};
    small_rows(rows, 32);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = 32;
    batch.x = rows;
    if (config.d_out != config.d_in) batch.y = targets;
    ok(atmsae_metrics_add(metrics, &batch), ctx);
    atmsae_metrics_result result = {.size = sizeof result};
    ok(atmsae_metrics_get(metrics, &result), ctx);
    atmsae_metrics_destroy(metrics);
    atmsae_model_destroy(model);
}

/* A run, interrupted after each third. Leaves `path`. */
static void live(const small_setup *setup, uint32_t threads, const char *folder, const char *path)
{
    uint64_t given = 0;
    for (uint64_t done = 0; done < SMALL_STEPS; done += SMALL_STEPS / 4) {
        small_run run;
        atmsae_context *ctx = small_context(threads);
        if (done == 0) small_begin(&run, setup, ctx);
        else ok(small_load(&run, setup, ctx, path, given), ctx);
        small_until(&run, done + SMALL_STEPS / 4);
        ok(atmsae_trainer_save(run.trainer, run.source, path), ctx);
        given = run.given;
        use(atmsae_trainer_model(run.trainer), folder, ctx);
        small_end(&run);
        atmsae_context_destroy(ctx);
    }
}

int main(void)
{
    const double length = 3 * (double)small_scale(), begin = seconds();
    const char *folder = small_folder();
    static struct {
        char *bytes;
        size_t size;
    } first[SMALL_SETUPS];
    char path[100];
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    unsigned long rounds = 0;
    long memory = 0, half = 0, most = 0;
    unsigned files = 0, threads = 0;
    for (; rounds <= WARM || seconds() - begin < length; rounds++) {
        unsigned which = (unsigned)(rounds % SMALL_SETUPS);
        live(&small_setups[which], 1 + (uint32_t)(rounds / SMALL_SETUPS % 3), folder, path);
        size_t size;
        char *bytes = small_read(path, &size);
        must(bytes != NULL, "no checkpoint");
        if (!first[which].bytes) {
            first[which].bytes = bytes;
            first[which].size = size;
        } else {
            must(size == first[which].size && memcmp(bytes, first[which].bytes, size) == 0,
                 "a round gave other bits than the first");
            free(bytes);
        }
        long now = memory_kb();
        if (rounds == WARM) memory = now, files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
        if (rounds >= WARM && now > most) most = now;
        if (seconds() - begin < length / 2) half = most;
    }
    const long late = half ? most - half : 0;
    unsigned more_files = entries("/proc/self/fd") - files, more_threads = entries("/proc/self/task") - threads;
    printf("soak: %.0f s, %lu runs of %d steps, each resumed 3 times; memory after %d runs %ld KB, later at most %+ld KB, "
           "in the second half %+ld KB; descriptors %+d, threads %+d\n",
           seconds() - begin, rounds, SMALL_STEPS, WARM, memory, most - memory, late, (int)more_files, (int)more_threads);
    for (int i = 0; i < SMALL_SETUPS; i++)
        free(first[i].bytes);
    small_remove(folder);
    bool good = more_files == 0 && more_threads == 0 && 
                (!MEMORY_IS_OURS || (most - memory <= ALLOWED_KB && (small_scale() == 1 || late <= ALLOWED_LATE_KB)));
    printf("%d passed, %d failed\n", good, !good);
    return !good;
}
