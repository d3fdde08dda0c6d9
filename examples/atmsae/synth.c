/* SPDX-License-Identifier: MIT
 *
 * atmsae synth: rows with known features, and which were active, as files.
 */
#include "command.h"
#include "files.h"
#include "program.h"
#include "progress.h"

#include <atmsae/eval.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_AT_ONCE 1024

enum { S_OUT, S_TRUTH, S_FORCE, S_ROWS, S_FIRST, S_PRESET, S_SEED, S_D, S_PARENTS, S_CHILDREN, S_INDEPENDENT, S_P_PARENT, S_P_CHILD,
       S_QUIET, S_JSON, S_THREADS, S_OPTIONS };

enum { HIERARCHY = 100 };
static const option_choice preset_choices[] = {
    {"hierarchy", HIERARCHY}, {"chanin", ATMSAE_SYNTH_CHANIN}, {"matryoshka", ATMSAE_SYNTH_MATRYOSHKA},
    {"synthsaebench-16k", ATMSAE_SYNTH_BENCH_16K}, {0},
};
static const uint64_t preset_d[] = {[ATMSAE_SYNTH_BENCH_16K] = 768, [ATMSAE_SYNTH_CHANIN] = 50, [ATMSAE_SYNTH_MATRYOSHKA] = 20};

static const option synth_options[S_OPTIONS] = {
    [S_OUT] = {.group = "files", .name = "out", .kind = OPTION_TEXT, .file = OPTION_WRITTEN, .required = true, .value = "FILE",
               .help = "the rows [n, d], f32: .npy, or .safetensors with the tensor `activations`"},
    [S_TRUTH] = {.name = "truth", .kind = OPTION_TEXT, .file = OPTION_WRITTEN, .value = "FILE",
                 .help = ".safetensors for `directions` [features, d], of norm 1, and `active` [n, features], 0 or 1"},
    [S_FORCE] = {.name = "force", .kind = OPTION_FLAG, .help = "replace files that are there already"},
    [S_ROWS] = {.group = "rows", .name = "rows", .kind = OPTION_COUNT, .min = 1, .max = 1e12, .value = "N", .preset = "100k",
                .help = "how many"},
    [S_FIRST] = {.name = "first", .kind = OPTION_COUNT, .max = 1e12, .value = "ROW", .preset = "0",
                 .help = "number of the first row: those behind the training rows are for validation"},
    [S_PRESET] = {.name = "preset", .kind = OPTION_CHOICE, .value = "NAME", .choices = preset_choices, .preset = "hierarchy",
                  .help = "generator: parents with exclusive children, or a published one (synthsaebench-16k takes minutes to set up)"},
    [S_SEED] = {.name = "seed", .kind = OPTION_COUNT, .value = "S", .preset = "0", .help = "of directions and rows"},
    [S_D] = {.group = "hierarchy", .name = "d", .kind = OPTION_COUNT, .min = 1, .max = 4194304, .value = "D", .preset = "96",
             .help = "dimensions"},
    [S_PARENTS] = {.name = "parents", .kind = OPTION_COUNT, .max = 1e6, .value = "N", .preset = "12", .help = "parents"},
    [S_CHILDREN] = {.name = "children", .kind = OPTION_COUNT, .max = 1e6, .value = "N", .preset = "8", .help = "children of each parent"},
    [S_INDEPENDENT] = {.name = "independent", .kind = OPTION_COUNT, .max = 1e6, .value = "N", .preset = "60",
                       .help = "features without a parent"},
    [S_P_PARENT] = {.name = "p-parent", .kind = OPTION_REAL, .max = 1, .value = "P", .preset = "0.06", .help = "share of rows with a given parent"},
    [S_P_CHILD] = {.name = "p-child", .kind = OPTION_REAL, .max = 1, .value = "P", .preset = "0.8",
                   .help = "share of a parent's rows with one of its children"},
    [S_QUIET] = {.group = "output", .name = "quiet", .kind = OPTION_FLAG, .help = "no progress and no summary"},
    [S_JSON] = {.name = "json", .kind = OPTION_FLAG, .help = "the summary as one JSON object on stdout"},
    [S_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096,
                   .help = "threads that compute; the rows do not depend on it", .preset = "one for each CPU that it may use"},
};

static const char synth_help[] =
    "usage: atmsae synth --out FILE [--truth FILE] [--rows N] [OPTIONS]\n\n"
    "Writes rows whose features are known, to try settings on: each row is a sum of unit directions, some\n"
    "of which (children) occur only together with another (their parent). Row r depends on the seed and\n"
    "on r alone, so training and validation rows of one generator are two ranges of rows.\n\n"
    "examples\n"
    "  atmsae synth --out rows.npy --rows 1M\n"
    "  atmsae synth --out valid.npy --rows 20k --first 1M --truth valid-truth.safetensors\n"
    "  atmsae train rows.npy --valid valid.npy --d-sae 192 --k 4\n";

/* ---- files ------------------------------------------------------------------------------------------------ */

static void npy_header(FILE *out, uint64_t n, uint64_t d)
{
    char text[118];
    snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %llu), }", (unsigned long long)n,
             (unsigned long long)d);
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, out);
    fprintf(out, "%-117s\n", text);
}

static void safetensors_header(FILE *out, const char *json)
{
    const uint64_t length = (strlen(json) + 7) / 8 * 8;
    for (int i = 0; i < 8; i++) fputc((int)(length >> (8 * i) & 255), out);
    fprintf(out, "%-*s", (int)length, json);
}

/* ---- the command ------------------------------------------------------------------------------------------ */

typedef struct job {
    const setting *settings;
    atmsae_context *context;
    atmsae_synth *synth;
    uint64_t d, features, rows, first, active;
    file_writer out, truth; /* .file NULL: not wanted */
} job;

static bool make_generator(job *j)
{
    const setting *s = j->settings;
    const int32_t preset = s[S_PRESET].given ? s[S_PRESET].choice : HIERARCHY;
    if (preset != HIERARCHY) {
        j->d = preset_d[preset];
        return atmsae_synth_create_preset(j->context, preset, s[S_SEED].count, &j->synth) >= 0;
    }
    atmsae_synth_config config;
    atmsae_synth_config_init(&config, sizeof config);
    setting_count(&s[S_SEED], &config.seed);
    setting_count(&s[S_D], &config.d);
    setting_count(&s[S_PARENTS], &config.n_parents);
    setting_count(&s[S_CHILDREN], &config.n_children);
    setting_count(&s[S_INDEPENDENT], &config.n_independent);
    setting_real(&s[S_P_PARENT], &config.p_parent);
    setting_real(&s[S_P_CHILD], &config.p_child);
    j->d = config.d;
    return atmsae_synth_create(j->context, &config, &j->synth) >= 0;
}

static void headers(const job *j)
{
    char json[400];
    if (program_ends_with(j->out.path, ".npy")) npy_header(j->out.file, j->rows, j->d);
    else {
        snprintf(json, sizeof json, "{\"activations\":{\"dtype\":\"F32\",\"shape\":[%llu,%llu],\"data_offsets\":[0,%llu]}}",
                 (unsigned long long)j->rows, (unsigned long long)j->d, (unsigned long long)(4 * j->rows * j->d));
        safetensors_header(j->out.file, json);
    }
    if (!j->truth.file) return;
    const uint64_t directions = 4 * j->features * j->d;
    snprintf(json, sizeof json,
             "{\"directions\":{\"dtype\":\"F32\",\"shape\":[%llu,%llu],\"data_offsets\":[0,%llu]},"
             "\"active\":{\"dtype\":\"U8\",\"shape\":[%llu,%llu],\"data_offsets\":[%llu,%llu]}}",
             (unsigned long long)j->features, (unsigned long long)j->d, (unsigned long long)directions,
             (unsigned long long)j->rows, (unsigned long long)j->features, (unsigned long long)directions,
             (unsigned long long)(directions + j->rows * j->features));
    safetensors_header(j->truth.file, json);
    fwrite(atmsae_synth_directions(j->synth), 4, j->features * j->d, j->truth.file);
}

static bool write_rows(job *j)
{
    float *x = program_alloc(ROWS_AT_ONCE * j->d, sizeof *x);
    uint8_t *active = program_alloc(ROWS_AT_ONCE, j->features);
    progress line;
    progress_start(&line, "", j->settings[S_QUIET].given, 0, j->rows);
    headers(j);
    bool good = true;
    for (uint64_t done = 0; good && done < j->rows && !ferror(j->out.file) && !(j->truth.file && ferror(j->truth.file));) {
        const uint64_t n = j->rows - done < ROWS_AT_ONCE ? j->rows - done : ROWS_AT_ONCE;
        good = atmsae_synth_rows(j->synth, j->first + done, n, x, active) >= 0;
        if (!good) command_failed(j->context);
        else fwrite(x, sizeof *x, n * j->d, j->out.file);
        if (good && j->truth.file) fwrite(active, 1, n * j->features, j->truth.file);
        for (uint64_t i = 0; good && i < n * j->features; i++) j->active += active[i];
        done += n;
        progress_show(&line, done, NULL);
    }
    progress_break();
    free(x);
    free(active);
    return good;
}

static void print_summary(const job *j)
{
    fields out = {0};
    fields_text(&out, "out", j->out.path);
    fields_count(&out, "rows", j->rows);
    fields_count(&out, "d", j->d);
    fields_count(&out, "features", j->features);
    fields_real(&out, "true_l0", (double)j->active / (double)j->rows);
    if (j->settings[S_JSON].given) fields_print_json(&out, stdout);
    else fields_print(&out, stdout);
    fields_free(&out);
}

static bool run_job(job *j)
{
    const setting *s = j->settings;
    const bool replace = s[S_FORCE].given;
    if (!make_generator(j)) {
        command_failed(j->context);
        return false;
    }
    j->features = atmsae_synth_features(j->synth);
    if (!file_begin(&j->out, s[S_OUT].text, replace)) return false;
    bool good = (!s[S_TRUTH].given || file_begin(&j->truth, s[S_TRUTH].text, replace)) && write_rows(j);
    if (j->truth.file) good = file_end(&j->truth, good);
    good = file_end(&j->out, good);
    if (good && !(s[S_QUIET].given && !s[S_JSON].given)) print_summary(j);
    return good;
}

/* Endings say what a file is; a preset has its own sizes. */
static bool check(const setting *s)
{
    const char *bad = NULL;
    if (!program_ends_with(s[S_OUT].text, ".npy") && !program_ends_with(s[S_OUT].text, ".safetensors")) bad = "--out: a name that ends in .npy or .safetensors";
    if (s[S_TRUTH].given && !program_ends_with(s[S_TRUTH].text, ".safetensors")) bad = "--truth: a name that ends in .safetensors";
    for (int i = S_D; i <= S_P_CHILD && s[S_PRESET].given && s[S_PRESET].choice != HIERARCHY; i++)
        if (s[i].given) bad = "--d, --parents and so on: only with --preset hierarchy";
    if (bad) program_error("%s", bad);
    return !bad;
}

static int run_synth(const setting *s)
{
    if (!check(s)) return EXIT_USAGE;
    job j = {.settings = s, .rows = 100000, .context = command_context(&s[S_THREADS], NULL, s[S_QUIET].given)};
    if (!j.context) return EXIT_FAILED;
    setting_count(&s[S_ROWS], &j.rows);
    setting_count(&s[S_FIRST], &j.first);
    const bool good = run_job(&j);
    atmsae_synth_destroy(j.synth);
    atmsae_context_destroy(j.context);
    return good ? EXIT_OK : EXIT_FAILED;
}

const command command_synth = {.name = "synth", .summary = "write rows with known features, to try settings on",
                               .help = synth_help, .options = synth_options, .n_options = S_OPTIONS, .run = run_synth};
