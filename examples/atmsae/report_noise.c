/* SPDX-License-Identifier: MIT
 *
 * How sure a result is that counts words or texts, and which of several SAEs are therefore told apart.
 *
 * The words are taken as draws of all words that there might be; classes (or tasks) and the SAE as given. A share
 * of the words of one class has Wilson's interval; a mean over classes has the one that follows from those of the
 * classes (Zou and Donner's MOVER): with p_i the shares, l_i .. u_i their intervals, K classes and m the mean,
 *
 *     m - sqrt(sum (p_i - l_i)^2) / K  ..  m + sqrt(sum (u_i - p_i)^2) / K
 */
#include "program.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>

#define Z 1.959963984540054 /* 95 % of a normal variable lie within */

const noisy_key noisy_keys[] = {
    {"absorption", "absorption_interval", true},      {"main_recall", "main_recall_interval", false},
    {"probing_top1", "probing_top1_interval", false}, {"probing_top2", "probing_top2_interval", false},
    {"probing_top5", "probing_top5_interval", false}, {"probing_all", "probing_all_interval", false},
};
const size_t n_noisy_keys = sizeof noisy_keys / sizeof *noisy_keys;

void share_add(shares *self, double share, uint64_t n)
{
    if (!(share >= 0) || n == 0) return;
    const double z2 = Z * Z / (double)n, centre = (share + z2 / 2) / (1 + z2);
    const double half = sqrt(z2 * share * (1 - share) + z2 * z2 / 4) / (1 + z2);
    self->n += 1;
    self->sum += share;
    self->below += pow(share - (centre - half), 2);
    self->above += pow(centre + half - share, 2);
}

void fields_interval(fields *out, const char *name, const shares *s)
{
    char text[80];
    if (s->n > 0)
        snprintf(text, sizeof text, "[%.4f, %.4f]", fmax(0, (s->sum - sqrt(s->below)) / s->n), fmin(1, (s->sum + sqrt(s->above)) / s->n));
    else
        snprintf(text, sizeof text, "null");
    fields_text(out, name, text);
    out->all[out->n - 1].quoted = false;
}

bool report_interval(const report_sae *sae, const noisy_key *key, double *low, double *high)
{
    const char *text = fields_find(&sae->fields, key->interval);
    if (!text || *text != '[') return false;
    char *end;
    *low = strtod(++text, &end); /* null is no number */
    if (end == text || *end != ',') return false;
    text = end + 1;
    *high = strtod(text, &end);
    return end != text && *end == ']';
}

/* Index of the best SAE by the key; n: none has a value. */
static size_t best_of(const report *self, const noisy_key *key)
{
    size_t best = self->n;
    for (size_t i = 0; i < self->n; i++) {
        double value = report_number(&self->sae[i], key->key), limits[2];
        if (!report_interval(&self->sae[i], key, &limits[0], &limits[1])) continue;
        if (best < self->n) {
            const double than = report_number(&self->sae[best], key->key);
            if (!(key->low_is_good ? value < than : value > than)) continue;
        }
        best = i;
    }
    return best;
}

/* Whether the intervals of SAE i and of the best one have something in common. */
static bool overlaps(const report *self, const noisy_key *key, size_t i, size_t best)
{
    double low, high, best_low, best_high;
    return i != best && report_interval(&self->sae[i], key, &low, &high) &&
           report_interval(&self->sae[best], key, &best_low, &best_high) && low <= best_high && best_low <= high;
}

char *order_text(const report *self, const noisy_key *key)
{
    const size_t best = best_of(self, key);
    if (self->n < 2 || best == self->n) return NULL;
    char *text = NULL;
    size_t size, near = 0;
    FILE *out = program_text_open(&text, &size);
    fprintf(out, "%s: %s is %s", key->key, self->sae[best].name, key->low_is_good ? "lowest" : "highest");
    for (size_t i = 0; i < self->n; i++)
        if (overlaps(self, key, i, best)) fprintf(out, "%s%s", near++ ? ", " : ", but within noise of ", self->sae[i].name);
    fputs(near ? "" : ", by more than noise", out);
    return program_text_close(out, &text);
}

void orders_json(FILE *out, const report *self)
{
    const char *separator = "";
    fputc('[', out);
    for (const noisy_key *key = noisy_keys; key < noisy_keys + n_noisy_keys; key++) {
        const size_t best = best_of(self, key);
        size_t near = 0;
        if (self->n < 2 || best == self->n) continue;
        fprintf(out, "%s\n  {\"key\": \"%s\", \"best\": ", separator, key->key);
        json_string(out, self->sae[best].name);
        fputs(", \"within_noise\": [", out);
        for (size_t i = 0; i < self->n; i++) {
            if (!overlaps(self, key, i, best)) continue;
            fputs(near++ ? ", " : "", out);
            json_string(out, self->sae[i].name);
        }
        fputs("]}", out);
        separator = ",";
    }
    fputs("\n]", out);
}
