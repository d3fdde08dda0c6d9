/* SPDX-License-Identifier: MIT
 *
 * atmsae eval --probing: how well labels of texts can be read from a few latents.
 */
#include "eval_more.h"
#include "program.h"

#include <atmsae/eval.h>
#include <stdlib.h>
#include <string.h>

enum { KS = 3, COLUMNS = KS + 1 };
static const char *const column_names[COLUMNS] = {"top1", "top2", "top5", "all"};

/* ---- the tasks' names: a JSON list of strings ------------------------------------------------------------ */

typedef struct names {
    char *text, **name;
    size_t n;
} names;

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t size = 0;
    if (!file) {
        fprintf(stderr, "atmsae: %s: cannot be opened\n", path);
        return NULL;
    }
    FILE *copy = program_text_open(&text, &size);
    for (int c = getc(file); c != EOF; c = getc(file)) putc(c, copy);
    const bool failed = ferror(file) != 0;
    fclose(file);
    program_text_close(copy, &text);
    if (!failed) return text;
    fprintf(stderr, "atmsae: %s: cannot be read\n", path);
    free(text);
    return NULL;
}

/* Cuts the text into its strings, in place. Escapes are not undone. */
static bool read_names(const char *path, names *out)
{
    char *at = out->text = read_text(path);
    if (!at) return false;
    out->name = program_alloc(strlen(at) / 2 + 1, sizeof *out->name);
    at += strspn(at, " \t\r\n");
    bool good = *at++ == '[';
    for (bool more = true; good && more;) {
        at += strspn(at, " \t\r\n");
        char *end = *at == '"' ? at + 1 : NULL;
        while (end && *end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
        good = end && *end == '"';
        if (!good) break;
        *end = '\0';
        out->name[out->n++] = at + 1;
        at = end + 1 + strspn(end + 1, " \t\r\n");
        more = *at == ',';
        good = more || *at == ']';
        at++;
    }
    if (good) return true;
    fprintf(stderr, "atmsae: %s: not a JSON list of strings\n", path);
    return false;
}

/* ---- their texts ------------------------------------------------------------------------------------------ */

typedef struct texts {
    uint64_t n, d;
    float *rows;
    int8_t *labels;
    uint8_t *is_train;
} texts;

/* An integer tensor of n values; NULL after a message. */
static int64_t *read_integers(const atmsae_context *context, const atmsae_tensors *file, const char *name, uint64_t n)
{
    uint64_t index;
    int64_t *values = program_alloc(n, sizeof *values);
    if (atmsae_tensors_find(file, name, &index) >= 0 && atmsae_tensors_read_i64(file, index, values, n) >= 0) return values;
    command_failed(context);
    free(values);
    return NULL;
}

static bool read_rows(const atmsae_context *context, const atmsae_tensors *file, const char *path, texts *t)
{
    uint64_t index;
    atmsae_tensor_info info = {.size = sizeof info};
    if (atmsae_tensors_find(file, "activations", &index) < 0 || atmsae_tensors_info(file, index, &info) < 0)
        return command_failed(context), false;
    if (info.rank != 2) {
        fprintf(stderr, "atmsae: %s: activations has rank %llu, not 2\n", path, (unsigned long long)info.rank);
        return false;
    }
    t->n = info.shape[0];
    t->d = info.shape[1];
    t->rows = program_alloc(t->n * t->d, sizeof *t->rows);
    if (atmsae_tensors_read_f32(file, index, t->rows, t->n * t->d) >= 0) return true;
    return command_failed(context), false;
}

static bool read_texts(atmsae_context *context, const char *path, size_t n_tasks, texts *t)
{
    atmsae_tensors *file;
    if (atmsae_tensors_open(context, path, &file) < 0) return command_failed(context), false;
    int64_t *labels = NULL, *train = NULL;
    bool good = read_rows(context, file, path, t) && (labels = read_integers(context, file, "labels", t->n * n_tasks)) &&
                (train = read_integers(context, file, "is_train", t->n));
    if (good) {
        t->labels = program_alloc(t->n * n_tasks, 1);
        t->is_train = program_alloc(t->n, 1);
        for (uint64_t i = 0; i < t->n; i++) t->is_train[i] = train[i] != 0;
        for (uint64_t i = 0; i < t->n * n_tasks; i++)
            t->labels[i] = (int8_t)(labels[i] < 0 ? -1 : labels[i] > 1 ? 2 : labels[i]); /* 2: the library will say so */
    }
    free(labels);
    free(train);
    atmsae_tensors_close(file);
    return good;
}

/* ---- results ------------------------------------------------------------------------------------------------ */

static double mean_of(const atmsae_probing_entry *e, size_t n_tasks, int column)
{
    double sum = 0;
    for (size_t i = 0; i < n_tasks; i++) sum += e[i * COLUMNS + (size_t)column].accuracy;
    return sum / (double)n_tasks;
}

static char *tasks_json(const names *tasks, const atmsae_probing_entry *sae, const atmsae_probing_entry *raw)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    for (size_t i = 0; i < tasks->n; i++) {
        fprintf(out, "%s{\"task\": \"%s\"", i ? ",\n    " : "[\n    ", tasks->name[i]); /* still escaped, as it was read */
        for (int c = 0; c < COLUMNS; c++) {
            const atmsae_probing_entry *s = &sae[i * COLUMNS + (size_t)c], *r = &raw[i * COLUMNS + (size_t)c];
            fprintf(out, ", \"%s\": %.7g, \"%s_f1\": %.7g, \"raw_%s\": %.7g", column_names[c], s->accuracy, column_names[c],
                    s->f1, column_names[c], r->accuracy);
        }
        fprintf(out, ", \"latent\": %llu}", (unsigned long long)sae[i * COLUMNS].best);
    }
    fputs("\n  ]", out);
    return program_text_close(out, &json);
}

static bool probe(atmsae_context *context, const atmsae_model *model, const names *tasks, const texts *t, fields *out)
{
    atmsae_probing_config config;
    atmsae_probing_config_init(&config, sizeof config);
    config.n_tasks = tasks->n;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = t->n;
    batch.x = t->rows;
    atmsae_probing *probing;
    atmsae_probing_entry *sae = program_alloc(tasks->n * COLUMNS, sizeof *sae), *raw = program_alloc(tasks->n * COLUMNS, sizeof *raw);
    const bool good = atmsae_probing_create(context, &config, &batch, t->d, t->labels, t->is_train, &probing) >= 0 &&
                      atmsae_probing_score(probing, model, sae) >= 0 && atmsae_probing_baseline(probing, raw) >= 0;
    if (good) {
        fields_count(out, "probing_tasks", tasks->n);
        for (int c = 0; c < COLUMNS; c++) {
            char name[32];
            snprintf(name, sizeof name, "probing_%s", column_names[c]);
            fields_real(out, name, mean_of(sae, tasks->n, c));
            snprintf(name, sizeof name, "probing_raw_%s", column_names[c]);
            fields_real(out, name, mean_of(raw, tasks->n, c));
        }
        fields_json(out, "tasks", tasks_json(tasks, sae, raw));
    } else {
        command_failed(context);
    }
    atmsae_probing_destroy(probing);
    free(sae);
    free(raw);
    return good;
}

bool eval_probing(atmsae_context *context, const atmsae_model *model, const char *tasks_file, fields *out)
{
    static const char ending[] = ".tasks.json";
    names tasks = {0};
    texts t = {0};
    const size_t length = strlen(tasks_file), cut = sizeof ending - 1;
    bool good = length > cut && strcmp(tasks_file + length - cut, ending) == 0;
    if (!good) fprintf(stderr, "atmsae: --probing %s: expected NAME.tasks.json, beside NAME.safetensors\n", tasks_file);
    good = good && read_names(tasks_file, &tasks);
    if (good) {
        char *path = program_alloc(length + 16, 1);
        snprintf(path, length + 16, "%.*s.safetensors", (int)(length - cut), tasks_file);
        good = read_texts(context, path, tasks.n, &t) && probe(context, model, &tasks, &t, out);
        free(path);
    }
    free(tasks.text);
    free(tasks.name);
    free(t.rows);
    free(t.labels);
    free(t.is_train);
    return good;
}
