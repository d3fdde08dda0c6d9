/* SPDX-License-Identifier: MIT
 *
 * The rule for what a command writes: what is there already only with --force, what it reads never.
 */
#include "command.h"
#include "files.h"
#include "importance.h"
#include "program.h"
#include "run_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The files of an SAE's folder that somebody reads. */
static const char *const sae_files[] = {
    SAE_CONFIG_FILE, SAE_WEIGHTS_FILE, SAE_STAGED_FILE, RUN_FILE, IMPORTANCE_FILE, CHECKPOINT_FILE, PREVIOUS_FILE,
    "sae.safetensors", "config.json", "params.safetensors", "params.npz", "ae.pt", /* of other packages */
};

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Is one of the two such a file in the folder that is the other? */
static bool in_folder(const char *folder, const char *file)
{
    for (size_t i = 0; i < sizeof sae_files / sizeof *sae_files; i++) {
        char *inside = program_path(folder, sae_files[i]);
        const bool same = is_there(inside) && file_same(inside, file);
        free(inside);
        if (same) return true;
    }
    return false;
}

bool path_is_input(const char *output, const char *input)
{
    if (!file_same(output, input) && !in_folder(input, output) && !in_folder(output, input)) return false;
    program_error("%s: is read by this command, so it is not written to (%s)", output, input);
    return true;
}

static bool given(const option *options, size_t n, const setting *settings, const char *name)
{
    const option *o = option_find(options, n, name);
    return o && settings[o - options].given;
}

/* The texts of one option or, beyond its number of them, NULL. */
static const char *text_of(const option *o, const setting *s, size_t i)
{
    if (!s->given || i >= (o->kind == OPTION_TEXTS ? s->n : 1)) return NULL;
    return o->kind == OPTION_TEXTS ? s->texts[i] : s->text;
}

/* `output` is the setting of one option that is written to. */
static bool allowed(const option *options, size_t n, const setting *settings, size_t output, bool replace)
{
    const char *path = settings[output].text;
    for (size_t i = 0; i <= n; i++) {
        const option *o = i < n ? &options[i] : &option_config;
        const char *other;
        for (size_t k = 0; o->file == OPTION_READ && (other = text_of(o, &settings[i], k)); k++)
            if (path_is_input(path, other)) return false;
        if (o->file != OPTION_WRITTEN || i >= output || !settings[i].given || !file_same(path, settings[i].text)) continue;
        program_error("--%s and --%s: both are %s", o->name, options[output].name, path);
        return false;
    }
    return file_may_write(path, replace);
}

bool paths_allowed(const option *options, size_t n, const setting *settings)
{
    const bool replace = given(options, n, settings, "force") || given(options, n, settings, "resume");
    for (size_t i = 0; i < n; i++)
        if (options[i].file == OPTION_WRITTEN && settings[i].given && !allowed(options, n, settings, i, replace)) return false;
    return true;
}
