/* SPDX-License-Identifier: MIT
 *
 * Trained SAEs kept from run to run, so that another measure does not mean another training: an SAE folder
 * for each run, named after its line of settings, and the numbers of its training in a file beside the weights.
 */
#include "study.h"
#include "program.h"

#include <stdlib.h>
#include <string.h>

char *keep_folder(const char *models, const char *line)
{
    char *folder = program_path(models, line);
    for (char *c = folder + strlen(models); *c; c++)
        if (*c == ' ' || *c == '\n') *c = c[1] ? '_' : 0;
    return folder;
}

/* Written last: without it there is no SAE yet. */
static FILE *numbers(const char *folder, const char *mode)
{
    char *path = program_path(folder, "training.txt");
    FILE *file = fopen(path, mode);
    free(path);
    return file;
}

bool keep_load(atmsae_context *context, const char *folder, study_trained *t)
{
    FILE *file = numbers(folder, "r");
    if (!file) return false;
    char line[128] = "", *at = line;
    double *const values[] = {&t->l0_train, &t->mean_p, &t->seconds};
    bool whole = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    for (int i = 0; i < 3; i++) {
        const char *from = at;
        *values[i] = strtod(from, &at);
        whole = whole && at != from;
    }
    if (whole) study_check(context, atmsae_model_load(context, folder, &t->model));
    return whole;
}

void keep_save(atmsae_context *context, const char *folder, const study_trained *t)
{
    study_check(context, atmsae_model_save(t->model, folder, NULL));
    FILE *file = numbers(folder, "w");
    if (!file || fprintf(file, "%.17g %.17g %.17g\n", t->l0_train, t->mean_p, t->seconds) < 0 || fclose(file) != 0) {
        fprintf(stderr, "study: cannot write into %s\n", folder);
        exit(1);
    }
}
