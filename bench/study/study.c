/* SPDX-License-Identifier: MIT
 *
 * The study's runs. Reads lines "DATA METHOD name=value ..." from stdin, DATA being synthetic, synth16k or the name of a folder in DIR,
 * trains and measures one SAE for each, and answers each with a line of JSON.
 *
 *     study [DIR [MODELS]]   DIR: holds a folder of real activations for each layer, as bench/study/data makes them;
 *                            MODELS: keep SAEs trained on them here, and take those that are here already
 */
#include "study.h"
#include "program.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name;
    size_t at;
    double synthetic, real; /* defaults */
} setting_names[] = {
#define SETTING(name, synthetic, real) {#name, offsetof(settings, name), synthetic, real}
    SETTING(k, 3, 32),
    SETTING(seed, 1, 1),
    SETTING(F, 168, 4096),
    SETTING(batch, 512, 1024),
    SETTING(steps, 4000, 1465),
    SETTING(lr, 1e-3, 1e-3),
    SETTING(lambda, 10, 10),
    SETTING(bandwidth, NAN, NAN),
    SETTING(widths, 0, 0),
    SETTING(r, 0.25, 0.25),
    SETTING(c, 1, 1),
    SETTING(decay, 0.99, 0.99),
    SETTING(magnitude, 1, 1),
    SETTING(frequency, 1, 1),
    SETTING(contribution, 1, 1),
    SETTING(geometric, 0, 0),
    SETTING(per_row, 0, 0),
    SETTING(freeze, 0, 0),
    SETTING(effect, 0, 0),
    SETTING(alpha, 0.3, 0.3),
    SETTING(warm, 50, 50),
    SETTING(cool_start, 0.80, 0.80),
    SETTING(cool_end, 0.95, 0.95),
    SETTING(tune, 0, 0),
    SETTING(probing, 0, 0),
#undef SETTING
};
enum { N_SETTINGS = sizeof setting_names / sizeof *setting_names };

void study_check(const atmsae_context *context, atmsae_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "study: %s\n", atmsae_last_error(context));
    exit(1);
}

static void usage(const char *problem, const char *what)
{
    fprintf(stderr, "study: %s: %s\n", problem, what);
    exit(2);
}

static void parse(char *words, bool real, settings *s)
{
    for (int i = 0; i < N_SETTINGS; i++)
        *(double *)((char *)s + setting_names[i].at) = real ? setting_names[i].real : setting_names[i].synthetic;
    char *rest = NULL;
    for (char *word = strtok_r(words, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
        char *value = strchr(word, '='), *end = NULL;
        if (!value) usage("not name=value", word);
        *value++ = 0;
        int i = 0;
        while (i < N_SETTINGS && strcmp(setting_names[i].name, word) != 0)
            i++;
        if (i == N_SETTINGS) usage("no such setting", word);
        *(double *)((char *)s + setting_names[i].at) = strtod(value, &end);
        if (end == value || *end) usage("not a number", value);
    }
}

/* The activations of a layer, opened at the first run that wants them. */
enum { MAX_LAYERS = 8 };
static struct {
    char name[16];
    real_data *data;
} layers[MAX_LAYERS];

static real_data *open_layer(atmsae_context *context, const char *folder, const char *name)
{
    int i = 0;
    while (i < MAX_LAYERS && layers[i].data && strcmp(layers[i].name, name) != 0)
        i++;
    if (i == MAX_LAYERS) usage("too many layers", name);
    if (!layers[i].data) {
        char *path = program_path(folder, name);
        layers[i].data = real_open(context, path);
        snprintf(layers[i].name, sizeof layers[i].name, "%s", name);
        free(path);
    }
    return layers[i].data;
}

int main(int argc, char **argv)
{
    if (argc > 3) usage("usage", "study [DIR [MODELS]] < RUNS > RESULTS");
    program_choose_blis_kernels();
    atmsae_context_config config;
    atmsae_context_config_init(&config, sizeof config);
    config.threads = 1; /* runs are small: start a second process for a second CPU */
    atmsae_context *context;
    if (atmsae_context_create(&config, &context) < 0) return 1;
    if (argc == 3 && !program_make_folder(argv[2])) usage("cannot make", argv[2]);

    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        char data[16], name[32];
        int at = 0;
        if (sscanf(line, "%15s %31s %n", data, name, &at) < 2) usage("not DATA METHOD ...", line);
        const study_method *method = study_find(name);
        if (!method) usage("no such method", name);
        const bool is_real = strncmp(data, "synth", 5) != 0;
        if (is_real && argc == 1) usage("no folder given for", line);
        settings s;
        char *kept = is_real && argc == 3 ? keep_folder(argv[2], line) : NULL;
        parse(line + at, is_real, &s);
        const clock_t start = clock();
        printf("{\"data\": \"%s\", \"method\": \"%s\"", data, name);
        for (int i = 0; i < N_SETTINGS; i++) {
            const double value = *(double *)((char *)&s + setting_names[i].at);
            if (isfinite(value)) printf(", \"%s\": %.10g", setting_names[i].name, value);
        }
        if (is_real) real_run(open_layer(context, argv[1], data), method, &s, kept, stdout);
        else (strcmp(data, "synth16k") == 0 ? synth16k_run : synthetic_run)(context, method, &s, stdout);
        printf(", \"seconds\": %.1f}\n", (double)(clock() - start) / CLOCKS_PER_SEC);
        fflush(stdout);
        free(kept);
    }
    free(line);
    for (int i = 0; i < MAX_LAYERS; i++)
        real_close(layers[i].data);
    atmsae_context_destroy(context);
    return 0;
}
