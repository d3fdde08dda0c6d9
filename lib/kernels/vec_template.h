/* SPDX-License-Identifier: MIT
 *
 * The vector kernels, written once; vec.c includes this file for each level with
 *   SUFFIX(name)  the level's name of a function
 *   TARGET        its target attribute
 *   VL            floats in a vector
 *   MASK(c)       bit j set if comparison result c is true in element j
 *   SQRT(x)       square roots
 * Multiply and add are two roundings on purpose: fused ones would tie the bits to the CPU.
 */
typedef float SUFFIX(vf) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t SUFFIX(vi) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
#define VF SUFFIX(vf)
#define VI SUFFIX(vi)
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
#undef VF
#undef VI
#undef LOAD
#undef STORE
#undef SPREAD
#undef CLEAR
#undef SQRT
#undef SUFFIX
#undef TARGET
#undef VL
#undef MASK
