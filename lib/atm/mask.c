/* SPDX-License-Identifier: MIT
 *
 * A mask's draws: functions of (seed, purpose, step, index), so that any thread, machine or resumed run
 * finds the same.
 */
#include "atm/atm.h"

bool ams_mask_drawn(uint64_t seed, uint32_t purpose, uint64_t step, uint64_t index, double p)
{
    if (!(p > 0)) return false;
    uint32_t words[4];
    ams_philox(seed, purpose, step, index, words);
    return ams_uniform(words[0], words[1]) < p;
}

int32_t atmsae_mask_test(const atmsae_mask *mask, uint64_t row, uint64_t latent)
{
    if (!mask || latent >= mask->d_sae) return 0;
    if (mask->masked && mask->masked[latent]) return 1;
    return mask->p && ams_mask_drawn(mask->seed, AMS_DRAW_ROW_MASK, mask->step, row << 32 | latent, mask->p[latent]);
}
