/* SPDX-License-Identifier: MIT
 *
 * See history.h.
 */
#include "history.h"
#include "plot.h"
#include "program.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

history *history_create(uint64_t d_sae)
{
    history *self = program_alloc(1, sizeof *self);
    self->stride = 1;
    self->d_sae = d_sae;
    self->sorted = program_alloc(d_sae, sizeof *self->sorted);
    return self;
}

void history_destroy(history *self)
{
    if (!self) return;
    free(self->sorted);
    free(self);
}

static void halve(history *self)
{
    for (size_t i = 0; i < self->n; i += 2)
        for (size_t c = 0; c < HISTORY_COLUMNS; c++) self->column[c][i / 2] = self->column[c][i];
    self->n = (self->n + 1) / 2;
    self->stride *= 2;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void history_record(history *self, atmsae_trainer *trainer, const atmsae_step_stats *stats)
{
    if (stats->step % self->stride != 0) return;
    if (self->n == HISTORY_POINTS) {
        halve(self);
        if (stats->step % self->stride != 0) return;
    }
    const atmsae_masker *masker = atmsae_trainer_masker(trainer);
    const double *importance = atmsae_tracker_importance(atmsae_trainer_tracker(trainer));
    memcpy(self->sorted, importance, self->d_sae * sizeof *importance);
    qsort(self->sorted, self->d_sae, sizeof *self->sorted, ascending);
    static const double quantile[] = {0.10, 0.25, 0.50, 0.75, 0.90};
    const size_t i = self->n++;
    for (size_t q = 0; q < sizeof quantile / sizeof *quantile; q++)
        self->column[HISTORY_Q10 + q][i] = self->sorted[(size_t)(quantile[q] * (double)(self->d_sae - 1))];
    self->column[HISTORY_STEP][i] = (double)stats->step;
    self->column[HISTORY_MU][i] = atmsae_masker_mu(masker);
    self->column[HISTORY_THETA][i] = atmsae_masker_theta(masker);
    self->column[HISTORY_MEAN_P][i] = stats->mean_p;
    self->column[HISTORY_MAX_P][i] = 1 - exp(-stats->r);
    self->column[HISTORY_R][i] = stats->r;
    self->column[HISTORY_FVU][i] = stats->fvu;
}

static bool any_finite(const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i])) return true;
    return false;
}

/* title NULL: as part of a page. */
static bool draw(const history *self, const char *title, FILE *page, const char *path, bool replace)
{
    const double(*c)[HISTORY_POINTS] = self->column;
    const plot_series importance[] = {
        {.label = "10-90 % of latents", .colour = "#5b8db8", .y = c[HISTORY_Q90], .low = c[HISTORY_Q10], .opacity = 0.20},
        {.label = "25-75 % of latents", .colour = "#3a72a4", .y = c[HISTORY_Q75], .low = c[HISTORY_Q25], .opacity = 0.35},
        {.label = "median latent", .colour = page ? "#3a80bd" : "#1d4f7c", .y = c[HISTORY_Q50]},
        {.label = "mean \xce\xbc", .colour = page ? "#8a8f98" : "#666666", .y = c[HISTORY_MU], .dashed = true},
        {.label = "threshold \xce\xb8", .colour = page ? "#cf4a43" : "#c0392b", .y = c[HISTORY_THETA]},
    };
    const plot_series masking[] = {
        {.label = "rate r", .colour = "#8a8a8a", .y = c[HISTORY_R], .dashed = true},
        {.label = "highest p: 1 - exp(-r)", .colour = "#d98a3d", .y = c[HISTORY_MAX_P]},
        {.label = "mean p of all latents", .colour = page ? "#cf4a43" : "#b0402e", .y = c[HISTORY_MEAN_P]},
    };
    const plot_series error[] = {{.label = "FVU of the batch", .colour = "#2f7d4f", .y = c[HISTORY_FVU]}};
    const plot_panel panels[] = {
        {.title = "Importance of the latents (mean 1)", .log_y = true, .floor = 1e-3, .series = importance, .n_series = 5},
        {.title = "Probability that a latent is masked in a step", .series = masking, .n_series = 3},
        {.title = "Unexplained variance, masks on", .log_y = true, .floor = 1e-4, .series = error, .n_series = 1},
    };
    char subtitle[160];
    snprintf(subtitle, sizeof subtitle, "%llu latents; a latent is masked with p = 1 - exp(-r (\xce\xb8 - I) / \xce\xb8) "
             "while its importance I is below \xce\xb8", (unsigned long long)self->d_sae);
    const plot_chart chart = {.title = title, .subtitle = subtitle, .x_label = "training step", .x = c[HISTORY_STEP], .n = self->n,
                              .panels = panels, .n_panels = any_finite(c[HISTORY_FVU], self->n) ? 3 : 2};
    if (!page) return plot_write(&chart, path, replace);
    plot_svg(page, &chart);
    return true;
}

bool history_plot(const history *self, const char *title, const char *path, bool replace)
{
    return draw(self, title, NULL, path, replace);
}

void history_svg(FILE *page, const history *self)
{
    (void)draw(self, NULL, page, NULL, false);
}
