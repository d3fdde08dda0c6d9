/* SPDX-License-Identifier: MIT
 *
 * atmsae eval --words: absorption of labelled words.
 */
#include "eval_more.h"
#include "program.h"
#include "words.h"

#include <atmsae/eval.h>
#include <stdlib.h>

static char *classes_json(const atmsae_absorption_entry *classes, uint64_t n)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    for (uint64_t i = 0; i < n; i++) {
        const atmsae_absorption_entry *c = &classes[i];
        fprintf(out, "%s{\"class\": %llu, \"used\": %s", i ? ",\n    " : "[\n    ", (unsigned long long)i,
                c->used ? "true" : "false");
        if (c->used)
            fprintf(out, ", \"full_rate\": %.7g, \"fraction_v060\": %.7g, \"fraction_v032\": %.7g, \"recall\": %.7g, "
                    "\"main_recall\": %.7g, \"main_precision\": %.7g, \"sparse_f1\": %.7g, \"split_f1\": %.7g, "
                    "\"probe_f1\": %.7g, \"true_positives\": %llu, \"absorbed\": %llu, \"n_split\": %llu, "
                    "\"main_latent\": %llu",
                    c->full_rate, c->fraction_v060, c->fraction_v032, c->split_recall, c->main_recall, c->main_precision,
                    c->sparse_f1, c->split_f1, c->probe_f1, (unsigned long long)c->words, (unsigned long long)c->absorbed,
                    (unsigned long long)c->n_split, (unsigned long long)c->split[0]);
        fputc('}', out);
    }
    fputs("\n  ]", out);
    return program_text_close(out, &json);
}

static void add_fields(fields *out, const atmsae_absorption_measures *r)
{
    fields_real(out, "absorption", r->full_rate);
    fields_real(out, "absorption_fraction_v060", r->fraction_v060);
    fields_real(out, "absorption_fraction_v032", r->fraction_v032);
    fields_count(out, "absorption_classes", r->classes);
    fields_count(out, "absorption_true_positives", r->words);
    fields_count(out, "absorbed", r->absorbed);
    fields_real(out, "recall", r->split_recall);
    fields_real(out, "main_recall", r->main_recall);
    fields_real(out, "main_precision", r->main_precision);
    fields_real(out, "sparse_f1", r->sparse_f1);
    fields_real(out, "split_f1", r->split_f1);
    fields_real(out, "probe_f1", r->probe_f1);
    fields_real(out, "mean_split", r->mean_split);
}

bool eval_absorption(atmsae_context *context, const atmsae_model *model, const char *words_file, const char *tensor,
                     const atmsae_absorption_config *wanted, fields *out)
{
    words w = {0};
    atmsae_absorption *absorption = NULL;
    atmsae_absorption_entry *classes = NULL;
    bool good = words_read(context, words_file, tensor, &w);
    if (good) {
        atmsae_absorption_config config = *wanted;
        config.n_classes = w.n_classes;
        atmsae_batch batch;
        atmsae_batch_init(&batch, sizeof batch);
        batch.n_rows = w.n;
        batch.x = w.rows;
        atmsae_absorption_measures r = {.size = sizeof r};
        classes = program_alloc(w.n_classes, sizeof *classes);
        if (w.n_classes > 0) classes[0].size = sizeof *classes;
        good = atmsae_absorption_create(context, &config, &batch, w.d, w.labels, w.is_train, &absorption) >= 0 &&
               atmsae_absorption_measure(absorption, model, &r, classes, NULL) >= 0;
        if (good) {
            add_fields(out, &r);
            fields_json(out, "classes", classes_json(classes, w.n_classes));
        } else {
            command_failed(context);
        }
    }
    atmsae_absorption_destroy(absorption);
    free(classes);
    words_free(&w);
    return good;
}
