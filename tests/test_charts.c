/* SPDX-License-Identifier: MIT
 *
 * Charts of any values: examples/common/plot.h ends, writes numbers only, and little of them.
 */
#include "handles.h"

#include "plot.h"
#include "program.h"

#include <float.h>
#include <math.h>

enum { POINTS = 5, MOST_BYTES = 60000, MOST_MARKS = 40 };

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

/* Coordinates of what is drawn are within the picture. */
static void is_inside(const char *svg, const char *name, double most)
{
    for (const char *at = svg; (at = strstr(at, name));) {
        at += strlen(name);
        const double value = strtod(at, NULL);
        ck_assert_msg(value >= 0 && value <= most, "%s%.30s", name, at);
    }
}

static void draw(const double *x, const double *y, const double *low, int style, bool log_x, bool log_y, bool close, const char *what)
{
    const plot_series series[] = {
        {.label = "all", .colour = "red", .y = y, .low = low, .opacity = 0.5, .style = style},
        {.label = "own x", .colour = "blue", .x = y, .y = x, .n = POINTS, .style = PLOT_MARKED},
    };
    const plot_panel panels[] = {{.title = "one", .log_y = log_y, .floor = log_y ? 1e-3 : 0, .close = close, .series = series, .n_series = log_x ? 1 : 2}};
    const plot_chart chart = {.title = "t", .subtitle = "s", .x_label = "x", .x = x, .n = POINTS, .panels = panels, .n_panels = 1, .log_x = log_x};
    char *svg = NULL;
    size_t size;
    FILE *file = program_text_open(&svg, &size);
    plot_svg(file, &chart);
    program_text_close(file, &svg);
    ck_assert_msg(size < MOST_BYTES, "%s: %zu bytes", what, size);
    ck_assert_msg(count(svg, "class='grid'") <= MOST_MARKS && count(svg, "class='grid'") >= 1, "%s: %zu ticks", what, count(svg, "class='grid'"));
    ck_assert_msg(count(svg, "class='tick'") <= 2 * MOST_MARKS, "%s: %zu texts of ticks", what, count(svg, "class='tick'"));
    const char *ends = strstr(svg, "</svg>");
    ck_assert_ptr_nonnull(ends);
    for (char *at = svg; (at = strstr(at, "<title>"));) memset(at, ' ', strcspn(at, "/")); /* notes name values as they are */
    ck_assert_msg(!strstr(svg, "nan") && !strstr(svg, "inf"), "%s: %s", what, svg);
    static const char *const across[] = {" x='", "x1='", "x2='", "cx='"}, *const down[] = {" y='", "y1='", "y2='", "cy='"};
    for (size_t i = 0; i < 4; i++) is_inside(svg, across[i], 900), is_inside(svg, down[i], 420);
    free(svg);
}

static void draw_all(const double *x, const double *y, const char *what)
{
    bool positive = true;
    for (size_t i = 0; i < POINTS; i++) positive = positive && x[i] > 0;
    for (int style = PLOT_LINE; style <= PLOT_BARS; style++)
        for (int how = 0; how < 8; how++)
            if (positive || !(how & 1)) draw(x, y, NULL, style, how & 1, how & 2, how & 4, what);
    draw(x, y, x, PLOT_LINE, false, false, false, what);
}

#define VALUES(name, ...) {name, {__VA_ARGS__}}
static const struct {
    const char *name;
    double value[POINTS];
} kinds[] = {
    VALUES("usual", 1, 2, 3, 4, 5),
    VALUES("equal", 0.3, 0.3, 0.3, 0.3, 0.3),
    VALUES("equal and large", 1e9, 1e9, 1e9, 1e9, 1e9),
    VALUES("one ulp apart", 0.45412345678901234, 0.45412345678901239, 0.45412345678901234, 0.45412345678901234, 0.45412345678901239),
    VALUES("one ulp apart and large", 1e17, 1e17 + 16, 1e17, 1e17, 1e17),
    VALUES("ten ulps apart", 1, 1 + 10 * DBL_EPSILON, 1, 1, 1),
    VALUES("zero", 0, 0, 0, 0, 0),
    VALUES("negative zero", -0.0, 0, -0.0, 0, 0),
    VALUES("negative", -5, -4, -3, -2, -1),
    VALUES("one ulp apart and negative", -1, -1 - DBL_EPSILON, -1, -1, -1),
    VALUES("denormal", 5e-324, 1e-323, 1.5e-323, 2e-323, 2.5e-323),
    VALUES("equal and denormal", 5e-324, 5e-324, 5e-324, 5e-324, 5e-324),
    VALUES("tiny", 1e-308, 2e-308, 3e-308, 1e-300, 1e-301),
    VALUES("huge", 1e308, -1e308, 1.7e308, -1.7e308, 0),
    VALUES("huge and equal", DBL_MAX, DBL_MAX, DBL_MAX, DBL_MAX, DBL_MAX),
    VALUES("from tiny to huge", 5e-324, 1e-200, 1, 1e200, DBL_MAX),
    VALUES("not finite", NAN, INFINITY, -INFINITY, NAN, NAN),
    VALUES("partly finite", NAN, 1, INFINITY, 1, -INFINITY),
    VALUES("one finite", NAN, NAN, 3, NAN, NAN),
};
enum { KINDS = sizeof kinds / sizeof *kinds };

START_TEST(any_values)
{
    for (int i = 0; i < KINDS; i++) {
        char what[128];
        snprintf(what, sizeof what, "x %s, y %s", kinds[_i].name, kinds[i].name);
        draw_all(kinds[_i].value, kinds[i].value, what);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, any_values, 0, KINDS);
}

int main(void) { return run_suite("charts", add); }
