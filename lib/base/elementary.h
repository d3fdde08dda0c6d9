/* SPDX-License-Identifier: MIT
 *
 * Elementary functions with the same bits on every machine: elementary.c says how. Values at 0, infinities, NaN
 * and beyond the range of a double are those of C's functions of these names, but for errno and exceptions.
 */
#ifndef AMS_BASE_ELEMENTARY_H
#define AMS_BASE_ELEMENTARY_H

double ams_exp(double x);
double ams_expm1(double x);
double ams_ln(double x);
double ams_log10(double x);
double ams_pow(double x, double y); /* x >= 0; NaN below */
double ams_tanh(double x);
double ams_erfc(double x);
/* Cosine and sine of 2 pi turns, turns in [0, 1]. */
void ams_cos_sin(double turns, double out[2]);

#endif
