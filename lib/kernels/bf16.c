/* SPDX-License-Identifier: MIT
 *
 * Packing to bf16, the product of what was packed, and how far it can be off.
 */
#include "kernels/bf16.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#define ON_CPU 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifndef AMS_TARGET /* a test has its own intrinsics */
#include <immintrin.h>
#define AMS_TARGET(features) __attribute__((target(features)))
#endif
#endif

/* A panel is, for each 32 elements of d, two tiles: of A, [16 rows][32 elements]; of B, [16 pairs of
 * elements][16 rows][2]. TDPBF16PS takes such tiles, and a line of a B tile is a vector for VDPBF16PS. */
enum { TILE = 16 * 32, STEP = 2 * TILE };

#ifdef AMS_TARGET
#include "kernels/bf16_blocks.h"
#endif

/* ---- levels ---------------------------------------------------------------------------------------- */

#ifdef ON_CPU
enum { REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 }; /* asm/prctl.h has the former since Linux 5.16 */

/* Intel SDM volume 1, 18.3 (AMX) and 14.3; a kernel that does not know tiles leaves them out of XCR0. */
static bool has_amx(void)
{
    unsigned a, b, c, d, xcr0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return false; /* OSXSAVE: xgetbv works */
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if ((xcr0 & 3u << 17) != 3u << 17) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & 1u << 22) || !(d & 1u << 24)) return false; /* BF16, TILE */
    if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) return false; /* palette 1 */
    return b == (8u << 16 | 64) && (c & 0xffff) == 16;
}
#endif

unsigned ams_bf16_levels(void)
{
#ifdef ON_CPU
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16")) return has_amx() ? 3 : 2;
#endif
    return 1;
}

unsigned ams_bf16_request(void)
{
    unsigned level = ams_bf16_levels() - 1;
#ifdef ON_CPU
    if (level == AMS_BF16_AMX && syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) level--;
#endif
    return level;
}

/* ---- packing ----------------------------------------------------------------------------------------- */

enum { LANES = 8 }; /* of a vector */
typedef float vf __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(LANES * 4), aligned(2), may_alias));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define UPPER_HALVES 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#else
#define UPPER_HALVES 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#endif
#define LOAD(p) (*(const vf *)(p))
#define INLINE static inline __attribute__((always_inline))

/* Floats to those that bf16 has: the upper halves of their bits are the bf16 values. */
INLINE void to_bf16(vf *x)
{
    const vi bits = (vi)*x, size = bits & 0x7fffffff, over = size > 0x7f7f0000; /* bf16's largest */
    const vi held = (size & ~over) | (over & 0x7f7f0000);
    const vi rounded = (held + 0x7fff + ((held >> 16) & 1)) & -0x10000;
    *x = (vf)((rounded | (bits & INT32_MIN)) & (size >= 0x00800000));
}

/* 16 rows, of which `rows` are there, on their way into a panel. */
typedef struct strip {
    const float *row[16];
    unsigned rows;
    vf squares[16]; /* sums of squared rounding errors */
} strip;

/* Elements j .. j + 31 of a strip as a tile of A. */
INLINE void pack_tile(uint16_t *out, strip *s, uint64_t j, uint64_t d)
{
    for (size_t r = 0; r < s->rows; r++) {
        float tail[32]; // cppcheck-suppress variableScope ; x may point to it
        const float *x = s->row[r] + j;
        if (d - j < 32) {
            memset(tail, 0, sizeof tail);
            x = memcpy(tail, x, (size_t)(d - j) * sizeof *x);
        }
        vf squares = s->squares[r];
        for (int l = 0; l < 32; l += 2 * LANES) {
            vf x0 = LOAD(x + l), x1 = LOAD(x + l + LANES);
            to_bf16(&x0);
            to_bf16(&x1);
            const vf lost0 = LOAD(x + l) - x0, lost1 = LOAD(x + l + LANES) - x1; /* exact */
            squares += lost0 * lost0;
            squares += lost1 * lost1;
            *(vh *)(out + r * 32 + l) = __builtin_shufflevector((vh)x0, (vh)x1, UPPER_HALVES);
        }
        s->squares[r] = squares;
    }
    memset(out + (size_t)s->rows * 32, 0, (size_t)(16 - s->rows) * 32 * sizeof *out);
}

INLINE void pack_strip_a(uint16_t *out, strip *s, uint64_t d)
{
    for (uint64_t j = 0; j < d; j += 32)
        pack_tile(out + j / 32 * STEP, s, j, d);
}

INLINE void pack_strip_b(uint16_t *out, strip *s, uint64_t d)
{
    typedef uint32_t pair __attribute__((may_alias));
    _Alignas(64) uint16_t tile[TILE];
    for (uint64_t j = 0; j < d; j += 32) {
        pack_tile(tile, s, j, d);
        const pair *from = (const pair *)tile;
        pair *to = (pair *)(out + j / 32 * STEP);
        for (int p = 0; p < 16; p++)
            for (int r = 0; r < 16; r++)
                to[p * 16 + r] = from[r * 16 + p];
    }
}

typedef void pack_strip(uint16_t *out, strip *s, uint64_t d);
static void pack_strip_a_base(uint16_t *out, strip *s, uint64_t d) { pack_strip_a(out, s, d); }
static void pack_strip_b_base(uint16_t *out, strip *s, uint64_t d) { pack_strip_b(out, s, d); }
#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))
AVX2 static void pack_strip_a_avx2(uint16_t *out, strip *s, uint64_t d) { pack_strip_a(out, s, d); }
AVX2 static void pack_strip_b_avx2(uint16_t *out, strip *s, uint64_t d) { pack_strip_b(out, s, d); }
#define BEST(name) (__builtin_cpu_supports("avx2") ? name##_avx2 : name##_base)
#else
#define BEST(name) name##_base
#endif

/* Of |x - bf16(x)|. The squares may have left a float's range. A lane's sum has a relative error of
 * some d / LANES roundings, its root half of that. */
static float error_above(const vf *squares, const float *x, uint64_t d)
{
    double sum = 0;
    for (int l = 0; l < LANES; l++)
        sum += (double)(*squares)[l];
    if (!(sum > 1e-25 && sum < 1e30)) {
        sum = 0;
        for (uint64_t j = 0; j < d; j++) {
            vf rounded = {x[j]};
            to_bf16(&rounded);
            const double lost = (double)x[j] - (double)rounded[0];
            sum += lost * lost;
        }
    }
    return (float)((1.001 + (double)d * 0x1p-27) * sqrt(sum));
}

static void pack(pack_strip *work, uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n,
                 uint64_t d, float *error)
{
    for (uint64_t first = 0; first < ams_bf16_size(n, 1) / 32; first += 16) {
        strip s = {.rows = first < n ? (unsigned)ams_min(16, n - first) : 0};
        for (unsigned r = 0; r < s.rows; r++)
            s.row[r] = rows + (list ? list[first + r] : first + r) * ld;
        work(out + first / 32 * 32 * ams_bf16_depth(d) + first / 16 % 2 * TILE, &s, d);
        for (unsigned r = 0; error && r < s.rows; r++)
            error[first + r] = error_above(&s.squares[r], s.row[r], d);
    }
}

void ams_bf16_pack_a(uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d,
                     float *error)
{
    pack(BEST(pack_strip_a), out, rows, ld, list, n, d, error);
}

void ams_bf16_pack_b(uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d,
                     float *error)
{
    pack(BEST(pack_strip_b), out, rows, ld, list, n, d, error);
}

/* ---- the product --------------------------------------------------------------------------------------- */

static float from_bf16(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A fused multiply-add as VDPBF16PS does it: the product is exact in double, and rounding the sum twice
 * is rounding it once, 53 bits being more than 2 * 24 + 1 (Figueroa 1995). Subnormal results become 0. */
INLINE float add_product(float sum, float a, float b)
{
    const float rounded = (float)((double)sum + (double)a * (double)b);
    return fabsf(rounded) < 0x1p-126f ? 0 : rounded;
}

/* In the order of VDPBF16PS: of a pair, the second first (Intel SDM volume 2). */
static void block_portable(const uint16_t *a, const uint16_t *b, uint64_t steps, float *c, uint64_t ldc)
{
    for (int r = 0; r < 32; r++)
        memset(c + (uint64_t)r * ldc, 0, 32 * sizeof *c);
    for (uint64_t p = 0; p < 16 * steps; p++)
        for (int half = 1; half >= 0; half--) {
            const uint16_t *pair = a + p / 16 * STEP + p % 16 * 2 + half, *line = b + p / 16 * STEP + p % 16 * 32 + half;
            float w[32];
            for (int j = 0; j < 32; j++)
                w[j] = from_bf16(line[j / 16 * TILE + j % 16 * 2]);
            for (int r = 0; r < 32; r++) {
                float *sum = c + (uint64_t)r * ldc;
                const float x = from_bf16(pair[r / 16 * TILE + r % 16 * 32]);
                for (int j = 0; j < 32; j++)
                    sum[j] = add_product(sum[j], x, w[j]);
            }
        }
}

static const struct level {
    const char *name;
    void (*block)(const uint16_t *a, const uint16_t *b, uint64_t steps, float *c, uint64_t ldc);
    void (*start)(void), (*stop)(void);
} table[] = {
    {"portable", block_portable, NULL, NULL},
#ifdef AMS_TARGET
    {"avx512bf16", block_avx512, NULL, NULL},
    {"amx", block_amx, start_amx, stop_amx},
#endif
};

const char *ams_bf16_name(unsigned level) { return table[level].name; }

enum { CACHED = 512 << 10 }; /* bytes of B that meet all of A before the next ones: they stay in L2 */

void ams_bf16_product(unsigned level, uint64_t m, uint64_t n, uint64_t d, const uint16_t *a, const uint16_t *b,
                      float *c, uint64_t ldc)
{
    const struct level *l = &table[level];
    const uint64_t depth = ams_bf16_depth(d), some = ams_max(1, CACHED / (64 * depth)) * 32;
    if (l->start) l->start();
    for (uint64_t first = 0; first < n; first += some)
        for (uint64_t i = 0; i < m; i += 32)
            for (uint64_t j = first; j < ams_min(n, first + some); j += 32) {
                if (m - i >= 32 && n - j >= 32) {
                    l->block(a + i * depth, b + j * depth, depth / 32, c + i * ldc + j, ldc);
                    continue;
                }
                _Alignas(64) float edge[32 * 32];
                l->block(a + i * depth, b + j * depth, depth / 32, edge, 32);
                for (uint64_t r = 0; r < ams_min(32, m - i); r++)
                    memcpy(c + (i + r) * ldc + j, edge + r * 32, (size_t)ams_min(32, n - j) * sizeof *c);
            }
    if (l->stop) l->stop();
}

/* ---- how far it can be off ------------------------------------------------------------------------------- */

/* With X and W the packed rows, computed - x.w = (computed - X.W) + (X - x).W + x.(W - w). The last two are
 * at most x_error |W| + |x| w_error. The first: each of the d products passes at most d operations, in
 * whatever order, fused or not (padding adds exact zeros), so it is at most g |X| |W|, g = d u / (1 - d u)
 * (Higham 2002, section 3.1). u = 2^-23 here: Intel documents rounding to nearest, 2^-24, but then an
 * instruction that truncates is covered too, for 2 % of the whole at d = 768. Flushing what is below 2^-126
 * to zero, as both instructions always do, loses that much in each of at most 4 d operations, grown by at
 * most 1 + g; inputs below it were made zero in packing, which the packing errors count.
 *
 * Rounding to bf16 loses at most 2^-8 of a value, so without knowing the errors this would be
 * (2^-7 + 2^-16 + g) |x| |w|; measured errors of usual rows are 0.4 times 2^-8. */
double ams_bf16_bound(uint64_t d, double x_norm, double x_error, double w_norm, double w_error)
{
    const double du = (double)d * 0x1p-23, x = x_norm + x_error, w = w_norm + w_error;
    if (du >= 0.75) return INFINITY;
    const double g = du / (1 - du);
    if (!(1.01 * (1 + g) * x * w < 0x1p127)) return INFINITY; /* sums of |X_j W_j| */
    return 1.01 * (x_error * w + x_norm * w_error + g * x * w) + 4 * (double)d * (1 + g) * 0x1p-126;
}
