/* SPDX-License-Identifier: MIT
 *
 * See plot.h.
 */
#include "plot.h"

#include <math.h>
#include <stdio.h>

#define WIDTH 900.0
#define LEFT 70.0
#define RIGHT 190.0
#define TOP 84.0
#define PANEL 190.0
#define GAP 46.0
#define BOTTOM 52.0
#define LABEL_STEP 15.0
#define MAX_LABELS 16

typedef struct axis {
    double low, high, from, to; /* data low..high is drawn at from..to */
    bool log;
} axis;

static double place(const axis *a, double value)
{
    const double v = a->log ? log10(fmax(value, a->low)) : value;
    const double low = a->log ? log10(a->low) : a->low, high = a->log ? log10(a->high) : a->high;
    return a->from + (a->to - a->from) * (v - low) / (high - low);
}

/* The step of 1, 2 or 5 times a power of ten that gives at most `most` intervals. */
static double tick_step(double range, double most)
{
    const double power = pow(10, floor(log10(range / most)));
    const double need = range / most / power;
    return power * (need <= 1 ? 1 : need <= 2 ? 2 : need <= 5 ? 5 : 10);
}

/* The next of 1, 2, 5 times a power of ten, below or above a value. */
static double log_tick(double value, bool above)
{
    const double power = pow(10, floor(log10(value)));
    const double digits = value / power;
    if (above) return power * (digits <= 1 ? 1 : digits <= 2 ? 2 : digits <= 5 ? 5 : 10);
    return power * (digits >= 5 ? 5 : digits >= 2 ? 2 : 1);
}

static void extent(const double *values, size_t n, double *low, double *high)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) continue;
        *low = fmin(*low, values[i]);
        *high = fmax(*high, values[i]);
    }
}

static axis panel_axis(const plot_panel *panel, size_t n, double top)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t s = 0; s < panel->n_series; s++) {
        extent(panel->series[s].y, n, &low, &high);
        if (panel->series[s].low) extent(panel->series[s].low, n, &low, &high);
    }
    if (!(low <= high)) low = high = panel->log_y ? 1 : 0;
    axis a = {.from = top + PANEL, .to = top, .log = panel->log_y};
    if (panel->log_y) {
        low = fmax(low, panel->floor);
        a.low = log_tick(low, false);
        a.high = log_tick(fmax(high, low * 1.01), true);
    } else {
        low = fmin(low, 0);
        const double step = tick_step(high > low ? high - low : 1, 5);
        a.low = low;
        a.high = fmax(ceil(high / step) * step, low + step);
    }
    return a;
}

static void y_tick(FILE *f, const axis *a, double value)
{
    const double y = place(a, value);
    fprintf(f, "<line class='grid' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>\n", LEFT, y, WIDTH - RIGHT, y);
    fprintf(f, "<text class='tick' text-anchor='end' x='%.1f' y='%.1f'>%g</text>\n", LEFT - 8, y + 4, value);
}

static void y_ticks(FILE *f, const axis *a)
{
    if (a->log) {
        /* All of 1, 2, 5 where they are few, else whole powers of ten. */
        const bool all = a->high / a->low <= 101;
        for (double v = log_tick(a->low, true); v <= a->high * 1.001; v = log_tick(v * 1.01, true))
            if (all || fabs(log10(v) - round(log10(v))) < 1e-6) y_tick(f, a, v);
        return;
    }
    const double step = tick_step(a->high - a->low, 5);
    for (double i = ceil(a->low / step); i * step <= a->high * 1.0001; i++) y_tick(f, a, i * step);
}

/* Gaps: a path starts anew ("M") after a value that is not finite. */
static void draw_line(FILE *f, const plot_chart *chart, const plot_series *s, const axis *x, const axis *y)
{
    fprintf(f, "<path fill='none' stroke='%s' stroke-width='1.8' stroke-linejoin='round'%s d='", s->colour,
            s->dashed ? " stroke-dasharray='6 4'" : "");
    bool open = false;
    for (size_t i = 0; i < chart->n; i++) {
        if (isfinite(s->y[i]))
            fprintf(f, "%c%.1f %.1f", open ? 'L' : 'M', place(x, chart->x[i]), place(y, s->y[i]));
        open = isfinite(s->y[i]);
    }
    fprintf(f, "'/>\n");
}

static void draw_band(FILE *f, const plot_chart *chart, const plot_series *s, const axis *x, const axis *y)
{
    fprintf(f, "<path fill='%s' fill-opacity='%g' stroke='none' d='", s->colour, s->opacity);
    for (size_t i = 0; i < chart->n; i++)
        fprintf(f, "%c%.1f %.1f", i ? 'L' : 'M', place(x, chart->x[i]), place(y, s->y[i]));
    for (size_t i = chart->n; i-- > 0;)
        fprintf(f, "L%.1f %.1f", place(x, chart->x[i]), place(y, s->low[i]));
    fprintf(f, "Z'/>\n");
}

/* Labels stand at the height their series have at three quarters (at the end, many meet in 0), pushed
 * apart so that none covers another. */
static void draw_labels(FILE *f, const plot_chart *chart, const plot_panel *panel, const axis *y)
{
    size_t order[MAX_LABELS], count = 0;
    double at[MAX_LABELS];
    for (size_t s = 0; s < panel->n_series && count < MAX_LABELS; s++) {
        const plot_series *series = &panel->series[s];
        if (!series->label) continue;
        const size_t i = chart->n * 3 / 4;
        const double high = series->y[i], low = series->low ? series->low[i] : high;
        const double v = isfinite(high) && isfinite(low) ? (place(y, high) + place(y, low)) / 2 : y->to;
        size_t slot = count++;
        for (; slot > 0 && at[slot - 1] > v; slot--) {
            at[slot] = at[slot - 1];
            order[slot] = order[slot - 1];
        }
        at[slot] = v;
        order[slot] = s;
    }
    double room = y->to + 4;
    for (size_t i = 0; i < count; i++) room = (at[i] = fmax(at[i], room)) + LABEL_STEP;
    room = y->from;
    for (size_t i = count; i-- > 0;) room = (at[i] = fmin(at[i], room)) - LABEL_STEP;
    for (size_t i = 0; i < count; i++)
        fprintf(f, "<text class='label' x='%.1f' y='%.1f' fill='%s'>%s</text>\n", WIDTH - RIGHT + 10, at[i] + 4,
                panel->series[order[i]].colour, panel->series[order[i]].label);
}

static void draw_panel(FILE *f, const plot_chart *chart, const plot_panel *panel, const axis *x, double top)
{
    const axis y = panel_axis(panel, chart->n, top);
    fprintf(f, "<text class='panel' x='%.1f' y='%.1f'>%s</text>\n", LEFT, top - 9, panel->title);
    y_ticks(f, &y);
    for (size_t s = 0; s < panel->n_series; s++)
        (panel->series[s].low ? draw_band : draw_line)(f, chart, &panel->series[s], x, &y);
    fprintf(f, "<line class='axis' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>\n", LEFT, y.from, WIDTH - RIGHT, y.from);
    draw_labels(f, chart, panel, &y);
}

static void draw_x_ticks(FILE *f, const plot_chart *chart, const axis *x, double y)
{
    const double step = tick_step(x->high - x->low, 8);
    for (double i = ceil(x->low / step); i * step <= x->high * 1.0001; i++) {
        fprintf(f, "<line class='axis' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>\n", place(x, i * step), y,
                place(x, i * step), y + 5);
        fprintf(f, "<text class='tick' text-anchor='middle' x='%.1f' y='%.1f'>%.0f</text>\n",
                place(x, i * step), y + 19, i * step);
    }
    fprintf(f, "<text class='tick' text-anchor='middle' x='%.1f' y='%.1f'>%s</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, y + 38, chart->x_label);
}

bool plot_write(const plot_chart *chart, const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f) return false;
    const double height = TOP + (double)chart->n_panels * (PANEL + GAP) - GAP + BOTTOM;
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' width='%g' height='%g' viewBox='0 0 %g %g'>\n", WIDTH,
            height, WIDTH, height);
    fprintf(f, "<style>text{font-family:'DejaVu Sans',Helvetica,Arial,sans-serif}.title{font-size:17px;"
               "font-weight:bold;fill:#222}.sub{font-size:12px;fill:#666}.panel{font-size:13px;"
               "font-weight:bold;fill:#333}.tick{font-size:11px;fill:#555}.label{font-size:12px}"
               ".grid{stroke:#e4e4e4;stroke-width:1}.axis{stroke:#777;stroke-width:1}</style>\n");
    fprintf(f, "<rect width='100%%' height='100%%' fill='white'/>\n");
    fprintf(f, "<text class='title' x='%g' y='24'>%s</text>\n<text class='sub' x='%g' y='42'>%s</text>\n", LEFT,
            chart->title, LEFT, chart->subtitle);
    if (chart->n > 0) {
        axis x = {.low = INFINITY, .high = -INFINITY, .from = LEFT, .to = WIDTH - RIGHT};
        extent(chart->x, chart->n, &x.low, &x.high);
        if (!(x.high > x.low)) x.high = x.low + 1;
        for (size_t p = 0; p < chart->n_panels; p++)
            draw_panel(f, chart, &chart->panels[p], &x, TOP + (double)p * (PANEL + GAP));
        draw_x_ticks(f, chart, &x, height - BOTTOM);
    }
    fprintf(f, "</svg>\n");
    const bool written = !ferror(f);
    return fclose(f) == 0 && written;
}
