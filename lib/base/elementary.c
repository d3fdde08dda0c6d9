/* SPDX-License-Identifier: MIT
 *
 * exp, expm1, log, pow, tanh, erfc, cosine and sine. A C library's own differ in the last bit from one library to
 * the next, and glibc's by CPU. These are + - * / on doubles and operations on bits in a fixed order, and so give
 * the same bits wherever double is IEEE 754's binary64, expressions are evaluated in it (FLT_EVAL_METHOD 0) and the
 * compiler fuses nothing (-ffp-contract=off, in meson.build). They set no errno and keep no state.
 *
 * Errors in units of the result's last place are below 0.53 for log, 0.56 for exp, 0.62 for erfc, 0.66 for pow, 0.75
 * for expm1, 0.89 for tanh, 0.95 for cosine and sine, and 0.78 where a result is subnormal (test_elementary). What
 * has to be better than a double on the way is a pair of doubles, hi + lo.
 *
 * tests/reference/make_elementary.py computes the tables and the constants with 800 digits. Polynomials are Taylor's,
 * whose coefficients are the fractions written here; what is cut off is below 2^-57 of the result (pow: 2^-69).
 */
#include "elementary.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct pair {
    double hi, lo;
} pair;

static inline uint64_t to_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The first 26 significant bits of x: a product of two such numbers is exact. */
static inline double top(double x) { return from_bits(to_bits(x) & ~(((uint64_t)1 << 27) - 1)); }

/* a + b, exactly, where a is 0 or |a| >= |b|. */
static inline pair add(double a, double b)
{
    double hi = a + b;
    return (pair){hi, (a - hi) + b};
}

/* a b, exact but for 2^-105. */
static inline pair multiply(double a, double b)
{
    double hi = a * b, a1 = top(a), b1 = top(b), a2 = a - a1, b2 = b - b1;
    return (pair){hi, ((a1 * b1 - hi) + a1 * b2 + a2 * b1) + a2 * b2};
}

/* a / b */
static inline pair divide(pair a, pair b)
{
    double q = a.hi / b.hi;
    pair back = multiply(q, b.hi);
    return (pair){q, (((a.hi - back.hi) - back.lo) + (a.lo - q * b.lo)) / b.hi};
}

/* ---- exp and what is made of it ----------------------------------------------------------------------------- */

static const pair exps[32] = { /* 2^(j/32) */
    {0x1p+0, 0}, {0x1.059b0d3158574p+0, 0x1.d73e2a475b465p-55},
    {0x1.0b5586cf9890fp+0, 0x1.8a62e4adc610bp-54}, {0x1.11301d0125b51p+0, -0x1.6c51039449b3ap-54},
    {0x1.172b83c7d517bp+0, -0x1.19041b9d78a76p-55}, {0x1.1d4873168b9aap+0, 0x1.e016e00a2643cp-54},
    {0x1.2387a6e756238p+0, 0x1.9b07eb6c70573p-54}, {0x1.29e9df51fdee1p+0, 0x1.612e8afad1255p-55},
    {0x1.306fe0a31b715p+0, 0x1.6f46ad23182e4p-55}, {0x1.371a7373aa9cbp+0, -0x1.63aeabf42eae2p-54},
    {0x1.3dea64c123422p+0, 0x1.ada0911f09ebcp-55}, {0x1.44e086061892dp+0, 0x1.89b7a04ef80dp-59},
    {0x1.4bfdad5362a27p+0, 0x1.d4397afec42e2p-56}, {0x1.5342b569d4f82p+0, -0x1.07abe1db13cadp-55},
    {0x1.5ab07dd485429p+0, 0x1.6324c054647adp-54}, {0x1.6247eb03a5585p+0, -0x1.383c17e40b497p-54},
    {0x1.6a09e667f3bcdp+0, -0x1.bdd3413b26456p-54}, {0x1.71f75e8ec5f74p+0, -0x1.16e4786887a99p-55},
    {0x1.7a11473eb0187p+0, -0x1.41577ee04992fp-55}, {0x1.82589994cce13p+0, -0x1.d4c1dd41532d8p-54},
    {0x1.8ace5422aa0dbp+0, 0x1.6e9f156864b27p-54}, {0x1.93737b0cdc5e5p+0, -0x1.75fc781b57ebcp-57},
    {0x1.9c49182a3f09p+0, 0x1.c7c46b071f2bep-56}, {0x1.a5503b23e255dp+0, -0x1.d2f6edb8d41e1p-54},
    {0x1.ae89f995ad3adp+0, 0x1.7a1cd345dcc81p-54}, {0x1.b7f76f2fb5e47p+0, -0x1.5584f7e54ac3bp-56},
    {0x1.c199bdd85529cp+0, 0x1.11065895048ddp-55}, {0x1.cb720dcef9069p+0, 0x1.503cbd1e949dbp-56},
    {0x1.d5818dcfba487p+0, 0x1.2ed02d75b3707p-55}, {0x1.dfc97337b9b5fp+0, -0x1.1a5cd4f184b5cp-54},
    {0x1.ea4afa2a490dap+0, -0x1.e9c23179c2893p-54}, {0x1.f50765b6e454p+0, 0x1.9d3e12dd8a18bp-54},
};

/* e^(x + rest) = 2^k m, |x| < 1100 and |rest| small beside 1: with n = 32 k + j next to 32 x / ln 2 and
 * r = x + rest - n ln 2 / 32, which is at most 0.011, m = 2^(j/32) e^r. ln 2 / 32 has two parts, the first so short
 * that n times it is exact. A NaN gives NaN and any k. */
static inline pair exp_parts(double x, double rest, int64_t *k)
{
    const double shift = 0x1.8p52; /* from here on to 2^53 doubles are integers */
    double shifted = x * 0x1.71547652b82fep+5 + shift, near = shifted - shift; /* 32 / ln 2 */
    int64_t n = (int64_t)(to_bits(shifted) - to_bits(shift));
    double r = (x - near * 0x1.62e42fefap-6) + (rest - near * 0x1.cf79abc9e3b3ap-45);
    double r2 = r * r;
    double less_1 = r + r2 * (0.5 + r * (1.0 / 6) + r2 * (1.0 / 24 + r * (1.0 / 120) + r2 * (1.0 / 720)));
    const pair *power = &exps[n & 31];
    *k = n >> 5;
    return add(power->hi, power->lo + power->hi * less_1);
}

/* 2^k x, |k| < 2000, in two steps, of which only the second can leave the normal numbers. */
static inline double scaled(double x, int64_t k)
{
    int64_t half = k >> 1;
    return x * from_bits((uint64_t)(half + 1023) << 52) * from_bits((uint64_t)(k - half + 1023) << 52);
}

static inline double exp_of(double x, double rest)
{
    if (fabs(x) > 746) return x > 0 ? HUGE_VAL : 0;
    int64_t k;
    pair m = exp_parts(x, rest, &k);
    return scaled(m.hi, k);
}

double ams_exp(double x) { return exp_of(x, 0); }

double ams_expm1(double x)
{
    if (fabs(x) < 0.25) {
        double sum = 0;
        for (int n = 13; n > 2; n--)
            sum = (1 + sum) * (x / n);
        return x == 0 ? x : x + x * (0.5 * x) * (1 + sum); /* keeps the sign of 0 */
    }
    if (!(x < 40)) return ams_exp(x);
    if (x < -40) return -1;
    int64_t k;
    pair m = exp_parts(x, 0, &k);
    double e = scaled(m.hi, k);
    pair less_1 = e > 1 ? add(e, -1) : add(-1, e);
    return less_1.hi + (less_1.lo + scaled(m.lo, k));
}

/* Near 0 the eighth convergent of Lambert's fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))), else
 * 1 - 2 / (1 + e^2x). */
double ams_tanh(double x)
{
    double a = fabs(x);
    if (a < 0.55) {
        double s = x * x, numerator = 675675 + s * (45045 + s * (594 + s));
        return copysign(a - a * s * numerator / (2027025 + s * (945945 + s * (51975 + s * (630 + s)))), x);
    }
    if (a > 22) return copysign(1, x);
    int64_t k;
    pair m = exp_parts(2 * a, 0, &k), sum = add(scaled(m.hi, k), 1);
    pair rest = divide((pair){2, 0}, (pair){sum.hi, sum.lo + scaled(m.lo, k)}), t = add(1, -rest.hi);
    return copysign(t.hi + (t.lo - rest.lo), x);
}

/* ---- log and pow --------------------------------------------------------------------------------------------- */

/* 1 / c, a multiple of 1/256; log c, to a multiple of 2^-42 and what is left. c is near the middle of interval j of
 * the 32 from FIRST on, which are equally wide in the bits of a double, and 1 for that around 1. */
#define FIRST ((uint64_t)0x3fe5c00000000000) /* of 0.6796875 */
static const struct {
    double inverse, hi, lo;
} logs[32] = {
    {1.453125, -0x1.7eaf83b82bp-2, 0x1.e4da62d0c25adp-49}, {1.421875, -0x1.686c81e9b1p-2, -0x1.2bb110af84054p-44},
    {1.390625, -0x1.51aad872ep-2, 0x1.f4bd8db0a7cc1p-44}, {1.36328125, -0x1.3d54fa5c1fp-2, -0x1.c3e1cd9a395e3p-44},
    {1.33203125, -0x1.2596010df7p-2, -0x1.8e7bc224ea3e3p-44}, {1.3046875, -0x1.1058bf9ae5p-2, 0x1.4ab9d817d52cdp-44},
    {1.28125, -0x1.fb9186d5e4p-3, 0x1.d572aab993c87p-47}, {1.25390625, -0x1.cf6354e09cp-3, -0x1.771239a07d55bp-45},
    {1.23046875, -0x1.a8becfc882p-3, -0x1.e3185cf21b9cfp-44}, {1.20703125, -0x1.815c0a1436p-3, 0x1.02a52f9201ce8p-44},
    {1.18359375, -0x1.59338d9982p-3, -0x1.0ba68b7555d4ap-48}, {1.1640625, -0x1.371fc201e8p-3, -0x1.ee8779b2d8abcp-44},
    {1.14453125, -0x1.1478584674p-3, -0x1.563451027c75p-46}, {1.12109375, -0x1.d4313d66ccp-4, 0x1.9454379135713p-45},
    {1.1015625, -0x1.8c345d6318p-4, -0x1.b20f5acb42a66p-44}, {1.0859375, -0x1.51b073f06p-4, -0x1.83f69278e686ap-44},
    {1.06640625, -0x1.075983599p-4, 0x1.b8ecfe4b59987p-44}, {1.05078125, -0x1.95c830ec9p-5, 0x1.c148297c5feb8p-45},
    {1.03125, -0x1.f829b0e78p-6, -0x1.980267c7e09e4p-45}, {1.015625, -0x1.fc0a8b0fcp-7, -0x1.f1e7cf6d3a69cp-50},
    {1, 0, 0}, {0.96875, 0x1.0415d89e78p-5, -0x1.dddc7f461c516p-44},
    {0.94140625, 0x1.eea31c0068p-5, 0x1.c3dd83606d891p-44}, {0.9140625, 0x1.700d30aeacp-4, 0x1.c1e8da99ded32p-49},
    {0.890625, 0x1.da72763844p-4, 0x1.a89401fa71733p-46}, {0.86328125, 0x1.2d1610c868p-3, 0x1.39d6ccb81b4a1p-47},
    {0.84375, 0x1.5bf406b544p-3, -0x1.27023eb68981cp-46}, {0.8203125, 0x1.95a5adcf7p-3, 0x1.7f22858a0ff6fp-47},
    {0.80078125, 0x1.c6ffbc6fp-3, 0x1.ee138d3a69d43p-44}, {0.78125, 0x1.f991c6cb3cp-3, -0x1.90d04cd7cc834p-44},
    {0.76171875, 0x1.16b5ccbadp-2, -0x1.23299042d74bfp-44}, {0.74609375, 0x1.2bef07cdc9p-2, 0x1.a9cfa4a5004f4p-45},
};

/* A finite x > 0 as x = 2^k c (1 + r): log x = k ln 2 + log c + log(1 + r), |r| < 0.0162. */
typedef struct reduced {
    double r;
    pair sum;    /* of r and the high parts of k ln 2 and log c, exactly: these end at 2^-42 */
    double rest; /* of all three */
} reduced;

static inline reduced reduce(double x)
{
    double k = 0;
    if (x < DBL_MIN) {
        x *= 0x1p54;
        k = -54;
    }
    uint64_t from_first = to_bits(x) - FIRST, j = from_first >> 47 & 31;
    k += (double)((int64_t)from_first >> 52);
    double z = from_bits(to_bits(x) - (from_first >> 52 << 52)), z1 = top(z);
    pair r = add(z1 * logs[j].inverse - 1, (z - z1) * logs[j].inverse);
    double rest = k * 0x1.ef35793c7673p-45 + logs[j].lo + (r.lo - r.lo * r.hi); /* the low part of ln 2 */
    return (reduced){r.hi, add(k * 0x1.62e42fefa38p-1 + logs[j].hi, r.hi), rest};
}

/* log(1 + r) - r + r^2 / 2 */
static inline double from_cubes(double r)
{
    double r2 = r * r, r4 = r2 * r2;
    return r * r2 * ((1.0 / 3 - r * (1.0 / 4)) + r2 * (1.0 / 5 - r * (1.0 / 6)) +
                     r4 * ((1.0 / 7 - r * (1.0 / 8)) + r2 * (1.0 / 9 - r * (1.0 / 10)) + r4 * (1.0 / 11)));
}

/* log x with some 66 good bits. */
static inline pair log_parts(double x)
{
    reduced l = reduce(x);
    double r1 = top(l.r);
    pair squared = add(l.sum.hi, -0.5 * r1 * r1); /* exact */
    return add(squared.hi, l.sum.lo + squared.lo + (l.rest - 0.5 * (l.r - r1) * (l.r + r1) + from_cubes(l.r)));
}

double ams_ln(double x)
{
    if (!(x > 0 && x < HUGE_VAL)) return x < 0 ? (double)NAN : x == 0 ? -HUGE_VAL : x;
    reduced l = reduce(x);
    return l.sum.hi + (l.sum.lo + l.rest + (from_cubes(l.r) - 0.5 * l.r * l.r));
}

double ams_log10(double x)
{
    if (!(x > 0 && x < HUGE_VAL)) return ams_ln(x);
    const pair by = {0x1.bcb7b1526e50ep-2, 0x1.95355baaafad3p-57}; /* 1 / log 10 */
    pair l = log_parts(x), product = multiply(l.hi, by.hi);
    return product.hi + (product.lo + l.hi * by.lo + l.lo * by.hi);
}

double ams_pow(double x, double y)
{
    if (x == 1 || y == 0) return 1;
    if (!(x > 0 && x < HUGE_VAL)) return ams_exp(y * ams_ln(x));
    pair l = log_parts(x);
    if (!(fabs(y * l.hi) < 746)) return ams_exp(y * l.hi);
    pair power = multiply(y, l.hi);
    return exp_of(power.hi, power.lo + y * l.lo);
}

/* ---- erfc ----------------------------------------------------------------------------------------------------- */

static const pair erfcxs[13] = { /* y = e^(x^2) erfc x at x = j / 4; hi has 48 bits */
    {0x1p+0, 0}, {0x1.8a6adcda2eaap-1, -0x1.c367cbd1ed3b9p-50},
    {0x1.3b3bc3c98b1p-1, -0x1.a6aa15ac4862p-50}, {0x1.038d54ea3d84p-1, -0x1.8f6109a6c28b3p-50},
    {0x1.b5d8780f956cp-2, -0x1.bcfb57701b9cbp-51}, {0x1.78a692138768p-2, -0x1.7fd70d17fe1cep-52},
    {0x1.494daffa2ad6p-2, 0x1.09cdef8786c71p-51}, {0x1.23cfc2f1dc7ep-2, 0x1.3b1040eb318c2p-57},
    {0x1.058671b52c78p-2, -0x1.4277078e03bf1p-51}, {0x1.d94446d62794p-3, -0x1.c6a0662a08591p-52},
    {0x1.afbb3f3b7344p-3, -0x1.4cfa05e50a123p-53}, {0x1.8c9eb68ff27ep-3, -0x1.2dda73b1e3252p-52},
    {0x1.6e9827d229d2p-3, 0x1.99be2b0863b2ap-52},
};
#define ROOT ((pair){0x1.20dd750429b6dp+0, 0x1.1ae3a914fed8p-56}) /* 2 / sqrt(pi) */

/* y = e^(x^2) erfc x for x >= 0. It solves y' = 2 x y - 2 / sqrt(pi), so its Taylor coefficients at x0 follow from
 * each other: (n + 1) y_n+1 = 2 x0 y_n + 2 y_n-1. From 3.125 on it is Laplace's fraction
 * 1 / sqrt(pi) / (x + 1/2 / (x + 2/2 / (x + 3/2 / ...))). */
static inline pair erfcx(double x)
{
    if (x >= 3.125) {
        double below = x;
        for (int n = 36; n > 1; n--)
            below = x + 0.5 * n / below;
        return divide((pair){0.5 * ROOT.hi, 0.5 * ROOT.lo}, add(x, 0.5 / below));
    }
    unsigned j = (unsigned)(4 * x + 0.5);
    pair at = erfcxs[j];
    double x0 = 0.25 * j, h = x - x0, power = h, sum = 0;
    pair slope = add(-ROOT.hi, 2 * x0 * at.hi); /* exact: at.hi has 48 bits */
    slope = add(slope.hi, slope.lo + (2 * x0 * at.lo - ROOT.lo));
    double before = at.hi + at.lo, y = slope.hi;
    for (int n = 2; n < 17; n++) {
        double next = (x0 * y + before) * (2.0 / n);
        before = y;
        y = next;
        power *= h;
        sum += y * power;
    }
    pair linear = multiply(slope.hi, h), to_h = add(at.hi, linear.hi);
    return add(to_h.hi, to_h.lo + (at.lo + linear.lo + slope.lo * h + sum));
}

double ams_erfc(double x)
{
    double a = fabs(x);
    if (a > 28) return x > 0 ? 0 : 2;
    if (!(a <= 28)) return x;
    int64_t k;
    pair square = multiply(a, a), y = erfcx(a), e = exp_parts(-square.hi, -square.lo, &k), p = multiply(e.hi, y.hi);
    p.lo += e.hi * y.lo + e.lo * y.hi;
    if (x >= 0) return scaled(p.hi + p.lo, k);
    pair rest = add(2, -scaled(p.hi, k));
    return rest.hi + (rest.lo - scaled(p.lo, k));
}

/* ---- cosine and sine -------------------------------------------------------------------------------------------- */

/* q quarters of a turn are taken off, exactly; what is left is the angle a + b, at most pi / 4, a of 26 bits. */
void ams_cos_sin(double turns, double out[2])
{
    const double shift = 0x1.8p50; /* from here on to 2^51 doubles are multiples of 1/4 */
    double shifted = turns + shift, t = turns - (shifted - shift), t1 = top(t), head = 0x1.921fb54p+2 * t1; /* 2 pi's first 27 bits: exact */
    uint64_t q = to_bits(shifted) - to_bits(shift);
    double rest = 0x1.921fb54p+2 * (t - t1) + 0x1.10b4611a62633p-28 * t;
    double a = top(head + rest), b = (head - a) + rest, x = a + b, s = x * x, s2 = s * s, s4 = s2 * s2;
    double sine = x * s * ((-1.0 / 6 + s * (1.0 / 120)) + s2 * (-1.0 / 5040 + s * (1.0 / 362880)) +
                           s4 * ((-1.0 / 39916800 + s * (1.0 / 6227020800)) + s2 * (-1.0 / 1307674368000 + s * (1.0 / 355687428096000))));
    double cosine = s2 * ((1.0 / 24 - s * (1.0 / 720)) + s2 * (1.0 / 40320 - s * (1.0 / 3628800)) +
                          s4 * ((1.0 / 479001600 - s * (1.0 / 87178291200)) + s2 * (1.0 / 20922789888000)));
    pair square = add(1, -0.5 * a * a);
    const double value[2] = {square.hi + (square.lo - 0.5 * b * (a + x) + cosine), a + (b + sine)};
    out[0] = (q + 1) & 2 ? -value[q & 1] : value[q & 1];
    out[1] = q & 2 ? -value[~q & 1] : value[~q & 1];
}
