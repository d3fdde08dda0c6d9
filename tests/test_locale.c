/* SPDX-License-Identifier: MIT
 *
 * Numbers in texts and files are the same under a locale with a decimal comma, and the caller's
 * locale stays as it was. Needs the de_DE.utf8 that tests/meson.build makes; exit 77 without it.
 */
#include "base/base.h"
#include "suite.h"

#include <check.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char comma_locale[] = "de_DE.utf8";

static bool comma(void)
{
    char text[16];
    snprintf(text, sizeof text, "%.1f", 0.5);
    return strcmp(text, "0,5") == 0;
}

START_TEST(numbers)
{
    char text[64];
    ck_assert(comma());
    ck_assert_int_eq(ams_format(text, sizeof text, "%.3f %g %d", 1234.5, 1e-5, 1234567), 22);
    ck_assert_str_eq(text, "1234.500 1e-05 1234567");
    ck_assert(comma());

    char *end;
    const char number[] = "0.5,";
    ck_assert(ams_strtod(number, &end) == 0.5);
    ck_assert_ptr_eq(end, number + 3);
    ck_assert(ams_strtod("1,5", &end) == 1);
    ck_assert_int_eq(*end, ',');
    ck_assert(comma());
}
END_TEST

static void keep_line(void *opaque, int32_t level, const char *message)
{
    (void)level;
    snprintf(opaque, 64, "%s", message);
}

START_TEST(texts)
{
    char line[64] = "";
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 2;
    config.log = keep_line;
    config.log_opaque = line;
    atmsae_context *ctx;
    ck_assert_int_eq(atmsae_context_create(&config, &ctx), ATMSAE_OK);
    ams_fail(ctx, ATMSAE_E_ARG, "r = %g", -0.25);
    ck_assert_str_eq(atmsae_last_error(ctx), "r = -0.25");
    ams_log(ctx, ATMSAE_LOG_INFO, "loss %.2f", 0.75);
    ck_assert_str_eq(line, "loss 0.75");
    ams_fail_errno(ctx, "x", "open", 2);
    ck_assert_ptr_nonnull(strstr(atmsae_last_error(ctx), "No such file"));
    atmsae_context_destroy(ctx);
    ck_assert(comma());
}
END_TEST

int main(void)
{
    if (!setlocale(LC_ALL, comma_locale) || !comma()) {
        printf("skipped: no locale %s\n", comma_locale);
        return 77;
    }
    Suite *suite = suite_create("locale");
    TCase *tcase = tcase_create("locale");
    suite_add_tcase(suite, tcase);
    tcase_add_test(tcase, numbers);
    tcase_add_test(tcase, texts);
    return run_all(suite);
}
