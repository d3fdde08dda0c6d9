/* SPDX-License-Identifier: MIT
 *
 * atmsae features: what makes each latent of an SAE fire, found in one pass over rows; a page to look at it.
 */
#include "features_more.h"
#include "files.h"
#include "program.h"
#include "progress.h"
#include "rows.h"
#include "run_file.h"

#include <stdlib.h>
#include <string.h>

enum { F_SAE, F_INPUT, F_TENSOR, F_BF16, F_WORDS, F_TOKENS, F_IMPORTANCE, F_LATENTS, F_TOP, F_EXAMPLES, F_NEIGHBOURS,
       F_OUT, F_JSON, F_FORCE, F_TITLE, F_QUIET, F_THREADS, F_OPTIONS };

enum { ROWS_AT_ONCE = 4096, TOP = 16384, EXAMPLES = 12, NEIGHBOURS = 8, PAGE_BYTES = 18000000 };

static const option features_options[F_OPTIONS] = {
    [F_SAE] = {.group = "what", .name = "sae", .kind = OPTION_TEXT, .file = OPTION_READ, .required = true, .value = "DIR",
               .help = "the SAE: a folder as train writes it, or any that convert reads"},
    [F_INPUT] = {.name = "input", .kind = OPTION_TEXTS, .file = OPTION_READ, .required = true, .value = "FILE",
                 .help = "rows to look at, .npy or .safetensors"},
    [F_TENSOR] = {.name = "tensor", .kind = OPTION_TEXT, .value = "NAME",
                  .help = "tensor to read from --input .safetensors files",
                  .preset = "\"activations\", or the only one of rows"},
    [F_BF16] = {.name = "bf16", .kind = OPTION_FLAG, .help = "16-bit integers in --input .npy files hold bf16"},
    [F_WORDS] = {.name = "words", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "FILE",
                 .help = "what the rows are: a text file with one line a row, in the rows' order"},
    [F_TOKENS] = {.name = "tokens", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "FILE",
                  .help = "the same for running text, one token a line: the page shows tokens around it. An empty line is "
                          "no row, but the end of a document"},
    [F_IMPORTANCE] = {.name = "importance", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "FILE",
                      .help = "importance of the latents over training, as train leaves it",
                      .preset = "importance.safetensors in the SAE's folder, if it is there"},
    [F_LATENTS] = {.group = "how much", .name = "latents", .kind = OPTION_COUNTS, .value = "N,N,..",
                   .help = "these latents only", .preset = "all that fired, see --top"},
    [F_TOP] = {.name = "top", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 2147483647,
               .help = "only the N latents that fire most often", .preset = "16384"},
    [F_EXAMPLES] = {.name = "examples", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 1024, .preset = "12",
                    .help = "rows to show for each latent, those of its largest activations"},
    [F_NEIGHBOURS] = {.name = "neighbours", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 256, .preset = "8",
                      .help = "similar latents to show for each, by cosine of decoder rows"},
    [F_OUT] = {.group = "output", .name = "out", .kind = OPTION_TEXT, .file = OPTION_WRITTEN, .value = "FILE.html",
               .help = "the page, one file that needs no other. At most 20 MB: it ends with the last latent that fits"},
    [F_JSON] = {.name = "json", .kind = OPTION_TEXT, .file = OPTION_WRITTEN, .value = "FILE", .help = "the same as JSON, without a limit"},
    [F_FORCE] = {.name = "force", .kind = OPTION_FLAG, .help = "replace a file that is there already; what the command reads is never replaced"},
    [F_TITLE] = {.name = "title", .kind = OPTION_TEXT, .value = "TEXT", .help = "heading of the page",
                 .preset = "made of the SAE's name"},
    [F_QUIET] = {.name = "quiet", .kind = OPTION_FLAG, .help = "no progress, no summary"},
    [F_THREADS] = {.name = "threads", .kind = OPTION_COUNT, .value = "T", .min = 1, .max = 4096,
                   .help = "threads that compute", .preset = "one for each CPU that it may use"},
};

static const char features_help[] =
    "usage: atmsae features --sae DIR --input FILE... [--words FILE | --tokens FILE]\n"
    "                       [--out FILE.html] [--json FILE]\n\n"
    "Finds in one pass the rows on which each latent is largest, how often it fires, the latents whose\n"
    "decoder rows are most similar, and how important it was over training. --out is a page to browse in\n"
    "that works without a network; doc/features.md describes both.\n\n"
    "examples\n"
    "  atmsae features --sae out/atm --input words.safetensors --tensor prompted --words words.txt --out features.html\n"
    "  atmsae features --sae out/atm --input acts.npy --tokens tokens.txt --latents 12,977 --json two.json\n";

/* ---- the pass over the rows ------------------------------------------------------------------------- */

static bool failed(const atmsae_context *context)
{
    command_failed(context);
    return false;
}

static void count_batch(features *f, const atmsae_codes_view *view)
{
    const uint64_t entries = view->row_start[view->n_rows];
    for (uint64_t e = 0; e < entries; e++) {
        f->fired[view->latent[e]]++;
        f->sum[view->latent[e]] += (double)view->value[e];
    }
    f->entries += entries;
    f->rows += view->n_rows;
}

static bool pass(features *f, atmsae_context *context, const atmsae_model *model, atmsae_source *source, bool quiet)
{
    float *rows = program_alloc(ROWS_AT_ONCE * atmsae_source_d(source), sizeof *rows);
    atmsae_batch batch;
    batch_on(&batch, source, rows);
    batch.n_rows = ROWS_AT_ONCE;
    atmsae_codes *codes = NULL;
    atmsae_codes_view view = {.size = sizeof view};
    progress line;
    progress_start(&line, "", quiet, 0, atmsae_source_rows(source));
    bool good = atmsae_codes_create(context, &codes) >= 0 &&
                atmsae_top_rows_create(context, f->model.d_sae, f->n_top, &f->top) >= 0;
    while (good && batch.n_rows == ROWS_AT_ONCE) {
        good = atmsae_source_next(source, ROWS_AT_ONCE, rows, &batch.n_rows) >= 0;
        if (!good || batch.n_rows == 0) break;
        good = atmsae_encode(model, &batch, codes) >= 0 && atmsae_top_rows_add(f->top, codes, f->rows) >= 0 &&
               atmsae_codes_get(codes, &view) >= 0;
        if (!good) break;
        count_batch(f, &view);
        progress_show(&line, f->rows, NULL);
    }
    if (good) progress_end(&line, f->rows, NULL);
    else if (!explain_bad_row(source, &batch)) command_failed(context);
    atmsae_codes_destroy(codes);
    free(rows);
    return good;
}

/* ---- what else is shown ------------------------------------------------------------------------------------ */

static bool read_labels(features *f, const setting *s, uint64_t rows)
{
    const setting *from = s[F_TOKENS].given ? &s[F_TOKENS] : &s[F_WORDS];
    if (!from->given) return true;
    if (!labels_read(&f->labels, from->text, s[F_TOKENS].given)) return false;
    if (f->labels.n == rows) return true;
    program_error("%s: %llu lines%s, but --input has %llu rows; expected a line for each", from->text,
            (unsigned long long)f->labels.n, s[F_TOKENS].given ? " that are not empty" : "", (unsigned long long)rows);
    return false;
}

static bool read_importance(features *f, atmsae_context *context, const setting *s)
{
    char *beside = program_path(s[F_SAE].text, IMPORTANCE_FILE);
    importance *history = importance_create(f->model.d_sae);
    char *run = s[F_IMPORTANCE].given ? NULL : run_file_read(f->sae); /* else what lies beside is not of this SAE */
    const bool good = (run || s[F_IMPORTANCE].given) &&
                      importance_load(history, context, s[F_IMPORTANCE].given ? s[F_IMPORTANCE].text : beside);
    free(run);
    if (good) f->importance = history;
    else importance_destroy(history);
    free(beside);
    if (good || !s[F_IMPORTANCE].given) return true;
    program_error("%s: no importance of %llu latents, as atmsae train writes it", s[F_IMPORTANCE].text,
            (unsigned long long)f->model.d_sae);
    return false;
}

typedef struct rank {
    uint64_t fired;
    uint32_t latent;
} rank;

static int more_often(const void *a, const void *b)
{
    const rank *x = a, *y = b;
    if (x->fired != y->fired) return x->fired > y->fired ? -1 : 1;
    return (x->latent > y->latent) - (x->latent < y->latent);
}

static void choose(features *f, const setting *s)
{
    if (s[F_LATENTS].given) {
        f->shown = program_alloc(s[F_LATENTS].n, sizeof *f->shown);
        for (size_t i = 0; i < s[F_LATENTS].n; i++) f->shown[f->n_shown++] = (uint32_t)s[F_LATENTS].counts[i];
        return;
    }
    uint64_t most = TOP, n = 0;
    setting_count(&s[F_TOP], &most);
    rank *ranks = program_alloc(f->model.d_sae, sizeof *ranks);
    for (uint64_t i = 0; i < f->model.d_sae; i++)
        if (f->fired[i] > 0) ranks[n++] = (rank){f->fired[i], (uint32_t)i};
    qsort(ranks, n, sizeof *ranks, more_often);
    f->n_shown = n < most ? n : most;
    f->shown = program_alloc(f->n_shown, sizeof *f->shown);
    for (uint64_t i = 0; i < f->n_shown; i++) f->shown[i] = ranks[i].latent;
    free(ranks);
}

static bool latents_exist(const features *f, const setting *latents)
{
    for (size_t i = 0; i < latents->n; i++)
        if (latents->counts[i] >= f->model.d_sae) {
            program_error("--latents: there is no latent %llu; they are 0 .. %llu",
                    (unsigned long long)latents->counts[i], (unsigned long long)f->model.d_sae - 1);
            return false;
        }
    return true;
}

/* ---- output -------------------------------------------------------------------------------------------------- */

typedef uint64_t writer(FILE *out, const features *f);

static uint64_t write_json(FILE *out, const features *f) { return features_json(out, f, 9, 0); }
static uint64_t write_page(FILE *out, const features *f) { return features_page(out, f, PAGE_BYTES); }

static bool write_file(const features *f, const setting *s, int which, writer *write)
{
    const char *path = s[which].text;
    file_writer out;
    if (!s[which].given) return true;
    if (!file_begin(&out, path, s[F_FORCE].given)) return false;
    const uint64_t written = write(out.file, f);
    if (!file_end(&out, true)) return false;
    if (!s[F_QUIET].given)
        program_note("wrote %s: %llu latents%s", path, (unsigned long long)written,
                     written < f->n_shown ? ", as many as fit; --top, --latents and --examples choose" : "");
    return true;
}

static bool find_all(features *f, atmsae_context *context, const atmsae_model *model, const setting *s)
{
    static const char *const archs[] = {"?", "standard", "topk", "batchtopk", "jumprelu", "jumprelu", "gated"};
    atmsae_source *source;
    if (atmsae_model_get_config(model, &f->model) < 0) return failed(context);
    f->arch = archs[f->model.activation];
    f->n_top = EXAMPLES;
    f->n_neighbours = NEIGHBOURS;
    setting_count(&s[F_EXAMPLES], &f->n_top);
    setting_count(&s[F_NEIGHBOURS], &f->n_neighbours);
    f->fired = program_alloc(f->model.d_sae, sizeof *f->fired);
    f->sum = program_alloc(f->model.d_sae, sizeof *f->sum);
    f->neighbour = program_alloc(f->model.d_sae * f->n_neighbours, sizeof *f->neighbour);
    f->cosine = program_alloc(f->model.d_sae * f->n_neighbours, sizeof *f->cosine);
    if (!latents_exist(f, &s[F_LATENTS]) || !read_importance(f, context, s) ||
        !open_rows(context, model, &(row_files){.rows = &s[F_INPUT], .tensor = s[F_TENSOR].text, .as_bf16 = s[F_BF16].given}, NULL, &source))
        return false;
    const bool good = read_labels(f, s, atmsae_source_rows(source)) && pass(f, context, model, source, s[F_QUIET].given);
    atmsae_source_destroy(source);
    if (!good) return false;
    if (atmsae_model_neighbours(model, ATMSAE_W_DEC, f->n_neighbours, f->neighbour, f->cosine) < 0) return failed(context);
    choose(f, s);
    return true;
}

static bool show(features *f, atmsae_context *context, const atmsae_model *model, const setting *s)
{
    return find_all(f, context, model, s) && write_file(f, s, F_OUT, write_page) && write_file(f, s, F_JSON, write_json);
}

static int run_features(const setting *s)
{
    if ((s[F_WORDS].given && s[F_TOKENS].given) || (!s[F_OUT].given && !s[F_JSON].given)) {
        program_error(s[F_WORDS].given && s[F_TOKENS].given ? "--words and --tokens: give one of them"
                                                            : "--out or --json is missing: where shall the result go?");
        return EXIT_USAGE;
    }
    atmsae_context *context = command_context(&s[F_THREADS], NULL, s[F_QUIET].given);
    if (!context) return EXIT_FAILED;
    features f = {.sae = s[F_SAE].text, .files = &s[F_INPUT]};
    atmsae_model_config_init(&f.model, sizeof f.model);
    const size_t size = strlen(f.sae) + 16;
    char *title = program_alloc(size, 1);
    snprintf(title, size, "Latents of %s", f.sae);
    f.title = s[F_TITLE].given ? s[F_TITLE].text : title;
    int code = EXIT_FAILED;
    atmsae_model *model = sae_load(context, f.sae);
    if (model && show(&f, context, model, s)) code = EXIT_OK;
    atmsae_top_rows_destroy(f.top);
    atmsae_model_destroy(model);
    atmsae_context_destroy(context);
    importance_destroy(f.importance);
    labels_free(&f.labels);
    void *memory[] = {f.fired, f.sum, f.neighbour, f.cosine, f.shown, title};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) free(memory[i]);
    return code;
}

const command command_features = {.name = "features", .summary = "find what makes latents fire, and write a page to browse them",
                                  .help = features_help, .options = features_options, .n_options = F_OPTIONS, .run = run_features};
