/* SPDX-License-Identifier: MIT
 *
 * See plot.h.
 */
#include "plot.h"
#include "files.h"
#include "html.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH 900.0
#define LEFT 70.0
#define RIGHT 190.0
#define TOP 84.0
#define TOP_UNTITLED 30.0
#define PANEL 190.0
#define GAP 46.0
#define BOTTOM 52.0
#define LABEL_STEP 15.0
#define MAX_LABELS 16
#define LABEL_CHARACTERS 25

/* Numbers beyond these are drawn at the edge; so a difference or ratio of two is a number. A range of less than CLOSE
 * of its ends is none: it is drawn as wide as if the ends were equal, since ticks in it could not be told apart. */
#define HUGE_VALUE 1e300
#define CLOSE 1e-9

enum { MOST_TICKS = 32 };

typedef struct axis {
    double low, high, from, to; /* data low..high is drawn at from..to; low < high, of a log axis 0 < low */
    bool log;
} axis;

/* Inside from..to, whatever the value is. */
static double place(const axis *a, double value)
{
    const double inside = fmin(fmax(value, a->low), a->high);
    const double v = a->log ? log10(inside) : inside;
    const double low = a->log ? log10(a->low) : a->low, high = a->log ? log10(a->high) : a->high;
    return a->from + (a->to - a->from) * (v - low) / (high - low);
}

/* How wide an axis from low to high is to be, more than 0 also where they are equal. */
static double spread(double low, double high)
{
    const double range = high - low, most = fmax(fabs(low), fabs(high));
    if (range > CLOSE * most && range > 1 / HUGE_VALUE) return range;
    return most > 1 / HUGE_VALUE ? most / 5 : 1;
}

/* The step of 1, 2 or 5 times a power of ten that gives at most `most` intervals. */
static double tick_step(double range, double most)
{
    const double power = pow(10, floor(log10(range / most)));
    const double need = range / most / power;
    return power * (need <= 1 ? 1 : need <= 2 ? 2 : need <= 5 ? 5 : 10);
}

/* The nearest of 1, 2, 5 times a power of ten that is not above or not below a value. */
static double log_tick(double value, bool above)
{
    const double power = pow(10, floor(log10(value)));
    const double digits = value / power;
    if (above) return power * (digits <= 1 ? 1 : digits <= 2 ? 2 : digits <= 5 ? 5 : 10);
    return power * (digits >= 5 ? 5 : digits >= 2 ? 2 : 1);
}

/* The values to mark on an axis, at most `most` intervals apart where it is linear; their number. They are counted
 * in whole numbers: a sum of floating-point steps may never reach its end. */
static size_t tick_values(const axis *a, double most, double ticks[MOST_TICKS])
{
    size_t n = 0;
    if (!a->log) {
        const double step = tick_step(a->high - a->low, most), first = ceil(a->low / step);
        for (int i = 0; i < MOST_TICKS && (first + i) * step <= a->high + step / 1000; i++) ticks[n++] = (first + i) * step;
        return n;
    }
    /* All of 1, 2, 5 where they are few, else whole powers of ten. */
    static const double digits[] = {1, 2, 5};
    const bool all = a->high / a->low <= 101;
    const int from = (int)floor(log10(a->low)), to = (int)ceil(log10(a->high)), stride = 1 + (to - from) / 12;
    for (int e = from; e <= to; e += stride)
        for (int d = 0; d < (all ? 3 : 1); d++) {
            const double value = digits[d] * pow(10, e);
            if (n < MOST_TICKS && value >= a->low * 0.999 && value <= a->high * 1.001) ticks[n++] = value;
        }
    return n;
}

static size_t points(const plot_chart *chart, const plot_series *s)
{
    return s->x ? s->n : chart->n;
}

static const double *places(const plot_chart *chart, const plot_series *s)
{
    return s->x ? s->x : chart->x;
}

static void extent(const double *values, size_t n, double *low, double *high)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) continue;
        const double value = fmin(fmax(values[i], -HUGE_VALUE), HUGE_VALUE);
        *low = fmin(*low, value);
        *high = fmax(*high, value);
    }
}

static axis panel_axis(const plot_chart *chart, const plot_panel *panel, double top)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < panel->n_series; i++) {
        const plot_series *s = &panel->series[i];
        extent(s->y, points(chart, s), &low, &high);
        if (s->low) extent(s->low, points(chart, s), &low, &high);
    }
    if (!(low <= high)) low = high = panel->log_y ? 1 : 0;
    axis a = {.from = top + PANEL, .to = top, .log = panel->log_y};
    if (panel->log_y) {
        low = fmax(low, fmax(panel->floor, 1 / HUGE_VALUE));
        a.low = log_tick(low, false);
        a.high = log_tick(fmax(high, low * 1.01), true);
    } else {
        if (!panel->close) low = fmin(low, 0);
        const double range = spread(low, high);
        double step = tick_step(range, 5);
        a.low = low;
        a.high = fmax(ceil(high / step) * step, low + step);
        for (int i = 0; panel->close && i < 2; i++) { /* rounding widens the axis, and that may widen the step */
            a.low = floor((low - range / 20) / step) * step;
            if (low >= 0) a.low = fmax(a.low, 0);
            a.high = fmax(ceil(high / step) * step, a.low + step);
            step = tick_step(a.high - a.low, 5);
        }
    }
    return a;
}

/* Half of the distance of two bars; 0 if the chart has none. */
static double half_spacing(const plot_chart *chart)
{
    for (size_t p = 0; p < chart->n_panels; p++)
        for (size_t i = 0; i < chart->panels[p].n_series; i++) {
            const plot_series *s = &chart->panels[p].series[i];
            if (s->style != PLOT_BARS) continue;
            const double half = points(chart, s) > 1 ? (places(chart, s)[1] - places(chart, s)[0]) / 2 : 0.5;
            return half > 0 && half < HUGE_VALUE ? half : 0.5;
        }
    return 0;
}

static axis chart_x_axis(const plot_chart *chart)
{
    axis x = {.low = INFINITY, .high = -INFINITY, .from = LEFT, .to = WIDTH - RIGHT, .log = chart->log_x};
    bool marks = false;
    if (chart->x) extent(chart->x, chart->n, &x.low, &x.high);
    for (size_t p = 0; p < chart->n_panels; p++)
        for (size_t i = 0; i < chart->panels[p].n_series; i++) {
            const plot_series *s = &chart->panels[p].series[i];
            marks = marks || s->style == PLOT_POINTS || s->style == PLOT_MARKED;
            if (s->x) extent(s->x, s->n, &x.low, &x.high);
        }
    if (!(x.low <= x.high)) x.low = x.high = 1;
    if (x.log) {
        x.low = log_tick(fmax(x.low, 1 / HUGE_VALUE) * 0.999, false);
        x.high = log_tick(fmax(x.high, x.low) * 1.001, true);
        return x;
    }
    const double half = half_spacing(chart), margin = half > 0 ? half : marks ? spread(x.low, x.high) / 25 : 0;
    x.low -= margin;
    x.high = x.low + spread(x.low, x.high + margin);
    return x;
}

static void y_tick(FILE *f, const axis *a, double value)
{
    const double y = place(a, value);
    fprintf(f, "<line class='grid' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>\n", LEFT, y, WIDTH - RIGHT, y);
    fprintf(f, "<text class='tick' text-anchor='end' x='%.1f' y='%.1f'>%g</text>\n", LEFT - 8, y + 4, value);
}

static void y_ticks(FILE *f, const axis *a)
{
    double ticks[MOST_TICKS];
    const size_t n = tick_values(a, 5, ticks);
    for (size_t i = 0; i < n; i++) y_tick(f, a, ticks[i]);
}

/* What the pointer shows of a point or bar. */
static void note(FILE *f, const plot_chart *chart, const plot_series *s, size_t i)
{
    fputs("<title>", f);
    if (s->notes) {
        html_text(f, s->notes[i]);
    } else {
        if (s->label) html_text(f, s->label);
        if (s->label) fputs(": ", f);
        if (chart->x_names && !s->x) html_text(f, chart->x_names[i]);
        else fprintf(f, "%.6g", places(chart, s)[i]);
        fprintf(f, ", %.6g", s->y[i]);
    }
    fputs("</title>", f);
}

static bool is_drawn(const plot_chart *chart, const plot_series *s, size_t i)
{
    return isfinite(places(chart, s)[i]) && isfinite(s->y[i]) && (!s->low || isfinite(s->low[i]));
}

/* Gaps: a path starts anew ("M") after a value that is not finite. */
static void draw_line(FILE *f, const plot_chart *chart, const plot_series *s, const axis *x, const axis *y)
{
    const double *at = places(chart, s);
    const size_t n = points(chart, s);
    if (s->style != PLOT_POINTS) {
        fprintf(f, "<path fill='none' stroke='%s' stroke-width='1.8' stroke-linejoin='round'%s d='", s->colour,
                s->dashed ? " stroke-dasharray='6 4'" : "");
        bool open = false;
        for (size_t i = 0; i < n; i++) {
            const bool drawn = is_drawn(chart, s, i);
            if (drawn) fprintf(f, "%c%.1f %.1f", open ? 'L' : 'M', place(x, at[i]), place(y, s->y[i]));
            open = drawn;
        }
        fprintf(f, "'/>\n");
    }
    for (size_t i = 0; i < n && s->style != PLOT_LINE; i++) {
        if (!is_drawn(chart, s, i)) continue;
        fprintf(f, "<circle cx='%.1f' cy='%.1f' r='4.5' fill='%s'>", place(x, at[i]), place(y, s->y[i]), s->colour);
        note(f, chart, s, i);
        fputs("</circle>\n", f);
    }
}

static void draw_band(FILE *f, const plot_chart *chart, const plot_series *s, const axis *x, const axis *y)
{
    const double *at = places(chart, s);
    fprintf(f, "<path fill='%s' fill-opacity='%g' stroke='none' d='", s->colour, s->opacity);
    const size_t n = points(chart, s);
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        if (!is_drawn(chart, s, i)) continue;
        fprintf(f, "%c%.1f %.1f", open ? 'L' : 'M', place(x, at[i]), place(y, s->y[i]));
        open = true;
    }
    for (size_t i = n; i-- > 0;)
        if (is_drawn(chart, s, i)) fprintf(f, "L%.1f %.1f", place(x, at[i]), place(y, s->low[i]));
    fprintf(f, "%s'/>\n", open ? "Z" : "");
}

/* Of the panel's series with bars, this is number `index` of `count`. */
static void draw_bars(FILE *f, const plot_chart *chart, const plot_series *s, const axis *x, const axis *y,
                      size_t index, size_t count)
{
    const double *at = places(chart, s);
    const double whole = 2 * half_spacing(chart), width = whole * 0.86 / (double)count;
    const double base = place(y, y->log ? y->low : fmax(y->low, 0));
    for (size_t i = 0; i < points(chart, s); i++) {
        if (!is_drawn(chart, s, i)) continue;
        const double left = at[i] - whole * 0.43 + width * (double)index, end = place(y, s->y[i]);
        fprintf(f, "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='%s'>", place(x, left), fmin(base, end),
                fmax(1, place(x, left + width) - place(x, left) - (count > 1 ? 0.3 : 0)), fabs(base - end), s->colour);
        note(f, chart, s, i);
        fputs("</rect>\n", f);
    }
}

/* Bytes of the first n characters. */
static size_t prefix(const char *text, size_t n)
{
    size_t bytes = 0;
    for (; text[bytes] && (n > 0 || ((unsigned char)text[bytes] & 0xc0) == 0x80); bytes++)
        if (((unsigned char)text[bytes + 1] & 0xc0) != 0x80) n--;
    return bytes;
}

static void draw_label(FILE *f, const plot_series *s, double y)
{
    char text[LABEL_CHARACTERS * 4 + 8];
    const size_t bytes = prefix(s->label, LABEL_CHARACTERS);
    snprintf(text, sizeof text, "%.*s%s", (int)bytes, s->label, s->label[bytes] ? "\xe2\x80\xa6" : "");
    fprintf(f, "<text class='label' x='%.1f' y='%.1f' style='fill:%s'>", WIDTH - RIGHT + 10, y + 4, s->colour);
    html_text(f, text);
    if (s->label[bytes]) {
        fputs("<title>", f);
        html_text(f, s->label);
        fputs("</title>", f);
    }
    fputs("</text>\n", f);
}

/* Where the label of a series wants to stand: at the height that it has at three quarters (at the end, many meet
 * in 0), points of their own at their last. Those of bars stand on top of each other, from the top. */
static double label_height(const plot_chart *chart, const plot_series *s, const axis *y)
{
    const size_t n = points(chart, s);
    if (n == 0 || s->style == PLOT_BARS) return y->to;
    const size_t i = s->x ? n - 1 : n * 3 / 4;
    const double high = s->y[i], low = s->low ? s->low[i] : high;
    return isfinite(high) && isfinite(low) ? (place(y, high) + place(y, low)) / 2 : y->to;
}

/* Labels are pushed apart so that none covers another. */
static void draw_labels(FILE *f, const plot_chart *chart, const plot_panel *panel, const axis *y)
{
    size_t order[MAX_LABELS], count = 0;
    double at[MAX_LABELS];
    for (size_t s = 0; s < panel->n_series && count < MAX_LABELS; s++) {
        if (!panel->series[s].label) continue;
        const double v = label_height(chart, &panel->series[s], y);
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
    for (size_t i = 0; i < count; i++) draw_label(f, &panel->series[order[i]], at[i]);
}

static void draw_panel(FILE *f, const plot_chart *chart, const plot_panel *panel, const axis *x, double top)
{
    const axis y = panel_axis(chart, panel, top);
    fprintf(f, "<text class='panel' x='%.1f' y='%.1f'>", LEFT, top - 9);
    html_text(f, panel->title);
    fputs("</text>\n", f);
    y_ticks(f, &y);
    size_t bars = 0, bar = 0;
    for (size_t s = 0; s < panel->n_series; s++) bars += panel->series[s].style == PLOT_BARS;
    for (size_t s = 0; s < panel->n_series; s++) {
        const plot_series *series = &panel->series[s];
        if (series->style == PLOT_BARS) draw_bars(f, chart, series, x, &y, bar++, bars);
        else if (series->low) draw_band(f, chart, series, x, &y);
        else draw_line(f, chart, series, x, &y);
    }
    fprintf(f, "<line class='axis' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>\n", LEFT, y.from, WIDTH - RIGHT, y.from);
    draw_labels(f, chart, panel, &y);
}

static void x_tick(FILE *f, const axis *x, double value, double y, const char *name)
{
    const double at = place(x, value);
    if (!name) fprintf(f, "<line class='axis' x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f'/>\n", at, y, at, y + 5);
    fprintf(f, "<text class='tick' text-anchor='middle' x='%.1f' y='%.1f'>", at, y + 19);
    if (name) html_text(f, name);
    else fprintf(f, "%.10g", value);
    fputs("</text>\n", f);
}

static void draw_x_ticks(FILE *f, const plot_chart *chart, const axis *x, double y)
{
    if (chart->x_names) {
        for (size_t i = 0; i < chart->n; i++) x_tick(f, x, chart->x[i], y, chart->x_names[i]);
    } else {
        double ticks[MOST_TICKS];
        const size_t n = tick_values(x, 8, ticks);
        for (size_t i = 0; i < n; i++) x_tick(f, x, ticks[i], y, NULL);
    }
    fprintf(f, "<text class='tick' text-anchor='middle' x='%.1f' y='%.1f'>", (LEFT + WIDTH - RIGHT) / 2, y + 38);
    html_text(f, chart->x_label);
    fputs("</text>\n", f);
}

const char *plot_colour(size_t i)
{
    static const char *const colours[] = {"#3d85c6", "#e08a2e", "#3f9e5a", "#cf4a43", "#8d6cc4", "#1f9aa5", "#c65f9e", "#9a8433"};
    return colours[i % (sizeof colours / sizeof *colours)];
}

static double chart_top(const plot_chart *chart)
{
    return chart->title ? TOP : TOP_UNTITLED;
}

static double chart_height(const plot_chart *chart)
{
    return chart_top(chart) + (double)chart->n_panels * (PANEL + GAP) - GAP + BOTTOM;
}

static bool has_points(const plot_chart *chart)
{
    size_t n = chart->n;
    for (size_t p = 0; p < chart->n_panels; p++)
        for (size_t s = 0; s < chart->panels[p].n_series; s++) n += points(chart, &chart->panels[p].series[s]);
    return n > 0;
}

static void draw_chart(FILE *f, const plot_chart *chart)
{
    if (chart->title) {
        fprintf(f, "<text class='title' x='%g' y='24'>", LEFT);
        html_text(f, chart->title);
        fprintf(f, "</text>\n<text class='sub' x='%g' y='42'>", LEFT);
        html_text(f, chart->subtitle ? chart->subtitle : "");
        fputs("</text>\n", f);
    }
    if (!has_points(chart)) return;
    const axis x = chart_x_axis(chart);
    for (size_t p = 0; p < chart->n_panels; p++)
        draw_panel(f, chart, &chart->panels[p], &x, chart_top(chart) + (double)p * (PANEL + GAP));
    draw_x_ticks(f, chart, &x, chart_height(chart) - BOTTOM);
}

void plot_svg(FILE *f, const plot_chart *chart)
{
    fprintf(f, "<svg class='chart' viewBox='0 0 %g %g'>\n", WIDTH, chart_height(chart));
    draw_chart(f, chart);
    fputs("</svg>\n", f);
}

bool plot_write(const plot_chart *chart, const char *path, bool replace)
{
    file_writer out;
    if (!file_begin(&out, path, replace)) return false;
    FILE *f = out.file;
    const double height = chart_height(chart);
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' width='%g' height='%g' viewBox='0 0 %g %g'>\n", WIDTH,
            height, WIDTH, height);
    fprintf(f, "<style>text{font-family:'DejaVu Sans',Helvetica,Arial,sans-serif}.title{font-size:17px;"
               "font-weight:bold;fill:#222}.sub{font-size:12px;fill:#666}.panel{font-size:13px;"
               "font-weight:bold;fill:#333}.tick{font-size:11px;fill:#555}.label{font-size:12px}"
               ".grid{stroke:#e4e4e4;stroke-width:1}.axis{stroke:#777;stroke-width:1}</style>\n");
    fprintf(f, "<rect width='100%%' height='100%%' fill='white'/>\n");
    draw_chart(f, chart);
    fprintf(f, "</svg>\n");
    return file_end(&out, true);
}
