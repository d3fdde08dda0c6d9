/* SPDX-License-Identifier: MIT
 *
 * The charts of a report's page. One SAE is shown as it is; of several, those of the same method share a colour and,
 * where a chart has one line a method, are averaged.
 */
#include "plot.h"
#include "program.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LINES = 16 }; /* SAEs that are told apart by name */

/* ---- memory that lives as long as a chart ------------------------------------------------------------- */

typedef struct store {
    size_t n, room;
    void **block;
} store;

static void *keep(store *self, void *block)
{
    if (self->n == self->room) {
        void **longer = program_alloc(2 * self->room + 64, sizeof *longer);
        if (self->n) memcpy(longer, self->block, self->n * sizeof *longer);
        free(self->block);
        self->block = longer;
        self->room = 2 * self->room + 64;
    }
    return self->block[self->n++] = block;
}

static double *numbers(store *self, size_t n)
{
    return keep(self, program_alloc(n, sizeof(double)));
}

static void drop(store *self)
{
    for (size_t i = 0; i < self->n; i++) free(self->block[i]);
    free(self->block);
}

/* ---- groups ------------------------------------------------------------------------------------------ */

static const report_sae *first_of(const report *self, size_t group)
{
    size_t i = 0;
    while (self->sae[i].group != group) i++;
    return &self->sae[i];
}

/* A method's name; none where there is one SAE only. */
static const char *group_name(const report *self, size_t group)
{
    return self->n == 1 ? NULL : first_of(self, group)->method;
}

/* Means over a group's SAEs of value(sae, i), leaving out those that are not finite. */
static double *group_means(const report *self, size_t group, size_t n, store *s,
                           double (*value)(const report *, const report_sae *, size_t))
{
    double *means = numbers(s, n);
    for (size_t i = 0; i < n; i++) {
        double sum = 0, count = 0;
        for (size_t k = 0; k < self->n; k++) {
            const double v = self->sae[k].group == group ? value(self, &self->sae[k], i) : NAN;
            if (isfinite(v)) sum += v, count++;
        }
        means[i] = count > 0 ? sum / count : NAN;
    }
    return means;
}

/* A series a group, of such means. */
static plot_series *group_series(const report *self, size_t n, int style, store *s,
                                 double (*value)(const report *, const report_sae *, size_t))
{
    plot_series *series = keep(s, program_alloc(self->n_groups, sizeof *series));
    for (size_t g = 0; g < self->n_groups; g++)
        series[g] = (plot_series){.label = group_name(self, g), .colour = plot_colour(g), .style = style,
                                  .y = group_means(self, g, n, s, value)};
    return series;
}

/* ---- error and absorption against L0 ------------------------------------------------------------------------ */

typedef struct point {
    double l0, value;
    const report_sae *sae;
} point;

static int by_l0(const void *a, const void *b)
{
    const double x = ((const point *)a)->l0, y = ((const point *)b)->l0;
    return (x > y) - (x < y);
}

static char *point_note(const point *p, const report_key *key)
{
    char *text = NULL;
    size_t size;
    FILE *out = program_text_open(&text, &size);
    fprintf(out, "%s: L0 %.2f, %s %.4f", p->sae->name, p->l0, key->heading, p->value);
    return program_text_close(out, &text);
}

static size_t group_points(const report *self, size_t group, const report_key *key, point *points)
{
    size_t n = 0;
    for (size_t i = 0; i < self->n; i++) {
        const report_sae *sae = &self->sae[i];
        const point p = {report_number(sae, "l0"), report_number(sae, key->key), sae};
        if (sae->group == group && p.l0 > 0 && isfinite(p.l0) && isfinite(p.value)) points[n++] = p;
    }
    return n;
}

/* Points of the same level (k, say, of several seeds) become one, in place; sorted by L0. */
static size_t merge_levels(point *points, size_t n)
{
    size_t merged = 0;
    for (size_t i = 0; i < n; i++) {
        double l0 = 0, value = 0, count = 0;
        bool seen = false;
        for (size_t k = 0; k < merged; k++) seen = seen || strcmp(points[k].sae->level, points[i].sae->level) == 0;
        for (size_t k = i; k < n && !seen; k++)
            if (strcmp(points[k].sae->level, points[i].sae->level) == 0) l0 += points[k].l0, value += points[k].value, count++;
        if (!seen) points[merged++] = (point){l0 / count, value / count, points[i].sae};
    }
    qsort(points, merged, sizeof *points, by_l0);
    return merged;
}

static plot_series points_series(const point *points, size_t n, store *s)
{
    double *x = numbers(s, n), *y = numbers(s, n);
    for (size_t i = 0; i < n; i++) x[i] = points[i].l0, y[i] = points[i].value;
    return (plot_series){.x = x, .y = y, .n = n};
}

/* Two series a group: all points, and a line through the means of each level. */
static plot_panel pareto_panel(const report *self, const report_key *key, const char *title, store *s)
{
    plot_series *series = keep(s, program_alloc(2 * self->n_groups, sizeof *series));
    point *points = keep(s, program_alloc(self->n, sizeof *points));
    size_t count = 0;
    for (size_t g = 0; g < self->n_groups; g++) {
        const size_t n = group_points(self, g, key, points);
        if (n == 0) continue;
        const char **notes = keep(s, program_alloc(n, sizeof *notes));
        for (size_t i = 0; i < n; i++) notes[i] = keep(s, point_note(&points[i], key));
        plot_series *all = &series[count++], *line = &series[count++];
        *all = points_series(points, n, s);
        all->notes = notes;
        *line = points_series(points, merge_levels(points, n), s);
        line->label = group_name(self, g);
        all->colour = line->colour = plot_colour(g);
        all->style = PLOT_POINTS;
    }
    return (plot_panel){.title = title, .close = true, .series = series, .n_series = count};
}

void chart_pareto(FILE *f, const report *self)
{
    static const char *const shown[][2] = {
        {"fvu", "Unexplained variance (FVU)"},
        {"absorption", "Absorption, full rate"},
        {"sparse_f1", "F1 of the classes' main latents"},
        {"probing_top1", "Probing accuracy of one latent"},
    };
    plot_panel panels[sizeof shown / sizeof *shown];
    size_t n = 0;
    store s = {0};
    for (size_t p = 0; p < sizeof shown / sizeof *shown; p++)
        for (size_t k = 0; k < report_n_keys; k++)
            if (strcmp(report_keys[k].key, shown[p][0]) == 0 && report_has(self, &report_keys[k]))
                panels[n++] = pareto_panel(self, &report_keys[k], shown[p][1], &s);
    plot_svg(f, &(plot_chart){.x_label = "L0: latents that fire on a row", .panels = panels, .n_panels = n});
    drop(&s);
}

/* ---- densities --------------------------------------------------------------------------------------------- */

static double bin_share(const report *self, const report_sae *sae, size_t bin)
{
    (void)self;
    return (double)sae->bins[bin] / (double)sae->d_sae;
}

static double bin_count(const report *self, const report_sae *sae, size_t bin)
{
    (void)self;
    return (double)sae->bins[bin];
}

void chart_densities(FILE *f, const report *self)
{
    store s = {0};
    const size_t n = self->sae[0].n_bins;
    double *x = numbers(&s, n);
    for (size_t b = 0; b < n; b++) x[b] = self->low + ((double)b + 0.5) / DENSITY_BINS_A_DECADE;
    const bool one = self->n == 1;
    const plot_series *series = group_series(self, n, one ? PLOT_BARS : PLOT_MARKED, &s, one ? bin_count : bin_share);
    const plot_panel panel = {.title = one ? "Number of latents" : "Share of latents", .series = series, .n_series = self->n_groups};
    plot_svg(f, &(plot_chart){.x_label = "log10 of the share of rows on which a latent fires", .x = x, .n = n, .panels = &panel, .n_panels = 1});
    drop(&s);
}

/* ---- classes -------------------------------------------------------------------------------------------------- */

/* The i-th class that counts; which ones do depends on the probe, not on the SAE. */
static const atmsae_absorption_entry *used_class(const report *self, const report_sae *sae, size_t i, uint64_t *class)
{
    for (uint64_t c = 0; c < self->words.words.n_classes; c++)
        if (sae->classes[c].used && i-- == 0) return *class = c, &sae->classes[c];
    return NULL;
}

static double class_full_rate(const report *self, const report_sae *sae, size_t i)
{
    uint64_t class;
    return used_class(self, sae, i, &class)->full_rate;
}

static double class_main_recall(const report *self, const report_sae *sae, size_t i)
{
    uint64_t class;
    return used_class(self, sae, i, &class)->main_recall;
}

void chart_classes(FILE *f, const report *self)
{
    store s = {0};
    size_t n = 0;
    uint64_t class;
    while (used_class(self, &self->sae[0], n, &class)) n++;
    double *x = numbers(&s, n);
    const char **names = keep(&s, program_alloc(n, sizeof *names));
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)i;
        (void)used_class(self, &self->sae[0], i, &class);
        names[i] = class_name(self, class, keep(&s, program_alloc(24, 1)));
    }
    const plot_panel panels[] = {
        {.title = "Absorption, full rate", .n_series = self->n_groups, .series = group_series(self, n, PLOT_BARS, &s, class_full_rate)},
        {.title = "Recall of the main latent", .n_series = self->n_groups, .series = group_series(self, n, PLOT_BARS, &s, class_main_recall)},
    };
    if (n > 0)
        plot_svg(f, &(plot_chart){.x_label = "class", .x = x, .n = n, .x_names = names, .panels = panels, .n_panels = 2});
    drop(&s);
}

/* ---- probing ---------------------------------------------------------------------------------------------------- */

static double probe_accuracy(const report *self, const report_sae *sae, size_t column)
{
    char key[32];
    (void)self;
    snprintf(key, sizeof key, "probing_%s", probe_columns[column]);
    return report_number(sae, key);
}

static double raw_accuracy(const report *self, const report_sae *sae, size_t column)
{
    char key[32];
    (void)self;
    snprintf(key, sizeof key, "probing_raw_%s", probe_columns[column]);
    return report_number(sae, key);
}

void chart_probing(FILE *f, const report *self)
{
    static const char *const names[] = {"best 1", "best 2", "best 5", "all"};
    static const double x[] = {0, 1, 2, 3};
    store s = {0};
    plot_series *series = keep(&s, program_alloc(self->n_groups + 1, sizeof *series));
    memcpy(series, group_series(self, PROBE_COLUMNS, PLOT_MARKED, &s, probe_accuracy), self->n_groups * sizeof *series);
    if (self->n == 1) series->label = "latents";
    series[self->n_groups] = (plot_series){.label = "the rows themselves", .colour = "#8a8f98", .style = PLOT_MARKED, .dashed = true,
                                           .y = group_means(self, 0, PROBE_COLUMNS, &s, raw_accuracy)};
    const plot_panel panel = {.title = "Accuracy on test texts, mean over tasks", .close = true, .series = series, .n_series = self->n_groups + 1};
    plot_svg(f, &(plot_chart){.x_label = "latents (or dimensions) that the probe sees", .x = x, .n = PROBE_COLUMNS, .x_names = names,
                              .panels = &panel, .n_panels = 1});
    drop(&s);
}

/* ---- training ------------------------------------------------------------------------------------------------- */

void chart_training(FILE *f, const report *self)
{
    static const struct {
        int column;
        const char *title;
        bool log;
    } shown[] = {{HISTORY_Q50, "Importance of the median latent (mean 1)", true},
                 {HISTORY_MEAN_P, "Probability that a latent is masked in a step, mean over latents", false}};
    plot_panel panels[2];
    store s = {0};
    size_t n = 0;
    for (size_t p = 0; p < 2; p++) {
        plot_series *series = keep(&s, program_alloc(self->n, sizeof *series));
        n = 0;
        for (size_t i = 0; i < self->n && n < MOST_LINES; i++) {
            const report_sae *sae = &self->sae[i];
            if (!sae->history || sae->history->n == 0) continue;
            series[n] = (plot_series){.label = sae->name, .colour = plot_colour(sae->group), .n = sae->history->n,
                                      .x = sae->history->column[HISTORY_STEP], .y = sae->history->column[shown[p].column]};
            n++;
        }
        panels[p] = (plot_panel){.title = shown[p].title, .log_y = shown[p].log, .floor = 1e-3, .series = series, .n_series = n};
    }
    if (n > 0) plot_svg(f, &(plot_chart){.x_label = "training step", .panels = panels, .n_panels = 2});
    drop(&s);
}
