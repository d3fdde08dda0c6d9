/* SPDX-License-Identifier: MIT
 *
 * atmsae convert: an SAE from one format into another.
 */
#include "command.h"
#include "program.h"
#include "run_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { C_PATHS, C_TO, C_FOLD, C_MODEL_NAME, C_HOOK_NAME, C_HOOK_NAME_OUT, C_FORCE, C_LATENTS, C_STRENGTH, C_LAYER, C_JSON, C_OPTIONS };
enum { TO_SAELENS, TO_GEMMA_SCOPE, TO_GGUF };

static const option_choice formats[] = {
    {"saelens", TO_SAELENS}, {"gemma-scope", TO_GEMMA_SCOPE}, {"npz", TO_GEMMA_SCOPE}, {"gguf", TO_GGUF}, {NULL, 0},
};
static const char *const format_names[] = {"saelens", "gemma-scope", "gguf"};

static const option convert_options[C_OPTIONS] = {
    [C_PATHS] = {.group = "what", .kind = OPTION_TEXTS, .required = true, .value = "IN OUT",
                 .help = "an SAE in any format that can be read; what to write"},
    [C_TO] = {.name = "to", .kind = OPTION_CHOICE, .value = "FORMAT", .choices = formats,
              .help = "format of OUT: a SAELens v6 folder, Gemma Scope's params.npz, llama.cpp's control vector",
              .preset = "by OUT's ending: .npz, .gguf, else saelens"},
    [C_FOLD] = {.name = "fold-decoder-norm", .kind = OPTION_FLAG,
                .help = "give W_dec rows of norm 1, as SAEBench wants them; reconstructions stay"},
    [C_MODEL_NAME] = {.name = "model-name", .kind = OPTION_TEXT, .value = "NAME", .preset = "as in IN",
                      .help = "name of the language model to write into OUT"},
    [C_HOOK_NAME] = {.name = "hook-name", .kind = OPTION_TEXT, .value = "NAME", .preset = "as in IN",
                     .help = "where its rows were taken, to write into OUT"},
    [C_HOOK_NAME_OUT] = {.name = "hook-name-out", .kind = OPTION_TEXT, .value = "NAME", .preset = "as in IN",
                         .help = "of a transcoder: where its targets were taken. It says that IN is one where IN's format does not: "
                                 "params.npz, ae.pt"},
    [C_FORCE] = {.name = "force", .kind = OPTION_FLAG, .help = "replace OUT if it is there"},
    [C_LATENTS] = {.group = "gguf", .name = "latents", .kind = OPTION_COUNTS, .value = "I,I,...", .min = 0, .max = 2147483647,
                   .help = "latents whose decoder rows are added up"},
    [C_STRENGTH] = {.name = "strength", .kind = OPTION_REAL, .value = "S", .min = -1e9, .max = 1e9, .preset = "1",
                    .help = "value that each of the latents is to have"},
    [C_LAYER] = {.name = "layer", .kind = OPTION_COUNT, .value = "N", .min = 1, .max = 65536,
                 .help = "block, from 0, whose output is steered: L for blocks.L.hook_resid_post, L - 1 for hook_resid_pre"},
    [C_JSON] = {.group = "output", .name = "json", .kind = OPTION_FLAG, .help = "one JSON object on stdout"},
};

static const char convert_help[] =
    "usage: atmsae convert IN OUT [--to FORMAT] [OPTIONS]\n\n"
    "Reads an SAE: a SAELens v6 folder, an eai-sparsify folder, Gemma Scope's params.npz, Gemma Scope 2's\n"
    "params.safetensors, or dictionary_learning's ae.pt with its config.json (nothing in a .pt is executed).\n"
    "Writes it so that the reader of the other format computes the same, or says why that cannot be.\n\n"
    "examples\n"
    "  atmsae convert layer_20/width_16k/average_l0_71 sae            to a SAELens folder\n"
    "  atmsae convert trainer_0/ae.pt sae --fold-decoder-norm         ready for SAEBench\n"
    "  atmsae convert sae params.npz                                  to Gemma Scope's layout\n"
    "  atmsae convert params.npz tc --hook-name-out blocks.5.hook_mlp_out     a transcoder, which its file does not say\n"
    "  atmsae convert sae happy.gguf --latents 1203 --strength 8 --layer 20\n"
    "      llama-cli -m model.gguf --control-vector happy.gguf\n";

static int usage_error(const char *text)
{
    program_error("convert: %s (atmsae convert --help)", text);
    return EXIT_USAGE;
}

static bool is_gguf(const setting *s)
{
    const char *out = s[C_PATHS].texts[1];
    const size_t n = strlen(out);
    return s[C_TO].given ? s[C_TO].choice == TO_GGUF : n >= 5 && strcmp(out + n - 5, ".gguf") == 0;
}

static bool save(atmsae_context *context, const atmsae_model *model, const setting *s)
{
    const size_t n = s[C_LATENTS].n;
    uint32_t *latents = program_alloc(n + 1, sizeof *latents);
    float *strengths = program_alloc(n + 1, sizeof *strengths);
    for (size_t i = 0; i < n; i++) {
        latents[i] = (uint32_t)s[C_LATENTS].counts[i];
        strengths[i] = s[C_STRENGTH].given ? (float)s[C_STRENGTH].real : 1;
    }
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    if (s[C_TO].given) options.format = format_names[s[C_TO].choice];
    options.fold_decoder_norm = s[C_FOLD].given;
    options.model_name = s[C_MODEL_NAME].text;
    options.hook_name = s[C_HOOK_NAME].text;
    options.hook_name_out = s[C_HOOK_NAME_OUT].text;
    options.latents = latents;
    options.strengths = strengths;
    options.n_latents = n;
    options.layer = (uint32_t)s[C_LAYER].count;
    const bool good = atmsae_model_save(model, s[C_PATHS].texts[1], &options) >= 0;
    if (!good) command_failed(context);
    free(latents);
    free(strengths);
    return good;
}

static bool report(atmsae_context *context, const atmsae_model *model, const setting *s)
{
    fields out = {0};
    atmsae_model_origin origin = {.size = sizeof origin};
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    const bool good = atmsae_model_get_origin(model, &origin) >= 0 && atmsae_model_get_config(model, &config) >= 0;
    if (good) {
        fields_text(&out, "in", s[C_PATHS].texts[0]);
        fields_text(&out, "format", origin.format);
        fields_count(&out, "d-in", config.d_in);
        fields_count(&out, "d-sae", config.d_sae);
        fields_text(&out, "out", s[C_PATHS].texts[1]);
        if (s[C_JSON].given) fields_print_json(&out, stdout);
        else fields_print(&out, stdout);
    } else {
        command_failed(context);
    }
    fields_free(&out);
    return good;
}

/* OUT may be a folder, too. */
static bool may_write(const char *out, const setting *s)
{
    struct stat stats;
    if (path_is_input(out, s[C_PATHS].texts[0])) return false;
    if (s[C_FORCE].given || lstat(out, &stats) != 0) return true;
    program_error("%s is there already; --force replaces it", out);
    return false;
}

static int run_convert(const setting *s)
{
    if (s[C_PATHS].n != 2) return usage_error("it takes two paths, IN and OUT");
    if (is_gguf(s) && (!s[C_LATENTS].given || !s[C_LAYER].given)) return usage_error("a gguf needs --latents and --layer");
    if (!is_gguf(s) && (s[C_LATENTS].given || s[C_LAYER].given || s[C_STRENGTH].given))
        return usage_error("--latents, --strength and --layer are for --to gguf");
    if (!may_write(s[C_PATHS].texts[1], s)) return EXIT_FAILED;
    atmsae_context *context = command_context(&(setting){.given = true, .count = 1}, NULL, true);
    if (!context) return EXIT_FAILED;
    int code = EXIT_FAILED;
    atmsae_model *model = sae_load(context, s[C_PATHS].texts[0]);
    if (model && save(context, model, s) && report(context, model, s)) code = EXIT_OK;
    atmsae_model_destroy(model);
    atmsae_context_destroy(context);
    return code;
}

const command command_convert = {.name = "convert", .summary = "bring an SAE from one format into another", .help = convert_help,
                                 .options = convert_options, .n_options = C_OPTIONS, .run = run_convert};
