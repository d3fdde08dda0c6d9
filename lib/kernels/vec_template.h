/* SPDX-License-Identifier: MIT
 *
 * The vector kernels, written once; vec.c includes this file for each level with
 *   SUFFIX(name)  the level's name of a function
 *   TARGET        its target attribute
 *   VL            floats in a vector
 *   MASK(c)       bit j set if comparison result c is true in element j
 *   SQRT(x)       square roots
 *   MUL32(a, b)   products of the lower halves of vectors of 64-bit integers
 * Multiply and add are two roundings on purpose: fused ones would tie the bits to the CPU.
 */
typedef float SUFFIX(vf) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t SUFFIX(vi) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint64_t SUFFIX(vw) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef uint32_t SUFFIX(vh) __attribute__((vector_size(VL * 2), aligned(4), may_alias));
#define VF SUFFIX(vf)
#define VI SUFFIX(vi)
#define VW SUFFIX(vw) /* VL / 2 wide ones */
#define VH SUFFIX(vh) /* their lower halves */
#define LOAD(p) (*(const VF *)(p))
#define STORE(p, v) (*(VF *)(p) = (v))
#define SPREAD(x) ((x) - (VF){0})
#define CLEAR(x, c) ((VF)((VI)(x) & ~(VI)(c))) /* 0 where c */

/* 64 lanes more. */
TARGET static inline void SUFFIX(dot_64)(VF *sum, const float *a, const float *b)
{
#pragma GCC unroll 16
    for (int l = 0; l < 64 / VL; l++)
        sum[l] += LOAD(a + l * VL) * LOAD(b + l * VL);
}

/* The last, incomplete 64, apart so that the loop before it keeps its sums in registers. */
TARGET static __attribute__((noinline)) void SUFFIX(dot_tail)(float *lane, const float *a, const float *b, uint64_t n)
{
    for (uint64_t j = 0; j < n; j++)
        lane[j] += a[j] * b[j];
}

TARGET static float SUFFIX(dot)(const float *a, const float *b, uint64_t n)
{
    VF sum[64 / VL];
#pragma GCC unroll 16
    for (int l = 0; l < 64 / VL; l++)
        sum[l] = SPREAD(0.0f);
    uint64_t j = 0;
    for (; j + 64 <= n; j += 64)
        SUFFIX(dot_64)(sum, a + j, b + j);
    if (j < n) {
        float lane[64];
#pragma GCC unroll 16
        for (int l = 0; l < 64 / VL; l++)
            STORE(lane + l * VL, sum[l]);
        SUFFIX(dot_tail)(lane, a + j, b + j, n - j);
#pragma GCC unroll 16
        for (int l = 0; l < 64 / VL; l++)
            sum[l] = LOAD(lane + l * VL);
    }
#define HALVE(half)                                         \
    _Pragma("GCC unroll 8") for (int l = 0; l < half; l++)  \
        sum[l] += sum[(l + half) % (64 / VL)];
    // cppcheck-suppress arrayIndexOutOfBounds ; sum has that many where VL is that small
    if (VL <= 4) HALVE(8)
    if (VL <= 8) HALVE(4)
    HALVE(2)
    HALVE(1)
#undef HALVE
    float lane[VL];
    STORE(lane, sum[0]);
#pragma GCC unroll 8
    for (int half = VL / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half]; // cppcheck-suppress uninitvar ; STORE wrote it
    return lane[0];
}

TARGET static void SUFFIX(axpy)(float *y, float a, const float *x, uint64_t n)
{
    uint64_t j = 0;
    for (; j + 2 * VL <= n; j += 2 * VL) {
        STORE(y + j, LOAD(y + j) + a * LOAD(x + j));
        STORE(y + j + VL, LOAD(y + j + VL) + a * LOAD(x + j + VL));
    }
    for (; j < n; j++)
        y[j] += a * x[j];
}

TARGET static void SUFFIX(gather_64)(float *y, const float *a, const uint32_t *at, uint32_t first, const float *rows,
                                     uint64_t count)
{
    VF sum[64 / VL];
#pragma GCC unroll 16
    for (int l = 0; l < 64 / VL; l++)
        sum[l] = LOAD(y + l * VL);
    for (uint64_t e = 0; e < count; e++) {
        const float *x = rows + (uint64_t)(at[e] - first) * 64;
        const VF times = SPREAD(a[e]);
#pragma GCC unroll 16
        for (int l = 0; l < 64 / VL; l++)
            sum[l] += times * LOAD(x + l * VL);
    }
#pragma GCC unroll 16
    for (int l = 0; l < 64 / VL; l++)
        STORE(y + l * VL, sum[l]);
}

/* VL elements at w, m and v. */
TARGET static inline void SUFFIX(adam)(float *w, float *m, float *v, VF grad, const ams_adam *adam)
{
    VF mj = adam->beta1 * LOAD(m) + adam->rest1 * grad;
    VF vj = adam->beta2 * LOAD(v) + adam->rest2 * (grad * grad);
    /* Moments of a latent that has long been silent would fade into subnormals, which are up to
     * a hundred times slower; this far below eps they move nothing. */
    mj = CLEAR(mj, (mj < SPREAD(1e-30f)) & (mj > SPREAD(-1e-30f)));
    vj = CLEAR(vj, vj < SPREAD(1e-36f));
    STORE(m, mj);
    STORE(v, vj);
    /* A step that leaves the floats, which takes absurd rates or moments, stops at their end. */
    VF wj = LOAD(w) - adam->rate * mj / (SQRT(vj) * adam->inv_c2 + adam->eps);
    const VI above = wj > SPREAD(FLT_MAX), below = wj < SPREAD(-FLT_MAX);
    STORE(w, (VF)(((VI)wj & ~(above | below)) | ((VI)SPREAD(FLT_MAX) & above) | ((VI)SPREAD(-FLT_MAX) & below)));
}

TARGET static void SUFFIX(adam_row)(float *w, float *m, float *v, const float *g, float scale, uint64_t n,
                                    const ams_adam *adam)
{
    uint64_t j = 0;
    for (; j + VL <= n; j += VL)
        SUFFIX(adam)(w + j, m + j, v + j, g ? scale * LOAD(g + j) : SPREAD(0.0f), adam);
    if (j == n) return;
    float tail[4][VL] = {0};
    float *const from[4] = {w + j, m + j, v + j, NULL};
    const size_t bytes = (size_t)(n - j) * sizeof *w;
    for (int k = 0; k < 3; k++)
        memcpy(tail[k], from[k], bytes);
    if (g) memcpy(tail[3], g + j, bytes);
    SUFFIX(adam)(tail[0], tail[1], tail[2], scale * LOAD(tail[3]), adam);
    for (int k = 0; k < 3; k++)
        memcpy(from[k], tail[k], bytes);
}

/* Most of what a scan sees is below the limit, so 64 elements are tested at once and looked at one
 * by one only where one of them passes. */
#define SCAN_BODY(PASSES)                                                   \
    uint64_t found = 0, j = 0;                                              \
    for (; j + 64 <= n; j += 64) {                                          \
        VI any = {0};                                                       \
        VI hit[64 / VL];                                                    \
        _Pragma("GCC unroll 16") for (int l = 0; l < 64 / VL; l++)          \
        {                                                                   \
            const uint64_t at = j + (uint64_t)(l * VL);                     \
            hit[l] = (VI)(PASSES(at));                                      \
            any |= hit[l];                                                  \
        }                                                                   \
        if (!MASK(any)) continue;                                           \
        for (int l = 0; l < 64 / VL; l++)                                   \
            for (unsigned bits = MASK(hit[l]); bits; bits &= bits - 1)      \
                hits[found++] = (uint32_t)(j + (uint64_t)(l * VL)) + (uint32_t)__builtin_ctz(bits); \
    }

TARGET static uint64_t SUFFIX(scan)(const float *x, const float *bias, float limit, uint64_t n, uint32_t *hits)
{
    const VF spread = SPREAD(limit);
#define PASSES(at) (LOAD(x + (at)) + LOAD(bias + (at)) > spread)
    SCAN_BODY(PASSES)
#undef PASSES
    for (; j < n; j++)
        if (x[j] + bias[j] > limit) hits[found++] = (uint32_t)j;
    return found;
}

TARGET static uint64_t SUFFIX(scan_each)(const float *x, const float *bias, const float *limit, float slack,
                                         uint64_t n, uint32_t *hits)
{
    const VF spread = SPREAD(slack);
#define PASSES(at) (LOAD(x + (at)) + LOAD(bias + (at)) > LOAD(limit + (at)) - spread)
    SCAN_BODY(PASSES)
#undef PASSES
    for (; j < n; j++)
        if (x[j] + bias[j] > limit[j] - slack) hits[found++] = (uint32_t)j;
    return found;
}

#undef SCAN_BODY

/* Words of the counter and key are the lower halves of 64-bit lanes, whose upper halves may hold anything: products take
 * no notice of them. Two vectors at a time, so that one's products run beside the other's. */
TARGET static void SUFFIX(philox_16)(const uint32_t counter[4], const uint32_t key[2], uint32_t out[64])
{
    static const uint64_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const VW zero = {0};
    for (int at = 0; at < 16; at += VL) {
        VW c[4][2];
        for (int w = 0; w < 4; w++)
            for (int l = 0; l < 2; l++)
                c[w][l] = zero + counter[w];
        for (int l = 0; l < 2; l++)
            c[2][l] += *(const VW *)(lane + at + l * VL / 2);
        uint32_t k0 = key[0], k1 = key[1];
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
#pragma GCC unroll 2
            for (int l = 0; l < 2; l++) {
                const VW p0 = MUL32(c[0][l], zero + AMS_PHILOX_M0), p1 = MUL32(c[2][l], zero + AMS_PHILOX_M1);
                c[0][l] = p1 >> 32 ^ c[1][l] ^ (zero + k0);
                c[2][l] = p0 >> 32 ^ c[3][l] ^ (zero + k1);
                c[1][l] = p1;
                c[3][l] = p0;
            }
            k0 += AMS_PHILOX_W0;
            k1 += AMS_PHILOX_W1;
        }
#pragma GCC unroll 4
        for (int w = 0; w < 4; w++)
#pragma GCC unroll 2
            for (int l = 0; l < 2; l++)
                *(VH *)(out + w * 16 + at + l * VL / 2) = __builtin_convertvector(c[w][l], VH);
    }
}

TARGET static uint64_t SUFFIX(below_tail_64)(const uint32_t *words, const float *g, const float *threshold, const float *per_own)
{
    uint64_t possible = 0;
#pragma GCC unroll 16
    for (int l = 0; l < 64; l += VL) {
        const VI u = (VI)LOAD(words + l) >> 1 & INT32_MAX;
        const VF log = __builtin_convertvector((VI)__builtin_convertvector(u, VF), VF) * 0x1p-23f;
        const VF c = (LOAD(threshold + l) - LOAD(g + l)) * LOAD(per_own + l);
        const VI kept = ~((u != 0) & (c > SPREAD(0.0f)) & (log >= 158 - (AMS_TAIL_0 + c * (AMS_TAIL_1 + c * AMS_TAIL_2))));
        possible |= (uint64_t)MASK(kept) << l;
    }
    return possible;
}

#undef VF
#undef VI
#undef VW
#undef VH
#undef MUL32
#undef LOAD
#undef STORE
#undef SPREAD
#undef CLEAR
#undef SQRT
#undef SUFFIX
#undef TARGET
#undef VL
#undef MASK
