/* SPDX-License-Identifier: MIT
 *
 * atmsae compare: the same measures of several SAEs, side by side.
 */
#include "report.h"
#include "program.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const option compare_options[R_OPTIONS] = {
    [R_SAE] = {.group = "what", .kind = OPTION_TEXTS, .file = OPTION_READ, .required = true, .value = "SAE",
               .help = "folders as train writes them, or any SAEs that convert reads"},
    REPORT_OPTIONS,
};

static const char compare_help[] =
    "usage: atmsae compare SAE... --input FILE... [--words FILE] [--probing FILE]\n"
    "                      [--json] [--html FILE]\n\n"
    "Measures several SAEs as eval does, on the same rows, and prints a table with a line for each. Probes\n"
    "and their split into training and test words are made once and shared by all. With --words or --probing\n"
    "it gives intervals over words, and says which SAEs are within noise of the best; of SAEs that differ in\n"
    "their seed only, what reseeding alone does to each measure. --html writes a page\n"
    "with the table and with pictures: error and absorption against L0, densities, every class, probing,\n"
    "importances and masks over time; SAEs of the same architecture and mask are one curve.\n\n"
    "examples\n"
    "  atmsae compare out/* --input valid.npy --html compare.html\n"
    "  atmsae compare out/topk out/atm --input valid.npy --words words.safetensors --json\n";

enum { MOST_KEYS = 128 };

/* A cell as it may go to a terminal, into text [256]. */
static const char *shown_cell(const report_sae *sae, const report_key *key, char *text)
{
    char cell[64];
    (void)text_escape(report_cell(sae, key, cell), text, 256);
    return *text ? text : "-";
}

/* One of the terminal's tables. */
static void print_table(const report *r, int table)
{
    size_t name_width = 3, widths[MOST_KEYS] = {0};
    char text[256];
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        const size_t width = text_escape(r->sae[i].name, NULL, 0);
        if (width > name_width) name_width = width;
    }
    for (size_t k = 0; k < report_n_keys && k < MOST_KEYS; k++) {
        const report_key *key = &report_keys[k];
        if (!key->heading || key->table != table || !report_has(r, key)) continue;
        any = true;
        widths[k] = strlen(key->heading);
        for (size_t i = 0; i < r->n; i++) {
            const size_t width = strlen(shown_cell(&r->sae[i], key, text));
            if (width > widths[k]) widths[k] = width;
        }
    }
    if (!any) return;
    printf("%s%-*s", table > 0 ? "\n" : "", (int)name_width, "SAE");
    for (size_t k = 0; k < report_n_keys && k < MOST_KEYS; k++)
        if (widths[k]) printf("  %*s", (int)widths[k] * (report_keys[k].format ? 1 : -1), report_keys[k].heading);
    putchar('\n');
    for (size_t i = 0; i < r->n; i++) {
        char *name = text_shown(r->sae[i].name);
        printf("%-*s", (int)name_width, name);
        free(name);
        for (size_t k = 0; k < report_n_keys && k < MOST_KEYS; k++)
            if (widths[k])
                printf("  %*s", (int)widths[k] * (report_keys[k].format ? 1 : -1), shown_cell(&r->sae[i], &report_keys[k], text));
        putchar('\n');
    }
}

static bool same_setting(const report_sae *a, const report_sae *b)
{
    return a->group == b->group && strcmp(a->level, b->level) == 0;
}

/* Sum of (number - from)^power over the SAEs of the same setting as `first`. */
static double sum_of(const report *r, const report_sae *first, const char *key, double power, double from)
{
    double sum = 0;
    for (size_t i = 0; i < r->n; i++)
        if (same_setting(&r->sae[i], first)) sum += pow(report_number(&r->sae[i], key) - from, power);
    return sum;
}

/* What reseeding alone does: a line for each method and setting that several SAEs share. */
static void print_seeds(const report *r)
{
    static const char *const keys[] = {"l0", "fvu", "absorption", "absorption_fraction_v060", "sparse_f1", "main_recall", "main_precision",
                                       "main_rate", "gap"};
    const char *before = "\n";
    for (size_t i = 0; i < r->n; i++) {
        const report_sae *first = &r->sae[i];
        size_t of_it = 0, earlier = 0;
        for (size_t j = 0; j < r->n; j++) {
            const bool same = same_setting(&r->sae[j], first);
            of_it += same;
            earlier += same && j < i;
        }
        if (of_it < 2 || earlier > 0) continue;
        char *method = text_shown(first->method), *level = text_shown(first->level);
        printf("%sseeds of %s, %s: %zu, mean +- sd:", before, method, level, of_it);
        free(method);
        free(level);
        before = "";
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const double mean = sum_of(r, first, keys[k], 1, 0) / (double)of_it;
            const double variance = sum_of(r, first, keys[k], 2, mean) / (double)(of_it - 1);
            if (isfinite(mean)) printf(" %s %.4f +- %.4f", keys[k], mean, sqrt(variance));
        }
        putchar('\n');
    }
}

/* Which orders of SAEs words and texts leave open, and the notes. */
static void print_notes(const report *r)
{
    const char *before = "\n";
    for (const noisy_key *key = noisy_keys; key < noisy_keys + n_noisy_keys; key++) {
        char *order = order_text(r, key), *shown = order ? text_shown(order) : NULL;
        if (shown) printf("%s%s\n", before, shown), before = "";
        free(shown);
        free(order);
    }
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->sae[i].n_notes; k++) {
            char *shown = note_is_new(r, i, k) ? text_shown(r->sae[i].notes[k]) : NULL;
            if (shown) printf("%snote: %s\n", before, shown), before = "";
            free(shown);
        }
}

static void print_json(const report *r)
{
    const setting *s = r->settings;
    char *input = json_strings(s[R_INPUT].texts, s[R_INPUT].n);
    printf("{\n\"input\": %s,\n", input);
    free(input);
    if (s[R_TARGET].given) {
        char *target = json_strings(s[R_TARGET].texts, s[R_TARGET].n);
        printf("\"target\": %s,\n", target);
        free(target);
    }
    printf("\"words\": ");
    if (s[R_WORDS].given) json_string(stdout, s[R_WORDS].text);
    else fputs("null", stdout);
    fputs(",\n\"probing\": ", stdout);
    if (s[R_PROBING].given) json_string(stdout, s[R_PROBING].text);
    else fputs("null", stdout);
    fputs(",\n\"orders\": ", stdout);
    orders_json(stdout, r);
    fputs(",\n\"saes\": [\n", stdout);
    for (size_t i = 0; i < r->n; i++) {
        if (i) puts(",");
        fields_print_json(&r->sae[i].fields, stdout);
    }
    puts("]\n}");
}

static bool measure_all(report *r, const setting *s)
{
    for (size_t i = 0; i < r->n; i++) {
        program_note("measuring %s (%zu of %zu)", s[R_SAE].texts[i], i + 1, r->n);
        if (!report_measure(r, i, s[R_SAE].texts[i], NULL)) return false;
    }
    report_group(r);
    for (size_t i = 0; i < r->n; i++) {
        fields_text(&r->sae[i].fields, "name", r->sae[i].name);
        fields_text(&r->sae[i].fields, "method", r->sae[i].method);
    }
    return true;
}

static int run_compare(const setting *s)
{
    report r;
    bool good = report_open(&r, s, s[R_SAE].n) && measure_all(&r, s);
    if (good) {
        good = report_page(&r);
        if (s[R_JSON].given) {
            print_json(&r);
        } else {
            for (int table = 0; table < REPORT_TABLES; table++) print_table(&r, table);
            print_seeds(&r);
            print_notes(&r);
        }
    }
    report_close(&r);
    return good ? EXIT_OK : EXIT_FAILED;
}

const command command_compare = {.name = "compare", .summary = "measure several SAEs side by side", .help = compare_help,
                                 .options = compare_options, .n_options = R_OPTIONS, .complete = report_complete, .run = run_compare};
