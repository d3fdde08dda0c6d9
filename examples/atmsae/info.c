/* SPDX-License-Identifier: MIT
 *
 * atmsae info: what an SAE folder, a checkpoint or a tensor file holds.
 */
#include "check.h"
#include "program.h"
#include "run_file.h"

#include <stdlib.h>
#include <sys/stat.h>

enum { I_PATH, I_CHECK, I_TENSOR, I_BF16, I_JSON, I_OPTIONS };

static const option info_options[I_OPTIONS] = {
    [I_PATH] = {.group = "what", .kind = OPTION_TEXTS, .required = true, .value = "PATH",
                .help = "SAEs in any format, checkpoints, .npy, .npz, .safetensors and .pt files"},
    [I_CHECK] = {.group = "rows", .name = "check", .kind = OPTION_FLAG,
                 .help = "read all rows of the files as train would, and say what they are like"},
    [I_TENSOR] = {.name = "tensor", .kind = OPTION_TEXT, .value = "NAME", .help = "with --check: the tensor of .safetensors files",
                  .preset = "activations, or the only one of rows"},
    [I_BF16] = {.name = "bf16", .kind = OPTION_FLAG, .help = "with --check: 16-bit integers in .npy files are bfloat16"},
    [I_JSON] = {.group = "output", .name = "json", .kind = OPTION_FLAG, .help = "one JSON object a path on stdout"},
};

static const char info_help[] =
    "usage: atmsae info PATH... [--json]\n"
    "       atmsae info --check FILE... [--tensor NAME] [--bf16] [--json]\n\n"
    "Shows shapes and settings: of an SAE its format, architecture and sizes, of a checkpoint every\n"
    "setting of its run and how far it got, of another tensor file its tensors.\n"
    "With --check it reads files of activations from end to end: rows with a NaN or infinite value, which\n"
    "would fail a run (exit code 1), rows of zeros, columns that never change, and how long rows are.\n\n"
    "examples\n"
    "  atmsae info out/atm\n"
    "  atmsae info out/atm/checkpoint.safetensors activations.npy\n"
    "  atmsae info trainer_0/ae.pt params.npz\n"
    "  atmsae info --check acts-*.npy\n";

static bool sae_info(atmsae_context *context, const char *path, fields *out)
{
    atmsae_model *model;
    if (atmsae_model_load(context, path, &model) < 0) return false;
    atmsae_model_config config;
    atmsae_model_config_init(&config, sizeof config);
    atmsae_model_origin origin = {.size = sizeof origin};
    const bool good = atmsae_model_get_config(model, &config) >= 0 && atmsae_model_get_origin(model, &origin) >= 0;
    if (good) {
        static const char *const names[] = {"?", "standard", "topk", "batchtopk", "jumprelu", "jumprelu", "gated"};
        fields_text(out, "kind", "SAE");
        fields_text(out, "format", origin.format);
        fields_text(out, "arch", config.activation >= 1 && config.activation <= 6 ? names[config.activation] : "?");
        fields_count(out, "d-in", config.d_in);
        fields_count(out, "d-out", config.d_out ? config.d_out : config.d_in);
        fields_count(out, "d-sae", config.d_sae);
        if (config.activation == ATMSAE_TOPK) fields_real(out, "k", config.k);
        fields_flag(out, "transcoder", config.transcoder);
        fields_flag(out, "centred", !config.uncentred);
        if (origin.model_name) fields_text(out, "model-name", origin.model_name);
        if (origin.hook_name) fields_text(out, "hook-name", origin.hook_name);
        if (origin.hook_name_out) fields_text(out, "hook-name-out", origin.hook_name_out);
    }
    atmsae_model_destroy(model);
    return good;
}

static bool checkpoint_info(atmsae_context *context, const char *path, fields *out)
{
    atmsae_trainer *trainer;
    if (atmsae_trainer_load(context, path, NULL, &trainer) < 0) return false;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    const bool good = atmsae_trainer_get_config(trainer, &config) >= 0;
    if (good) {
        fields_text(out, "kind", "checkpoint");
        fields_count(out, "steps-done", atmsae_trainer_steps_done(trainer));
        trainer_fields(out, &config);
    }
    atmsae_trainer_destroy(trainer);
    return good;
}

static char *shape_text(const atmsae_tensor_info *info)
{
    char *text = NULL;
    size_t size;
    FILE *out = program_text_open(&text, &size);
    fprintf(out, "%s [", info->dtype);
    for (uint64_t i = 0; i < info->rank; i++)
        fprintf(out, "%s%llu", i ? ", " : "", (unsigned long long)info->shape[i]);
    fputc(']', out);
    return program_text_close(out, &text);
}

static bool tensors_info(atmsae_context *context, const char *path, fields *out)
{
    atmsae_tensors *tensors;
    if (atmsae_tensors_open(context, path, &tensors) < 0) return false;
    fields_text(out, "kind", "tensor file");
    bool good = true;
    for (uint64_t i = 0; i < atmsae_tensors_count(tensors) && good; i++) {
        atmsae_tensor_info info = {.size = sizeof info};
        good = atmsae_tensors_info(tensors, i, &info) >= 0;
        if (!good) break;
        char *text = shape_text(&info);
        fields_text(out, info.name[0] ? info.name : "array", text);
        free(text);
    }
    atmsae_tensors_close(tensors);
    return good;
}

static bool path_info(atmsae_context *context, const char *path, fields *out)
{
    struct stat stats;
    fields_text(out, "path", path);
    if (stat(path, &stats) == 0 && S_ISDIR(stats.st_mode)) return sae_info(context, path, out);
    /* Checkpoints and SAEs are tensor files too; only loading them tells. */
    if (program_ends_with(path, ".safetensors") && checkpoint_info(context, path, out)) return true;
    if (program_ends_with(path, CHECKPOINT_FILE)) fields_text(out, "no checkpoint", atmsae_last_error(context));
    else if (!program_ends_with(path, ".npy") && sae_info(context, path, out)) return true;
    return tensors_info(context, path, out);
}

static bool describe_path(atmsae_context *context, const char *path, fields *out)
{
    if (path_info(context, path, out)) return true;
    command_failed(context);
    sae_hint(context, path);
    return false;
}

static int run_info(const setting *s)
{
    atmsae_context *context = command_context(&(setting){.given = true, .count = 1}, NULL, true);
    if (!context) return EXIT_FAILED;
    int code = EXIT_OK;
    for (size_t i = 0; i < s[I_PATH].n; i++) {
        fields out = {0};
        bool bad = false;
        const bool good = s[I_CHECK].given
                              ? check_rows(context, s[I_PATH].texts[i], s[I_TENSOR].text, s[I_BF16].given, &out, &bad)
                              : describe_path(context, s[I_PATH].texts[i], &out);
        if (!good || bad) code = EXIT_FAILED;
        if (good && s[I_JSON].given) fields_print_json(&out, stdout);
        else if (good) fields_print(&out, stdout);
        if (!s[I_JSON].given && i + 1 < s[I_PATH].n) putchar('\n');
        fields_free(&out);
    }
    atmsae_context_destroy(context);
    return code;
}

const command command_info = {.name = "info", .summary = "show what an SAE folder, checkpoint or tensor file holds",
                              .help = info_help, .options = info_options, .n_options = I_OPTIONS, .run = run_info};
