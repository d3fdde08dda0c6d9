/* SPDX-License-Identifier: MIT
 *
 * Packing to integers or bf16, the product of what was packed, and how far it can be off.
 */
#include "kernels/panels.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define ON_CPU 1
#ifndef AMS_TARGET /* a test has its own tiles */
#define AMS_TARGET(features) __attribute__((target(features)))
#endif
#endif

/* A panel is, for each 32 elements of d, two tiles: of A, [16 rows][32 elements]; of B, [16 pairs of
 * elements][16 rows][2]. TDPBF16PS takes such tiles, and a line of a B tile is a vector for VPDPWSSD. */
enum { TILE = 16 * 32, STEP = 2 * TILE };

#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

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

/* A row's integers: norm and elements stay below 32000 + sqrt(d) / 2, so that sums stay within int32, and an
 * element within int16 although the norm is only nearly right. Exponents are held to 40, far beyond usual
 * rows, so that values are floats. */
enum { LARGEST_NORM = 32000, MOST_EXPONENT = 40 };

/* 16 rows, of which `rows` are there, on their way into a panel. */
typedef struct strip {
    const float *row[16];
    unsigned rows;
    float times[16], scale[16]; /* of integers: powers of two, one the other's inverse */
    vf squares[16];             /* sums of squared rounding errors */
} strip;

/* x becomes what it is rounded to; the upper halves of the result are the 16 bits that stand for it. */
INLINE void round_bf16(vf *x, vi *halves)
{
    const vi bits = (vi)*x, size = bits & 0x7fffffff, over = size > 0x7f7f0000; /* bf16's largest */
    const vi held = (size & ~over) | (over & 0x7f7f0000);
    const vi rounded = (held + 0x7fff + ((held >> 16) & 1)) & -0x10000;
    *halves = (rounded | (bits & INT32_MIN)) & (size >= 0x00800000);
    *x = (vf)*halves;
}

INLINE void round_integer(vf *x, vi *halves, float times, float scale)
{
    const vf shifted = *x * times + 0x1.8p23f; /* whose last bit is worth 1 */
    *halves = (vi)shifted << 16;
    *x = (shifted - 0x1.8p23f) * scale;
}

INLINE void round_any(vf *x, vi *halves, const strip *s, size_t r, bool integers)
{
    if (integers) round_integer(x, halves, s->times[r], s->scale[r]);
    else round_bf16(x, halves);
}

/* Elements j .. j + 31 of a strip as a tile of A. */
INLINE void pack_tile(uint16_t *out, strip *s, uint64_t j, uint64_t d, bool integers)
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
            vi halves0, halves1;
            round_any(&x0, &halves0, s, r, integers);
            round_any(&x1, &halves1, s, r, integers);
            const vf lost0 = LOAD(x + l) - x0, lost1 = LOAD(x + l + LANES) - x1; /* exact */
            squares += lost0 * lost0;
            squares += lost1 * lost1;
            *(vh *)(out + r * 32 + l) = __builtin_shufflevector((vh)halves0, (vh)halves1, UPPER_HALVES);
        }
        s->squares[r] = squares;
    }
    memset(out + (size_t)s->rows * 32, 0, (size_t)(16 - s->rows) * 32 * sizeof *out);
}

/* All of a strip, into a panel of A or, transposed, of B. */
INLINE void pack_strip(uint16_t *out, strip *s, uint64_t d, bool right, bool integers)
{
    typedef uint32_t pair __attribute__((may_alias));
    _Alignas(64) uint16_t tile[TILE];
    for (uint64_t j = 0; j < d; j += 32) {
        pack_tile(right ? tile : out + j / 32 * STEP, s, j, d, integers);
        const pair *from = (const pair *)tile;
        pair *to = (pair *)(out + j / 32 * STEP);
        for (int p = 0; right && p < 16; p++)
            for (int r = 0; r < 16; r++)
                to[p * 16 + r] = from[r * 16 + p];
    }
}

typedef void strip_packer(uint16_t *out, strip *s, uint64_t d);
static void bf16_a_base(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, false, false); }
static void bf16_b_base(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, true, false); }
static void integers_a_base(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, false, true); }
static void integers_b_base(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, true, true); }
static strip_packer *const packers_base[2][2] = {{bf16_a_base, bf16_b_base}, {integers_a_base, integers_b_base}};
#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))
AVX2 static void bf16_a_avx2(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, false, false); }
AVX2 static void bf16_b_avx2(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, true, false); }
AVX2 static void integers_a_avx2(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, false, true); }
AVX2 static void integers_b_avx2(uint16_t *out, strip *s, uint64_t d) { pack_strip(out, s, d, true, true); }
static strip_packer *const packers_avx2[2][2] = {{bf16_a_avx2, bf16_b_avx2}, {integers_a_avx2, integers_b_avx2}};
#define PACKERS (__builtin_cpu_supports("avx2") ? packers_avx2 : packers_base)
#else
#define PACKERS packers_base
#endif

/* Of row r; zeros if it is too large. */
static void choose_scale(strip *s, unsigned r, uint64_t d)
{
    int exponent;
    const double norm = ams_norm(s->row[r], d);
    frexp(LARGEST_NORM / fmax(norm, 1e-30), &exponent);
    exponent = exponent - 1 < MOST_EXPONENT ? exponent - 1 : MOST_EXPONENT;
    const bool fits = exponent >= -MOST_EXPONENT;
    s->times[r] = fits ? ldexpf(1, exponent) : 0;
    s->scale[r] = fits ? ldexpf(1, -exponent) : 0;
}

/* Of |x - what it was rounded to|. The squares may have left a float's range. A lane's sum has a relative
 * error of some d / LANES roundings, its root half of that. */
static float error_above(const strip *s, size_t r, uint64_t d, bool integers)
{
    if (integers && s->times[r] == 0) return INFINITY;
    double sum = 0;
    for (int l = 0; l < LANES; l++)
        sum += (double)s->squares[r][l];
    if (!(sum > 1e-25 && sum < 1e30)) {
        sum = 0;
        for (uint64_t j = 0; j < d; j++) {
            vf rounded = {s->row[r][j]};
            vi halves;
            round_any(&rounded, &halves, s, r, integers);
            const double lost = (double)s->row[r][j] - (double)rounded[0];
            sum += lost * lost;
        }
    }
    return (float)((1.001 + (double)d * 0x1p-27) * sqrt(sum));
}

static void pack(strip_packer *work, bool integers, const ams_panels *out, const float *rows, uint64_t ld,
                 const uint32_t *list, uint64_t n, uint64_t d)
{
    for (uint64_t first = 0; first < ams_panel_rows(n); first += 16) {
        strip s = {.rows = first < n ? (unsigned)ams_min(16, n - first) : 0};
        for (unsigned r = 0; r < s.rows; r++) {
            s.row[r] = rows + (list ? list[first + r] : first + r) * ld;
            if (integers) choose_scale(&s, r, d);
        }
        work(out->values + first / 32 * 32 * ams_panel_depth(d) + first / 16 % 2 * TILE, &s, d);
        memcpy(out->scale + first, s.scale, sizeof s.scale);
        for (unsigned r = 0; r < s.rows; r++)
            out->error[first + r] = error_above(&s, r, d, integers);
    }
}

/* ---- blocks of the product ----------------------------------------------------------------------------- */

#define SUFFIX(name) JOIN(name, base)
#define TARGET
#define VL 4
#define ROWS 4
#define DOT(sum, x, w) ((sum) + (VU)(((x) << 16 >> 16) * ((w) << 16 >> 16)) + (VU)(((x) >> 16) * ((w) >> 16)))
#include "kernels/panels_int16.h"

#ifdef ON_CPU
#define SUFFIX(name) JOIN(name, avx2)
#define TARGET __attribute__((target("avx2")))
#define VL 8
#define ROWS 4
#define DOT(sum, x, w) ((sum) + (VU)_mm256_madd_epi16((__m256i)(x), (__m256i)(w)))
#include "kernels/panels_int16.h"

#define SUFFIX(name) JOIN(name, vnni)
#define TARGET __attribute__((target("avx512f,avx512vnni")))
#define VL 16
#define ROWS 8
#define DOT(sum, x, w) ((VU)_mm512_dpwssd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w)))
#include "kernels/panels_int16.h"
#endif

static float from_bf16(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* In ascending order, unlike AMX; results below 2^-126 are zero, as with AMX. */
static void block_bf16(const uint16_t *a, const uint16_t *b, uint64_t steps, const float *a_scale, const float *b_scale,
                       float *c, uint64_t ldc)
{
    (void)a_scale;
    (void)b_scale;
    for (int r = 0; r < 32; r++)
        memset(c + (uint64_t)r * ldc, 0, 32 * sizeof *c);
    for (uint64_t k = 0; k < 32 * steps; k++) {
        const uint16_t *element = a + k / 32 * STEP + k % 32, *line = b + k / 32 * STEP + k % 32 / 2 * 32 + k % 2;
        float w[32];
        for (int j = 0; j < 32; j++)
            w[j] = from_bf16(line[j / 16 * TILE + j % 16 * 2]);
        for (int r = 0; r < 32; r++) {
            float *sum = c + (uint64_t)r * ldc;
            const float x = from_bf16(element[r / 16 * TILE + r % 16 * 32]);
            for (int j = 0; j < 32; j++) {
                const float rounded = sum[j] + x * w[j];
                sum[j] = fabsf(rounded) < 0x1p-126f ? 0 : rounded;
            }
        }
    }
}

#ifdef AMS_TARGET
#include "kernels/panels_amx.h"
#endif

/* ---- the ways to make it --------------------------------------------------------------------------------- */

struct ams_product {
    const char *name;
    bool integers;
    void (*block)(const uint16_t *a, const uint16_t *b, uint64_t steps, const float *a_scale, const float *b_scale, float *c,
                  uint64_t ldc);
    void (*start)(void), (*stop)(void);
};
static const ams_product table[AMS_PRODUCTS] = {
    [AMS_INT16_PORTABLE] = {"int16 (portable)", true, block_int16_base, NULL, NULL},
    [AMS_BF16_PORTABLE] = {"bf16 (portable)", false, block_bf16, NULL, NULL},
#ifdef ON_CPU
    [AMS_INT16_AVX2] = {"int16 (avx2)", true, block_int16_avx2, NULL, NULL},
    [AMS_INT16_VNNI] = {"int16 (avx512vnni)", true, block_int16_vnni, NULL, NULL},
#endif
#ifdef AMS_TARGET
    [AMS_BF16_AMX] = {"bf16 (amx)", false, block_amx, start_amx, stop_amx},
#endif
};

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

static bool has(unsigned which)
{
    switch (which) {
        case AMS_INT16_AVX2: return __builtin_cpu_supports("avx2");
        case AMS_INT16_VNNI: return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
        case AMS_BF16_AMX: return has_amx();
        default: return true;
    }
}
#else
static bool has(unsigned which) { return which != AMS_BF16_AMX && table[which].block; }
#endif

const ams_product *ams_product_find(unsigned which) { return has(which) ? &table[which] : NULL; }
const char *ams_product_name(const ams_product *product) { return product->name; }

/* With AVX-512 but without VNNI, integers take two instructions and f32 one, of the same width. */
const ams_product *ams_product_fastest(void)
{
#ifdef ON_CPU
    if (has(AMS_INT16_VNNI)) return &table[AMS_INT16_VNNI];
    if (has(AMS_INT16_AVX2) && !__builtin_cpu_supports("avx512f")) return &table[AMS_INT16_AVX2];
#endif
    return NULL;
}

const ams_product *ams_product_request_amx(void)
{
#ifdef ON_CPU
    if (has(AMS_BF16_AMX) && syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0) return &table[AMS_BF16_AMX];
#endif
    return NULL;
}

void ams_pack_a(const ams_product *product, const ams_panels *out, const float *rows, uint64_t ld, const uint32_t *list,
                uint64_t n, uint64_t d)
{
    pack(PACKERS[product->integers][0], product->integers, out, rows, ld, list, n, d);
}

void ams_pack_b(const ams_product *product, const ams_panels *out, const float *rows, uint64_t ld, const uint32_t *list,
                uint64_t n, uint64_t d)
{
    pack(PACKERS[product->integers][1], product->integers, out, rows, ld, list, n, d);
}

enum { CACHED = 512 << 10 }; /* bytes of B that meet all of A before the next ones: they stay in L2 */

void ams_panels_multiply(const ams_product *product, uint64_t m, uint64_t n, uint64_t d, const ams_panels *a,
                         const ams_panels *b, float *c, uint64_t ldc)
{
    const uint64_t depth = ams_panel_depth(d), some = ams_max(1, CACHED / (64 * depth)) * 32;
    if (product->start) product->start();
    for (uint64_t first = 0; first < n; first += some)
        for (uint64_t i = 0; i < m; i += 32)
            for (uint64_t j = first; j < ams_min(n, first + some); j += 32) {
                const bool whole = m - i >= 32 && n - j >= 32;
                _Alignas(64) float edge[32 * 32]; // cppcheck-suppress variableScope ; out may point to it
                float *out = whole ? c + i * ldc + j : edge;
                product->block(a->values + i * depth, b->values + j * depth, depth / 32, a->scale + i, b->scale + j, out,
                               whole ? ldc : 32);
                for (uint64_t r = 0; !whole && r < ams_min(32, m - i); r++)
                    memcpy(c + (i + r) * ldc + j, edge + r * 32, (size_t)ams_min(32, n - j) * sizeof *c);
            }
    if (product->stop) product->stop();
}

/* ---- how far it can be off ------------------------------------------------------------------------------- */

/* With X and W the packed rows, computed - x.w = (computed - X.W) + (X - x).W + x.(W - w). The last two are
 * at most x_error |W| + |x| w_error. The first, at most g |X| |W|:
 *
 * Integers: the sum is exact, and rounded once on its way to a float. So that it is within int32,
 * |X| |W| must be: norms are at most 32000 and rounding adds no more than sqrt(d) / 2.
 *
 * bf16: each of the d products passes at most d operations, in whatever order, fused or not (padding adds
 * exact zeros), so g = d u / (1 - d u) (Higham 2002, section 3.1). u = 2^-23 here: Intel documents rounding
 * to nearest, 2^-24, but then an instruction that truncates is covered too, for 2 % of the whole at
 * d = 768. Flushing what is below 2^-126 to zero, as AMX always does, loses that much in each of at most
 * 4 d operations, grown by at most 1 + g; inputs below it were made zero in packing, which the packing
 * errors count.
 *
 * Rounding to bf16 loses at most 2^-8 of a value, so without knowing the errors this would be
 * (2^-7 + 2^-16 + g) |x| |w|; measured errors of usual rows are 0.4 times 2^-8. Integers of a row lose
 * sqrt(d / 12) of 16000 to 32000, 1/20 of that at d = 768. */
double ams_product_bound(const ams_product *product, uint64_t d, double x_norm, double x_error, double w_norm, double w_error)
{
    const double x = x_norm + x_error, w = w_norm + w_error;
    if (product->integers) {
        if (d > UINT64_C(1) << 28 || !(x_error < INFINITY && w_error < INFINITY)) return INFINITY;
        return 1.01 * (x_error * w + x_norm * w_error + 0x1p-24 * x * w);
    }
    const double du = (double)d * 0x1p-23;
    if (du >= 0.75) return INFINITY;
    const double g = du / (1 - du);
    if (!(1.01 * (1 + g) * x * w < 0x1p127)) return INFINITY; /* sums of |X_j W_j| */
    return 1.01 * (x_error * w + x_norm * w_error + g * x * w) + 4 * (double)d * (1 + g) * 0x1p-126;
}
