/* SPDX-License-Identifier: MIT
 *
 * See letters.h. Each fold has a handle of its own, whose probes are fitted and split latents chosen on the words of
 * the other four.
 */
#include "letters.h"
#include "program.h"
#include "study.h"

#include <math.h>
#include <stdlib.h>

enum { LETTERS = 26, FOLDS = 5 };

struct letters {
    atmsae_context *context;
    uint64_t n, d;
    const float *rows;
    atmsae_absorption *folds[FOLDS];
};

/* A fixed shuffle, dealt round. */
static uint8_t *deal_folds(uint64_t n)
{
    uint32_t *order = program_alloc(n, sizeof *order);
    uint8_t *fold = program_alloc(n, 1);
    uint64_t state = 1;
    for (uint64_t i = 0; i < n; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint64_t j = (state >> 33) % (i + 1);
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    for (uint64_t i = 0; i < n; i++)
        fold[order[i]] = (uint8_t)(i % FOLDS);
    free(order);
    return fold;
}

letters *letters_open(atmsae_context *context, const float *rows, uint64_t n, uint64_t d, const int32_t *label)
{
    letters *l = program_alloc(1, sizeof *l);
    uint8_t *fold = deal_folds(n), *is_train = program_alloc(n, 1);
    const atmsae_batch batch = {.size = sizeof batch, .n_rows = n, .x = rows, .x_type = ATMSAE_F32};
    atmsae_absorption_config config;
    atmsae_absorption_config_init(&config, sizeof config);
    config.n_classes = LETTERS;
    *l = (letters){.context = context, .n = n, .d = d, .rows = rows};
    for (uint64_t f = 0; f < FOLDS; f++) {
        for (uint64_t i = 0; i < n; i++)
            is_train[i] = fold[i] != f;
        study_check(context, atmsae_absorption_create(context, &config, &batch, d, label, is_train, &l->folds[f]));
    }
    free(fold);
    free(is_train);
    return l;
}

void letters_close(letters *l)
{
    if (!l) return;
    for (int f = 0; f < FOLDS; f++)
        atmsae_absorption_destroy(l->folds[f]);
    free(l);
}

void letters_score(const letters *l, const atmsae_model *model, const char *form, FILE *out)
{
    uint8_t *absorbed = program_alloc(l->n, 1), *what = program_alloc(l->n, 1);
    uint64_t words = 0, n_absorbed = 0, splits = 0, fits = 0;
    double f1 = 0, main_fires = 0, precision = 0, rate = 0, gap = 0;
    for (int f = 0; f < FOLDS; f++) {
        atmsae_absorption_measures m = {.size = sizeof m};
        atmsae_absorption_entry entries[LETTERS] = {{.size = sizeof *entries}};
        study_check(l->context, atmsae_absorption_measure(l->folds[f], model, &m, entries, what));
        for (int c = 0; c < LETTERS; c++) {
            const atmsae_absorption_entry *e = &entries[c];
            if (!e->used) continue;
            words += e->words;
            n_absorbed += e->absorbed;
            main_fires += e->main_recall * (double)e->words;
            splits += e->n_split;
            precision += e->main_precision;
            rate += e->main_rate;
            f1 += e->sparse_f1;
            fits++;
        }
        gap += m.gap / FOLDS;
        for (uint64_t i = 0; i < l->n; i++)
            absorbed[i] |= what[i] == ATMSAE_ROW_ABSORBED;
    }
    atmsae_metrics_result all;
    study_reconstruction(l->context, model, l->rows, l->n, l->d, &all);
    fprintf(out, ", \"words_%s\": %d, \"absorbed_%s\": %d, \"f1_%s\": %.4f, \"recall_%s\": %.4f, \"split_%s\": %.3f, \"l0_%s\": %.2f, "
                 "\"precision_%s\": %.4f, \"rate_%s\": %.5f, ",
            form, (int)words, form, (int)n_absorbed, form, f1 / (double)fits, form, main_fires / (double)words, form,
            (double)splits / (double)fits, form, all.l0, form, precision / (double)fits, form, rate / (double)fits);
    if (isfinite(gap)) fprintf(out, "\"gap_%s\": %.4f, ", form, gap);
    fprintf(out, "\"list_%s\": [", form);
    const char *comma = "";
    for (uint64_t i = 0; i < l->n; i++)
        if (absorbed[i]) {
            fprintf(out, "%s%d", comma, (int)i);
            comma = ",";
        }
    fprintf(out, "]");
    free(absorbed);
    free(what);
}
