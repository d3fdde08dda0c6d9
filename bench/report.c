/* SPDX-License-Identifier: MIT
 *
 * The table, the comparisons below it, and the same figures as JSON. How to read it: doc/performance.md.
 */
#include "drive.h"

#include <math.h>
#include <string.h>

static double largest(double a, double b, double c) { return fmax(a, fmax(b, c)); }
static double bandwidth(const machine *m, size_t threads)
{
    const int all = threads > 1;
    return largest(m->read[all], m->copy[all], m->triad[all]);
}
static double gflop(const result *r)
{
    return isnan(r->fact[F_GFLOP]) ? 2e-9 * (double)r->n * (double)r->d * (double)r->F : r->fact[F_GFLOP];
}
static bool is(const result *r, const char *impl) { return strcmp(r->impl, impl) == 0; }
static double aux(const result *r) /* what AuxK adds to a step, s */
{
    return r->median[T_AUX] - r->median[T_FORWARD] - r->median[T_BACKWARD] - r->median[T_UPDATE] - r->median[T_REST];
}

void report_head(const machine *m, FILE *out)
{
    fprintf(out, "%s, %zu threads, BLIS %s with %s kernels\n", m->cpu, m->threads, m->blis, m->kernels);
    fprintf(out, "roofs, 1 thread / %zu: product %.0f / %.0f GFLOP/s; memory read %.1f / %.1f, copy %.1f / %.1f, triad %.1f / %.1f GB/s\n\n",
            m->threads, m->gflops[0], m->gflops[1], m->read[0], m->read[1], m->copy[0], m->copy[1], m->triad[0], m->triad[1]);
}

void report_columns(FILE *out)
{
    fprintf(out, "%-10s %-19s %-13s %-6s %-5s %2s %5s %6s %6s %5s | %6s %6s %6s | %5s %5s %5s %5s | %6s | %7s %6s %4s %4s %5s | %6s %5s | %6s %5s\n",
            "case", "impl", "arch", "mask", "prec", "th", "d", "F", "n", "k", "step", "min", "max", "forwd", "backw", "updat",
            "rest", "alone%", "us/row", "GB", "%GF", "%BW", "up%BW", "MB", "ratio", "L0", "p");
}

static void cell(FILE *out, int width, int digits, double x)
{
    if (isnan(x)) fprintf(out, " %*s", width, "-");
    else fprintf(out, " %*.*f", width, digits, x);
}

void report_row(const machine *m, const result *r, FILE *out)
{
    fprintf(out, "%-10s %-19s %-13s %-6s %-5s %2zu %5zu %6zu %6zu %5zu |", r->group, r->impl, r->arch, r->mask, r->precision,
            r->threads, r->d, r->F, r->n, r->k);
    if (r->problem[0]) {
        fprintf(out, " skipped: %s\n", r->problem);
        return;
    }
    const double step = r->median[T_STEP];
    cell(out, 6, 2, step / r->unit);
    cell(out, 6, 2, r->low[T_STEP] / r->unit);
    cell(out, 6, 2, r->high[T_STEP] / r->unit);
    fprintf(out, " |");
    for (int t = T_FORWARD; t <= T_REST; t++)
        cell(out, 5, 3, r->median[t] / r->unit);
    fprintf(out, " |");
    cell(out, 6, 2, 100 * r->median[T_ALONE] / step);
    fprintf(out, " |");
    cell(out, 7, 1, 1e6 * step / (double)r->n);
    cell(out, 6, 2, r->fact[F_GBYTES]);
    cell(out, 4, 0, 100 * gflop(r) / step / m->gflops[r->threads > 1]);
    cell(out, 4, 0, 100 * r->fact[F_GBYTES] / step / bandwidth(m, r->threads));
    cell(out, 5, 0, 100 * r->fact[F_UPDATE_GBYTES] / r->median[T_UPDATE] / bandwidth(m, r->threads));
    fprintf(out, " |");
    cell(out, 6, 0, r->fact[F_PEAK_MB]);
    cell(out, 5, 2, r->fact[F_PEAK_MB] / r->fact[F_PARAMETERS_MB]);
    fprintf(out, " |");
    cell(out, 6, 1, r->fact[F_L0]);
    cell(out, 5, 3, r->fact[F_MEAN_P]);
    fprintf(out, "\n");
}

/* ---- comparisons --------------------------------------------------------------------------------- */

static const result *find(const result *all, size_t n, const char *group, const char *impl, const char *arch,
                          const char *mask, const char *precision)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(all[i].group, group) && is(&all[i], impl) && !strcmp(all[i].arch, arch) &&
            !strcmp(all[i].mask, mask) && !strcmp(all[i].precision, precision) && !all[i].problem[0])
            return &all[i];
    return NULL;
}

/* Range of a figure over the rows of one case, as "from .. to .., spread %". */
static void range(const result *all, size_t n, const char *group, const char *what, FILE *out,
                  double (*figure)(const result *))
{
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(all[i].group, group) && is(&all[i], "atmsae") && !all[i].problem[0]) {
            low = fmin(low, figure(&all[i]));
            high = fmax(high, figure(&all[i]));
        }
    if (high > 0) fprintf(out, "%s: %.3f to %.3f, largest %.0f %% above smallest\n", what, low, high, 100 * (high / low - 1));
}

static double row_us(const result *r) { return 1e6 * (r->median[T_STEP] - r->median[T_UPDATE]) / (double)r->n; }
static double latent_us(const result *r) { return 1e6 * r->median[T_STEP] / (double)r->F; }

static void threads_note(const result *all, size_t n, FILE *out)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            const result *one = &all[i], *many = &all[j];
            if (!is(one, "atmsae") || !is(many, "atmsae") || strcmp(one->group, "threads") != 0 ||
                strcmp(many->group, "threads") != 0 || strcmp(one->arch, many->arch) != 0 || one->threads != 1 || many->threads < 2)
                continue;
            double step = one->median[T_STEP] / many->median[T_STEP], product = one->unit / many->unit;
            fprintf(out, "threads, %s: 1 to %zu make the step %.2f times as fast, the product %.2f: %.2f of it\n", one->arch,
                    many->threads, step, product, step / product);
        }
}

/* The paper model of doc/performance.md: compute grows with the cores; memory is one socket's. */
static void model_note(const machine *m, const result *r, FILE *out)
{
    const double cores = 64, gb_s = 200, compute = gflop(r) / (cores * m->gflops[0]), memory = r->fact[F_GBYTES] / gb_s;
    fprintf(out, "on paper, %.0f cores like this one and %.0f GB/s: %s takes the larger of %.1f ms (%.0f GFLOP at %.0f GFLOP/s) "
            "and %.1f ms (%.2f GB)\n", cores, gb_s, r->arch, 1e3 * compute, gflop(r), cores * m->gflops[0], 1e3 * memory,
            r->fact[F_GBYTES]);
}

void report_notes(const machine *m, const result *all, size_t n, FILE *out)
{
    fprintf(out, "\n");
    for (size_t i = 0; i < n; i++) {
        const result *r = &all[i];
        if (r->problem[0]) continue;
        if (!isnan(r->median[T_AUX]))
            fprintf(out, "%s, %s: AuxK on 10 %% dead latents adds %.2f products to the step\n", r->group, r->arch,
                    aux(r) / r->unit);
        if (!isnan(r->median[T_SINGLE]))
            fprintf(out, "%s, encoding, %s: one row %.2f ms = %.2f times a read of W_enc (%.2f ms, %.1f GB/s); batch %.2f products\n",
                    r->group, r->arch, 1e3 * r->median[T_SINGLE], r->median[T_SINGLE] / r->median[T_READ],
                    1e3 * r->median[T_READ], 4e-9 * (double)r->d * (double)r->F / r->median[T_READ], r->median[T_STEP] / r->unit);
        if (strncmp(r->impl, "atmsae", 6) != 0 && strcmp(r->arch, "product") != 0) {
            const result *ours = find(all, n, r->group, "atmsae", r->arch, "none", r->precision);
            if (!ours) ours = find(all, n, r->group, "atmsae", r->arch, "none", "fp32");
            if (ours)
                fprintf(out, "%s, %s %s %s: %.1f times the step of atmsae %s, %.1f times its memory\n", r->group, r->impl, r->arch,
                        r->precision, r->median[T_STEP] / ours->median[T_STEP], ours->precision,
                        r->fact[F_PEAK_MB] / ours->fact[F_PEAK_MB]);
        }
        if (is(r, "atmsae") && strcmp(r->mask, "none") != 0) {
            const result *plain = find(all, n, r->group, "atmsae", r->arch, "none", r->precision);
            if (plain)
                fprintf(out, "%s, %s with %s (mean p %.3f): %.3f times the step without\n", r->group, r->arch,
                        strcmp(r->mask, "atm") == 0 ? "ATM" : "hard masks",
                        r->fact[F_MEAN_P], r->median[T_STEP] / plain->median[T_STEP]);
        }
    }
    range(all, n, "rows", "rows, microseconds a row without the update", out, row_us);
    range(all, n, "latents", "latents, microseconds a latent", out, latent_us);
    threads_note(all, n, out);
    const result *topk = find(all, n, "standard", "atmsae", "topk", "none", "fp32");
    if (topk) model_note(m, topk, out);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static void text(FILE *out, const char *key, const char *value)
{
    fprintf(out, "\"%s\": \"", key);
    for (; *value; value++)
        if (*value == '"' || *value == '\\') fprintf(out, "\\%c", *value);
        else if ((unsigned char)*value >= 32) fputc(*value, out);
    fprintf(out, "\", ");
}

static void number(FILE *out, const char *key, double value)
{
    if (isfinite(value)) fprintf(out, "\"%s\": %.6g, ", key, value);
    else fprintf(out, "\"%s\": null, ", key);
}

static void json_row(const result *r, FILE *out)
{
    fprintf(out, "    {");
    text(out, "case", r->group);
    text(out, "impl", r->impl);
    text(out, "arch", r->arch);
    text(out, "mask", r->mask);
    text(out, "precision", r->precision);
    if (r->problem[0]) text(out, "skipped", r->problem);
    number(out, "gemm_units", r->median[T_STEP] / r->unit);
    number(out, "gemm_units_min", r->low[T_STEP] / r->unit);
    number(out, "gemm_units_max", r->high[T_STEP] / r->unit);
    number(out, "unit_seconds", r->unit);
    number(out, "peak_memory_ratio", r->fact[F_PEAK_MB] / r->fact[F_PARAMETERS_MB]);
    if (!isnan(r->median[T_AUX])) number(out, "aux_gemm_units", aux(r) / r->unit);
    for (int t = 0; t < TIMES; t++) {
        char key[TEXT];
        snprintf(key, sizeof key, "%s_seconds", time_name[t]);
        if (!isnan(r->median[t])) number(out, key, r->median[t]);
    }
    for (int f = 0; f < FACTS; f++)
        if (!isnan(r->fact[f])) number(out, fact_name[f], r->fact[f]);
    fprintf(out, "\"threads\": %zu, \"d\": %zu, \"F\": %zu, \"n\": %zu, \"k\": %zu}", r->threads, r->d, r->F, r->n, r->k);
}

void report_json(const machine *m, const result *r, size_t n, FILE *out)
{
    fprintf(out, "{\n  \"machine\": {");
    text(out, "cpu", m->cpu);
    text(out, "blis", m->blis);
    text(out, "blis_kernels", m->kernels);
    text(out, "vector_level", m->level);
    static const char *const name[2] = {"1", "all"};
    for (int i = 0; i < 2; i++) {
        const struct { const char *what; double value; } roof[] = {
            {"gflops", m->gflops[i]}, {"read_gb_s", m->read[i]}, {"copy_gb_s", m->copy[i]}, {"triad_gb_s", m->triad[i]}};
        for (size_t j = 0; j < sizeof roof / sizeof *roof; j++) {
            char key[TEXT];
            snprintf(key, sizeof key, "%s_%s", roof[j].what, name[i]);
            number(out, key, roof[j].value);
        }
    }
    fprintf(out, "\"threads\": %zu},\n  \"results\": [\n", m->threads);
    for (size_t i = 0; i < n; i++) {
        json_row(&r[i], out);
        fprintf(out, i + 1 < n ? ",\n" : "\n");
    }
    fprintf(out, "  ]\n}\n");
}
