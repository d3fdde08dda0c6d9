/* SPDX-License-Identifier: MIT
 *
 * The rule that decides whether one row is absorbed.
 */
#include "eval/absorption.h"

bool ams_split_fires(uint64_t count, const uint32_t *latent, const float *value, const uint32_t *split,
                     uint64_t n_split)
{
    for (uint64_t e = 0; e < count; e++)
        for (uint64_t s = 0; s < n_split; s++)
            if (latent[e] == split[s] && (double)value[e] >= AMS_SILENT) return true;
    return false;
}

bool ams_absorbed_fully(uint64_t count, const uint32_t *latent, const float *value, const double *cosine,
                        const uint32_t *split, uint64_t n_split, double projection)
{
    double most = 0, cosine_of_most = 0;
    if (!(projection > 0) || ams_split_fires(count, latent, value, split, n_split)) return false;
    for (uint64_t e = 0; e < count; e++) {
        double share = (double)value[e] * cosine[latent[e]];
        if (share > most) {
            most = share;
            cosine_of_most = cosine[latent[e]];
        }
    }
    return cosine_of_most >= AMS_MIN_COSINE && most / projection >= AMS_MIN_SHARE;
}
