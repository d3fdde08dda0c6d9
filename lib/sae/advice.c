/* SPDX-License-Identifier: MIT
 *
 * What the rows given to prepare tell about settings that will not turn out well. Warnings in the log: nothing
 * fails for them, and nothing is computed where nobody listens.
 */
#include "kernels/rows.h"
#include "sae/sae.h"

#include <math.h>
#include <string.h>

#define MOST_FLOATS (UINT64_C(1) << 22)
#define MOST_RANK 512
#define LEAST_ROWS 16
#define RANK_SHARE 0.999 /* of what varies, held by as many directions as the rank */
#define UNCENTRED 0.5    /* share of the mean in the squared norm: as much as all that varies */
#define MOSTLY_MEAN 0.9
#define DISTINCT 0.5     /* share of the rows: with fewer different ones they are learnt by heart */
#define OFF_SCALE 10.0   /* times larger or smaller than sqrt(d) */

/* Some rows, evenly spaced, as f32 [n, d]. */
typedef struct sample {
    uint64_t n, d;
    float *x;
    double *mean; /* [d] */
    double *left; /* [n] squared norm */
} sample;

static bool read_sample(sample *s, const ams_rows *rows, const float *weights)
{
    const uint64_t step = ams_max(1, rows->n / s->n), most = s->n;
    s->n = 0;
    for (uint64_t r = 0; r < rows->n && s->n < most; r += step)
        if (!weights || weights[r] > 0)
            ams_to_f32(s->x + s->n++ * s->d, (const char *)rows->data + r * rows->ld * ams_type_size(rows->type), rows->type, s->d);
    return s->n >= LEAST_ROWS;
}

static double squares(const float *x, uint64_t d)
{
    double sum = 0;
    for (uint64_t j = 0; j < d; j++)
        sum += (double)x[j] * (double)x[j];
    return sum;
}

/* Takes the mean off; returns its share of the squared norm. */
static double centre(sample *s)
{
    double before = 0, after = 0;
    memset(s->mean, 0, (size_t)s->d * sizeof *s->mean);
    for (uint64_t r = 0; r < s->n; r++) {
        before += squares(s->x + r * s->d, s->d);
        for (uint64_t j = 0; j < s->d; j++)
            s->mean[j] += (double)s->x[r * s->d + j] / (double)s->n;
    }
    for (uint64_t r = 0; r < s->n; r++) {
        for (uint64_t j = 0; j < s->d; j++)
            s->x[r * s->d + j] -= (float)s->mean[j];
        after += s->left[r] = squares(s->x + r * s->d, s->d);
    }
    return before > 0 ? 1 - after / before : 0;
}

/* Directions that hold RANK_SHARE of the rows, each of which counts the same however long it is; `most` + 1 if
 * there are more than `most`. Gram-Schmidt, the row with the largest rest first. */
static uint64_t rank(sample *s, uint64_t most)
{
    uint64_t n = 0;
    for (uint64_t r = 0; r < s->n; r++) {
        if (!(s->left[r] > 0)) continue;
        const float scale = (float)(1 / sqrt(s->left[r]));
        for (uint64_t j = 0; j < s->d; j++)
            s->x[n * s->d + j] = s->x[r * s->d + j] * scale;
        s->left[n++] = 1;
    }
    for (uint64_t found = 0; found <= most; found++) {
        double rest = 0;
        uint64_t longest = 0;
        for (uint64_t r = 0; r < n; r++) {
            rest += s->left[r];
            if (s->left[r] > s->left[longest]) longest = r;
        }
        if (rest <= (1 - RANK_SHARE) * (double)n) return found;
        double *direction = s->mean;
        const double length = sqrt(squares(s->x + longest * s->d, s->d));
        if (!(length > 0)) return found;
        for (uint64_t j = 0; j < s->d; j++)
            direction[j] = (double)s->x[longest * s->d + j] / length;
        for (uint64_t r = 0; r < n; r++) {
            double along = 0;
            for (uint64_t j = 0; j < s->d; j++)
                along += (double)s->x[r * s->d + j] * direction[j];
            for (uint64_t j = 0; j < s->d; j++)
                s->x[r * s->d + j] -= (float)(along * direction[j]);
            s->left[r] = squares(s->x + r * s->d, s->d);
        }
    }
    return most + 1;
}

/* Rows that are unlike all before them; *others: rows of zeros, which sparse data may have many of, aside. */
static uint64_t count_distinct(const sample *s, uint64_t *others)
{
    uint64_t distinct = 0;
    *others = 0;
    for (uint64_t r = 0; r < s->n; r++) {
        uint64_t before = 0;
        const float *row = s->x + r * s->d;
        if (!(squares(row, s->d) > 0)) continue;
        ++*others;
        while (before < r && memcmp(s->x + before * s->d, row, (size_t)s->d * sizeof *s->x) != 0)
            before++;
        distinct += before == r;
    }
    return distinct;
}

/* share: of the mean in the squared norm of rows. */
static void look_at_mean(atmsae_model *m, double share)
{
    const bool taken_off = m->config.b_dec_init != ATMSAE_B_DEC_ZERO && !m->config.uncentred;
    if (share > UNCENTRED && !taken_off) {
        m->rows_warned = true;
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "rows are not centred: their mean is %.0f %% of their squared norm and %s; latents "
                "will be spent on it: %s", 100 * share,
                m->config.transcoder ? "a transcoder does not take it off" : m->config.uncentred ? "uncentred leaves it in" : "b_dec starts at zero",
                m->config.uncentred ? "subtract the mean from the rows" : "start b_dec at the mean: b_dec_init mean");
    } else if (share > MOSTLY_MEAN && m->config.input_norm == ATMSAE_INPUT_SQRT_D) {
        m->rows_warned = true;
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "rows are not centred: their mean is %.1f %% of their squared norm, so scaling by the "
                "norm leaves what varies %.1f times smaller than settings expect: subtract the mean from the rows",
                100 * share, 1 / sqrt(fmax(1e-12, 1 - share)));
    }
}

/* varying: the length of rows without their mean. Rows that are too large are harmless where k latents are selected by rank;
 * thresholds and penalties are made for one scale. */
static void look_at_scale(atmsae_model *m, double varying)
{
    const double expected = sqrt((double)m->d_in), small = expected / varying, large = varying / expected;
    if (m->config.input_norm != ATMSAE_INPUT_RAW || !(small > OFF_SCALE || (large > OFF_SCALE && !ams_takes_k(m->config.activation)))) return;
    m->rows_warned = true;
    ams_log(m->ctx, ATMSAE_LOG_WARNING, "rows are %.3g times %s than settings expect, which is a norm of sqrt(d_in) = %.3g without the mean: "
            "set input_norm to sqrt-d, which scales them", fmax(small, large), small > large ? "smaller" : "larger", expected);
}

static void look_at_k(atmsae_model *m, sample *s)
{
    const char *name = ams_takes_k(m->config.activation) ? "k" : "target_l0";
    const double k = ams_takes_k(m->config.activation) ? m->config.k : m->config.target_l0;
    if (2 * k > (double)m->d_in && m->d_in >= 8) {
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "%s is near the width of the rows: %g latents for %llu numbers are no sparse code: take %s well below %llu",
                name, k, (unsigned long long)m->d_in, name, (unsigned long long)m->d_in / 2);
        return;
    }
    const uint64_t most = k > 1 && k <= MOST_RANK ? (uint64_t)ceil(k) : 0;
    if (most == 0 || s->n < 2 * most) return;
    const uint64_t found = rank(s, most);
    if ((double)found < k)
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "%s is above the rank of the rows: %g latents a row, but %llu directions hold %.1f %% of "
                "what varies in them: take %s well below %llu", name, k, (unsigned long long)found, 100 * RANK_SHARE, name,
                (unsigned long long)ams_max(2, found));
}

static void advise(atmsae_model *m, sample *s)
{
    uint64_t others;
    const uint64_t distinct = count_distinct(s, &others);
    if (distinct == 0 || (distinct == 1 && others == s->n)) {
        m->rows_warned = true;
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "rows are all the same, so there is nothing to learn: look at what was written in their place");
        return;
    }
    if ((double)distinct < DISTINCT * (double)others)
        ams_log(m->ctx, ATMSAE_LOG_WARNING, "rows repeat: of %llu looked at only %llu differ, and an SAE learns them by heart: give rows that differ",
                (unsigned long long)others, (unsigned long long)distinct);
    look_at_mean(m, centre(s));
    double sum = 0;
    for (uint64_t r = 0; r < s->n; r++)
        sum += s->left[r];
    if (!m->rows_warned && sum > 0) look_at_scale(m, sqrt(sum / (double)s->n));
    look_at_k(m, s);
}

void ams_advise_rows(atmsae_model *m, const ams_rows *rows, const ams_rows *targets, const float *weights)
{
    sample s = {.d = m->d_in};
    m->rows_warned = false;
    ams_advise_norms(m, rows, targets, weights);
    if (m->rows_warned) return;
    s.n = ams_min(ams_min(rows->n, 2 * (uint64_t)MOST_RANK), MOST_FLOATS / m->d_in);
    if (s.n < LEAST_ROWS || !ams_logs(m->ctx, ATMSAE_LOG_WARNING)) return;
    s.x = ams_alloc(m->ctx, s.n * s.d, sizeof *s.x);
    s.mean = ams_alloc(m->ctx, s.d, sizeof *s.mean);
    s.left = ams_alloc(m->ctx, s.n, sizeof *s.left);
    if (s.x && s.mean && s.left && read_sample(&s, rows, weights)) advise(m, &s);
    ams_free(m->ctx, s.x);
    ams_free(m->ctx, s.mean);
    ams_free(m->ctx, s.left);
}
