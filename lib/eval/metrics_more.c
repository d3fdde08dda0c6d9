/* SPDX-License-Identifier: MIT
 *
 * What else the sums of metrics.c tell: other packages' forms, densities; and merging two of them.
 */
#include "base/elementary.h"
#include "eval/metrics.h"
#include "sae/sae.h"

#include <math.h>

static double ratio(double a, double b) { return b == 0 ? (double)NAN : a / b; }

static atmsae_status details(const atmsae_metrics *m, atmsae_metrics_details *out)
{
    const ams_metric_sums *s = &m->sums;
    atmsae_metrics_details r = {.size = sizeof r, .rows = s->rows};
    double n = (double)s->rows, variance = ams_metrics_variance(m), centred = s->error, fires = 0, over[2] = {0};
    for (uint64_t j = 0; j < m->d_out; j++)
        centred -= m->error_sum[j] * ratio(m->error_sum[j], n);
    r.mse_per_dim = ratio(s->error, n * (double)m->d_out);
    r.explained_variance = variance > 0 ? 1 - s->error / variance : NAN;
    r.explained_variance_centred = variance > 0 ? 1 - centred / variance : NAN;
    r.error_norm = ratio(s->error_norm, n);
    r.norm_ratio = ratio(s->norm_ratio, (double)s->ratios);
    r.saebench_mse = ratio(s->bench_mse, (double)s->batches);
    r.saebench_explained_variance = ratio(s->bench_ev, n);
    for (uint64_t i = 0; i < m->d_sae; i++) {
        double count = (double)m->counts[i];
        fires += count;
        r.alive += count > 0;
        r.over_1_percent += count > 0.01 * n;
        r.over_10_percent += count > 0.1 * n;
        if (count > 0.01 * n) over[0] += count;
        if (count > 0.1 * n) over[1] += count;
    }
    r.alive /= (double)m->d_sae;
    r.over_1_percent /= (double)m->d_sae;
    r.over_10_percent /= (double)m->d_sae;
    r.firings_over_1_percent = ratio(over[0], fires);
    r.firings_over_10_percent = ratio(over[1], fires);
    return ams_struct_out(m->ctx, atmsae_metrics_details, out, &r);
}

atmsae_status atmsae_metrics_get_details(const atmsae_metrics *m, atmsae_metrics_details *out)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, details(m, out), AMS_READS("metrics", m));
}

static atmsae_status histogram(const atmsae_metrics *m, double low, double high, uint64_t n_bins, uint64_t *bins)
{
    AMS_CHECK_ARRAY(m->ctx, "metrics histogram: bins", bins);
    if (n_bins < 1 || n_bins > 1000000 || !(low < high && isfinite(low) && isfinite(high)))
        return ams_fail(m->ctx, ATMSAE_E_ARG, "metrics histogram: low = %g, high = %g, n_bins = %llu, expected low < high, "
                        "1 to 1000000 bins", low, high, (unsigned long long)n_bins);
    for (uint64_t b = 0; b < n_bins; b++)
        bins[b] = 0;
    for (uint64_t i = 0; i < m->d_sae; i++) {
        if (m->counts[i] == 0) continue;
        double at = (ams_log10((double)m->counts[i] / (double)m->sums.rows) - low) / (high - low) * (double)n_bins;
        bins[at < 0 ? 0 : ams_min((uint64_t)at, n_bins - 1)]++;
    }
    return ATMSAE_OK;
}

atmsae_status atmsae_metrics_histogram(const atmsae_metrics *m, double low, double high, uint64_t n_bins, uint64_t *bins)
{
    if (!m) return ATMSAE_E_ARG;
    AMS_CALL(m->ctx, histogram(m, low, high, n_bins, bins), AMS_READS("metrics", m));
}

/* Squares and sums were taken about each one's own y0: moves those of `from` to the y0 of `m`. */
static atmsae_status merge(atmsae_metrics *m, const atmsae_metrics *from)
{
    if (m->d_out != from->d_out || m->d_sae != from->d_sae)
        return ams_fail(m->ctx, ATMSAE_E_ARG, "metrics merge: %llu latents and d_out = %llu, the other has %llu and %llu; "
                        "expected two handles of models of one shape", (unsigned long long)m->d_sae,
                        (unsigned long long)m->d_out, (unsigned long long)from->d_sae, (unsigned long long)from->d_out);
    ams_metric_sums *s = &m->sums;
    const ams_metric_sums *f = &from->sums;
    double n = (double)f->rows;
    if (f->rows == 0) return ATMSAE_OK;
    for (uint64_t j = 0; j < m->d_out; j++) {
        if (s->rows == 0) m->y0[j] = from->y0[j];
        double move = (double)from->y0[j] - (double)m->y0[j];
        s->shifted += 2 * move * from->shift[j] + n * move * move;
        m->shift[j] += from->shift[j] + n * move;
        m->error_sum[j] += from->error_sum[j];
    }
    for (uint64_t i = 0; i < m->d_sae; i++)
        m->counts[i] += from->counts[i];
    s->shifted += f->shifted;
    s->rows += f->rows, s->cosines += f->cosines, s->ratios += f->ratios, s->batches += f->batches;
    const struct {
        double *to, value;
    } sums[] = {{&s->error, f->error}, {&s->cosine, f->cosine}, {&s->l0, f->l0}, {&s->l1, f->l1},
                {&s->recon, f->recon}, {&s->dot, f->dot}, {&s->error_norm, f->error_norm},
                {&s->norm_ratio, f->norm_ratio}, {&s->bench_mse, f->bench_mse}, {&s->bench_ev, f->bench_ev}};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        *sums[i].to += sums[i].value;
    return ATMSAE_OK;
}

atmsae_status atmsae_metrics_merge(atmsae_metrics *m, const atmsae_metrics *from)
{
    AMS_NEED_BOTH("metrics", m, "the other", from);
    if (from == m) return ams_fail(m->ctx, ATMSAE_E_ARG, "metrics merge: the other is the same handle");
    AMS_CALL(m->ctx, merge(m, from), AMS_CHANGES("metrics", m), AMS_READS("other metrics", from));
}
