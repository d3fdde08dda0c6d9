/* SPDX-License-Identifier: MIT
 *
 * A program outside of the project, built by consumer.sh with what pkg-config says: encodes a few
 * rows and checks that the library it runs with is the one of the header.
 */
#include <atmsae/atmsae.h>
#include <stdio.h>

enum { D_IN = 8, D_SAE = 32, ROWS = 16, K = 4 };

static int run(atmsae_context *context)
{
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    config.d_in = D_IN;
    config.d_sae = D_SAE;
    config.activation = ATMSAE_TOPK;
    config.k = K;
    float rows[ROWS][D_IN];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < D_IN; j++)
            rows[r][j] = (float)((r * 5 + j * 3) % 11 - 5);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = ROWS;
    batch.x = rows;

    atmsae_model *model = NULL;
    atmsae_codes *codes = NULL;
    atmsae_codes_view view = {.size = sizeof view};
    int good = atmsae_model_create(context, &config, &model) == ATMSAE_OK &&
               atmsae_codes_create(context, &codes) == ATMSAE_OK &&
               atmsae_model_prepare(model, &batch) == ATMSAE_OK &&
               atmsae_encode(model, &batch, codes) == ATMSAE_OK &&
               atmsae_codes_get(codes, &view) == ATMSAE_OK && view.n_rows == ROWS &&
               view.row_start[ROWS] > 0 && view.row_start[ROWS] <= ROWS * K;
    for (uint64_t i = 0; good && i < view.row_start[ROWS]; i++)
        good = view.latent[i] < D_SAE && view.value[i] > 0;
    if (!good) fprintf(stderr, "consumer: %s\n", atmsae_last_error(context));
    atmsae_codes_destroy(codes);
    atmsae_model_destroy(model);
    return good;
}

int main(void)
{
    if (atmsae_version_number() !=
        ATMSAE_VERSION_MAJOR * 10000 + ATMSAE_VERSION_MINOR * 100 + ATMSAE_VERSION_PATCH) {
        fprintf(stderr, "consumer: library %s is not the header's\n", atmsae_version_string());
        return 1;
    }
    atmsae_context *context = NULL;
    if (atmsae_context_create(NULL, &context) != ATMSAE_OK) return 1;
    int good = run(context);
    atmsae_context_destroy(context);
    if (good) printf("consumer: libatmsae %s\n", atmsae_version_string());
    return good ? 0 : 1;
}
