/* SPDX-License-Identifier: MIT
 *
 * atmsae features: what was found, as JSON, and in a page that shows it.
 */
#include "features_more.h"
#include "html.h"
#include "program.h"

#include <math.h>
#include <stdlib.h>

enum { BEFORE = 12, AFTER = 6 }; /* tokens of context */

/* ---- JSON -------------------------------------------------------------------------------------------- */

static void put_count(FILE *out, const char *key, uint64_t value)
{
    fprintf(out, ",\n\"%s\": %llu", key, (unsigned long long)value);
}

/* Numbers of latents by log10 of the share of rows on which they fire, four bins a decade, up to 1. */
static void put_histogram(FILE *out, const features *f)
{
    enum { A_DECADE = 4, MOST_DECADES = 20 };
    const int decades = f->rows > 10 ? (int)ceil(log10((double)f->rows)) : 1;
    uint64_t bins[A_DECADE * MOST_DECADES] = {0}, dead = 0;
    const int n = decades * A_DECADE;
    for (uint64_t i = 0; i < f->model.d_sae; i++) {
        if (f->fired[i] == 0) {
            dead++;
            continue;
        }
        const int bin = (int)floor((log10((double)f->fired[i] / (double)f->rows) + decades) * A_DECADE);
        bins[bin < 0 ? 0 : bin >= n ? n - 1 : bin]++;
    }
    put_count(out, "never_fired", dead);
    fprintf(out, ",\n\"histogram\": {\"low\": %d, \"step\": %g, \"bins\": [", -decades, 1.0 / A_DECADE);
    for (int b = 0; b < n; b++) fprintf(out, "%s%llu", b ? "," : "", (unsigned long long)bins[b]);
    fputs("]}", out);
}

static void put_times(FILE *out, const importance *history, int digits)
{
    fputs(",\n\"steps\": [", out);
    for (size_t i = 0; i < history->n; i++) fprintf(out, "%s%lld", i ? "," : "", (long long)history->step[i]);
    fputc(']', out);
    bool masked = false;
    for (size_t i = 0; i < history->n; i++) masked = masked || history->mean_p[i] > 0;
    for (size_t i = 0; i < history->n && masked; i++) {
        fputs(i ? "," : ",\n\"theta\": [", out);
        json_real(out, (double)history->theta[i], digits);
    }
    if (masked) fputc(']', out);
}

/* A word, or [text before, token, text after]. */
static void put_label(FILE *out, const labels *l, uint64_t row)
{
    if (!l->tokens) {
        json_string(out, l->line[row]);
        return;
    }
    uint64_t first = row, last = row;
    while (first > 0 && row - first < BEFORE && !l->begins[first]) first--;
    while (last + 1 < l->n && last - row < AFTER && !l->begins[last + 1]) last++;
    fputs("[\"", out);
    for (uint64_t i = first; i < row; i++) json_inside(out, l->line[i]);
    fputs("\",", out);
    json_string(out, l->line[row]);
    fputs(",\"", out);
    for (uint64_t i = row + 1; i <= last; i++) json_inside(out, l->line[i]);
    fputs("\"]", out);
}

static void put_top(FILE *out, const features *f, uint64_t n, const uint64_t *rows, const float *values, int digits)
{
    fputs(",\"rows\":[", out);
    for (uint64_t e = 0; e < n; e++) fprintf(out, "%s%llu", e ? "," : "", (unsigned long long)rows[e]);
    fputs("],\"values\":[", out);
    for (uint64_t e = 0; e < n; e++) {
        if (e) fputc(',', out);
        json_real(out, (double)values[e], digits);
    }
    fputc(']', out);
    if (f->labels.n == 0) return;
    fputs(",\"text\":[", out);
    for (uint64_t e = 0; e < n; e++) {
        if (e) fputc(',', out);
        put_label(out, &f->labels, rows[e]);
    }
    fputc(']', out);
}

static void put_neighbours(FILE *out, const features *f, uint32_t latent, int digits)
{
    const uint32_t *which = f->neighbour + latent * f->n_neighbours;
    const float *cosine = f->cosine + latent * f->n_neighbours;
    fputs(",\"neighbours\":[", out);
    for (uint64_t e = 0; e < f->n_neighbours && which[e] != UINT32_MAX; e++) fprintf(out, "%s%u", e ? "," : "", which[e]);
    fputs("],\"cosines\":[", out);
    for (uint64_t e = 0; e < f->n_neighbours && which[e] != UINT32_MAX; e++) {
        if (e) fputc(',', out);
        json_real(out, (double)cosine[e], digits);
    }
    fputc(']', out);
}

static void put_latent(FILE *out, const features *f, uint32_t latent, int digits, uint64_t *rows, float *values)
{
    const uint64_t fired = f->fired[latent];
    uint64_t n = 0;
    (void)!atmsae_top_rows_get(f->top, latent, rows, values, &n);
    fprintf(out, "{\"latent\":%u,\"fired\":%llu,\"density\":", latent, (unsigned long long)fired);
    json_real(out, f->rows ? (double)fired / (double)f->rows : NAN, digits);
    fputs(",\"max\":", out);
    json_real(out, n ? (double)values[0] : 0, digits);
    fputs(",\"mean\":", out);
    json_real(out, fired ? f->sum[latent] / (double)fired : 0, digits);
    if (f->importance) {
        const importance *h = f->importance;
        fputs(",\"importance\":[", out);
        for (size_t i = 0; i < h->n; i++) {
            if (i) fputc(',', out);
            json_real(out, (double)h->value[i * h->d_sae + latent], digits);
        }
        fputc(']', out);
    }
    put_top(out, f, n, rows, values, digits);
    put_neighbours(out, f, latent, digits);
    fputc('}', out);
}

uint64_t features_json(FILE *out, const features *f, int digits, uint64_t most)
{
    fputs("{\"format\": \"atmsae-features-1\",\n\"sae\": ", out);
    json_string(out, f->sae);
    fprintf(out, ",\n\"arch\": \"%s\",\n\"input\": [", f->arch);
    for (size_t i = 0; i < f->files->n; i++) {
        if (i) fputs(", ", out);
        json_string(out, f->files->texts[i]);
    }
    fputc(']', out);
    put_count(out, "d_in", f->model.d_in);
    put_count(out, "d_sae", f->model.d_sae);
    put_count(out, "rows", f->rows);
    fputs(",\n\"l0\": ", out);
    json_real(out, f->rows ? (double)f->entries / (double)f->rows : NAN, digits);
    put_histogram(out, f);
    if (f->importance) put_times(out, f->importance, digits);
    fputs(",\n\"latents\": [", out);
    uint64_t *rows = program_alloc(f->n_top, sizeof *rows), written = 0, bytes = 0;
    float *values = program_alloc(f->n_top, sizeof *values);
    for (; written < f->n_shown && !ferror(out); written++) {
        char *text = NULL;
        size_t size = 0;
        FILE *one = program_text_open(&text, &size);
        put_latent(one, f, f->shown[written], digits, rows, values);
        program_text_close(one, &text);
        bytes += size + 2;
        const bool fits = most == 0 || bytes <= most;
        if (fits) fprintf(out, "%s\n%s", written ? "," : "", text);
        free(text);
        if (!fits) break;
    }
    fputs("\n]}\n", out);
    free(rows);
    free(values);
    return written;
}

/* ---- the page -------------------------------------------------------------------------------------------- */

uint64_t features_page(FILE *out, const features *f, uint64_t most)
{
    html_begin(out, f->title, features_style);
    fputs(features_body, out);
    fputs("<script type=\"application/json\" id=\"data\">\n", out);
    const uint64_t written = features_json(out, f, 4, most);
    fprintf(out, "</script>\n<script>\n%s</script>\n", features_script);
    html_end(out);
    return written;
}
