/* SPDX-License-Identifier: MIT
 *
 * usage: save_once prepare|save|check FOLDER
 *
 * For kill_each_call.sh: writes an old checkpoint and SAE folder, saves new ones over them, and checks
 * what is there: old or new, whole, and that it can be saved over.
 */
#include "small_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *folder;
static atmsae_context *ctx;

static const char *in(const char *kind, const char *name)
{
    static char path[8][300];
    static unsigned turn;
    char *p = path[turn++ % 8];
    snprintf(p, sizeof path[0], "%s/%s/%s", folder, kind, name);
    return p;
}

static bool save(int version, const char *kind)
{
    small_run run;
    small_begin(&run, &small_setups[1], ctx);
    small_until(&run, version ? 5 : 3);
    atmsae_model *model;
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = SMALL_D;
    config.d_sae = SMALL_F;
    config.activation = ATMSAE_TOPK;
    config.k = version ? 5 : 3;
    config.seed = (uint64_t)version;
    const bool good = atmsae_model_create(ctx, &config, &model) >= 0 &&
                      atmsae_trainer_save(run.trainer, run.source, in(kind, "checkpoint")) >= 0 &&
                      atmsae_model_save(model, in(kind, "sae"), NULL) >= 0;
    if (!good) printf("saving: %s\n", atmsae_last_error(ctx));
    atmsae_model_destroy(model);
    small_end(&run);
    return good;
}

/* 0 or 1: the file is that of this version; -1: of none. */
static int version(const char *name)
{
    size_t n, m;
    char *now = small_read(in("live", name), &n);
    int found = -1;
    for (int v = 0; v < 2; v++) {
        char *then = small_read(in(v ? "new" : "old", name), &m);
        if (now && then && n == m && memcmp(now, then, n) == 0) found = v;
        free(then);
    }
    free(now);
    return found;
}

static bool check(void)
{
    static const char *const temporary[] = {".checkpoint.tmp", "sae/.cfg.json.tmp", "sae/.sae_weights.safetensors.tmp",
                                            "sae/sae_weights.staged.safetensors"};
    const int checkpoint = version("checkpoint"), weights = version("sae/sae_weights.safetensors"), cfg = version("sae/cfg.json");
    if (checkpoint < 0 || weights < 0 || cfg < 0) {
        printf("neither old nor new: checkpoint %d, weights %d, cfg.json %d\n", checkpoint, weights, cfg);
        return false;
    }
    small_run run;
    atmsae_model *model;
    if (small_load(&run, &small_setups[1], ctx, in("live", "checkpoint"), 0) < 0) {
        printf("%s\n", atmsae_last_error(ctx));
        return false;
    }
    small_end(&run);
    atmsae_model_config config = {.size = sizeof config};
    if (atmsae_model_load(ctx, in("live", "sae"), &model) < 0) {
        printf("weights %d, cfg.json %d: %s\n", weights, cfg, atmsae_last_error(ctx));
        return false;
    }
    const bool right = atmsae_model_get_config(model, &config) >= 0 && config.k == (cfg ? 5 : 3);
    atmsae_model_destroy(model);
    if (!right) {
        printf("the SAE is not that of cfg.json, %d\n", cfg);
        return false;
    }
    bool good = save(1, "live") && version("checkpoint") == 1 && version("sae/sae_weights.safetensors") == 1 && version("sae/cfg.json") == 1;
    for (int i = 0; i < 4; i++)
        good = good && access(in("live", temporary[i]), F_OK) != 0;
    if (!good) printf("it cannot be saved over\n");
    else printf("checkpoint %s, SAE %s\n", checkpoint ? "new" : "old", weights != cfg ? "new, staged" : cfg ? "new" : "old");
    return good;
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    folder = argv[2];
    ctx = small_context(1);
    bool good;
    if (strcmp(argv[1], "prepare") == 0) {
        good = (mkdir(folder, 0700) == 0 || errno == EEXIST) && (mkdir(in("live", ""), 0700) == 0 || errno == EEXIST) &&
               (mkdir(in("old", ""), 0700) == 0 || errno == EEXIST) && (mkdir(in("new", ""), 0700) == 0 || errno == EEXIST) &&
               save(0, "old") && save(1, "new") && save(0, "live");
    } else {
        good = strcmp(argv[1], "save") == 0 ? save(1, "live") : check();
    }
    atmsae_context_destroy(ctx);
    return good ? 0 : 1;
}
