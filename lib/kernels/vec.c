/* SPDX-License-Identifier: MIT
 *
 * Vector kernels for each instruction-set level, and the choice between them.
 */
#include "vec.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

static float half_bits_to_float(uint16_t half)
{
    /* A half's exponent and mantissa, moved to a float's place, are 2^-112 times its value: exact for
     * subnormals too. */
    union {
        uint32_t bits;
        float value;
    } u = {(uint32_t)(half & 0x7fff) << 13};
    if ((half & 0x7c00) == 0x7c00)
        u.bits |= 0x7f800000;
    else
        u.value *= 0x1p112f;
    u.bits |= (uint32_t)(half & 0x8000) << 16;
    return u.value;
}

static void f16_to_f32_base(float *out, const uint16_t *in, uint64_t n)
{
    for (uint64_t j = 0; j < n; j++)
        out[j] = half_bits_to_float(in[j]);
}

/* Baseline of the architecture: SSE2, NEON or whatever the compiler makes of four floats. */
static inline unsigned mask4(const int32_t *c)
{
    // cppcheck-suppress objectIndex ; c is a vector of four
    return (unsigned)((c[0] & 1) | (c[1] & 2) | (c[2] & 4) | (c[3] & 8));
}
#define SUFFIX(name) JOIN(name, base)
#define TARGET
#define VL 4
#define MASK(c) mask4((const int32_t *)&(c))
#define SQRT(x) ((VF){sqrtf((x)[0]), sqrtf((x)[1]), sqrtf((x)[2]), sqrtf((x)[3])})
#define MUL32(a, b) (((a) & UINT32_MAX) * (b)) /* b's upper halves are 0 */
#include "vec_template.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define SUFFIX(name) JOIN(name, avx2)
#define TARGET __attribute__((target("avx2,f16c")))
#define VL 8
#define MASK(c) ((unsigned)_mm256_movemask_ps((__m256)(c)))
#define SQRT(x) ((VF)_mm256_sqrt_ps((__m256)(x)))
#define MUL32(a, b) ((VW)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#include "vec_template.h"

#define SUFFIX(name) JOIN(name, avx512)
#define TARGET __attribute__((target("avx512f,avx512dq,f16c")))
#define VL 16
#define MASK(c) ((unsigned)_mm512_movepi32_mask((__m512i)(c)))
#define SQRT(x) ((VF)_mm512_sqrt_ps((__m512)(x)))
#define MUL32(a, b) ((VW)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#include "vec_template.h"

__attribute__((target("avx,f16c"))) static void f16_to_f32_f16c(float *out, const uint16_t *in, uint64_t n)
{
    uint64_t j = 0;
    for (; j + 8 <= n; j += 8)
        _mm256_storeu_ps(out + j, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(in + j))));
    for (; j < n; j++)
        out[j] = _cvtsh_ss(in[j]);
}
#endif

static const ams_vec table[] = {
    {"baseline", dot_base, axpy_base, gather_64_base, adam_row_base, scan_base, scan_each_base, philox_16_base,
     below_tail_64_base, f16_to_f32_base},
#if defined(__x86_64__)
    {"avx2", dot_avx2, axpy_avx2, gather_64_avx2, adam_row_avx2, scan_avx2, scan_each_avx2, philox_16_avx2,
     below_tail_64_avx2, f16_to_f32_f16c},
    {"avx512", dot_avx512, axpy_avx512, gather_64_avx512, adam_row_avx512, scan_avx512, scan_each_avx512, philox_16_avx512,
     below_tail_64_avx512, f16_to_f32_f16c},
#endif
};

unsigned ams_vec_levels(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1; /* no F16C without FMA */
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? 3 : 2;
#else
    return 1;
#endif
}

const ams_vec *ams_vec_level(unsigned level) { return &table[level]; }

/* The answer is the same for every caller, so the race to store it is harmless. */
static const ams_vec *best(void)
{
    static const ams_vec *_Atomic chosen;
    const ams_vec *vec = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (!vec) {
        vec = ams_vec_level(ams_vec_levels() - 1);
        atomic_store_explicit(&chosen, vec, memory_order_relaxed);
    }
    return vec;
}

float ams_dot(const float *a, const float *b, uint64_t n) { return best()->dot(a, b, n); }

double ams_norm(const float *x, uint64_t n)
{
    float squares = ams_dot(x, x, n);
    if (squares > 1e-25f && squares < 1e30f) return sqrt((double)squares);
    double sum = 0;
    for (uint64_t j = 0; j < n; j++)
        sum += (double)x[j] * (double)x[j];
    return sqrt(sum);
}

void ams_dot_rows(const float *rows, uint64_t ld, uint64_t count, const float *x, uint64_t n, float *out)
{
    const ams_vec *vec = best();
    for (uint64_t i = 0; i < count; i++)
        out[i] = vec->dot(rows + i * ld, x, n);
}

void ams_axpy(float *y, float a, const float *x, uint64_t n) { best()->axpy(y, a, x, n); }

void ams_gather_64(float *y, const float *a, const uint32_t *at, uint32_t first, const float *rows, uint64_t count)
{
    best()->gather_64(y, a, at, first, rows, count);
}

void ams_adam_row(float *w, float *m, float *v, const float *g, float scale, uint64_t n, const ams_adam *adam)
{
    best()->adam_row(w, m, v, g, scale, n, adam);
}

uint64_t ams_scan(const float *x, const float *bias, float limit, uint64_t n, uint32_t *hits)
{
    return best()->scan(x, bias, limit, n, hits);
}

uint64_t ams_scan_each(const float *x, const float *bias, const float *limit, float slack, uint64_t n, uint32_t *hits)
{
    return best()->scan_each(x, bias, limit, slack, n, hits);
}

void ams_philox_16(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b, uint32_t out[64])
{
    const uint32_t counter[] = {(uint32_t)b, (uint32_t)(b >> 32), (uint32_t)a, (uint32_t)(a >> 32) ^ purpose << 24};
    const uint32_t key[] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    best()->philox_16(counter, key, out);
}

uint64_t ams_below_tail_64(const uint32_t *words, const float *g, const float *threshold, const float *per_own)
{
    return best()->below_tail_64(words, g, threshold, per_own);
}

float ams_f16_to_f32(uint16_t half) { return half_bits_to_float(half); }

size_t ams_type_size(int32_t type)
{
    return type == ATMSAE_F32 ? 4 : type == ATMSAE_F16 || type == ATMSAE_BF16 ? 2 : 0;
}

void ams_to_f32(float *out, const void *in, int32_t type, uint64_t n)
{
    if (type == ATMSAE_F32) {
        memcpy(out, in, (size_t)n * sizeof *out);
    } else if (type == ATMSAE_F16) {
        best()->f16_to_f32(out, in, n);
    } else {
        const uint16_t *half = in;
        for (uint64_t j = 0; j < n; j++) {
            uint32_t bits = (uint32_t)half[j] << 16;
            memcpy(&out[j], &bits, sizeof bits);
        }
    }
}

bool ams_all_finite(const float *x, uint64_t n)
{
    uint32_t bad = 0;
    for (uint64_t j = 0; j < n; j++) {
        uint32_t bits;
        memcpy(&bits, &x[j], sizeof bits);
        bad |= (bits & 0x7f800000) == 0x7f800000;
    }
    return bad == 0;
}
