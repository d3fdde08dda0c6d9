/* SPDX-License-Identifier: MIT
 *
 * See run_file.h.
 */
#include "run_file.h"
#include "command.h"
#include "files.h"
#include "program.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *text_copy(const char *text, size_t length)
{
    return memcpy(program_alloc(length + 1, 1), text, length);
}

/* In valid JSON "key": is a key wherever it stands, because quotes within strings are escaped. */
char *json_value(const char *json, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = strstr(json, quoted);
    if (at) at += strlen(quoted);
    if (!at || at[strspn(at, " \t\r\n")] != ':') return NULL;
    at += strspn(at, " \t\r\n") + 1;
    at += strspn(at, " \t\r\n");
    const bool string = *at == '"';
    const size_t length = string ? strcspn(at + 1, "\"\\") : strcspn(at, ",]} \t\r\n");
    if (length == 0 || (string && at[1 + length] != '"') || (!string && strchr("[{", *at))) return NULL;
    return text_copy(at + string, length);
}

/* NULL without a message if the folder has no such file. */
static char *read_in(const char *folder, const char *name)
{
    char *path = program_path(folder, name);
    size_t size;
    char *text = access(path, F_OK) == 0 ? file_read(path, MOST_JSON_BYTES, &size) : NULL;
    free(path);
    return text;
}

char *run_file_sae(const char *folder)
{
    char *config = read_in(folder, SAE_CONFIG_FILE);
    char *sum = config ? json_value(config, "weights_crc64") : NULL;
    free(config);
    return sum;
}

char *run_file_read(const char *folder)
{
    char *json = read_in(folder, RUN_FILE);
    if (!json) return NULL;
    char *sae = run_file_sae(folder), *run = json_value(json, RUN_SAE_KEY);
    const bool same = sae && run && strcmp(sae, run) == 0;
    if (!same && sae)
        program_error("%s/" RUN_FILE " is %s, so its settings are left out: %s", folder,
                      run ? "of another run than the SAE beside it" : "not yet of the SAE beside it",
                      "they differ in the checksum of the weights (" RUN_SAE_KEY "), which atmsae train writes when it has saved its SAE");
    free(sae);
    free(run);
    if (same) return json;
    free(json);
    return NULL;
}

/* Whether the file is a checkpoint, and how many rows it was trained on. */
static bool rows_trained(atmsae_context *context, const char *path, uint64_t *rows)
{
    atmsae_trainer *trainer;
    atmsae_trainer_config config;
    atmsae_trainer_config_init(&config, sizeof config);
    if (atmsae_trainer_load(context, path, NULL, &trainer) < 0) return false;
    const bool good = atmsae_trainer_get_config(trainer, &config) >= 0;
    *rows = atmsae_trainer_steps_done(trainer) * config.batch_rows;
    atmsae_trainer_destroy(trainer);
    return good;
}

/* The folder and the checkpoint that a path means; false: it means none. */
static bool checkpoint_of(const char *path, char **folder, char **checkpoint)
{
    const char *slash = strrchr(path, '/');
    char *weights = program_path(path, SAE_WEIGHTS_FILE);
    *checkpoint = program_path(path, CHECKPOINT_FILE);
    struct stat info;
    const bool is_folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode), has_sae = access(weights, F_OK) == 0;
    free(weights);
    if (is_folder) {
        *folder = text_copy(path, strlen(path));
    } else {
        free(*checkpoint);
        *checkpoint = text_copy(path, strlen(path));
        *folder = slash ? text_copy(path, (size_t)(slash - path)) : text_copy(".", 1);
    }
    return !has_sae && access(*checkpoint, R_OK) == 0;
}

void sae_hint(atmsae_context *context, const char *path)
{
    char *folder, *checkpoint;
    uint64_t rows;
    if (checkpoint_of(path, &folder, &checkpoint) && rows_trained(context, checkpoint, &rows)) {
        program_error("%s: no SAE yet, but the checkpoint of a run, after %llu rows; atmsae resume %s trains it to its end and "
                      "saves the SAE", checkpoint, (unsigned long long)rows, folder);
        if (rows) program_error("to end it here and have the SAE as it is: atmsae resume %s --rows %llu", folder, (unsigned long long)rows);
    }
    free(folder);
    free(checkpoint);
}

atmsae_model *sae_load(atmsae_context *context, const char *path)
{
    atmsae_model *model;
    if (atmsae_model_load(context, path, &model) >= 0) return model;
    command_failed(context);
    sae_hint(context, path);
    return NULL;
}
