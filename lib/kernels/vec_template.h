/* SPDX-License-Identifier: MIT
 *
 * The vector kernels, written once; vec.c includes this file for each level with
 *   SUFFIX(name)  the level's name of a function
 *   TARGET        its target attribute
 *   VL            floats in a vector
 *   MASK(c)       bit j set if comparison result c is true in element j
 * Multiply and add are two roundings on purpose: fused ones would tie the bits to the CPU.
 */
typedef float SUFFIX(vf) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t SUFFIX(vi) __attribute__((vector_size(VL * 4), aligned(4), may_alias));
#define VF SUFFIX(vf)
#define VI SUFFIX(vi)
#define LOAD(p) (*(const VF *)(p))
#define STORE(p, v) (*(VF *)(p) = (v))
#define SPREAD(x) ((x) - (VF){0})

TARGET static float SUFFIX(dot)(const float *a, const float *b, uint64_t n)
{
    VF sum[64 / VL] = {0};
    uint64_t j = 0;
    for (; j + 64 <= n; j += 64) {
#pragma GCC unroll 16
        for (int l = 0; l < 64 / VL; l++)
            sum[l] += LOAD(a + j + l * VL) * LOAD(b + j + l * VL);
    }
    if (j < n) {
        float tail_a[64] = {0}, tail_b[64] = {0};
        memcpy(tail_a, a + j, (size_t)(n - j) * sizeof *a);
        memcpy(tail_b, b + j, (size_t)(n - j) * sizeof *b);
#pragma GCC unroll 16
        for (int l = 0; l < 64 / VL; l++)
            sum[l] += LOAD(tail_a + l * VL) * LOAD(tail_b + l * VL);
    }
#pragma GCC unroll 16
    for (int half = 32 / VL; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int l = 0; l < half; l++)
            sum[l] += sum[l + half];
    float lane[VL];
    STORE(lane, sum[0]);
    for (int half = VL / 2; half > 0; half /= 2)
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

TARGET static void SUFFIX(adam_row)(float *w, float *m, float *v, const float *g, float scale, uint64_t n,
                                    const ams_adam *adam)
{
    const float b1 = adam->beta1, b2 = adam->beta2, c1 = adam->rest1, c2 = adam->rest2;
    const float rate = adam->rate, inv = adam->inv_c2, eps = adam->eps;
    for (uint64_t j = 0; j < n; j++) {
        float grad = g ? scale * g[j] : 0;
        float mj = b1 * m[j] + c1 * grad;
        float vj = b2 * v[j] + c2 * (grad * grad);
        /* Moments of a latent that has long been silent would fade into subnormals, which are up to
         * a hundred times slower; this far below eps they move nothing. */
        m[j] = fabsf(mj) < 1e-30f ? 0 : mj;
        v[j] = vj < 1e-36f ? 0 : vj;
        /* A step that leaves the floats, which takes absurd rates or moments, stops at their end. */
        float wj = w[j] - rate * m[j] / (sqrtf(v[j]) * inv + eps);
        wj = wj > FLT_MAX ? FLT_MAX : wj;
        w[j] = wj < -FLT_MAX ? -FLT_MAX : wj;
    }
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
#undef SUFFIX
#undef TARGET
#undef VL
#undef MASK
