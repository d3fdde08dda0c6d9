/* SPDX-License-Identifier: MIT
 *
 * One block of the product of integers, C [32, 32] = a panel of A times one of B over all of d. panels.c
 * includes this for each level with
 *   SUFFIX(name), TARGET, VL   as in vec_template.h
 *   ROWS                       rows at a time, against 2 VL latents: 2 ROWS sums in registers
 *   DOT(sum, x, w)             sum of int32 + the two products of the pairs of int16 in x and w
 */
typedef int32_t SUFFIX(vi) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t SUFFIX(vu) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef float SUFFIX(vf) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
#define VI SUFFIX(vi)
#define VU SUFFIX(vu)
#define VF SUFFIX(vf)

TARGET static void SUFFIX(block_int16)(const uint16_t *a, const uint16_t *b, uint64_t steps, const float *a_scale,
                                       const float *b_scale, float *c, uint64_t ldc)
{
    for (int row = 0; row < 32; row += ROWS)
        for (int latent = 0; latent < 32; latent += 2 * VL) {
            const uint16_t *x = a + row / 16 * TILE + row % 16 * 32;
            const uint16_t *w0 = b + latent / 16 * TILE + latent % 16 * 2;
            const uint16_t *w1 = b + (latent + VL) / 16 * TILE + (latent + VL) % 16 * 2;
            VU sum[ROWS][2]; /* of what lies in rows that are not there, sums may wrap */
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
                sum[r][0] = sum[r][1] = (VU){0};
            for (uint64_t s = 0; s < steps; s++)
                for (int pair = 0; pair < 16; pair++) {
                    const uint64_t line = s * STEP + (uint64_t)pair * 32;
                    const VI pairs0 = *(const VI *)(w0 + line), pairs1 = *(const VI *)(w1 + line);
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; r++) {
                        int32_t two;
                        memcpy(&two, x + s * STEP + r * 32 + pair * 2, sizeof two);
                        const VI spread = two - (VI){0};
                        sum[r][0] = DOT(sum[r][0], spread, pairs0);
                        sum[r][1] = DOT(sum[r][1], spread, pairs1);
                    }
                }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                float *out = c + (uint64_t)(row + r) * ldc + latent;
                const float *scale = b_scale + latent;
                *(VF *)out = __builtin_convertvector((VI)sum[r][0], VF) * a_scale[row + r] * *(const VF *)scale;
                *(VF *)(out + VL) = __builtin_convertvector((VI)sum[r][1], VF) * a_scale[row + r] * *(const VF *)(scale + VL);
            }
        }
}

#undef VI
#undef VU
#undef VF
#undef SUFFIX
#undef TARGET
#undef VL
#undef ROWS
#undef DOT
