/* SPDX-License-Identifier: MIT
 *
 * Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 * A draw is a pure function of its position, so any thread count, any order and any restart give
 * the same numbers.
 */
#include "base.h"
#include "elementary.h"

#include <math.h>

void ams_philox(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)b, c1 = (uint32_t)(b >> 32);
    uint32_t c2 = (uint32_t)a, c3 = (uint32_t)(a >> 32) ^ purpose << 24;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)AMS_PHILOX_M0 * c0;
        uint64_t p1 = (uint64_t)AMS_PHILOX_M1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += AMS_PHILOX_W0;
        k1 += AMS_PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void ams_normal2(const uint32_t words[4], double out[2])
{
    double u = ams_uniform(words[0], words[1]), v = ams_uniform(words[2], words[3]);
    double radius = sqrt(-2.0 * ams_ln(1.0 - u)); /* 1 - u is in (0, 1] */
    ams_cos_sin(v, out);
    out[0] *= radius;
    out[1] *= radius;
}
