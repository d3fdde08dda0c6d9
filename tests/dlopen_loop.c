/* SPDX-License-Identifier: MIT
 *
 * usage: dlopen_loop LIBRARY CYCLES
 * Loads the library, uses it with two threads, and unloads it, again and again. Memory, file
 * descriptors and threads of the process must stay what they were. Linked with nothing but libc.
 */
#include <atmsae/atmsae.h>

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D = 16, F = 64, N = 32, WARM_UP = 50 };
static const long allowed = 1 << 20; /* growth of the resident set after the first cycles, bytes */

static long count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    long n = 0;
    while (dir && readdir(dir))
        n++;
    if (dir) closedir(dir);
    return n;
}

static long resident(void)
{
    long total = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &total, &pages) != 2) pages = -1;
    if (file) fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* Prints which BLIS is mapped. */
static void print_blis(void)
{
    char line[1024];
    FILE *file = fopen("/proc/self/maps", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *path = strchr(line, '/');
        if (!path || !strstr(path, "libblis")) continue;
        printf("%.*s: ", (int)strcspn(path, "\n"), path);
        break;
    }
    if (file) fclose(file);
}

#define FUNCTION(name) __typeof__(&name) p_##name = (__typeof__(&name))dlsym(library, #name)
static int cycle(const char *path, const float *x, int last)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        printf("%s\n", dlerror());
        return -1;
    }
    FUNCTION(atmsae_context_config_init);
    FUNCTION(atmsae_context_create);
    FUNCTION(atmsae_context_destroy);
    FUNCTION(atmsae_model_config_init);
    FUNCTION(atmsae_model_create);
    FUNCTION(atmsae_model_destroy);
    FUNCTION(atmsae_codes_create);
    FUNCTION(atmsae_codes_destroy);
    FUNCTION(atmsae_batch_init);
    FUNCTION(atmsae_encode);
    atmsae_context_config context_config;
    atmsae_context *ctx = NULL;
    atmsae_model *model = NULL;
    atmsae_codes *codes = NULL;
    p_atmsae_context_config_init(&context_config, sizeof context_config);
    context_config.threads = 2;
    atmsae_status status = p_atmsae_context_create(&context_config, &ctx);
    atmsae_model_config model_config;
    p_atmsae_model_config_init(&model_config, sizeof model_config);
    model_config.d_in = D;
    model_config.d_sae = F;
    model_config.k = 4;
    model_config.activation = ATMSAE_TOPK;
    if (status >= 0) status = p_atmsae_model_create(ctx, &model_config, &model);
    if (status >= 0) status = p_atmsae_codes_create(ctx, &codes);
    atmsae_batch batch;
    p_atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = N;
    batch.x = x;
    if (status >= 0) status = p_atmsae_encode(model, &batch, codes);
    p_atmsae_codes_destroy(codes);
    p_atmsae_model_destroy(model);
    p_atmsae_context_destroy(ctx);
    if (last) print_blis();
    if (dlclose(library) != 0) return -1;
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: dlopen_loop LIBRARY CYCLES\n");
        return 2;
    }
    static float x[N * D];
    for (int i = 0; i < N * D; i++)
        x[i] = (float)((i * 37) % 101) / 50 - 1;
    const long cycles = strtol(argv[2], NULL, 10);
    long memory = 0, files = 0, tasks = 0;
    for (long i = 0; i < WARM_UP + cycles; i++) {
        int status = cycle(argv[1], x, i == WARM_UP + cycles - 1);
        if (status < 0) {
            printf("cycle %ld: status %d\n", i, status);
            return 1;
        }
        if (i != WARM_UP - 1) continue;
        memory = resident();
        files = count_entries("/proc/self/fd");
        tasks = count_entries("/proc/self/task");
    }
    const long more_memory = resident() - memory, more_files = count_entries("/proc/self/fd") - files,
               more_tasks = count_entries("/proc/self/task") - tasks;
    printf("%ld cycles: resident %ld KB %+ld KB, files %+ld, threads %+ld\n", cycles, memory / 1024, more_memory / 1024,
           more_files, more_tasks);
    return more_memory > allowed || more_files != 0 || more_tasks != 0;
}
