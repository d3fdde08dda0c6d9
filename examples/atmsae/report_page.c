/* SPDX-License-Identifier: MIT
 *
 * The HTML page of atmsae eval and atmsae compare.
 */
#include "files.h"
#include "html.h"
#include "program.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>

static const char page_style[] =
    "<style>\ndetails{margin:.6rem 0;border-top:1px solid var(--line)}summary{cursor:pointer;padding:.4rem 0;font-weight:600}\n</style>\n";

/* ---- tables ------------------------------------------------------------------------------------------- */

/* All results of one SAE, with what they mean. */
static void results_table(FILE *f, const report_sae *sae)
{
    html_table_begin(f, (html_column[]){{.name = "result"}, {.name = "value", .number = true}, {.name = "meaning"}}, 3);
    for (size_t k = 0; k < report_n_keys; k++) {
        const field *value = fields_get(&sae->fields, report_keys[k].key);
        if (!value) continue;
        html_row_begin(f);
        html_cell(f, report_keys[k].key);
        html_number(f, value->brief ? value->brief : value->value);
        html_cell(f, report_keys[k].help);
        html_row_end(f);
    }
    html_table_end(f);
}

/* The columns that any SAE has. */
static void comparison_table(FILE *f, const report *self, int table)
{
    html_column *columns = program_alloc(report_n_keys + 1, sizeof *columns);
    const report_key **keys = program_alloc(report_n_keys, sizeof *keys);
    size_t n = 0;
    columns[0].name = "SAE";
    for (size_t k = 0; k < report_n_keys; k++) {
        if (!report_keys[k].heading || report_keys[k].table != table || !report_has(self, &report_keys[k])) continue;
        keys[n++] = &report_keys[k];
        columns[n] = (html_column){report_keys[k].heading, report_keys[k].help, report_keys[k].format != NULL};
    }
    if (n > 0) html_table_begin(f, columns, n + 1);
    for (size_t i = 0; n > 0 && i < self->n; i++) {
        char text[64];
        html_row_begin(f);
        html_cell(f, self->sae[i].name);
        for (size_t k = 0; k < n; k++) (keys[k]->format ? html_number : html_cell)(f, report_cell(&self->sae[i], keys[k], text));
        html_row_end(f);
    }
    if (n > 0) html_table_end(f);
    free(columns);
    free(keys);
}

static void real_cell(FILE *f, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.4f", value);
    html_number(f, isfinite(value) ? text : "");
}

static void count_cell(FILE *f, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    html_number(f, text);
}

static void classes_table(FILE *f, const report *self, const report_sae *sae)
{
    static const html_column columns[] = {
        {"class", NULL, false},
        {"words", "test words that the probe gets right", true},
        {"absorbed", "how many of them are fully absorbed", true},
        {"full rate", "absorbed / words", true},
        {"frac060", "absorbed fraction, as of SAEBench 0.6.0", true},
        {"frac032", "absorbed fraction, as of SAEBench 0.3.2", true},
        {"main latent", NULL, true},
        {"latents", "of the class", true},
        {"recall", "share of words on which the main latent fires", true},
        {"precision", "share of the words on which the main latent fires that are of the class", true},
        {"fires", "share of all test words on which the main latent fires", true},
        {"own", "words that have a latent of their own", true},
        {"gap", "recall on the other words less that on these", true},
        {"F1", "of the main latent alone", true},
        {"probe F1", "of the probe on the rows", true},
    };
    html_table_begin(f, columns, sizeof columns / sizeof *columns);
    for (uint64_t i = 0; i < self->words.words.n_classes; i++) {
        const atmsae_absorption_entry *c = &sae->classes[i];
        char name[24];
        if (!c->used) continue;
        html_row_begin(f);
        html_cell(f, class_name(self, i, name));
        count_cell(f, c->words);
        count_cell(f, c->absorbed);
        real_cell(f, c->full_rate);
        real_cell(f, c->fraction_v060);
        real_cell(f, c->fraction_v032);
        count_cell(f, c->split[0]);
        count_cell(f, c->n_split);
        real_cell(f, c->main_recall);
        real_cell(f, c->main_precision);
        real_cell(f, c->main_rate);
        count_cell(f, c->own_words);
        real_cell(f, c->other_recall - c->own_recall);
        real_cell(f, c->sparse_f1);
        real_cell(f, c->probe_f1);
        html_row_end(f);
    }
    html_table_end(f);
}

/* What came of the words of one class: those absorbed, up to some. */
static char *absorbed_text(const report *self, const report_sae *sae, uint64_t class)
{
    enum { MOST = 20 };
    char *text = NULL, name[24];
    size_t size, n = 0;
    FILE *out = program_text_open(&text, &size);
    for (uint64_t i = 0; i < self->words.words.n; i++) {
        if (sae->fate[i] != ATMSAE_ROW_ABSORBED || (uint64_t)self->words.words.labels[i] != class) continue;
        if (n < MOST) fprintf(out, "%s%s", n ? ", " : "", word_name(self, i, name));
        n++;
    }
    if (n > MOST) fprintf(out, " and %zu more", n - MOST);
    return program_text_close(out, &text);
}

static char *top_text(const report *self, const top_words *t)
{
    char *text = NULL, name[24];
    size_t size;
    FILE *out = program_text_open(&text, &size);
    for (uint64_t i = 0; i < t->n; i++) fprintf(out, "%s%s %.3g", i ? ", " : "", word_name(self, t->row[i], name), (double)t->value[i]);
    return program_text_close(out, &text);
}

static void words_table(FILE *f, const report *self, const report_sae *sae)
{
    static const html_column columns[] = {
        {"class", NULL, false},
        {"latent", "of the class; the first one is its main latent", true},
        {"highest values, in units of the SAE", "over all words, whatever their class", false},
        {"absorbed words", "test words on which no latent of the class fires and another stands in", false},
    };
    html_table_begin(f, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < sae->n_top; i++) {
        const top_words *t = &sae->top[i];
        const bool main = i == 0 || sae->top[i - 1].class != t->class;
        char *top = top_text(self, t), *absorbed = main ? absorbed_text(self, sae, t->class) : NULL, name[24];
        html_row_begin(f);
        html_cell(f, main ? class_name(self, t->class, name) : "");
        count_cell(f, t->latent);
        html_cell(f, top);
        html_cell(f, absorbed ? absorbed : "");
        html_row_end(f);
        free(top);
        free(absorbed);
    }
    html_table_end(f);
}

static void tasks_table(FILE *f, const report *self, const report_sae *sae)
{
    static const html_column columns[] = {
        {"task", NULL, false},   {"best latent", NULL, true}, {"majority", "accuracy of always giving the more common label", true},
        {"top 1", "accuracy of a probe on the best latent", true},
        {"AUC", "of this probe: 0.5 says nothing, 1 is perfect", true},  {"F1", "of label 1, of this probe", true},
        {"top 2", NULL, true},   {"top 5", NULL, true},       {"all", "accuracy of a probe on all latents", true},
        {"rows, top 1", "accuracy of a probe on the best dimension of the rows", true},
        {"rows, all", "accuracy of a probe on the rows", true},
    };
    html_table_begin(f, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < self->tasks.n; i++) {
        const atmsae_probing_entry *e = &sae->probes[i * PROBE_COLUMNS], *raw = &self->tasks.raw[i * PROBE_COLUMNS];
        html_row_begin(f);
        html_cell(f, self->tasks.name[i]);
        if (!self->tasks.task[i].probed) {
            char *reason = task_reason(&self->tasks.task[i]);
            html_cell(f, reason);
            free(reason);
            for (size_t c = 1; c < sizeof columns / sizeof *columns - 1; c++) html_number(f, "");
            html_row_end(f);
            continue;
        }
        count_cell(f, e->best);
        real_cell(f, self->tasks.task[i].majority);
        real_cell(f, e->accuracy);
        real_cell(f, e->auc);
        real_cell(f, e->f1);
        for (size_t c = 1; c < PROBE_COLUMNS; c++) real_cell(f, e[c].accuracy);
        real_cell(f, raw[0].accuracy);
        real_cell(f, raw[PROBE_COLUMNS - 1].accuracy);
        html_row_end(f);
    }
    html_table_end(f);
}

/* ---- the page --------------------------------------------------------------------------------------------- */

static void sae_details(FILE *f, const report *self, const report_sae *sae)
{
    if (sae->history && sae->history->n > 0) history_svg(f, sae->history);
    if (sae->classes) {
        classes_table(f, self, sae);
        words_table(f, self, sae);
    }
    if (sae->probes) tasks_table(f, self, sae);
}

static void summary(FILE *f, const report *self)
{
    char *text = NULL;
    size_t size;
    FILE *out = program_text_open(&text, &size);
    fprintf(out, "Measured on %.0f rows of", report_number(&self->sae[0], "rows"));
    for (size_t i = 0; i < self->settings[R_INPUT].n; i++) fprintf(out, "%s %s", i ? "," : "", self->settings[R_INPUT].texts[i]);
    if (self->settings[R_TARGET].given) fputs(" against the targets of", out);
    for (size_t i = 0; i < self->settings[R_TARGET].n; i++) fprintf(out, "%s %s", i ? "," : "", self->settings[R_TARGET].texts[i]);
    if (self->words.absorption) fprintf(out, "; words of %s", self->settings[R_WORDS].text);
    if (self->tasks.probing) fprintf(out, "; texts of %s", self->settings[R_PROBING].text);
    fputc('.', out);
    program_text_close(out, &text);
    html_paragraph(f, text);
    free(text);
}

static void classes_section(FILE *f, const report *self)
{
    html_heading(f, "classes", "Absorption by class");
    html_paragraph(f, "A word is absorbed if no latent of its class (its first letter, say) fires on it and a more special latent stands in. "
                      "A low rate means something only where recall is high: a dead SAE absorbs nothing.");
    chart_classes(f, self);
}

/* As compare prints them. */
static void notes(FILE *f, const report *self)
{
    for (const noisy_key *key = noisy_keys; key < noisy_keys + n_noisy_keys; key++) {
        char *order = order_text(self, key);
        if (order) html_paragraph(f, order);
        free(order);
    }
    for (size_t i = 0; i < self->n; i++)
        for (size_t k = 0; k < self->sae[i].n_notes; k++)
            if (note_is_new(self, i, k)) html_paragraph(f, self->sae[i].notes[k]);
}

static void sections(FILE *f, const report *self)
{
    bool trained = false;
    for (size_t i = 0; i < self->n; i++) trained = trained || (self->sae[i].history && self->sae[i].history->n > 0);
    if (self->n > 1) {
        html_heading(f, "pareto", "Against L0");
        html_paragraph(f, "A point is an SAE; lines join the means of the same method (architecture and mask) at the same setting. "
                          "Compare at equal L0.");
        chart_pareto(f, self);
    }
    html_heading(f, "densities", "How often latents fire");
    chart_densities(f, self);
    if (self->words.absorption) classes_section(f, self);
    if (self->tasks.probing) {
        html_heading(f, "probing", "Probing");
        chart_probing(f, self);
    }
    if (trained && self->n > 1) {
        html_heading(f, "training", "Importance and masks over time");
        chart_training(f, self);
    }
}

static void body(FILE *f, const report *self)
{
    summary(f, self);
    for (int table = 0; table < REPORT_TABLES; table++) comparison_table(f, self, table);
    notes(f, self);
    sections(f, self);
    if (self->n == 1) {
        html_heading(f, "details", "Details");
        sae_details(f, self, &self->sae[0]);
        html_heading(f, "results", "All results");
        results_table(f, &self->sae[0]);
        return;
    }
    html_heading(f, "saes", "Each SAE");
    for (size_t i = 0; i < self->n && !ferror(f); i++) {
        fputs("<details><summary>", f);
        html_text(f, self->sae[i].name);
        fputs("</summary>\n", f);
        results_table(f, &self->sae[i]);
        sae_details(f, self, &self->sae[i]);
        fputs("</details>\n", f);
    }
}

bool report_page(const report *self)
{
    const setting *s = self->settings;
    char title[300];
    file_writer out;
    if (!s[R_HTML].given) return true;
    if (self->n == 1) snprintf(title, sizeof title, "SAE %.280s", self->sae[0].path);
    else snprintf(title, sizeof title, "%zu SAEs compared", self->n);
    if (!file_begin(&out, s[R_HTML].text, s[R_FORCE].given)) return false;
    html_begin(out.file, title, page_style);
    body(out.file, self);
    html_end(out.file);
    return file_end(&out, true);
}
