/* SPDX-License-Identifier: MIT
 *
 * A small writer of line charts: panels under each other over one common x axis, as SVG.
 */
#ifndef PLOT_H
#define PLOT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct plot_series {
    const char *label;  /* written right of the panel; NULL: none */
    const char *colour; /* of SVG, e.g. "#1f5fa8" */
    const double *y;    /* NaN and infinite values leave a gap */
    const double *low;  /* not NULL: fills the band between low and y instead of drawing a line */
    double opacity;     /* of a band */
    bool dashed;
} plot_series;

typedef struct plot_panel {
    const char *title;
    bool log_y;
    double floor; /* log_y: smaller values are drawn here */
    const plot_series *series;
    size_t n_series;
} plot_panel;

typedef struct plot_chart {
    const char *title, *subtitle, *x_label;
    const double *x;
    size_t n;
    const plot_panel *panels;
    size_t n_panels;
} plot_chart;

/* False with errno set if the file cannot be written. */
bool plot_write(const plot_chart *chart, const char *path);

#endif
