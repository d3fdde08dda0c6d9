/* SPDX-License-Identifier: MIT
 *
 * Elementary functions: against values of many digits, against the C library's long double ones, at their special
 * arguments, and their bits, which are the same on every machine.
 */
#include "base/base.h"
#include "base/elementary.h"
#include "suite.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { EXP, EXPM1, LN, LOG10, POW, TANH, ERFC, COSINE, SINE, FUNCTIONS };

static double call(int function, double x, double y)
{
    double turn[2];
    switch (function) {
    case EXP: return ams_exp(x);
    case EXPM1: return ams_expm1(x);
    case LN: return ams_ln(x);
    case LOG10: return ams_log10(x);
    case POW: return ams_pow(x, y);
    case TANH: return ams_tanh(x);
    case ERFC: return ams_erfc(x);
    default: ams_cos_sin(x, turn); return turn[function - COSINE];
    }
}

/* 2 pi turns, in the quarter where sine or cosine is not near the end of a long double's digits. */
static long double turned(double turns, int function)
{
    const long double pi = 3.14159265358979323846264338327950288L;
    const int quarter = (int)(4 * turns + 0.5);
    const long double angle = 2 * pi * (long double)(turns - 0.25 * quarter);
    const int phase = quarter + (function == COSINE);
    return (phase & 2 ? -1 : 1) * (phase & 1 ? cosl(angle) : sinl(angle));
}

static long double reference(int function, double x, double y)
{
    switch (function) {
    case EXP: return expl((long double)x);
    case EXPM1: return expm1l((long double)x);
    case LN: return logl((long double)x);
    case LOG10: return log10l((long double)x);
    case POW: return powl((long double)x, (long double)y);
    case TANH: return tanhl((long double)x);
    case ERFC: return erfcl((long double)x);
    default: return turned(x, function);
    }
}

static const char *const names[FUNCTIONS] = {"exp", "expm1", "ln", "log10", "pow", "tanh", "erfc", "cosine", "sine"};
/* Largest error in units of the result's last place, and where the result is subnormal. */
static const double bound[FUNCTIONS] = {0.56, 0.75, 0.53, 0.54, 0.66, 0.89, 0.62, 0.95, 0.95};
static const double subnormal_bound = 0.78;

static double bound_of(int function, double value) { return fabs(value) < DBL_MIN ? fmax(bound[function], subnormal_bound) : bound[function]; }

static double unit(double value)
{
    int exponent;
    (void)frexp(value, &exponent);
    return ldexp(1, exponent < -1021 ? -1074 : exponent - 53);
}

static uint64_t state;
static double uniform(double low, double high)
{
    uint32_t words[4];
    ams_philox(1, 0, 0, state++, words);
    return low + (high - low) * ams_uniform(words[0], words[1]);
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static const struct {
    int function;
    double x, y, near, rest; /* the value is near + rest units of near's last place */
} values[] = {
#include "elementary_values.h"
};

START_TEST(values_of_many_digits)
{
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const double got = call(values[i].function, values[i].x, values[i].y), near = values[i].near;
        const double error = fabs((got - near) / unit(near) - values[i].rest);
        ck_assert_msg(error <= bound_of(values[i].function, near) + 0.001, "%s(%a, %a) = %a is wrong by %.3f units", names[values[i].function],
                      values[i].x, values[i].y, got, error);
    }
}
END_TEST

/* Arguments between low and high; for LN those of e^x, for POW x = e^low .. e^high and y so that x^y is all there is. */
static const struct {
    int function;
    double low, high;
} ranges[] = {
    {EXP, -745.2, -708}, {EXP, -708, 709.7}, {EXP, -1, 1}, {EXPM1, -0.26, 0.26}, {EXPM1, -3, 3}, {EXPM1, -40, 709.7},
    {LN, -745, 709.7}, {LN, -0.01, 0.02}, {LN, -1, 1}, {LOG10, -745, 709.7}, {LOG10, -0.1, 0.1}, {POW, -744, 709}, {POW, -0.1, 0.1}, {POW, -1, 3},
    {TANH, -0.6, 0.6}, {TANH, 0.5, 3}, {TANH, -23, 23}, {ERFC, -3.2, 3.2}, {ERFC, -7, 26}, {ERFC, 26, 27.3},
    {COSINE, 0, 1}, {COSINE, 0.2499, 0.2501}, {SINE, 0, 1}, {SINE, 0.4999, 0.5001}, {SINE, 0, 1e-6},
};
enum { RANGES = sizeof ranges / sizeof *ranges, DRAWS = 40000 };

static bool long_doubles_are_long(void) /* valgrind's are doubles */
{
    volatile long double one = 1, more = one + 0x1p-60L;
    return more != one;
}

static void compare(int f, double x, double y)
{
    const long double want = reference(f, x, y);
    const double got = call(f, x, y), near = (double)want;
    const double error = isfinite(near) ? (double)(fabsl((long double)got - want) / (long double)unit(near)) : 0;
    const bool good = isfinite(near) ? error <= bound_of(f, near) : isnan(near) ? isnan(got) : got == near;
    ck_assert_msg(good, "%s(%a, %a) = %a, next to the value is %a, wrong by %.3f units", names[f], x, y, got, near, error);
}

static void compare_in_range(int r, double x)
{
    const int f = ranges[r].function;
    if (f == LN || f == LOG10 || f == POW) x = exp(x);
    compare(f, x, f == POW && fabs(log(x)) > 1e-12 ? uniform(-744, 709) / log(x) : 0);
}

START_TEST(every_range)
{
    if (!long_doubles_are_long()) return;
    const double low = ranges[_i].low, high = ranges[_i].high;
    state = (uint64_t)_i << 32;
    for (int i = 0; i <= DRAWS / 2; i++)
        compare_in_range(_i, low + (high - low) * i / (DRAWS / 2)); /* the ends and what is between */
    for (int i = 0; i < DRAWS; i++)
        compare_in_range(_i, uniform(low, high));
    for (double x = low, end = low + (high - low) * 1e-12; x < end; x += fmax((end - low) / 500, unit(low)))
        compare_in_range(_i, x);
}
END_TEST

START_TEST(random_bits)
{
    if (!long_doubles_are_long()) return;
    for (uint64_t i = 0; i < 100000; i++) {
        uint32_t words[4];
        double pair[2];
        ams_philox(2, 0, (uint64_t)_i, i, words);
        memcpy(pair, words, sizeof pair);
        const double x = _i == POW ? fabs(pair[0]) : pair[0]; /* of a negative number C's pow has whole powers */
        if (_i < COSINE || (x >= 0 && x <= 1)) compare(_i, x, _i == POW ? pair[1] : 0);
    }
}
END_TEST

/* ---- where functions end ----------------------------------------------------------------------------------------- */

#define INF ((double)INFINITY)
#define NOT ((double)NAN)
static const struct {
    int function;
    double x, y, value;
} special[] = {
    {EXP, 0, 0, 1}, {EXP, -0.0, 0, 1}, {EXP, INF, 0, INF}, {EXP, -INF, 0, 0}, {EXP, NOT, 0, NOT}, {EXP, 0x1p-1074, 0, 1}, {EXP, 709.79, 0, INF},
    {EXP, 1e308, 0, INF}, {EXP, -745.14, 0, 0}, {EXP, -1e308, 0, 0}, {EXP, -745.13, 0, 0x1p-1074}, {EXP, 746, 0, INF}, {EXP, -746, 0, 0},
    {EXPM1, 0, 0, 0}, {EXPM1, -0.0, 0, -0.0}, {EXPM1, INF, 0, INF}, {EXPM1, -INF, 0, -1}, {EXPM1, NOT, 0, NOT}, {EXPM1, 710, 0, INF},
    {EXPM1, -1e9, 0, -1}, {EXPM1, 0x1p-1074, 0, 0x1p-1074}, {EXPM1, -0x1p-1022, 0, -0x1p-1022}, {EXPM1, -40.5, 0, -1},
    {LN, 0, 0, -INF}, {LN, -0.0, 0, -INF}, {LN, 1, 0, 0}, {LN, INF, 0, INF}, {LN, -1, 0, NOT}, {LN, -INF, 0, NOT}, {LN, NOT, 0, NOT},
    {LOG10, 0, 0, -INF}, {LOG10, 1, 0, 0}, {LOG10, INF, 0, INF}, {LOG10, -1, 0, NOT}, {LOG10, NOT, 0, NOT}, {LOG10, 0.001, 0, -3},
    {POW, 0, 0, 1}, {POW, NOT, 0, 1}, {POW, 1, NOT, 1}, {POW, 1, INF, 1}, {POW, INF, 0, 1}, {POW, 0, 0.5, 0}, {POW, 0, -0.5, INF}, {POW, 0, INF, 0},
    {POW, 0, -INF, INF}, {POW, INF, 2, INF}, {POW, INF, -2, 0}, {POW, 2, INF, INF}, {POW, 2, -INF, 0}, {POW, 0.5, INF, 0}, {POW, 0.5, -INF, INF},
    {POW, NOT, 1, NOT}, {POW, 2, NOT, NOT}, {POW, -1, 0.5, NOT}, {POW, 2, 1024, INF}, {POW, 2, -1075, 0}, {POW, 2, -1074, 0x1p-1074},
    {POW, 2, 1023, 0x1p1023}, {POW, 0x1p-1074, 1, 0x1p-1074}, {POW, DBL_MAX, 1, DBL_MAX}, {POW, 1.5, 1e308, INF}, {POW, 0.5, 1e308, 0},
    {POW, 2, 0x1p-1074, 1}, {POW, 10, 5, 1e5}, {POW, 3, 1, 3},
    {TANH, 0, 0, 0}, {TANH, -0.0, 0, -0.0}, {TANH, INF, 0, 1}, {TANH, -INF, 0, -1}, {TANH, NOT, 0, NOT}, {TANH, 1e300, 0, 1}, {TANH, -22.5, 0, -1},
    {TANH, 0x1p-1074, 0, 0x1p-1074}, {TANH, -0x1p-1022, 0, -0x1p-1022},
    {ERFC, 0, 0, 1}, {ERFC, -0.0, 0, 1}, {ERFC, INF, 0, 0}, {ERFC, -INF, 0, 2}, {ERFC, NOT, 0, NOT}, {ERFC, 28, 0, 0}, {ERFC, 1e300, 0, 0},
    {ERFC, -28, 0, 2}, {ERFC, -1e300, 0, 2}, {ERFC, 0x1p-1074, 0, 1}, {ERFC, -6, 0, 2},
    {COSINE, 0, 0, 1}, {COSINE, 0.25, 0, 0}, {COSINE, 0.5, 0, -1}, {COSINE, 0.75, 0, 0}, {COSINE, 1, 0, 1}, {COSINE, 0x1p-1074, 0, 1},
    {SINE, 0, 0, 0}, {SINE, 0.25, 0, 1}, {SINE, 0.5, 0, 0}, {SINE, 0.75, 0, -1}, {SINE, 1, 0, 0},
};

START_TEST(special_arguments)
{
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        const double got = call(special[i].function, special[i].x, special[i].y), want = special[i].value;
        const bool turns = special[i].function >= COSINE; /* of 0's two signs either will do */
        ck_assert_msg(isnan(want) ? isnan(got) : got == want && (turns || !signbit(got) == !signbit(want)), "%s(%a, %a) = %a, expected %a",
                      names[special[i].function], special[i].x, special[i].y, got, want);
    }
}
END_TEST

/* ---- the bits ------------------------------------------------------------------------------------------------------ */

static const uint64_t pinned[RANGES] = {
    0x9491adf23a7f41b8, 0xf9810e66116af670, 0x61c7333c630e8915, 0x45a98e77a843a99d, 0xcd5c0addc826edca, 0x43e2e0a05b88f0dc,
    0xa4d9e80ed5e389eb, 0x1f1f311352d03327, 0x3ab952096177ef7e, 0xc613fa5fe3c50130, 0x991d4d4133c5c07a, 0xd87ab5097417190a,
    0x1fe292d4ba9baa84, 0xf5b1f49fc69188a7, 0x77ef356150427f49, 0xaae8afdc1a601c3d, 0x9979ebde923e1c79, 0xdf4146ee409752ff,
    0x38ac1b8f9fcc2627, 0x8d4f2370241f4c73, 0x174f6e9284256338, 0xaa6e9624223c23ef, 0x208f3fcb316a819a, 0x5b80ea9c62ddaa65,
    0x67109f99bbfb2a1e,
};

START_TEST(bits_are_pinned)
{
    uint64_t crc = 0;
    state = (uint64_t)_i << 32;
    for (int i = 0; i < 5000; i++) {
        const double low = ranges[_i].low, high = ranges[_i].high, at = uniform(low, high);
        const int f = ranges[_i].function;
        const double x = f == LN || f == LOG10 || f == POW ? ams_exp(at) : at;
        const double value = call(f, x, f == POW ? uniform(-700, 700) / at : 0);
        crc = ams_crc64(crc, &value, sizeof value);
    }
    ck_assert_msg(crc == pinned[_i], "%s from %g to %g: 0x%016llx", names[ranges[_i].function], ranges[_i].low, ranges[_i].high,
                  (unsigned long long)crc);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("elementary");
    tcase_add_test(cases, values_of_many_digits);
    tcase_add_loop_test(cases, every_range, 0, RANGES);
    tcase_add_loop_test(cases, random_bits, 0, FUNCTIONS);
    tcase_add_test(cases, special_arguments);
    tcase_add_loop_test(cases, bits_are_pinned, 0, RANGES);
    Suite *suite = suite_create("elementary");
    suite_add_tcase(suite, cases);
    return run_all(suite);
}
