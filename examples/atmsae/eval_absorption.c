/* SPDX-License-Identifier: MIT
 *
 * --words: absorption of labelled words.
 */
#include "files.h"
#include "program.h"
#include "report.h"
#include "rows.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const option_choice probe_choices[] = {{"saebench", ATMSAE_PROBE_SAEBENCH}, {"free", ATMSAE_PROBE_FREE}, {0}};

/* ---- the words --------------------------------------------------------------------------------------- */

/* --words-text, or NAME.words.txt beside NAME.safetensors; NULL: there is none. */
static char *text_path(const setting *s)
{
    static const char ending[] = ".safetensors";
    const char *rows = s[R_WORDS].text;
    const size_t length = strlen(rows), cut = sizeof ending - 1;
    char *path = program_alloc(length + 16, 1);
    if (length > cut && strcmp(rows + length - cut, ending) == 0) snprintf(path, length + 16, "%.*s.words.txt", (int)(length - cut), rows);
    if (path[0] && access(path, R_OK) == 0) return path;
    free(path);
    return NULL;
}

/* Cuts the text into its lines, in place. */
static bool read_lines(const char *path, uint64_t n, word_set *set)
{
    size_t size;
    set->text = file_read(path, MOST_LIST_BYTES, &size);
    if (!set->text) return false;
    set->word = program_alloc(n, sizeof *set->word);
    uint64_t lines = 0;
    for (char *at = set->text; *at; lines++) {
        const size_t length = strcspn(at, "\n");
        const bool more = at[length] != 0;
        at[length] = 0;
        if (length > 0 && at[length - 1] == '\r') at[length - 1] = 0;
        if (lines < n) set->word[lines] = at;
        at += length + more;
    }
    if (lines == n) return true;
    program_error("%s: %llu lines, but there are %llu words", path, (unsigned long long)lines, (unsigned long long)n);
    return false;
}

static bool open_text(const setting *s, word_set *set)
{
    if (s[R_WORDS_TEXT].given) return read_lines(s[R_WORDS_TEXT].text, set->words.n, set);
    char *path = text_path(s);
    const bool good = !path || (!report_overwrites(s, path) && read_lines(path, set->words.n, set));
    free(path);
    return good;
}

bool words_open(report *self)
{
    const setting *s = self->settings;
    word_set *set = &self->words;
    const char *tensor = s[R_WORDS_TENSOR].given ? s[R_WORDS_TENSOR].text : "prompted";
    if (!s[R_WORDS].given) return true;
    if (!words_read(self->context, s[R_WORDS].text, tensor, &set->words) ||
        !rows_are_good(s[R_WORDS].text, set->words.rows, set->words.n, set->words.d) || !open_text(s, set))
        return false;
    set->all_equal = true;
    for (uint64_t i = 0; i < set->words.n; i++) {
        const float *row = set->words.rows + i * set->words.d;
        set->n_train += set->words.is_train[i];
        set->all_equal = set->all_equal && memcmp(row, set->words.rows, set->words.d * sizeof *row) == 0;
    }
    atmsae_absorption_config config;
    atmsae_absorption_config_init(&config, sizeof config);
    config.n_classes = set->words.n_classes;
    setting_real(&s[R_MIN_PROBE_F1], &config.min_probe_f1);
    setting_real(&s[R_MIN_F1_GAIN], &config.min_f1_gain);
    setting_count(&s[R_MAX_SPLIT], &config.max_split);
    setting_choice(&s[R_PROBE], &config.probe);
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = set->words.n;
    batch.x = set->words.rows;
    if (atmsae_absorption_create(self->context, &config, &batch, set->words.d, set->words.labels, set->words.is_train,
                                 &set->absorption) >= 0)
        return true;
    return command_failed(self->context), false;
}

void words_close(word_set *self)
{
    atmsae_absorption_destroy(self->absorption);
    words_free(&self->words);
    free(self->text);
    free(self->word);
}

const char *class_name(const report *self, uint64_t class, char *text)
{
    if (self->words.words.n_classes <= 26) snprintf(text, 24, "%c", (char)('a' + (int)class));
    else snprintf(text, 24, "%llu", (unsigned long long)class);
    return text;
}

const char *word_name(const report *self, uint64_t row, char *text)
{
    if (self->words.word) return self->words.word[row];
    snprintf(text, 24, "#%llu", (unsigned long long)row);
    return text;
}

/* ---- one SAE ------------------------------------------------------------------------------------------- */

static void absorbed_json(FILE *out, const report *self, const report_sae *sae, uint64_t class)
{
    const char *separator = "";
    char text[24];
    fputs(", \"absorbed_words\": [", out);
    for (uint64_t i = 0; i < self->words.words.n; i++) {
        if (sae->fate[i] != ATMSAE_ROW_ABSORBED || (uint64_t)self->words.words.labels[i] != class) continue;
        fputs(separator, out);
        json_string(out, word_name(self, i, text));
        separator = ", ";
    }
    fputc(']', out);
}

static char *classes_json(const report *self, const report_sae *sae)
{
#define REAL(field, name) {name, offsetof(atmsae_absorption_entry, field)}
    static const struct {
        const char *name;
        size_t offset;
    } reals[] = {
        REAL(full_rate, "full_rate"), REAL(fraction_v060, "fraction_v060"), REAL(fraction_v032, "fraction_v032"),
        REAL(split_recall, "recall"), REAL(main_recall, "main_recall"), REAL(main_precision, "main_precision"),
        REAL(main_f1, "main_f1"), REAL(main_rate, "main_rate"), REAL(own_recall, "own_recall"), REAL(other_recall, "other_recall"),
        REAL(sparse_f1, "sparse_f1"), REAL(split_f1, "split_f1"), REAL(probe_f1, "probe_f1"),
    };
    char *json = NULL, text[40];
    size_t size;
    FILE *out = program_text_open(&json, &size);
    for (uint64_t i = 0; i < self->words.words.n_classes; i++) {
        const atmsae_absorption_entry *c = &sae->classes[i];
        fprintf(out, "%s{\"class\": %llu, \"name\": \"%s\", \"used\": %s", i ? ",\n    " : "[\n    ", (unsigned long long)i,
                class_name(self, i, text), c->used ? "true" : "false");
        for (size_t k = 0; c->used && k < sizeof reals / sizeof *reals; k++) {
            const double value = *(const double *)(const void *)((const char *)c + reals[k].offset);
            exact_real(value, text);
            fprintf(out, ", \"%s\": %s", reals[k].name, isfinite(value) ? text : "null");
        }
        char *reason = class_reason(self, c);
        if (reason) {
            fputs(", \"probe_f1\": ", out);
            json_real(out, c->probe_f1, 7);
            fputs(", \"reason\": ", out);
            json_string(out, reason);
            free(reason);
        } else {
            fprintf(out, ", \"true_positives\": %llu, \"own_words\": %llu, \"absorbed\": %llu, \"n_split\": %llu, \"main_latent\": %llu",
                    (unsigned long long)c->words, (unsigned long long)c->own_words, (unsigned long long)c->absorbed, (unsigned long long)c->n_split,
                    (unsigned long long)c->split[0]);
            absorbed_json(out, self, sae, i);
        }
        fputc('}', out);
    }
    fputs("\n  ]", out);
    return program_text_close(out, &json);
#undef REAL
}

static void add_fields(const report *self, const atmsae_absorption_entry *classes, const atmsae_absorption_measures *r, fields *out)
{
    shares absorbed = {0}, recalled = {0};
    for (uint64_t i = 0; i < self->words.words.n_classes; i++) {
        if (!classes[i].used) continue;
        share_add(&absorbed, classes[i].full_rate, classes[i].words);
        share_add(&recalled, classes[i].main_recall, classes[i].words);
    }
    fields_real(out, "absorption", r->full_rate);
    fields_interval(out, "absorption_interval", &absorbed);
    fields_real(out, "absorption_fraction_v060", r->fraction_v060);
    fields_real(out, "absorption_fraction_v032", r->fraction_v032);
    fields_count(out, "absorption_classes", r->classes);
    fields_count(out, "absorption_true_positives", r->words);
    fields_count(out, "absorbed", r->absorbed);
    fields_real(out, "recall", r->split_recall);
    fields_real(out, "main_recall", r->main_recall);
    fields_interval(out, "main_recall_interval", &recalled);
    fields_real(out, "main_precision", r->main_precision);
    fields_real(out, "main_f1", r->main_f1);
    fields_real(out, "main_rate", r->main_rate);
    fields_real(out, "gap", r->gap);
    fields_real(out, "gap_error", r->gap_error);
    fields_count(out, "own_words", r->own_words);
    fields_real(out, "own_recall", r->own_recall);
    fields_real(out, "other_recall", r->other_recall);
    fields_real(out, "sparse_f1", r->sparse_f1);
    fields_real(out, "split_f1", r->split_f1);
    fields_real(out, "probe_f1", r->probe_f1);
    fields_real(out, "mean_split", r->mean_split);
}

bool words_measure(const report *self, const atmsae_model *model, report_sae *sae)
{
    const words *w = &self->words.words;
    if (!self->words.absorption) return true;
    atmsae_absorption_measures r = {.size = sizeof r};
    sae->classes = program_alloc(w->n_classes, sizeof *sae->classes);
    sae->fate = program_alloc(w->n, sizeof *sae->fate);
    if (w->n_classes > 0) sae->classes[0].size = sizeof *sae->classes;
    if (atmsae_absorption_measure(self->words.absorption, model, &r, sae->classes, sae->fate) < 0)
        return command_failed(self->context), false;
    add_fields(self, sae->classes, &r, &sae->fields);
    fields_json(&sae->fields, "classes", classes_json(self, sae));
    return top_words_measure(self, model, sae);
}
