/* SPDX-License-Identifier: MIT
 *
 * lib/kernels/panels: packing against a definition of rounding and layout, every product against its
 * definition (sums of integers are exact; AMX's order is Intel's) and against double precision, and the
 * bound on rounding. AMX runs on every machine: here panels.c is compiled a second time, with stand-ins
 * for its instructions; the library's own products run where the CPU has them.
 */
#include "kernels/panels.h"

#include "amx_standin.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#define ams_product_find standin_product_find
#define ams_product_name standin_product_name
#define ams_product_fastest standin_product_fastest
#define ams_product_request_amx standin_product_request_amx
#define ams_pack_a standin_pack_a
#define ams_pack_b standin_pack_b
#define ams_panels_multiply standin_multiply
#define ams_product_bound standin_bound
#include "kernels/panels.c"
#include "suite.h"
#undef ams_product_find
#undef ams_product_name
#undef ams_product_fastest
#undef ams_product_request_amx
#undef ams_pack_a
#undef ams_pack_b
#undef ams_panels_multiply
#undef ams_product_bound

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

/* Scale of a row's integers: the power of two that brings its norm into 16000 .. 32000, but none beyond
 * 2^40; 0 for rows that would need more. Norms are only nearly right, so either neighbour will do. */
static bool right_scale(const float *x, uint64_t d, float scale)
{
    const double size = norm(x, d);
    if (scale == 0) return size > 31000 * 0x1p40;
    const double scaled = size / (double)scale;
    int exponent;
    if (frexpf(scale, &exponent) != 0.5f || abs(exponent - 1) > 40) return false;
    return (scaled > 15990 || exponent - 1 == -40) && scaled < 32010;
}

enum { GUARD = 64 };
typedef struct packed {
    ams_panels panels;
    uint64_t size, rows;
} packed;
static packed new_packed(uint64_t n, uint64_t d)
{
    packed p = {.size = ams_panel_size(n, d) + 2 * GUARD, .rows = ams_panel_rows(n)};
    uint16_t *halves = aligned_alloc(64, (size_t)(p.size * 2 + 63) / 64 * 64);
    float *floats = malloc((size_t)(2 * p.rows + 2) * sizeof *floats);
    ck_assert(halves && floats);
    for (uint64_t i = 0; i < p.size; i++)
        halves[i] = 0xdead;
    for (uint64_t i = 0; i < 2 * p.rows + 2; i++)
        floats[i] = -5;
    p.panels = (ams_panels){halves + GUARD, floats, floats + p.rows + 1};
    return p;
}
static void free_packed(packed *p)
{
    free(p->panels.values - GUARD);
    free(p->panels.scale);
}

static uint64_t place(bool right, uint64_t r, uint64_t j, uint64_t depth)
{
    uint64_t tile = r / 32 * 32 * depth + j / 32 * 1024 + r / 16 % 2 * 512;
    return tile + (right ? j % 32 / 2 * 32 + r % 16 * 2 + j % 2 : r % 16 * 32 + j % 32);
}

/* Vector and plain code for both sides: the library's packers, and those of the lowest level. */
static void pack_by(bool base, bool right, const ams_product *product, const ams_panels *out, const float *rows, uint64_t ld,
                    const uint32_t *list, uint64_t n, uint64_t d)
{
    if (base) pack(packers_base[product->integers][right], product->integers, out, rows, ld, list, n, d);
    else (right ? ams_pack_b : ams_pack_a)(product, out, rows, ld, list, n, d);
}

static void check_packing(bool base, bool right, const ams_product *product, const float *rows, uint64_t ld,
                          const uint32_t *list, uint64_t n, uint64_t d)
{
    const uint64_t depth = ams_panel_depth(d);
    packed p = new_packed(n, d);
    pack_by(base, right, product, &p.panels, rows, ld, list, n, d);
    for (uint64_t r = 0; r < p.rows; r++) {
        const float *x = r < n ? rows + (list ? list[r] : r) * ld : NULL;
        const float scale = product->integers && x ? p.panels.scale[r] : 0;
        must(!x || !product->integers || right_scale(x, d, scale));
        if (product->integers && x && scale == 0) {
            must(p.panels.error[r] == INFINITY);
            continue;
        }
        double lost = 0;
        for (uint64_t j = 0; j < depth; j++) {
            const uint16_t half = p.panels.values[place(right, r, j, depth)];
            double got, want;
            if (product->integers) {
                got = (double)(int16_t)half * (double)scale;
                want = x && j < d ? rint((double)x[j] / (double)scale) * (double)scale : 0;
            } else {
                got = (double)from_bf16(half);
                want = x && j < d ? (double)rounded(x[j]) : 0;
            }
            must(got == want);
            if (x && j < d) lost += ((double)x[j] - want) * ((double)x[j] - want);
        }
        if (!x) continue;
        lost = sqrt(lost);
        const double error = (double)p.panels.error[r], size = norm(x, d), root = sqrt((double)d);
        must(lost <= error);
        must(error <= 1.002 * lost + 0x1p-149);
        if (product->integers) must(error <= 1.002 * root / 2 * fmax(size / 15990, 0x1p-40));
        else must(error <= 1.002 * (0x1p-8 * size + root * 0x1p-126));
    }
    for (uint64_t r = n; r <= p.rows; r++)
        must(p.panels.error[r] == -5);
    must(p.panels.scale[p.rows] == -5);
    for (int i = 1; i <= GUARD; i++)
        must(p.panels.values[-i] == 0xdead && p.panels.values[p.size - 2 * GUARD + (uint64_t)i - 1] == 0xdead);
    free_packed(&p);
}
static void check_packers(const float *rows, uint64_t ld, const uint32_t *list, uint64_t n, uint64_t d)
{
    for (int i = 0; i < 8; i++)
        check_packing(i % 2, i / 2 % 2, &table[i / 4 ? AMS_INT16_PORTABLE : AMS_BF16_PORTABLE], rows, ld, list, n, d);
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
            check_packers(rows, ld, NULL, n, d);
            check_packers(rows, ld, list, n, d);
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
    check_packers(rows, D, NULL, N / D, D);
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
    for (int i = 0; i < 4; i++) {
        const ams_product *product = &table[i / 2 ? AMS_INT16_PORTABLE : AMS_BF16_PORTABLE];
        packed whole = new_packed(N, D), pieces = new_packed(N, D);
        pack_by(false, i % 2, product, &whole.panels, rows, D, list, N, D);
        for (uint64_t first = 0; first < N; first += 64) {
            const ams_panels piece = ams_panels_from(&pieces.panels, first, D);
            pack_by(false, i % 2, product, &piece, rows, D, list + first, ams_min(64, N - first), D);
        }
        ck_assert_mem_eq(whole.panels.values, pieces.panels.values, ams_panel_size(N, D) * sizeof *whole.panels.values);
        ck_assert_mem_eq(whole.panels.error, pieces.panels.error, N * sizeof *whole.panels.error);
        ck_assert_mem_eq(whole.panels.scale, pieces.panels.scale, whole.rows * sizeof *whole.panels.scale);
        free_packed(&whole);
        free_packed(&pieces);
    }
    free(rows);
}
END_TEST

/* ---- the product ---------------------------------------------------------------------------------------- */

typedef struct problem {
    const ams_product *product;
    uint64_t m, n, d;
    const float *x, *w;
    packed a, b;
} problem;

/* What bf16 gives for one pair of rows, in the order of AMX or the ascending one. A product of two bf16 is
 * exact, so fused or not is the same but under valgrind, whose fmaf rounds twice. */
static float in_order(const ams_product *product, const float *x, const float *w, uint64_t d)
{
    const bool amx = product == &table[AMS_BF16_AMX];
    float sum = 0;
    for (uint64_t first = 0; first < d; first += 32) {
        float lane[2] = {0, 0};
        for (uint64_t j = first; j < ams_min(d, first + 32); j++) {
            float *to = amx ? &lane[j % 2] : &sum;
            const float a = rounded(x[j]), b = rounded(w[j]);
            *to = standin_flush(amx ? fmaf(a, b, *to) : *to + a * b);
        }
        if (amx) sum = standin_flush(sum + standin_flush(lane[0] + lane[1]));
    }
    return sum;
}

/* What integers give: the exact sum, rounded once. */
static float exact_sum(const problem *p, uint64_t i, uint64_t j)
{
    const uint64_t depth = ams_panel_depth(p->d);
    int64_t sum = 0;
    for (uint64_t k = 0; k < p->d; k++)
        sum += (int64_t)(int16_t)p->a.panels.values[place(false, i, k, depth)] *
               (int64_t)(int16_t)p->b.panels.values[place(true, j, k, depth)];
    must(sum >= INT32_MIN && sum <= INT32_MAX);
    return (float)sum * p->a.panels.scale[i] * p->b.panels.scale[j];
}

static bool same_number(float a, float b) { return bits_of(a) == bits_of(b) || (a == 0 && b == 0); }

static problem pack_problem(const ams_product *product, uint64_t m, uint64_t n, uint64_t d, const float *x, const float *w)
{
    problem p = {product, m, n, d, x, w, new_packed(m, d), new_packed(n, d)};
    ams_pack_a(product, &p.a.panels, x, d, NULL, m, d);
    ams_pack_b(product, &p.b.panels, w, d, NULL, n, d);
    /* Rows that are not there may hold anything. */
    uint64_t depth = ams_panel_depth(d);
    for (uint64_t j = 0; j < depth; j++) {
        for (uint64_t r = m; r < p.a.rows; r++)
            p.a.panels.values[place(false, r, j, depth)] = 0x7fc1;
        for (uint64_t r = n; r < p.b.rows; r++)
            p.b.panels.values[place(true, r, j, depth)] = 0x7fc1;
    }
    return p;
}
static void free_problem(problem *p)
{
    free_packed(&p->a);
    free_packed(&p->b);
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
            const double bound = ams_product_bound(p->product, p->d, x_norm, (double)p->a.panels.error[i], norm(w, p->d),
                                                   (double)p->b.panels.error[j]);
            if (bound == INFINITY) continue;
            double exact = 0;
            for (uint64_t k = 0; k < p->d; k++)
                exact += (double)x[k] * (double)w[k];
            const double off = fabs((double)c[i * ldc + j] - exact);
            if (!(off <= bound)) ck_abort_msg("d = %d: %g is off by %g, bound %g", (int)p->d, (double)c[i * ldc + j], off, bound);
            const float want = p->product->integers ? exact_sum(p, i, j) : in_order(p->product, x, w, p->d);
            if (p->product != ams_product_find(AMS_BF16_AMX) && isfinite(want) && !same_number(c[i * ldc + j], want))
                ck_abort_msg("%s, row %d, latent %d: %a, not %a", p->product->name, (int)i, (int)j, (double)c[i * ldc + j], (double)want);
            most = fmax(most, bound > 0 ? off / bound : 0);
        }
    }
    for (int k = 0; k < GUARD; k++)
        must(c[p->m * ldc + (uint64_t)k] == -77);
    return most;
}

/* Products of this CPU, each a definition of itself but AMX, and AMX's stand-in. */
static const ams_product *product_of(unsigned i)
{
    if (i == AMS_PRODUCTS) return &table[AMS_BF16_AMX];
    return i == AMS_BF16_AMX ? ams_product_request_amx() : ams_product_find(i);
}

/* The largest share of the bound that integers and that bf16 used. */
typedef struct used { double of[2]; } used;
static used check_product(uint64_t m, uint64_t n, uint64_t d, values *xs, values *ws)
{
    const uint64_t ldc = n + (m + n + d) % 5;
    float *x = make(m * d, xs), *w = make(n * d, ws), *c = malloc((size_t)(m * ldc + GUARD) * sizeof *c);
    ck_assert_ptr_nonnull(c);
    used most = {{0, 0}};
    for (unsigned which = 0; which <= AMS_PRODUCTS; which++) {
        const ams_product *product = product_of(which);
        if (!product) continue;
        problem p = pack_problem(product, m, n, d, x, w);
        for (uint64_t i = 0; i < m * ldc + GUARD; i++)
            c[i] = -77;
        (which == AMS_PRODUCTS ? standin_multiply : ams_panels_multiply)(product, m, n, d, &p.a.panels, &p.b.panels, c, ldc);
        must(tiles.palette == 0 && tiles.configured == tiles.released);
        most.of[!product->integers] = fmax(most.of[!product->integers], check_values(&p, c, ldc));
        free_problem(&p);
    }
    free(x);
    free(w);
    free(c);
    return most;
}

START_TEST(products)
{
    ck_assert_ptr_nonnull(ams_product_find(AMS_INT16_PORTABLE));
    ck_assert_ptr_nonnull(ams_product_find(AMS_BF16_PORTABLE));
    const ams_product *amx = ams_product_request_amx(), *fastest = ams_product_fastest();
    ck_assert_ptr_eq(ams_product_request_amx(), amx);
    for (unsigned i = 0; i < AMS_PRODUCTS; i++)
        if (ams_product_find(i)) printf("%s is here\n", ams_product_name(ams_product_find(i)));
    printf("fastest: %s; bf16: %s\n", fastest ? ams_product_name(fastest) : "BLIS", amx ? ams_product_name(amx) : "none");
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
    check_product(64, 352, 800, usual, usual); /* more of B than is kept in cache, and whole panels */
}
END_TEST

/* Sums far from 0: all elements of one size, all products of one sign. The first loses nearly 1/2 in each
 * integer, at d = 577. */
static float halfway(void) { return 0x1.001ff8p0f; }
static float negative(void) { return -1.3312f; }
static float alone(void) { return next32() % 577 ? 0 : 3; }

/* ---- the bound --------------------------------------------------------------------------------------------- */

START_TEST(bound)
{
    static const struct {
        values *x, *w;
        double at_least[2]; /* of the bound used, by integers and bf16, at d = 577 */
    } cases[] = {
        {lossy, lossy, {0, 0.93}}, /* bf16: same sign, every rounding the worst and downwards */
        {lossy, usual, {0, 0}},    {usual, usual, {0, 0}},  {wide, wide, {0, 0}},   {wide, usual, {0, 0}},
        {small, small, {0, 0}},    {tiny, usual, {0, 0}},   {tiny, large, {0, 0}},  {tiny, tiny, {0, 0}},
        {small, special, {0, 0}},  {special, special, {0, 0}}, {any_bits, usual, {0, 0}}, {tiny, any_bits, {0, 0}},
        {ended, ended, {0, 0}},    {ended, tiny, {0, 0}},   {large, large, {0, 0}}, {halfway, halfway, {0.95, 0}},
        {halfway, negative, {0, 0}}, {negative, negative, {0, 0}}, {alone, halfway, {0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int s = 0; s < 4; s++) {
            static const uint64_t some[] = {2, 33, 96, 577};
            const used most = check_product(9, 18, some[s], cases[i].x, cases[i].w);
            for (int f = 0; f < 2 && s == 3; f++)
                ck_assert_msg(most.of[f] >= cases[i].at_least[f], "case %d: %g", (int)i, most.of[f]);
        }
    /* Without errors what is left is rounding: of the sum once, or of bf16's sums, which grows with d and
     * ends where they overflow. */
    const ams_product *integers = &table[AMS_INT16_PORTABLE], *bf16 = &table[AMS_BF16_PORTABLE];
    ck_assert(ams_product_bound(integers, 768, 1, 0, 1, 0) < 1e-7);
    ck_assert(ams_product_bound(integers, 768, 1, INFINITY, 1, 0) == INFINITY);
    ck_assert(ams_product_bound(integers, 768, 1, 0, 1, INFINITY) == INFINITY);
    ck_assert(ams_product_bound(integers, UINT64_C(1) << 29, 1, 0, 1, 0) == INFINITY);
    ck_assert(ams_product_bound(bf16, 768, 1, 0, 1, 0) < 1e-4);
    ck_assert(ams_product_bound(bf16, 769, 1, 0, 1, 0) > ams_product_bound(bf16, 768, 1, 0, 1, 0));
    ck_assert(ams_product_bound(bf16, 768, 0x1p63, 0, 0x1p63, 0) < INFINITY);
    ck_assert(ams_product_bound(bf16, 768, 0x1p64, 0, 0x1p63, 0) == INFINITY);
    ck_assert(ams_product_bound(bf16, 1 << 22, 1, 0, 1, 0) < 2);
    ck_assert(ams_product_bound(bf16, UINT64_C(1) << 23, 1, 0, 1, 0) == INFINITY);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("panels");
    TCase *tcase = tcase_create("panels");
    tcase_add_test(tcase, products);
    tcase_add_test(tcase, packing);
    tcase_add_test(tcase, all_roundings);
    tcase_add_test(tcase, packing_in_pieces);
    tcase_add_test(tcase, product);
    tcase_add_test(tcase, bound);
    suite_add_tcase(suite, tcase);
    return run_all(suite);
}
