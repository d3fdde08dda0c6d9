/* SPDX-License-Identifier: MIT
 *
 * How every test program ends.
 */
#ifndef SUITE_H
#define SUITE_H

#include <check.h>

/* Runs all tests; main returns what it returns. */
static inline int run_all(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
