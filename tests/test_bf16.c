/* SPDX-License-Identifier: MIT
 *
 * lib/kernels/bf16: packing against a definition of rounding and layout, the product of every level
 * against the instructions' definitions and against double precision, and the bound on rounding. All
 * levels run on every machine: here bf16.c is compiled a second time, with stand-ins for the
 * instructions; the library's own levels run where the CPU has them.
 */
#include "kernels/bf16.h"

#include "bf16_standin.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#define ams_bf16_levels standin_levels
#define ams_bf16_request standin_request
#define ams_bf16_name standin_name
#define ams_bf16_pack_a standin_pack_a
#define ams_bf16_pack_b standin_pack_b
#define ams_bf16_product standin_product
#define ams_bf16_bound standin_bound
#include "kernels/bf16.c"
#undef ams_bf16_levels
#undef ams_bf16_request
#undef ams_bf16_name
#undef ams_bf16_pack_a
#undef ams_bf16_pack_b
#undef ams_bf16_product
#undef ams_bf16_bound

/* ---- values ------------------------------------------------------------------------------------------ */

static uint64_t state;
static uint32_t next32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) ^ (uint32_t)(state >> 51);
}
static float sign(void) { return next32() % 2 ? 1.0f : -1.0f; }
static float usual(void) { return ((float)(next32() % 200001) - 100000) * 1e-5f; }
static float wide(void) { return ldexpf(1 + usual(), (int)(next32() % 80) - 40) * sign(); }
static float any_bits(void) /* finite */
{
    float x;
    do {
        uint32_t bits = next32() << 16 ^ next32();
        memcpy(&x, &bits, sizeof x);
    } while (!isfinite(x));
    return x;
}
static float special(void)
{
    static const float values[] = {0, 0x1p-149f, 0x1.fffffcp-127f, 0x1p-126f, 1, 0x1.01p0f, 0x1.010002p0f, 0x1.03p0f, 0x1.02fffep0f,
                                   0x1.ffp5f, 0x1.fefffep5f, 0x1.fffffep-1f, FLT_MAX, 0x1.fep127f, 0x1.fefffep127f, 0x1.ffp127f};
    return values[next32() % (sizeof values / sizeof *values)] * sign();
}
static float tiny(void) { return usual() * 1e-37f; }      /* around the smallest normal float */
static float small(void) { return usual() * 1e-19f; }     /* products are around it */
static float lossy(void) { return 0x1.01p0f; }            /* a tie: loses all that rounding can */
static float ended(void) { return FLT_MAX * sign(); }
static float large(void) { return usual() * 1e17f; }
typedef float values(void);

static float *make(uint64_t count, values *value)
{
    float *x = malloc((size_t)(count + 1) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (uint64_t i = 0; i < count; i++)
        x[i] = value();
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static double norm(const float *x, uint64_t d)
{
    double sum = 0;
    for (uint64_t j = 0; j < d; j++)
        sum += (double)x[j] * (double)x[j];
    return sqrt(sum);
}

/* ---- packing ------------------------------------------------------------------------------------------- */

/* To 8 significant bits, nearest, ties to even. */
static float rounded(float x)
{
    int exponent;
    if (fabsf(x) < 0x1p-126f) return 0;
    double fraction = frexp((double)x, &exponent), y = ldexp(rint(fraction * 256), exponent - 8);
    return (float)fmax(-0x1.fep127, fmin(0x1.fep127, y));
}

enum { GUARD = 64 };
static uint16_t *new_packed(uint64_t n, uint64_t d)
{
    uint64_t size = ams_bf16_size(n, d) + 2 * GUARD;
    uint16_t *p = aligned_alloc(64, (size_t)(size * 2 + 63) / 64 * 64);
    ck_assert_ptr_nonnull(p);
    for (uint64_t i = 0; i < size; i++)
        p[i] = 0xdead;
    return p + GUARD;
}
static void free_packed(uint16_t *p) { free(p - GUARD); }

static uint64_t place(bool right, uint64_t r, uint64_t j, uint64_t depth)
{
    uint64_t tile = r / 32 * 32 * depth + j / 32 * 1024 + r / 16 % 2 * 512;
    return tile + (right ? j % 32 / 2 * 32 + r % 16 * 2 + j % 2 : r % 16 * 32 + j % 32);
}

typedef void packer(uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d, float *error);
static void base_a(uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d, float *error)
{
    pack(pack_strip_a_base, out, rows, ld, list, n, d, error);
}
static void base_b(uint16_t *out, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d, float *error)
{
    pack(pack_strip_b_base, out, rows, ld, list, n, d, error);
}
static packer *const packers[2][2] = {{ams_bf16_pack_a, base_a}, {ams_bf16_pack_b, base_b}};

static void check_packing(bool right, packer *work, const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d)
{
    uint64_t depth = ams_bf16_depth(d), size = ams_bf16_size(n, d);
    uint16_t *p = new_packed(n, d);
    float *error = malloc((size_t)(n + 1) * sizeof *error);
    error[n] = -5;
    work(p, rows, ld, list, n, d, error);
    must(size % (32 * depth) == 0);
    for (uint64_t r = 0; r < size / depth; r++) {
        const float *x = r < n ? rows + (list ? list[r] : r) * ld : NULL;
        double lost = 0;
        for (uint64_t j = 0; j < depth; j++) {
            float want = x && j < d ? rounded(x[j]) : 0;
            uint32_t bits = (uint32_t)p[place(right, r, j, depth)] << 16;
            must(bits == bits_of(want) || (bits == 0x80000000 && want == 0));
            if (x && j < d) lost += ((double)x[j] - (double)want) * ((double)x[j] - (double)want);
        }
        if (!x) continue;
        lost = sqrt(lost);
        must(lost <= (double)error[r]);
        must((double)error[r] <= 1.002 * lost + 0x1p-149);
        must((double)error[r] <= 1.002 * (0x1p-8 * norm(x, d) + sqrt((double)d) * 0x1p-126));
    }
    must(error[n] == -5);
    for (int i = 1; i <= GUARD; i++)
        must(p[-i] == 0xdead && p[size + (uint64_t)i - 1] == 0xdead);
    free(error);
    free_packed(p);
}

static const uint64_t depths[] = {1, 2, 3, 31, 32, 33, 63, 64, 65, 575, 577, 768};
static const uint64_t counts[] = {1, 3, 15, 16, 17, 31, 32, 33, 65};
enum { DEPTHS = sizeof depths / sizeof *depths, COUNTS = sizeof counts / sizeof *counts };

START_TEST(packing)
{
    values *const kinds[] = {usual, wide, any_bits, special, tiny, small, large, ended};
    for (int i = 0; i < DEPTHS; i++)
        for (int c = 0; c < COUNTS; c++) {
            uint64_t d = depths[i], n = counts[c], ld = d + (uint64_t)c % 4;
            float *rows = make(2 * n * ld, kinds[(i + c) % 8]);
            uint32_t list[65];
            for (uint64_t r = 0; r < n; r++)
                list[r] = next32() % (uint32_t)(2 * n);
            for (int right = 0; right < 2; right++)
                for (int p = 0; p < 2; p++) {
                    check_packing(right, packers[right][p], rows, ld, NULL, n, d);
                    check_packing(right, packers[right][p], rows, ld, list, n, d);
                }
            free(rows);
        }
}
END_TEST

/* Every pattern of the upper 17 bits with the lower ones at 0, 1 and all ones: all ties and their sides. */
START_TEST(all_roundings)
{
    enum { N = 3 << 17, D = 512 };
    float *rows = malloc(N * sizeof *rows);
    for (uint32_t i = 0; i < 1 << 17; i++)
        for (uint32_t low = 0; low < 3; low++) {
            uint32_t bits = i << 15 | (low == 2 ? 0x7fff : low);
            float x;
            memcpy(&x, &bits, sizeof x);
            rows[3 * i + low] = isfinite(x) ? x : 1;
        }
    for (int right = 0; right < 2; right++)
        for (int p = 0; p < 2; p++)
            check_packing(right, packers[right][p], rows, D, NULL, N / D, D);
    free(rows);
}
END_TEST

START_TEST(packing_in_pieces)
{
    enum { N = 133, D = 77 };
    float *rows = make(N * D, usual);
    uint32_t list[N];
    for (uint32_t r = 0; r < N; r++)
        list[r] = r * 7 % N;
    for (int right = 0; right < 2; right++) {
        uint16_t *whole = new_packed(N, D), *pieces = new_packed(N, D);
        packers[right][0](whole, rows, D, list, N, D, NULL);
        for (uint64_t first = 0; first < N; first += 64)
            packers[right][0](pieces + first * ams_bf16_depth(D), rows, D, list + first, ams_min(64, N - first), D, NULL);
        ck_assert_mem_eq(whole, pieces, ams_bf16_size(N, D) * sizeof *whole);
        free_packed(whole);
        free_packed(pieces);
    }
    free(rows);
}
END_TEST

/* ---- the product ---------------------------------------------------------------------------------------- */

/* What an instruction's order gives for one pair of rows. */
static float in_order(unsigned level, const float *x, const float *w, uint64_t d)
{
    float sum = 0;
    uint64_t depth = ams_bf16_depth(d);
    for (uint64_t first = 0; first < depth; first += 32) {
        float lane[2] = {0, 0};
        for (uint64_t j = first; j < first + 32; j++) {
            uint64_t at = level == AMS_BF16_AMX ? j : j ^ 1; /* VDPBF16PS: the second of a pair first */
            float a = at < d ? rounded(x[at]) : 0, b = at < d ? rounded(w[at]) : 0;
            float *to = level == AMS_BF16_AMX ? &lane[at % 2] : &sum;
            *to = standin_flush(fmaf(a, b, *to));
        }
        if (level == AMS_BF16_AMX) sum = standin_flush(sum + standin_flush(lane[0] + lane[1]));
    }
    return sum;
}

static bool same_number(float a, float b) { return bits_of(a) == bits_of(b) || (a == 0 && b == 0); }

typedef struct problem {
    uint64_t m, n, d;
    float *x, *w, *x_error, *w_error;
    uint16_t *a, *b;
} problem;

static problem make_problem(uint64_t m, uint64_t n, uint64_t d, values *x, values *w)
{
    problem p = {m, n, d, make(m * d, x), make(n * d, w), malloc(m * sizeof(float)), malloc(n * sizeof(float)),
                 new_packed(m, d), new_packed(n, d)};
    ams_bf16_pack_a(p.a, p.x, d, NULL, m, d, p.x_error);
    ams_bf16_pack_b(p.b, p.w, d, NULL, n, d, p.w_error);
    /* Rows that are not there may hold anything. */
    uint64_t depth = ams_bf16_depth(d);
    for (uint64_t j = 0; j < depth; j++) {
        for (uint64_t r = m; r < (m + 31) / 32 * 32; r++)
            p.a[place(false, r, j, depth)] = 0x7fc1;
        for (uint64_t r = n; r < (n + 31) / 32 * 32; r++)
            p.b[place(true, r, j, depth)] = 0x7fc1;
    }
    return p;
}
static void free_problem(problem *p)
{
    void *arrays[] = {p->x, p->w, p->x_error, p->w_error};
    for (int i = 0; i < 4; i++)
        free(arrays[i]);
    free_packed(p->a);
    free_packed(p->b);
}

/* The largest share of the bound that was used; every value within it, and nothing else written. */
static double check_values(const problem *p, const float *c, uint64_t ldc)
{
    double most = 0;
    for (uint64_t i = 0; i < p->m; i++) {
        const float *x = p->x + i * p->d;
        const double x_norm = norm(x, p->d);
        for (uint64_t j = 0; j < ldc; j++) {
            if (j >= p->n) {
                must(c[i * ldc + j] == -77);
                continue;
            }
            const float *w = p->w + j * p->d;
            const double bound = ams_bf16_bound(p->d, x_norm, (double)p->x_error[i], norm(w, p->d), (double)p->w_error[j]);
            if (bound == INFINITY) continue;
            double exact = 0;
            for (uint64_t k = 0; k < p->d; k++)
                exact += (double)x[k] * (double)w[k];
            const double off = fabs((double)c[i * ldc + j] - exact);
            if (!(off <= bound)) ck_abort_msg("d = %d: %g is off by %g, bound %g", (int)p->d, (double)c[i * ldc + j], off, bound);
            most = fmax(most, bound > 0 ? off / bound : 0);
        }
    }
    for (int k = 0; k < GUARD; k++)
        must(c[p->m * ldc + (uint64_t)k] == -77);
    return most;
}

static float *new_result(const problem *p, uint64_t ldc)
{
    float *c = malloc((size_t)(p->m * ldc + GUARD) * sizeof *c);
    ck_assert_ptr_nonnull(c);
    for (uint64_t i = 0; i < p->m * ldc + GUARD; i++)
        c[i] = -77;
    return c;
}

/* All levels, stand-ins and the CPU's own. */
static double check_product(uint64_t m, uint64_t n, uint64_t d, values *xs, values *ws)
{
    problem p = make_problem(m, n, d, xs, ws);
    const uint64_t ldc = n + (m + n + d) % 5;
    double most = 0;
    for (unsigned level = 0; level <= AMS_BF16_AMX; level++) {
        float *c = new_result(&p, ldc);
        standin_product(level, m, n, d, p.a, p.b, c, ldc);
        must(tiles.palette == 0);
        must(tiles.configured == tiles.released);
        most = fmax(most, check_values(&p, c, ldc));
        for (uint64_t i = 0; i < m; i++)
            for (uint64_t j = 0; j < n; j++) {
                float want = in_order(level, p.x + i * d, p.w + j * d, d);
                if (isfinite(want) && !same_number(c[i * ldc + j], want))
                    ck_abort_msg("level %u, row %d, latent %d: %a, not %a", level, (int)i, (int)j, (double)c[i * ldc + j], (double)want);
            }
        free(c);
    }
    const unsigned usable = ams_bf16_request();
    for (unsigned level = 0; level <= usable; level++) {
        float *c = new_result(&p, ldc);
        ams_bf16_product(level, m, n, d, p.a, p.b, c, ldc);
        check_values(&p, c, ldc);
        for (uint64_t i = 0; level == AMS_BF16_PORTABLE && i < m; i++)
            for (uint64_t j = 0; j < n; j++) {
                float want = in_order(level, p.x + i * d, p.w + j * d, d);
                must(same_number(c[i * ldc + j], want) || !isfinite(want));
            }
        free(c);
    }
    free_problem(&p);
    return most;
}

START_TEST(levels)
{
    static const char *const names[] = {"portable", "avx512bf16", "amx"};
    const unsigned offered = ams_bf16_levels(), usable = ams_bf16_request();
    ck_assert_uint_ge(offered, 1);
    ck_assert_uint_le(offered, 3);
    ck_assert_uint_lt(usable, offered);
    ck_assert_uint_eq(ams_bf16_request(), usable);
    for (unsigned level = 0; level < offered; level++)
        ck_assert_str_eq(ams_bf16_name(level), names[level]);
    printf("bf16: %u levels, %s usable\n", offered, names[usable]);
}
END_TEST

START_TEST(product)
{
    static const uint64_t sizes[] = {1, 3, 15, 17, 33};
    values *const kinds[] = {usual, wide, small};
    for (int i = 0; i < DEPTHS; i++)
        for (int s = 0; s < 25; s++) {
            if (depths[i] > 100 && s % 4 != i % 4) continue; /* the definitions are slow */
            check_product(sizes[s / 5], sizes[s % 5], depths[i], kinds[s % 3], kinds[s / 3 % 3]);
        }
}
END_TEST

START_TEST(large_product) /* more of B than is kept in cache, and whole panels */
{
    enum { M = 64, N = 352, D = 800 };
    problem p = make_problem(M, N, D, usual, usual);
    float *c[3];
    for (unsigned level = 0; level < 3; level++) {
        c[level] = new_result(&p, N);
        standin_product(level, M, N, D, p.a, p.b, c[level], N);
        check_values(&p, c[level], N);
    }
    ck_assert_mem_eq(c[AMS_BF16_PORTABLE], c[AMS_BF16_AVX512], M * N * sizeof **c);
    for (unsigned level = 1; level <= ams_bf16_request(); level++) {
        float *own = new_result(&p, N);
        ams_bf16_product(level, M, N, D, p.a, p.b, own, N);
        check_values(&p, own, N);
        uint64_t same = 0;
        for (uint64_t i = 0; i < M * N; i++)
            same += same_number(own[i], c[level][i]);
        printf("%s: %d of %d values have the bits of Intel's definition\n", ams_bf16_name(level), (int)same, M * N);
        free(own);
    }
    for (unsigned level = 0; level < 3; level++)
        free(c[level]);
    free_problem(&p);
}
END_TEST

/* ---- the bound --------------------------------------------------------------------------------------------- */

START_TEST(bound)
{
    static const struct {
        values *x, *w;
        double at_least; /* of the bound used, at d = 577 */
    } cases[] = {
        {lossy, lossy, 0.93}, /* same sign, every rounding the worst and downwards */
        {lossy, usual, 0},    {usual, usual, 0},  {wide, wide, 0},   {wide, usual, 0},    {small, small, 0},
        {tiny, usual, 0},     {tiny, large, 0},   {tiny, tiny, 0},   {small, special, 0}, {special, special, 0},
        {any_bits, usual, 0}, {tiny, any_bits, 0}, {ended, ended, 0}, {ended, tiny, 0},    {large, large, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int s = 0; s < 4; s++) {
            static const uint64_t some[] = {2, 33, 96, 577};
            double used = check_product(9, 18, some[s], cases[i].x, cases[i].w);
            if (s == 3) ck_assert_msg(used >= cases[i].at_least, "case %d: %g", (int)i, used);
        }
    /* Without errors what is left is the sums' rounding; it grows with d, and ends where sums overflow. */
    ck_assert(ams_bf16_bound(768, 1, 0, 1, 0) < 1e-4);
    ck_assert(ams_bf16_bound(769, 1, 0, 1, 0) > ams_bf16_bound(768, 1, 0, 1, 0));
    ck_assert(ams_bf16_bound(768, 0x1p63, 0, 0x1p63, 0) < INFINITY);
    ck_assert(ams_bf16_bound(768, 0x1p64, 0, 0x1p63, 0) == INFINITY);
    ck_assert(ams_bf16_bound(1 << 22, 1, 0, 1, 0) < 2);
    ck_assert(ams_bf16_bound(UINT64_C(1) << 23, 1, 0, 1, 0) == INFINITY);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bf16");
    TCase *tcase = tcase_create("bf16");
    tcase_add_test(tcase, levels);
    tcase_add_test(tcase, packing);
    tcase_add_test(tcase, all_roundings);
    tcase_add_test(tcase, packing_in_pieces);
    tcase_add_test(tcase, product);
    tcase_add_test(tcase, large_product);
    tcase_add_test(tcase, bound);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
