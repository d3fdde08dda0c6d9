/* SPDX-License-Identifier: MIT
 *
 * SAE folders: any cfg.json beside the weights of a small model of the architecture that it names.
 * What loads must encode and decode.
 */
#include "fuzz.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *architecture; /* looked for in this order */
    int32_t activation, transcoder;
} folders[] = {
    {"jumprelu_transcoder", ATMSAE_JUMPRELU, 1}, {"transcoder", ATMSAE_RELU, 1}, {"jumprelu", ATMSAE_JUMPRELU, 0},
    {"gated", ATMSAE_GATED, 0}, {"topk", ATMSAE_TOPK, 0}, {"standard", ATMSAE_RELU, 0},
};
enum { FOLDERS = sizeof folders / sizeof *folders, D = 3, F = 4 };

/* The folders, each with cfg.json replaced by a link to the input. */
static void make_folders(void)
{
    char path[256];
    for (int i = 0; i < FOLDERS; i++) {
        atmsae_model_config config;
        atmsae_model_config_init(&config, sizeof config);
        config.d_in = D;
        config.d_sae = F;
        config.k = 2;
        config.activation = folders[i].activation;
        config.transcoder = folders[i].transcoder;
        atmsae_model *model;
        FZ_CHECK(atmsae_model_create(fz_context(), &config, &model) == ATMSAE_OK);
        FZ_CHECK(atmsae_model_save(model, fz_path(folders[i].architecture), NULL) == ATMSAE_OK);
        atmsae_model_destroy(model);
        snprintf(path, sizeof path, "%s/cfg.json", fz_path(folders[i].architecture));
        FZ_CHECK(unlink(path) == 0 && symlink(fz_file("", 0), path) == 0);
        snprintf(path, sizeof path, "%s/sae_weights.safetensors", fz_path(folders[i].architecture));
        fz_serve_file(path);
    }
}

static void use(const atmsae_model *model)
{
    const float x[2 * D] = {1, -2, 3, 0, 0.5f, -1};
    float out[2 * D] = {0};
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = 2;
    batch.x = x;
    atmsae_codes *codes;
    FZ_CHECK(atmsae_codes_create(fz_context(), &codes) == ATMSAE_OK);
    FZ_CHECK(atmsae_encode(model, &batch, codes) == ATMSAE_OK);
    FZ_CHECK(atmsae_decode(model, codes, out, 0) == ATMSAE_OK);
    for (int i = 0; i < 2 * D; i++)
        FZ_CHECK(isfinite(out[i]));
    atmsae_codes_destroy(codes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    fz_context();
    if (!made) make_folders();
    made = true;
    int which = 0;
    while (which < FOLDERS - 1 && !memmem(data, size, folders[which].architecture, strlen(folders[which].architecture)))
        which++;
    char config[256];
    const char *folder = fz_path(folders[which].architecture);
    snprintf(config, sizeof config, "%s/cfg.json", folder);
    if (fz_serve) fz_serve(config, data, size);
    else fz_file(data, size);
    fz_limit((1 << 18) + 64 * size);
    atmsae_model *model;
    atmsae_status status = atmsae_model_load(fz_context(), folder, &model);
    FZ_CHECK((status == ATMSAE_OK) == (model != NULL));
    FZ_CHECK(status == ATMSAE_OK || status == ATMSAE_E_FORMAT || status == ATMSAE_E_UNSUPPORTED || status == ATMSAE_E_LIMIT);
    if (model) use(model);
    atmsae_model_destroy(model);
    fz_done(status);
    return 0;
}
