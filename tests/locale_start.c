/* SPDX-License-Identifier: MIT
 *
 * Linked into every unit test: takes over the environment's locale before main, as many programs do,
 * if ATMSAE_SETLOCALE is set. tests/locale.sh reruns the tests that way.
 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void take_locale(void)
{
    if (!getenv("ATMSAE_SETLOCALE")) return;
    const char *name = setlocale(LC_ALL, "");
    const struct lconv *convention = localeconv();
    if (name && convention->decimal_point[0] == ',') return;
    fprintf(stderr, "locale %s has no decimal comma\n", name ? name : "of the environment");
    exit(99); /* a test that ran in another locale must not count */
}
