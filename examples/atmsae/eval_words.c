/* SPDX-License-Identifier: MIT
 *
 * --words: the words on which the latents of each class have their highest values.
 */
#include "program.h"
#include "report.h"

#include <stdlib.h>

enum { ROWS_AT_ONCE = 1024 };

static bool encode_words(const report *self, const atmsae_model *model, atmsae_top_rows *top)
{
    const words *w = &self->words.words;
    atmsae_codes *codes;
    if (atmsae_codes_create(self->context, &codes) < 0) return false;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    bool good = true;
    for (uint64_t row = 0; good && row < w->n; row += batch.n_rows) {
        batch.n_rows = w->n - row < ROWS_AT_ONCE ? w->n - row : ROWS_AT_ONCE;
        batch.x = w->rows + row * w->d;
        good = atmsae_encode(model, &batch, codes) >= 0 && atmsae_top_rows_add(top, codes, row) >= 0;
    }
    atmsae_codes_destroy(codes);
    return good;
}

static uint64_t latents_of(const atmsae_absorption_entry *class)
{
    const uint64_t listed = sizeof class->split / sizeof *class->split;
    return !class->used ? 0 : class->n_split < listed ? class->n_split : listed;
}

static char *top_json(const report *self, const report_sae *sae)
{
    char *json = NULL, text[24];
    size_t size;
    FILE *out = program_text_open(&json, &size);
    fputc('[', out);
    for (size_t i = 0; i < sae->n_top; i++) {
        const top_words *t = &sae->top[i];
        fprintf(out, "%s    {\"class\": %llu, \"name\": \"%s\", \"latent\": %llu, \"words\": [", i ? ",\n" : "\n",
                (unsigned long long)t->class, class_name(self, t->class, text), (unsigned long long)t->latent);
        for (uint64_t j = 0; j < t->n; j++) {
            fprintf(out, "%s{\"row\": %llu, \"word\": ", j ? ", " : "", (unsigned long long)t->row[j]);
            json_string(out, word_name(self, t->row[j], text));
            fputs(", \"value\": ", out);
            json_real(out, (double)t->value[j], 7);
            fputc('}', out);
        }
        fputs("]}", out);
    }
    fputs("\n  ]", out);
    return program_text_close(out, &json);
}

bool top_words_measure(const report *self, const atmsae_model *model, report_sae *sae)
{
    const uint64_t n_classes = self->words.words.n_classes;
    atmsae_top_rows *top;
    bool good = atmsae_top_rows_create(self->context, sae->d_sae, TOP_WORDS, &top) >= 0 && encode_words(self, model, top);
    size_t n = 0;
    for (uint64_t c = 0; c < n_classes; c++) n += latents_of(&sae->classes[c]);
    sae->top = program_alloc(n, sizeof *sae->top);
    for (uint64_t c = 0; good && c < n_classes; c++)
        for (uint64_t i = 0; good && i < latents_of(&sae->classes[c]); i++) {
            top_words *t = &sae->top[sae->n_top++];
            t->class = c;
            t->latent = sae->classes[c].split[i];
            good = atmsae_top_rows_get(top, t->latent, t->row, t->value, &t->n) >= 0;
        }
    atmsae_top_rows_destroy(top);
    if (!good) return command_failed(self->context), false;
    fields_json(&sae->fields, "top_words", top_json(self, sae));
    return true;
}
