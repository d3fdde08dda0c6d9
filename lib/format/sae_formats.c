/* SPDX-License-Identifier: MIT
 *
 * The table of formats: how each is recognised, read and written.
 */
#include "format/sae_formats.h"
#include "sae/sae.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

static const struct format {
    const char *name;
    const char *weights; /* the file by which a folder is recognised; NULL: it cannot be read */
    const char *ending;  /* of files under other names; NULL: none */
    atmsae_status (*read)(atmsae_context *ctx, const ams_sae_place *place, atmsae_model **out);
    atmsae_status (*write)(const atmsae_model *model, const char *path, const atmsae_save_options *options); /* or NULL */
} formats[] = {
    {"saelens", AMS_FOLDER_WEIGHTS, NULL, ams_read_saelens, ams_write_saelens},
    {"sparsify", "sae.safetensors", NULL, ams_read_sparsify, NULL},
    {"gemma-scope", "params.npz", ".npz", ams_read_gemma_scope, ams_write_gemma_scope},
    {"gemma-scope-2", "params.safetensors", ".safetensors", ams_read_gemma_scope_2, NULL},
    {"dictionary-learning", "ae.pt", ".pt", ams_read_dictionary_learning, NULL},
    {"gguf", NULL, ".gguf", NULL, ams_write_gguf},
};
enum { FORMATS = sizeof formats / sizeof *formats, SAELENS = 0 };

/* ---- reading ---------------------------------------------------------------------------------------- */

/* Is it here? A save of a SAELens folder may have ended when its weights had but their staged name; weights of that
 * name which cfg.json does not name mean nothing. */
static atmsae_status look(atmsae_context *ctx, const char *dir, const struct format *format, const char *weights, bool *here)
{
    *here = ams_path_exists(weights);
    if (*here || format != &formats[SAELENS]) return ATMSAE_OK;
    ams_folder folder;
    atmsae_status status = ams_folder_find(&folder, ctx, dir);
    if (status == ATMSAE_OK) status = ams_folder_pending(&folder, here);
    ams_folder_end(&folder);
    return status == ATMSAE_E_NOMEM ? status : ATMSAE_OK;
}

/* The format whose weights are in the folder. *weights: their path. */
static atmsae_status find_in_folder(atmsae_context *ctx, const char *dir, const struct format **format, char **weights)
{
    for (int i = 0; i < FORMATS; i++) {
        if (!formats[i].weights) continue;
        char *path = ams_path_join(ctx, dir, formats[i].weights);
        bool here = false;
        atmsae_status status = path ? look(ctx, dir, &formats[i], path, &here) : ATMSAE_E_NOMEM;
        if (here) {
            *format = &formats[i];
            *weights = path;
            return ATMSAE_OK;
        }
        ams_free(ctx, path);
        AMS_TRY(status);
    }
    return ams_fail(ctx, ATMSAE_E_IO, "%s: no SAE: there is no sae_weights.safetensors (SAELens), sae.safetensors (sparsify), "
                    "params.npz, params.safetensors (Gemma Scope) or ae.pt (dictionary_learning) in it; a file of another name is given by "
                    "its own path", dir);
}

/* The format of a file: by its whole name, then by its ending. */
static const struct format *find_by_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char staged[sizeof AMS_FOLDER_WEIGHTS AMS_STAGED];
    ams_staged_name(staged, sizeof staged, AMS_FOLDER_WEIGHTS);
    if (strcmp(name, staged) == 0) return &formats[SAELENS];
    for (int i = 0; i < FORMATS; i++)
        if (formats[i].weights && strcmp(formats[i].weights, name) == 0) return &formats[i];
    for (int i = 0; i < FORMATS; i++)
        if (formats[i].ending && ams_ends_with(name, formats[i].ending)) return &formats[i];
    return NULL;
}

/* "." for a bare name, "/" for one in the root. */
static char *parent(atmsae_context *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *from = slash ? path : ".";
    size_t length = !slash || slash == path ? 1 : (size_t)(slash - path);
    char *dir = ams_alloc(ctx, length + 1, 1);
    if (!dir) {
        (void)ams_nomem(ctx, path);
        return NULL;
    }
    memcpy(dir, from, length);
    dir[length] = '\0';
    return dir;
}

static atmsae_status find_file(atmsae_context *ctx, const char *path, const struct format **format, char **weights)
{
    const char *slash = strrchr(path, '/');
    if (strcmp(slash ? slash + 1 : path, "cfg.json") == 0) { /* means the folder */
        char *dir = parent(ctx, path);
        atmsae_status status = dir ? find_in_folder(ctx, dir, format, weights) : ATMSAE_E_NOMEM;
        ams_free(ctx, dir);
        return status;
    }
    *format = find_by_name(path);
    if (!*format || !(*format)->read)
        return ams_fail(ctx, ATMSAE_E_UNSUPPORTED, "%s: not a file of an SAE by its name; folders and .npz, .safetensors and .pt files are "
                        "read", path);
    size_t size = strlen(path) + 1;
    *weights = ams_alloc(ctx, size, 1);
    if (!*weights) return ams_nomem(ctx, path);
    memcpy(*weights, path, size);
    return ATMSAE_OK;
}

static atmsae_status load(atmsae_context *ctx, const char *path, atmsae_model **out)
{
    if (!path || !out) return ams_fail(ctx, ATMSAE_E_ARG, "model_load: NULL argument");
    struct stat st;
    ams_sae_place place = {0};
    const struct format *format = NULL;
    if (stat(path, &st) != 0) return ams_fail_errno(ctx, path, "cannot open", errno);
    atmsae_status status = (S_ISDIR(st.st_mode) ? find_in_folder : find_file)(ctx, path, &format, &place.weights);
    if (status < 0) return status;
    place.folder = parent(ctx, place.weights);
    status = place.folder ? format->read(ctx, &place, out) : ATMSAE_E_NOMEM;
    if (status < 0) status = ams_foreign_sae(ctx, place.weights, status);
    ams_free(ctx, place.weights);
    ams_free(ctx, place.folder);
    return status;
}

atmsae_status atmsae_model_load(atmsae_context *ctx, const char *path, atmsae_model **out)
{
    if (out) *out = NULL;
    if (!ctx) return ATMSAE_E_ARG;
    AMS_CALL(ctx, load(ctx, path, out));
}

static bool may_transcode(const atmsae_model *model) { return model->config.transcoder || model->origin.unsaid; }

static atmsae_status get_origin(const atmsae_model *model, atmsae_model_origin *out)
{
    const ams_model_origin *o = &model->origin;
    const atmsae_model_origin origin = {.format = o->format, .model_name = o->model_name, .hook_name = o->hook_name,
                                        .hook_name_out = o->hook_name_out, .may_transcode = may_transcode(model)};
    return ams_struct_out(model->ctx, atmsae_model_origin, out, &origin);
}

atmsae_status atmsae_model_get_origin(const atmsae_model *model, atmsae_model_origin *origin)
{
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, get_origin(model, origin), AMS_READS("model", model));
}

/* ---- writing ---------------------------------------------------------------------------------------- */

void atmsae_save_options_init(atmsae_save_options *options, size_t size)
{
    static const atmsae_save_options defaults = {0};
    ams_struct_init(options, size, &defaults, sizeof defaults);
}

static const struct format *format_to_write(const char *name, const char *path)
{
    for (int i = 0; i < FORMATS; i++) {
        if (!formats[i].write) continue;
        if (name ? strcmp(formats[i].name, name) == 0 : formats[i].ending && ams_ends_with(path, formats[i].ending)) return &formats[i];
    }
    return name ? NULL : &formats[SAELENS];
}

static atmsae_status save(const atmsae_model *model, const char *path, const atmsae_save_options *caller)
{
    atmsae_context *ctx = model->ctx;
    if (!path) return ams_fail(ctx, ATMSAE_E_ARG, "model_save: path is NULL");
    atmsae_save_options options;
    atmsae_save_options_init(&options, sizeof options);
    if (caller)
        AMS_TRY(ams_struct_in(ctx, atmsae_save_options, &options, caller));
    const struct format *format = format_to_write(options.format, path);
    if (!format)
        return ams_fail(ctx, ATMSAE_E_ARG, "model_save: format \"%.80s\", allowed: saelens, gemma-scope, gguf", options.format);
    if (options.fold_decoder_norm != 0 && options.fold_decoder_norm != 1)
        return ams_fail(ctx, ATMSAE_E_ARG, "model_save: fold_decoder_norm = %d, allowed: 0 or 1", options.fold_decoder_norm);
    if (!options.model_name) options.model_name = model->origin.model_name;
    if (!options.hook_name) options.hook_name = model->origin.hook_name;
    if (options.hook_name_out && !may_transcode(model))
        return ams_fail(ctx, ATMSAE_E_ARG, "model_save: hook_name_out \"%.80s\": the model is no transcoder: leave it out", options.hook_name_out);
    if (!options.hook_name_out) options.hook_name_out = model->origin.hook_name_out;
    return format->write(model, path, &options);
}

atmsae_status atmsae_model_save(const atmsae_model *model, const char *path, const atmsae_save_options *caller)
{
    if (!model) return ATMSAE_E_ARG;
    AMS_CALL(model->ctx, save(model, path, caller), AMS_READS("model", model));
}
