/* SPDX-License-Identifier: MIT
 *
 * atmsae eval: everything that is measured of one saved SAE.
 */
#include "report.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>

enum { E_PAIR = R_OPTIONS, E_OPTIONS };

static const option eval_options[E_OPTIONS] = {
    [R_SAE] = {.group = "what", .name = "sae", .kind = OPTION_TEXT, .file = OPTION_READ, .required = true, .value = "DIR",
               .help = "the SAE: a folder as train writes it, or any that convert reads"},
    REPORT_OPTIONS,
    [E_PAIR] = {.group = "stability", .name = "pair", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "DIR",
                .help = "another SAE, of another seed say, to match latents with one by one"},
};

static const char eval_help[] =
    "usage: atmsae eval --sae DIR --input FILE... [--words FILE] [--probing FILE]\n"
    "                   [--pair DIR] [--json] [--html FILE]\n\n"
    "Encodes and decodes rows with a saved SAE and prints the fraction of variance unexplained (FVU),\n"
    "mean squared error, mean cosine, the mean number of active latents (L0), latents that never fired\n"
    "(dead) or fired on more than 10 % of the rows (dense), and how often latents fire. A transcoder is\n"
    "measured against --target, which has what it is to give from each row of --input.\n"
    "With --words it also measures absorption: how often a latent that should fire on every word of a\n"
    "class (say, its first letter) is silent while a more special latent fires in its place.\n"
    "With --probing it reads labels of texts from the best 1, 2 and 5 latents, from all, and from the\n"
    "rows themselves, beside what always giving the more common label gets; with --pair it tells how many\n"
    "latents a second SAE shares. --html writes a page with all of it, and with importances and masks over\n"
    "time if atmsae train made the SAE.\n\n"
    "examples\n"
    "  atmsae eval --sae out/atm --input valid.npy\n"
    "  atmsae eval --sae out/atm --input valid.safetensors --words words.safetensors --html atm.html\n"
    "  atmsae eval --sae out/transcoder --input mlp-in.npy --target mlp-out.npy\n"
    "  atmsae eval --sae out/seed0 --input valid.npy --pair out/seed1 --probing texts.tasks.json --json\n";

static void print_histogram(const report *r)
{
    const report_sae *sae = &r->sae[0];
    printf("\nlatents by the share of rows on which they fire\n  %-18s %8.0f\n", "never", report_number(sae, "dead"));
    for (uint64_t b = 0; b < sae->n_bins; b++) {
        const double low = r->low + (double)b / DENSITY_BINS_A_DECADE;
        const int length = (int)ceil(40.0 * (double)sae->bins[b] / (double)sae->d_sae);
        printf("  %7.1e .. %7.1e %8llu  %.*s\n", pow(10, low), pow(10, low + 1.0 / DENSITY_BINS_A_DECADE),
               (unsigned long long)sae->bins[b], length, "########################################");
    }
}

static int run_eval(const setting *s)
{
    report r;
    bool good = report_open(&r, s, 1) && report_measure(&r, 0, s[R_SAE].text, s[E_PAIR].text);
    if (good) {
        report_group(&r);
        good = report_page(&r);
        if (s[R_JSON].given) {
            fields_print_json(&r.sae[0].fields, stdout);
        } else {
            fields_print(&r.sae[0].fields, stdout);
            print_histogram(&r);
            for (size_t k = 0; k < r.sae[0].n_notes; k++) {
                char *shown = text_shown(r.sae[0].notes[k]);
                printf("note: %s\n", shown);
                free(shown);
            }
        }
    }
    report_close(&r);
    return good ? EXIT_OK : EXIT_FAILED;
}

const command command_eval = {.name = "eval", .summary = "measure a saved SAE on rows, and its absorption on words",
                              .help = eval_help, .options = eval_options, .n_options = E_OPTIONS, .complete = report_complete, .run = run_eval};
