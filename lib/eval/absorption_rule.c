/* SPDX-License-Identifier: MIT
 *
 * The rules that say whether, or how much of, one row is absorbed; constants as SAEBench's. Where A is
 * not above 0 nothing is absorbed (the originals divide by A = 0).
 */
#include "eval/absorption.h"

#include <math.h>

#define SILENT 1e-8            /* a split latent below this does not fire */
#define FULL_MIN_COSINE 0.025  /* of the absorbing latent with the probe */
#define MIN_COSINE 0.1         /* the same, of each of the ABSORBERS of a fraction */
#define MIN_SHARE 0.4          /* of A that absorbers must supply */
enum { ABSORBERS = 3 };

static bool in_split(const ams_absorption_row *r, uint32_t latent)
{
    for (uint64_t s = 0; s < r->n_split; s++)
        if (r->split[s] == latent) return true;
    return false;
}

/* P_j of entry e */
static double part(const ams_absorption_row *r, uint64_t e)
{
    return (double)r->value[e] * r->cosine[r->latent[e]];
}

bool ams_split_fires(const ams_absorption_row *r)
{
    for (uint64_t e = 0; e < r->count; e++)
        if ((double)r->value[e] >= SILENT && in_split(r, r->latent[e])) return true;
    return false;
}

bool ams_absorbed_fully(const ams_absorption_row *r)
{
    double most = 0, cosine_of_most = 0;
    if (!(r->projection > 0) || ams_split_fires(r)) return false;
    for (uint64_t e = 0; e < r->count; e++) {
        if (!(part(r, e) > most)) continue;
        most = part(r, e);
        cosine_of_most = r->cosine[r->latent[e]];
    }
    return cosine_of_most >= FULL_MIN_COSINE && most / r->projection >= MIN_SHARE;
}

double ams_absorbed_fraction_v060(const ams_absorption_row *r)
{
    double main = 0, top[ABSORBERS] = {0}, absorbed = 0, all = r->projection;
    for (uint64_t e = 0; e < r->count; e++) {
        double p = part(r, e);
        if (in_split(r, r->latent[e])) {
            main += p;
        } else if (r->cosine[r->latent[e]] >= MIN_COSINE) {
            for (int k = 0; k < ABSORBERS; k++) { /* insertion: the largest first */
                double larger = fmax(p, top[k]);
                p = fmin(p, top[k]);
                top[k] = larger;
            }
        }
    }
    for (int k = 0; k < ABSORBERS; k++)
        absorbed += top[k];
    if (!(all > 0) || main >= all || absorbed / all < MIN_SHARE) return 0;
    if (main <= 0) return 1;
    absorbed = fmin(absorbed, all - main);
    return absorbed / (absorbed + main);
}

double ams_absorbed_fraction_v032(const ams_absorption_row *r)
{
    double main = 0, sum = 0;
    for (uint64_t e = 0; e < r->count; e++) {
        sum += part(r, e);
        if (in_split(r, r->latent[e])) main += part(r, e);
    }
    if (!(r->projection > 0) || main >= r->projection || !(sum > 0)) return 0;
    return fmin(fmax((sum - main) / sum, 0), 1);
}
