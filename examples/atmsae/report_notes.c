/* SPDX-License-Identifier: MIT
 *
 * What a reader of the results has to know beside the numbers: which classes and tasks take no part and why, and why
 * a result has no value.
 */
#include "program.h"
#include "report.h"

#include <stdlib.h>
#include <string.h>

char *class_reason(const report *self, const atmsae_absorption_entry *c)
{
    const setting *least = &self->settings[R_MIN_PROBE_F1];
    if (c->used) return NULL;
    char *text = NULL;
    size_t size;
    FILE *out = program_text_open(&text, &size);
    if (c->train_rows == 0) fputs("no training words", out);
    else if (c->test_rows == 0) fputs("no test words", out);
    else if (self->words.n_train == c->train_rows) fputs("no training words of other classes", out);
    else if (self->words.all_equal) fputs("the rows of all words are the same", out);
    else fprintf(out, "the probe's F1 on test words is not above %s", least->given ? least->text : "0.6");
    return program_text_close(out, &text);
}

char *task_reason(const atmsae_probing_task *task)
{
    if (task->probed) return NULL;
    char *text = NULL;
    size_t size;
    FILE *out = program_text_open(&text, &size);
    if (task->test[0] + task->test[1] == 0) fputs("no test texts", out);
    else if (task->train[0] + task->train[1] == 0) fputs("no training texts", out);
    else fprintf(out, "no training text has label %d", task->train[1] == 0);
    return program_text_close(out, &text);
}

/* ---- lines ------------------------------------------------------------------------------------------------ */

static void add(report_sae *sae, char *note)
{
    char **longer = program_alloc(sae->n_notes + 1, sizeof *longer);
    if (sae->n_notes) memcpy(longer, sae->notes, sae->n_notes * sizeof *longer);
    free(sae->notes);
    sae->notes = longer;
    sae->notes[sae->n_notes++] = note;
}

/* Things that take no part: a line for each reason, with their names. */
static void group_notes(report_sae *sae, const char *what, size_t n, char **reason, const char *(*name)(const report *, uint64_t, char *),
                        const report *self)
{
    enum { MOST = 12 };
    char text[24];
    for (size_t i = 0; i < n; i++) {
        if (!reason[i]) continue;
        char *line = NULL;
        size_t size, count = 0;
        FILE *out = program_text_open(&line, &size);
        for (size_t j = i; j < n; j++) {
            if (!reason[j] || strcmp(reason[j], reason[i]) != 0) continue;
            if (count++ < MOST) fprintf(out, "%s%s", count > 1 ? ", " : "", name(self, j, text));
            if (j == i) continue;
            free(reason[j]);
            reason[j] = NULL;
        }
        if (count > MOST) fprintf(out, " and %zu more", count - MOST);
        program_text_close(out, &line);
        char *note = NULL;
        out = program_text_open(&note, &size);
        fprintf(out, "%zu of %zu %s: %s (%s)", count, n, what, reason[i], line);
        program_text_close(out, &note);
        free(line);
        free(reason[i]);
        add(sae, note);
    }
}

static const char *task_name(const report *self, uint64_t task, char *text)
{
    (void)text;
    return self->tasks.name[task];
}

/* Results that are not a number: a line for each cause, with the first of its keys. */
static void no_value_notes(report_sae *sae)
{
    static const char *const causes[][2] = {
        {"fvu", "the rows are all the same, so there is no variance to explain"},
        {"cosine", "the rows or all of their reconstructions are zero"},
        {"norm_ratio", "no row has a length above 1e-6"},
        {"bias", "the reconstructions have nothing in common with the rows: all zero, or at right angles"},
        {"decoder_similarity", "fewer than two latents have a decoder row that is not zero"},
        {"encoder_similarity", "fewer than two latents have an encoder row that is not zero"},
        {"absorption", "no class takes part, so neither has any other mean over classes"},
        {"absorption_fraction_v032", "the probe is right on no test word of any class"},
        {"gap", "no class has both words with a latent of their own and words without"},
        {"probing_top1", "no task is probed, so neither has any other mean over tasks"},
        {"probing_top1_auc", "the test texts of every task that is probed have one label only"},
    };
    for (size_t i = 0; i < sizeof causes / sizeof *causes; i++) {
        const char *value = fields_find(&sae->fields, causes[i][0]);
        if (!value || strcmp(value, "null") != 0) continue;
        char *note = NULL;
        size_t size;
        FILE *out = program_text_open(&note, &size);
        fprintf(out, "%s has no value: %s", causes[i][0], causes[i][1]);
        program_text_close(out, &note);
        add(sae, note);
    }
}

/* What results say of rows that are not like those of the training. */
static void rows_note(report_sae *sae)
{
    const char *arch = fields_find(&sae->fields, "arch");
    const bool top = arch && strcmp(arch, "topk") == 0; /* never more than k, and fewer where fewer are positive */
    const double k = report_number(sae, "k"), target = report_number(sae, "target_l0");
    const char *hint = rows_hint(report_number(sae, "fvu"), report_number(sae, "l0"), top ? 0 : k > 0 ? k : target > 0 ? target : 0);
    if (!hint) return;
    const size_t bytes = strlen(hint) + 1;
    add(sae, memcpy(program_alloc(bytes, 1), hint, bytes));
}

void report_notes(const report *self, report_sae *sae)
{
    char *long_rows = norms_note(&self->norms, &sae->fields);
    if (long_rows) add(sae, long_rows); /* and then FVU is no hint at anything else */
    else rows_note(sae);
    const size_t n_classes = sae->classes ? (size_t)self->words.words.n_classes : 0, n_tasks = sae->probes ? self->tasks.n : 0;
    char **reason = program_alloc(n_classes + n_tasks, sizeof *reason);
    for (size_t i = 0; i < n_classes; i++) reason[i] = class_reason(self, &sae->classes[i]);
    group_notes(sae, "classes take no part in absorption", n_classes, reason, class_name, self);
    for (size_t i = 0; i < n_tasks; i++) reason[i] = task_reason(&self->tasks.task[i]);
    group_notes(sae, "tasks are not probed", n_tasks, reason, task_name, self);
    free(reason);
    no_value_notes(sae);
    if (sae->n_notes > 0) fields_json(&sae->fields, "notes", json_strings((const char *const *)sae->notes, sae->n_notes));
}

bool note_is_new(const report *self, size_t i, size_t note)
{
    for (size_t earlier = 0; earlier < i; earlier++)
        for (size_t k = 0; k < self->sae[earlier].n_notes; k++)
            if (strcmp(self->sae[earlier].notes[k], self->sae[i].notes[note]) == 0) return false;
    return true;
}
