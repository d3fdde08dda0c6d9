/* SPDX-License-Identifier: MIT
 *
 * lib/kernels: every vector level against plain C, bit for bit; conversions of half floats over all
 * patterns; the matrix product against double precision.
 */
#include "kernels/vec.h"
#include "suite.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAD = 8 }; /* elements before and after an array: for misaligned pointers, and to see strays */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Same bits, or both NaN: which NaN is not promised. */
static bool same(float a, float b) { return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b)); }

/* A small generator of the test's own. */
static uint64_t state;
static uint32_t next32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) ^ (uint32_t)(state >> 51);
}
static float next_float(void) /* spread over a few powers of two, so that rounding shows */
{
    return ((float)(next32() % 20001) - 10000) * 1e-4f * (float)(1 << next32() % 6);
}
static float *random_floats(uint64_t n)
{
    float *x = malloc((size_t)(n + 2 * PAD) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (uint64_t i = 0; i < n + 2 * PAD; i++)
        x[i] = next_float();
    return x;
}

static const uint64_t long_sizes[] = {511, 512, 513, 768, 1023, 2304, 4097, 16384};
enum { SHORT = 301, SIZES = SHORT + sizeof long_sizes / sizeof *long_sizes, LONGEST = 16384 };
static uint64_t size_at(int i) { return i < SHORT ? (uint64_t)i : long_sizes[i - SHORT]; }

/* ---- dot --------------------------------------------------------------------------------------- */

/* The definition in kernels.h, word for word. */
static float dot_by_definition(const float *a, const float *b, uint64_t n)
{
    float lane[64] = {0};
    for (uint64_t j = 0; j < n; j++) {
        volatile float product = a[j] * b[j]; /* volatile: rounded before it is added */
        lane[j % 64] += product;
    }
    for (int half = 32; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

START_TEST(levels)
{
    ck_assert_uint_ge(ams_vec_levels(), 1);
    for (unsigned level = 0; level < ams_vec_levels(); level++)
        printf("vector level %u: %s\n", level, ams_vec_level(level)->name);
    char text[160];
    ams_kernels_describe(text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, ams_vec_level(ams_vec_levels() - 1)->name));
}
END_TEST

START_TEST(dot)
{
    float *a = random_floats(LONGEST), *b = random_floats(LONGEST);
    for (int i = 0; i < SIZES; i++) {
        const uint64_t n = size_at(i);
        for (unsigned shift = 0; shift < PAD; shift += i < SHORT ? 1 : 2) {
            const float *p = a + shift, *q = b + (shift * 5 + 3) % PAD;
            const float expected = dot_by_definition(p, q, n);
            ck_assert(same(ams_dot(p, q, n), expected));
            for (unsigned level = 0; level < ams_vec_levels(); level++)
                ck_assert_msg(same(ams_vec_level(level)->dot(p, q, n), expected), "%s, n = %llu, shift %u",
                              ams_vec_level(level)->name, (unsigned long long)n, shift);
        }
    }
    free(a);
    free(b);
}
END_TEST

START_TEST(dot_is_a_dot_product)
{
    /* The definition above could be wrong together with the code: compare with doubles, and see
     * that each element counts. */
    float *a = random_floats(LONGEST), *b = random_floats(LONGEST);
    for (int i = 0; i < SIZES; i++) {
        const uint64_t n = size_at(i);
        double sum = 0, size = 0;
        for (uint64_t j = 0; j < n; j++) {
            sum += (double)a[j] * (double)b[j];
            size += fabs((double)a[j] * (double)b[j]);
        }
        ck_assert_double_le(fabs((double)ams_dot(a, b, n) - sum), size * ((double)n / 64 + 8) * 0x1p-24);
    }
    for (uint64_t n = 1; n <= 130; n++)
        for (uint64_t j = 0; j < n; j++) {
            float one[130] = {0}, two[130];
            for (uint64_t k = 0; k < n; k++)
                two[k] = (float)(k + 1);
            one[j] = 1;
            ck_assert(ams_dot(one, two, n) == (float)(j + 1));
        }
    free(a);
    free(b);
}
END_TEST

START_TEST(dot_of_special_values)
{
    float a[70] = {0}, b[70] = {0};
    static const float special[] = {INFINITY, -INFINITY, NAN, 0x1p-149f, -0x1p-140f, 0x1.fffffep127f};
    for (size_t s = 0; s < sizeof special / sizeof *special; s++)
        for (uint64_t at = 0; at < 70; at += 23)
            for (int other = 0; other < 3; other++) {
                a[at] = special[s];
                b[at] = other == 0 ? 0 : other == 1 ? 0.5f : -3;
                const float expected = dot_by_definition(a, b, 70);
                for (unsigned level = 0; level < ams_vec_levels(); level++)
                    ck_assert(same(ams_vec_level(level)->dot(a, b, 70), expected));
                a[at] = b[at] = 0;
            }
}
END_TEST

START_TEST(dot_rows)
{
    static const uint64_t widths[] = {1, 5, 63, 64, 65, 100, 130};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (uint64_t count = 0; count <= 19; count++) {
            const uint64_t n = widths[w], ld = n + count % 4;
            float *rows = random_floats(count * ld + n), *x = random_floats(n);
            float out[20];
            for (int i = 0; i < 20; i++)
                out[i] = -7;
            ams_dot_rows(rows + 1, ld, count, x + 1, n, out);
            for (uint64_t i = 0; i < count; i++)
                ck_assert(same(out[i], ams_dot(rows + 1 + i * ld, x + 1, n)));
            ck_assert(out[count] == -7);
            free(rows);
            free(x);
        }
}
END_TEST

/* ---- axpy, adam ------------------------------------------------------------------------------------ */

START_TEST(axpy)
{
    float *x = random_floats(LONGEST), *start = random_floats(LONGEST);
    float *got = random_floats(LONGEST), *expected = random_floats(LONGEST);
    const size_t bytes = (LONGEST + 2 * PAD) * sizeof(float);
    for (int i = 0; i < SIZES; i++) {
        const uint64_t n = size_at(i);
        const unsigned shift = (unsigned)i % PAD;
        const float a = i % 7 == 0 ? 0 : next_float();
        memcpy(expected, start, bytes);
        for (uint64_t j = 0; j < n; j++) {
            volatile float product = a * x[PAD - 1 + j];
            expected[shift + j] += product;
        }
        for (unsigned level = 0; level <= ams_vec_levels(); level++) {
            memcpy(got, start, bytes);
            if (level == ams_vec_levels())
                ams_axpy(got + shift, a, x + PAD - 1, n);
            else
                ams_vec_level(level)->axpy(got + shift, a, x + PAD - 1, n);
            ck_assert_mem_eq(got, expected, bytes);
        }
    }
    free(x);
    free(start);
    free(got);
    free(expected);
}
END_TEST

/* kernels.h's formulas, every operation rounded on its own. */
static void adam_by_definition(float *w, float *m, float *v, const float *g, float scale, uint64_t n, const ams_adam *adam)
{
    for (uint64_t j = 0; j < n; j++) {
        volatile float grad = g ? scale * g[j] : 0, square = grad * grad;
        volatile float keep_m = adam->beta1 * m[j], add_m = adam->rest1 * grad;
        volatile float keep_v = adam->beta2 * v[j], add_v = adam->rest2 * square;
        m[j] = keep_m + add_m;
        v[j] = keep_v + add_v;
        if (fabsf(m[j]) < 1e-30f) m[j] = 0;
        if (v[j] < 1e-36f) v[j] = 0;
        volatile float root = sqrtf(v[j]), below = root * adam->inv_c2, above = adam->rate * m[j];
        volatile float sum = below + adam->eps, change = above / sum;
        w[j] -= change;
    }
}

START_TEST(adam)
{
    static const ams_adam settings[] = {
        {0.9f, 0.1f, 0.999f, 0.001f, 1e-8f, 1e-3f / (1 - 0.9f), 31.638584f},
        {0, 1, 0, 1, 1e-3f, 0.25f, 1},
        {0.5f, 0.5f, 0.9f, 0.1f, 1e-30f, -1e-4f, 2},
    };
    enum { N = 333 };
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++)
        for (int with_gradient = 0; with_gradient < 2; with_gradient++)
            for (uint64_t n = 0; n <= N; n += n < 70 ? 1 : 37) {
                float *w = random_floats(N), *m = random_floats(N), *v = random_floats(N), *g = random_floats(N);
                for (uint64_t j = 0; j < N + 2 * PAD; j++) {
                    v[j] = fabsf(v[j]);
                    if (j % 11 == 0) v[j] = m[j] = g[j] = 0;
                    if (j % 13 == 0) m[j] *= 1e-30f, v[j] *= 1e-36f; /* about to become zero, or not quite */
                }
                const size_t bytes = (N + 2 * PAD) * sizeof(float);
                float start[3][N + 2 * PAD], expected[3][N + 2 * PAD];
                memcpy(start[0], w, bytes);
                memcpy(start[1], m, bytes);
                memcpy(start[2], v, bytes);
                memcpy(expected, start, sizeof expected);
                const float *gradient = with_gradient ? g + 2 : NULL;
                adam_by_definition(expected[0] + 3, expected[1] + 1, expected[2] + 5, gradient, 0.75f, n, &settings[s]);
                for (unsigned level = 0; level <= ams_vec_levels(); level++) {
                    memcpy(w, start[0], bytes);
                    memcpy(m, start[1], bytes);
                    memcpy(v, start[2], bytes);
                    if (level == ams_vec_levels())
                        ams_adam_row(w + 3, m + 1, v + 5, gradient, 0.75f, n, &settings[s]);
                    else
                        ams_vec_level(level)->adam_row(w + 3, m + 1, v + 5, gradient, 0.75f, n, &settings[s]);
                    ck_assert_mem_eq(w, expected[0], bytes);
                    ck_assert_mem_eq(m, expected[1], bytes);
                    ck_assert_mem_eq(v, expected[2], bytes);
                }
                free(w);
                free(m);
                free(v);
                free(g);
            }
}
END_TEST

/* ---- scans -------------------------------------------------------------------------------------------- */

static uint64_t scan_by_definition(const float *x, const float *bias, const float *limit, float fixed, float slack,
                                   uint64_t n, uint32_t *hits)
{
    uint64_t found = 0;
    for (uint64_t j = 0; j < n; j++) {
        volatile float sum = x[j] + bias[j], bound = limit ? limit[j] - slack : fixed;
        if (sum > bound) hits[found++] = (uint32_t)j;
    }
    return found;
}

enum { SCAN_N = 1100 };
static void check_scans(const float *x, const float *bias, const float *limit, float fixed, float slack, uint64_t n)
{
    static uint32_t expected[SCAN_N + 1], got[SCAN_N + 1];
    for (int each = 0; each < 2; each++) {
        const uint64_t count = scan_by_definition(x, bias, each ? limit : NULL, fixed, slack, n, expected);
        for (unsigned level = 0; level <= ams_vec_levels(); level++) {
            memset(got, 0xff, sizeof got);
            uint64_t found;
            if (level == ams_vec_levels())
                found = each ? ams_scan_each(x, bias, limit, slack, n, got) : ams_scan(x, bias, fixed, n, got);
            else
                found = each ? ams_vec_level(level)->scan_each(x, bias, limit, slack, n, got)
                             : ams_vec_level(level)->scan(x, bias, fixed, n, got);
            ck_assert_uint_eq(found, count);
            ck_assert_mem_eq(got, expected, (size_t)count * sizeof *got);
            ck_assert_uint_eq(got[n], UINT32_MAX); /* nothing written past n entries */
        }
    }
}

START_TEST(scan_random)
{
    for (int round = 0; round < 400; round++) {
        const uint64_t n = round < 200 ? (uint64_t)round : next32() % SCAN_N;
        float *x = random_floats(n), *bias = random_floats(n), *limit = random_floats(n);
        check_scans(x + round % 5, bias + round % 3, limit + round % 7, next_float(), next_float(), n);
        free(x);
        free(bias);
        free(limit);
    }
}
END_TEST

START_TEST(scan_edges)
{
    /* Sums exactly at the limit are no hits; one unit above are. NaN never is. */
    static const float values[] = {1, 0x1.000002p0f, 0x1.fffffep-1f, NAN, INFINITY, -INFINITY, 0, -0.0f};
    static const float limits[] = {1, 0, -0.0f, INFINITY, -INFINITY, NAN, -1};
    enum { V = sizeof values / sizeof *values, L = sizeof limits / sizeof *limits, N = 200 };
    float x[N], bias[N], limit[N];
    for (int l = 0; l < L; l++)
        for (int rotate = 0; rotate < V; rotate++)
            for (int b = 0; b < 2; b++) {
                for (int j = 0; j < N; j++) {
                    x[j] = values[(j + rotate) % V];
                    bias[j] = b ? values[j / V % V] : 0;
                    limit[j] = limits[(j / 3 + l) % L];
                }
                check_scans(x, bias, limit, limits[l], b ? 0.5f : 0, N);
            }
    uint32_t hits[N];
    for (int j = 0; j < N; j++)
        x[j] = 2, bias[j] = 1;
    ck_assert_uint_eq(ams_scan(x, bias, 3, N, hits), 0);
    ck_assert_uint_eq(ams_scan(x, bias, 0x1.7ffffep1f, N, hits), N);
}
END_TEST

START_TEST(scan_each_single_hit)
{
    float zero[150] = {0}, x[150] = {0};
    for (uint32_t at = 0; at < 150; at++) {
        x[at] = 1;
        uint32_t hits[150];
        for (unsigned level = 0; level < ams_vec_levels(); level++) {
            ck_assert_uint_eq(ams_vec_level(level)->scan(x, zero, 0.5f, 150, hits), 1);
            ck_assert_uint_eq(hits[0], at);
        }
        x[at] = 0;
    }
}
END_TEST

/* ---- half floats ---------------------------------------------------------------------------------------- */

/* The formats' definitions, by arithmetic in double. */
static double half_value(uint16_t bits, int exponent_bits, int mantissa_bits)
{
    const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
    const int exponent = bits >> mantissa_bits & top;
    const double fraction = (bits & ((1 << mantissa_bits) - 1)) / (double)(1 << mantissa_bits);
    double value;
    if (exponent == top)
        value = fraction > 0 ? (double)NAN : (double)INFINITY;
    else
        value = exponent ? ldexp(1 + fraction, exponent - bias) : ldexp(fraction, 1 - bias);
    return bits >> 15 ? -value : value;
}

START_TEST(half_formats)
{
    enum { ALL = 65536 };
    static uint16_t in[ALL];
    static float out[ALL];
    for (int i = 0; i < ALL; i++)
        in[i] = (uint16_t)i;

    for (unsigned level = 0; level <= ams_vec_levels(); level++) {
        memset(out, 0x55, sizeof out);
        if (level == ams_vec_levels())
            ams_to_f32(out, in, ATMSAE_F16, ALL);
        else
            ams_vec_level(level)->f16_to_f32(out, in, ALL);
        for (int i = 0; i < ALL; i++) {
            ck_assert_msg(same(out[i], (float)half_value((uint16_t)i, 5, 10)), "f16 %04x -> %08x", (unsigned)i, bits_of(out[i]));
            ck_assert(same(out[i], ams_f16_to_f32((uint16_t)i)));
        }
    }
    memset(out, 0x55, sizeof out);
    ams_to_f32(out, in, ATMSAE_BF16, ALL);
    for (int i = 0; i < ALL; i++)
        ck_assert_msg(same(out[i], (float)half_value((uint16_t)i, 8, 7)), "bf16 %04x -> %08x", (unsigned)i, bits_of(out[i]));
#if defined(__FLT16_MAX__)
    ams_to_f32(out, in, ATMSAE_F16, ALL);
    for (int i = 0; i < ALL; i++) {
        _Float16 half;
        memcpy(&half, &in[i], sizeof half);
        ck_assert(same(out[i], (float)half));
    }
#endif
}
END_TEST

START_TEST(rows_of_any_length)
{
    uint16_t in[64];
    for (uint64_t n = 0; n < 40; n++)
        for (unsigned shift = 0; shift < 8; shift++) {
            float out[64];
            for (int i = 0; i < 64; i++) {
                in[i] = (uint16_t)next32() & 0x3fff; /* finite in both formats */
                out[i] = -9;
            }
            static const int32_t types[] = {ATMSAE_F16, ATMSAE_BF16};
            for (int t = 0; t < 2; t++) {
                ams_to_f32(out + 3, in + shift, types[t], n);
                for (uint64_t j = 0; j < n; j++)
                    ck_assert(same(out[3 + j], (float)half_value(in[shift + j], t ? 8 : 5, t ? 7 : 10)));
                ck_assert(out[2] == -9 && out[3 + n] == -9);
            }
            float copy[64];
            memset(copy, 0, sizeof copy);
            ams_to_f32(copy, out, ATMSAE_F32, n);
            ck_assert_mem_eq(copy, out, (size_t)n * sizeof *out);
            ck_assert(copy[n] == 0);
        }
    ck_assert_uint_eq(ams_type_size(ATMSAE_F32), 4);
    ck_assert_uint_eq(ams_type_size(ATMSAE_F16), 2);
    ck_assert_uint_eq(ams_type_size(ATMSAE_BF16), 2);
    ck_assert_uint_eq(ams_type_size(0), 0);
    ck_assert_uint_eq(ams_type_size(4), 0);
    ck_assert_uint_eq(ams_type_size(-1), 0);
}
END_TEST

START_TEST(all_finite)
{
    float x[200];
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const float good[] = {0x1.fffffep127f, -0x1.fffffep127f, 0x1p-149f, -0.0f};
    for (int i = 0; i < 200; i++)
        x[i] = good[i % 4];
    ck_assert(ams_all_finite(x, 0));
    for (uint64_t n = 1; n <= 200; n++)
        ck_assert(ams_all_finite(x, n));
    for (uint64_t at = 0; at < 200; at++)
        for (int b = 0; b < 3; b++) {
            const float old = x[at];
            x[at] = bad[b];
            ck_assert(ams_all_finite(x, at));
            ck_assert(!ams_all_finite(x, at + 1));
            ck_assert(!ams_all_finite(x, 200));
            x[at] = old;
        }
}
END_TEST

/* ---- matrix product ---------------------------------------------------------------------------------------- */

START_TEST(gemm)
{
    static const uint64_t shapes[][3] = {{1, 1, 1},    {1, 7, 3},    {5, 1, 9},     {3, 4, 1},    {16, 16, 16},
                                         {33, 65, 17}, {64, 256, 96}, {100, 50, 300}, {7, 513, 129}, {130, 31, 768}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (uint64_t extra = 0; extra < 4; extra += 3) {
            const uint64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
            const uint64_t lda = k + extra, ldb = k + 2 * extra, ldc = n + extra;
            float *a = random_floats(m * lda), *b = random_floats(n * ldb), *c = random_floats(m * ldc);
            for (uint64_t i = 0; i < m * ldc; i++)
                c[i] = NAN; /* what was there before must not matter */
            ams_gemm_abt(m, n, k, a, lda, b, ldb, c, ldc);
            for (uint64_t i = 0; i < m; i++) {
                for (uint64_t j = 0; j < n; j++) {
                    double sum = 0, size = 0;
                    for (uint64_t l = 0; l < k; l++) {
                        const double product = (double)a[i * lda + l] * (double)b[j * ldb + l];
                        sum += product;
                        size += fabs(product);
                    }
                    ck_assert_double_le(fabs((double)c[i * ldc + j] - sum), ((double)k + 2) * 0x1p-24 * size);
                }
                for (uint64_t j = n; j < ldc; j++)
                    ck_assert(isnan(c[i * ldc + j])); /* between the rows: untouched */
            }
            free(a);
            free(b);
            free(c);
        }
}
END_TEST

START_TEST(gemm_repeats)
{
    enum { M = 130, N = 257, K = 129 };
    float *a = random_floats(M * K), *b = random_floats(N * K), *c = random_floats(M * N), *d = random_floats(M * N);
    ams_gemm_abt(M, N, K, a, K, b, K, c, N);
    for (int again = 0; again < 3; again++) {
        ams_gemm_abt(M, N, K, a, K, b, K, d, N);
        ck_assert_mem_eq(c, d, M * N * sizeof *c);
    }
    free(a);
    free(b);
    free(c);
    free(d);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels");
    TCase *tcase = tcase_create("kernels");
    suite_add_tcase(suite, tcase);
    tcase_add_test(tcase, levels);
    tcase_add_test(tcase, dot);
    tcase_add_test(tcase, dot_is_a_dot_product);
    tcase_add_test(tcase, dot_of_special_values);
    tcase_add_test(tcase, dot_rows);
    tcase_add_test(tcase, axpy);
    tcase_add_test(tcase, adam);
    tcase_add_test(tcase, scan_random);
    tcase_add_test(tcase, scan_edges);
    tcase_add_test(tcase, scan_each_single_hit);
    tcase_add_test(tcase, half_formats);
    tcase_add_test(tcase, rows_of_any_length);
    tcase_add_test(tcase, all_finite);
    tcase_add_test(tcase, gemm);
    tcase_add_test(tcase, gemm_repeats);
    return run_all(suite);
}
