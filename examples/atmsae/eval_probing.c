/* SPDX-License-Identifier: MIT
 *
 * --probing: how well labels of texts can be read from a few latents.
 */
#include "files.h"
#include "program.h"
#include "report.h"
#include "rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const probe_columns[PROBE_COLUMNS] = {"top1", "top2", "top5", "all"};

/* ---- the tasks' names: a JSON list of strings ------------------------------------------------------------ */

/* A JSON string at *at, in place: it never grows. NULL if there is none. */
static char *take_string(char **at)
{
    char *start = *at + 1, *out = start;
    if (**at != '"') return NULL;
    const char *in = start;
    while (*in != '"') {
        if (!*in) return NULL;
        if (*in != '\\') *out++ = *in++;
        else if (in++, !json_unescape(&in, &out)) return NULL;
    }
    *at += in + 1 - *at;
    *out = 0;
    return start;
}

/* Cuts the text into its strings. */
static bool read_names(const char *path, task_set *set)
{
    size_t size;
    char *at = set->text = file_read(path, MOST_JSON_BYTES, &size);
    if (!at) return false;
    set->name = program_alloc(strlen(at) / 2 + 1, sizeof *set->name);
    at += strspn(at, " \t\r\n");
    bool good = *at++ == '[';
    for (bool more = true; good && more;) {
        at += strspn(at, " \t\r\n");
        char *name = take_string(&at);
        good = name != NULL;
        if (!good) break;
        set->name[set->n++] = name;
        at += strspn(at, " \t\r\n");
        more = *at == ',';
        good = more || *at == ']';
        at++;
    }
    if (good) return true;
    program_error("%s: not a JSON list of strings", path);
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
        program_error("%s: activations has rank %llu, not 2", path, (unsigned long long)info.rank);
        return false;
    }
    t->n = info.shape[0];
    t->d = info.shape[1];
    t->rows = program_alloc(t->n * t->d, sizeof *t->rows);
    if (atmsae_tensors_read_f32(file, index, t->rows, t->n * t->d) < 0) return command_failed(context), false;
    return rows_are_good(path, t->rows, t->n, t->d);
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

static bool fit(report *self, const texts *t)
{
    task_set *set = &self->tasks;
    atmsae_probing_config config;
    atmsae_probing_config_init(&config, sizeof config);
    config.n_tasks = set->n;
    atmsae_batch batch;
    atmsae_batch_init(&batch, sizeof batch);
    batch.n_rows = t->n;
    batch.x = t->rows;
    set->raw = program_alloc(set->n * PROBE_COLUMNS, sizeof *set->raw);
    set->task = program_alloc(set->n, sizeof *set->task);
    if (set->n > 0) set->task[0].size = sizeof *set->task;
    return atmsae_probing_create(self->context, &config, &batch, t->d, t->labels, t->is_train, &set->probing) >= 0 &&
           atmsae_probing_tasks(set->probing, set->task) >= 0 && atmsae_probing_baseline(set->probing, set->raw) >= 0;
}

bool tasks_open(report *self)
{
    static const char ending[] = ".tasks.json";
    const char *file = self->settings[R_PROBING].text;
    if (!self->settings[R_PROBING].given) return true;
    const size_t length = strlen(file), cut = sizeof ending - 1;
    if (length <= cut || strcmp(file + length - cut, ending) != 0) {
        program_error("--probing %s: expected NAME.tasks.json, beside NAME.safetensors", file);
        return false;
    }
    if (!read_names(file, &self->tasks)) return false;
    texts t = {0};
    char *path = program_alloc(length + 16, 1);
    snprintf(path, length + 16, "%.*s.safetensors", (int)(length - cut), file);
    bool good = !report_overwrites(self->settings, path) && read_texts(self->context, path, self->tasks.n, &t);
    if (good && !fit(self, &t)) good = (command_failed(self->context), false);
    free(path);
    free(t.rows);
    free(t.labels);
    free(t.is_train);
    return good;
}

void tasks_close(task_set *self)
{
    atmsae_probing_destroy(self->probing);
    free(self->text);
    free(self->name);
    free(self->task);
    free(self->raw);
}

/* ---- results ------------------------------------------------------------------------------------------------ */

/* Mean of n doubles, `stride` bytes apart, that are numbers; NaN if none is. */
static double mean_of(const void *first, size_t stride, size_t n)
{
    double sum = 0, with_value = 0;
    for (size_t i = 0; i < n; i++) {
        const double value = *(const double *)(const void *)((const char *)first + i * stride);
        if (isnan(value)) continue;
        sum += value;
        with_value += 1;
    }
    return with_value > 0 ? sum / with_value : (double)NAN;
}

/* Accuracy, AUC and F1 of probes: of all tasks' probes on the same number of columns. */
static void add_means(fields *out, const char *name, const atmsae_probing_entry *first, size_t n)
{
    const struct {
        const char *ending;
        const double *value;
    } measures[] = {{"", &first->accuracy}, {"_auc", &first->auc}, {"_f1", &first->f1}};
    for (size_t i = 0; i < sizeof measures / sizeof *measures; i++) {
        char key[48];
        snprintf(key, sizeof key, "probing_%s%s", name, measures[i].ending);
        fields_real(out, key, mean_of(measures[i].value, PROBE_COLUMNS * sizeof *first, n));
    }
}

static void real_json(FILE *out, const char *prefix, const char *name, const char *ending, double value)
{
    fprintf(out, ", \"%s%s%s\": ", prefix, name, ending);
    json_real(out, value, 7);
}

static void task_json(FILE *out, const task_set *set, size_t i, const atmsae_probing_entry *sae)
{
    const atmsae_probing_task *task = &set->task[i];
    fputs("{\"task\": ", out);
    json_string(out, set->name[i]);
    fprintf(out, ", \"train\": [%llu, %llu], \"test\": [%llu, %llu]", (unsigned long long)task->train[0],
            (unsigned long long)task->train[1], (unsigned long long)task->test[0], (unsigned long long)task->test[1]);
    real_json(out, "majority", "", "", task->majority);
    for (size_t c = 0; c < PROBE_COLUMNS; c++) {
        const atmsae_probing_entry *s = &sae[i * PROBE_COLUMNS + c], *r = &set->raw[i * PROBE_COLUMNS + c];
        real_json(out, "", probe_columns[c], "", s->accuracy);
        real_json(out, "", probe_columns[c], "_auc", s->auc);
        real_json(out, "", probe_columns[c], "_f1", s->f1);
        real_json(out, "raw_", probe_columns[c], "", r->accuracy);
    }
    char *reason = task_reason(task);
    if (reason) {
        fputs(", \"latent\": null, \"reason\": ", out);
        json_string(out, reason);
    } else {
        fprintf(out, ", \"latent\": %llu", (unsigned long long)sae[i * PROBE_COLUMNS].best);
    }
    free(reason);
    fputc('}', out);
}

static char *tasks_json(const task_set *set, const atmsae_probing_entry *sae)
{
    char *json = NULL;
    size_t size;
    FILE *out = program_text_open(&json, &size);
    for (size_t i = 0; i < set->n; i++) {
        fputs(i ? ",\n    " : "[\n    ", out);
        task_json(out, set, i, sae);
    }
    fputs("\n  ]", out);
    return program_text_close(out, &json);
}

bool tasks_measure(const report *self, const atmsae_model *model, report_sae *sae)
{
    const task_set *set = &self->tasks;
    fields *out = &sae->fields;
    char name[48];
    double majority = 0;
    uint64_t probed = 0;
    if (!set->probing) return true;
    sae->probes = program_alloc(set->n * PROBE_COLUMNS, sizeof *sae->probes);
    if (atmsae_probing_score(set->probing, model, sae->probes) < 0) return command_failed(self->context), false;
    for (size_t i = 0; i < set->n; i++) {
        if (!set->task[i].probed) continue;
        probed++;
        majority += set->task[i].majority;
    }
    fields_count(out, "probing_tasks", probed);
    fields_real(out, "probing_majority", probed ? majority / (double)probed : (double)NAN);
    for (size_t c = 0; c < PROBE_COLUMNS; c++) {
        shares right = {0};
        add_means(out, probe_columns[c], sae->probes + c, set->n);
        for (size_t i = 0; i < set->n; i++)
            share_add(&right, sae->probes[i * PROBE_COLUMNS + c].accuracy, set->task[i].test[0] + set->task[i].test[1]);
        snprintf(name, sizeof name, "probing_%s_interval", probe_columns[c]);
        fields_interval(out, name, &right);
        snprintf(name, sizeof name, "raw_%s", probe_columns[c]);
        add_means(out, name, set->raw + c, set->n);
    }
    fields_json(out, "tasks", tasks_json(set, sae->probes));
    return true;
}
