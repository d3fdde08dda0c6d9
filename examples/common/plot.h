/* SPDX-License-Identifier: MIT
 *
 * A small writer of charts as SVG: panels under each other over one common x axis, with lines, bands, points or
 * bars. Texts are escaped here.
 */
#ifndef PLOT_H
#define PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum {
    PLOT_LINE,
    PLOT_MARKED, /* a line with its points marked */
    PLOT_POINTS, /* points alone */
    PLOT_BARS    /* from the panel's floor; several series stand side by side. Their x must be evenly spaced */
};

typedef struct plot_series {
    const char *label;  /* written right of the panel, shortened if long; NULL: none */
    const char *colour; /* of SVG, e.g. "#1f5fa8"; plot_colour gives some that suit light and dark pages */
    const double *y;    /* NaN and infinite values leave a gap */
    const double *low;  /* not NULL: fills the band between low and y instead of drawing a line */
    double opacity;     /* of a band */
    bool dashed;
    int style;
    const double *x;    /* NULL: the chart's x; else [n] of its own */
    size_t n;
    const char *const *notes; /* [n] shown when the pointer rests on a point or bar; NULL: label, x and y */
} plot_series;

typedef struct plot_panel {
    const char *title;
    bool log_y;
    bool close;   /* the axis starts near the least value, not at 0 */
    double floor; /* log_y: smaller values are drawn here */
    const plot_series *series;
    size_t n_series;
} plot_panel;

typedef struct plot_chart {
    const char *title, *subtitle, *x_label; /* title NULL: neither */
    const double *x;
    size_t n;
    const plot_panel *panels;
    size_t n_panels;
    bool log_x;                 /* all x must be > 0 */
    const char *const *x_names; /* [n] names of the values of x, written in place of numbers; NULL: none */
} plot_chart;

/* The i-th of eight colours, and so on in turn. */
const char *plot_colour(size_t i);
/* An <svg> element for a page of html.h, whose stylesheet it uses. */
void plot_svg(FILE *f, const plot_chart *chart);
/* A file of its own, written by files.h. False after a message. */
bool plot_write(const plot_chart *chart, const char *path, bool replace);

#endif
