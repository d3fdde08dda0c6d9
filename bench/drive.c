/* SPDX-License-Identifier: MIT
 *
 * bench_drive: takes turns between the workers of each case, so that whatever slows the machine down
 * slows all of them, and prints the table.
 *
 *     bench_drive CASES BUILD [--quick] [--rounds N] [--only CASE] [--threads N] [--json FILE]
 *                 [--python INTERPRETER --peers SCRIPT]
 *
 * CASES is bench/cases.txt, BUILD the folder of the workers. What a worker must do: worker.h.
 */
#include "drive.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *const time_name[TIMES] = {"step", "forward", "backward", "update", "rest", "aux", "single", "read", "blis", "split", "alone"};
const char *const fact_name[FACTS] = {"l0", "fvu", "mean_p", "parameters_mb", "peak_mb", "gflop", "gbytes", "update_gbytes"};

enum { MOST_WORDS = 48, MOST_WORKERS = 32, MOST_RESULTS = 256, LINE = 1024 };

typedef struct worker {
    pid_t pid;
    FILE *in, *out; /* ours to write, ours to read */
} worker;

typedef struct drive {
    const char *build, *python, *peers, *only, *json, *threads;
    char log[4 * TEXT]; /* what workers complain of */
    bool quick;
    size_t rounds;
    machine machine;
    result results[MOST_RESULTS];
    size_t n;
} drive;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_drive: %s: %s\n", what, why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- workers ------------------------------------------------------------------------------------- */

static worker start(char *const *words, const char *log)
{
    int to[2], from[2];
    if (pipe(to) || pipe(from)) die("pipe", "none left");
    worker w = {.pid = fork()};
    if (w.pid < 0) die("fork", "no process");
    if (w.pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        int messages = open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
        if (messages >= 0) dup2(messages, 2);
        for (int fd = 3; fd < 512; fd++)
            close(fd);
        execvp(words[0], words);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    w.in = fdopen(to[1], "w");
    w.out = fdopen(from[0], "r");
    return w;
}

/* Takes up what a line says. False at the end of the worker's output. */
static bool listen(worker *w, drive *d, result *r)
{
    char line[LINE], *rest = line;
    if (!fgets(line, sizeof line, w->out)) return false;
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "skip ", 5)) {
        snprintf(r->problem, sizeof r->problem, "%.200s", line + 5);
        return true;
    }
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
        char *value = strchr(word, '=');
        if (!value) continue;
        *value++ = 0;
        for (int t = 0; t < TIMES; t++)
            if (!strcmp(word, time_name[t]) && r->samples[t] < MOST_ROUNDS) r->sample[t][r->samples[t]++] = strtod(value, NULL);
        for (int f = 0; f < FACTS; f++)
            if (!strcmp(word, fact_name[f])) r->fact[f] = strtod(value, NULL);
        if (!strcmp(word, "threads")) r->threads = strtoull(value, NULL, 10);
        if (!strcmp(word, "level")) snprintf(d->machine.level, TEXT, "%.60s", value);
    }
    return true;
}

static void stop(worker *w, drive *d, result *r)
{
    if (w->in) fclose(w->in);
    listen(w, d, r);
    fclose(w->out);
    int status;
    waitpid(w->pid, &status, 0);
    w->pid = 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void summarise(result *r)
{
    for (int t = 0; t < TIMES; t++) {
        size_t n = r->samples[t];
        double *x = r->sample[t];
        r->median[t] = r->low[t] = r->high[t] = NAN;
        if (n == 0) continue;
        qsort(x, n, sizeof *x, ascending);
        r->median[t] = n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
        r->low[t] = x[0];
        r->high[t] = x[n - 1];
    }
    if (strcmp(r->impl, "unit") == 0 && r->samples[T_BLIS]) { /* the better use of threads */
        int t = r->median[T_SPLIT] < r->median[T_BLIS] ? T_SPLIT : T_BLIS;
        r->median[T_STEP] = r->median[t];
        r->low[T_STEP] = r->low[t];
        r->high[T_STEP] = r->high[t];
    }
}

static void find_unit(result *r, const result *all, size_t n)
{
    r->unit = NAN;
    for (size_t i = 0; i < n; i++)
        if ((!strcmp(all[i].impl, "unit") || !strcmp(all[i].impl, "torch")) && !strcmp(all[i].precision, "fp32") &&
            all[i].d == r->d && all[i].F == r->F && all[i].n == r->n && all[i].threads == r->threads)
            r->unit = fmin(r->unit, all[i].median[T_STEP]); /* fmin passes over NaN */
}

static void progress(const result *r, const char *what)
{
    if (!isatty(2)) return;
    fprintf(stderr, "\r%79s\r", "");
    if (r) fprintf(stderr, "%s: %s %s %s %s", r->group, what, r->impl, r->arch, r->precision);
}

/* Runs the workers of one case, from results[first] on, whose command lines are given. */
static void run_case(drive *d, size_t first, char *(*words)[MOST_WORDS], size_t count)
{
    worker w[MOST_WORKERS];
    for (size_t i = 0; i < count; i++) {
        result *r = &d->results[first + i];
        progress(r, "setting up");
        w[i] = start(words[i], d->log);
        if (!listen(&w[i], d, r)) snprintf(r->problem, sizeof r->problem, "it stopped while setting up; see %.180s", d->log);
        if (r->problem[0]) stop(&w[i], d, r);
    }
    for (size_t round = 0; round < d->rounds; round++)
        for (size_t i = 0; i < count; i++) {
            result *r = &d->results[first + i];
            if (!w[i].pid) continue;
            progress(r, "measuring");
            usleep(50000); /* the one before goes to sleep */
            fputs("go\n", w[i].in);
            fflush(w[i].in);
            if (!listen(&w[i], d, r)) {
                snprintf(r->problem, sizeof r->problem, "it stopped in round %zu", round + 1);
                stop(&w[i], d, r);
            }
        }
    for (size_t i = 0; i < count; i++) {
        if (w[i].pid) stop(&w[i], d, &d->results[first + i]);
        summarise(&d->results[first + i]);
    }
    progress(NULL, NULL);
    for (size_t i = first; i < first + count; i++) { /* a product faster than the roof is the roof */
        const result *r = &d->results[i];
        double *roof = &d->machine.gflops[r->threads > 1];
        if (!strcmp(r->arch, "product") && !strcmp(r->precision, "fp32") && r->samples[T_STEP] + r->samples[T_BLIS])
            *roof = fmax(*roof, 2e-9 * (double)r->n * (double)r->d * (double)r->F / r->median[T_STEP]);
    }
    for (size_t i = first; i < first + count; i++) {
        find_unit(&d->results[i], d->results + first, count);
        report_row(&d->machine, &d->results[i], stdout);
    }
    fflush(stdout);
}

/* ---- cases --------------------------------------------------------------------------------------- */

static bool wanted(const drive *d, const char *sets)
{
    return strchr(sets, d->quick ? 'q' : 'f') || (d->peers && strchr(sets, 'p'));
}

/* One worker's line: SETS PROGRAM OPTIONS, after the options of its case. */
static void add_worker(drive *d, const char *group, char **case_words, char *line, char *words[MOST_WORDS])
{
    char *rest = line, program[4 * TEXT];
    strtok_r(rest, " \t", &rest); /* the sets */
    char *impl = strtok_r(rest, " \t", &rest);
    result *r = &d->results[d->n++];
    *r = (result){0};
    size_t n = 0;
    const bool ours = !strcmp(impl, "step") || !strcmp(impl, "encode");
    if (ours || !strcmp(impl, "unit")) {
        snprintf(program, sizeof program, "%.180s/bench_%.40s", d->build, impl);
        words[n++] = strdup(program);
    } else {
        words[n++] = strdup(d->python);
        words[n++] = strdup(d->peers);
        words[n++] = strdup(impl);
    }
    words[n++] = strdup("--serve");
    words[n++] = strdup("--threads");
    words[n++] = strdup(d->threads);
    for (size_t i = 0; case_words[i]; i++)
        words[n++] = strdup(case_words[i]);
    for (char *word; n < MOST_WORDS - 1 && (word = strtok_r(rest, " \t", &rest)) != NULL;)
        words[n++] = strdup(word);
    words[n] = NULL;

    snprintf(r->group, TEXT, "%.60s", group);
    snprintf(r->impl, TEXT, "%.60s", !strcmp(impl, "step") ? "atmsae" : !strcmp(impl, "encode") ? "atmsae-encode" : impl);
    snprintf(r->precision, TEXT, "fp32");
    snprintf(r->arch, TEXT, "%s", ours ? "batchtopk" : "product");
    snprintf(r->mask, TEXT, "none");
    for (int f = 0; f < FACTS; f++)
        r->fact[f] = NAN;
    for (size_t i = 0; i + 1 < n; i++) { /* later words override earlier ones, as in the workers */
        const char *key = words[i], *value = words[i + 1];
        size_t number = strtoull(value, NULL, 10);
        if (!strcmp(key, "--arch")) snprintf(r->arch, TEXT, "%.60s", value);
        else if (!strcmp(key, "--mask")) snprintf(r->mask, TEXT, "%.60s", value);
        else if (!strcmp(key, "--precision")) snprintf(r->precision, TEXT, "%.60s", value);
        else if (!strcmp(key, "--d")) r->d = number;
        else if (!strcmp(key, "--F")) r->F = number;
        else if (!strcmp(key, "--n")) r->n = number;
        else if (!strcmp(key, "--k")) r->k = number;
        else if (!strcmp(key, "--threads")) r->threads = number;
    }
}

static void run_cases(drive *d, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) die(path, "cannot be read");
    char line[LINE], case_line[LINE], group[TEXT] = "", *case_words[MOST_WORDS] = {NULL}, *words[MOST_WORKERS][MOST_WORDS];
    size_t count = 0, first = 0;
    for (bool more = true; more;) {
        more = fgets(line, sizeof line, file) != NULL;
        line[strcspn(line, "#\n")] = 0;
        if (!more || !strncmp(line, "case ", 5)) {
            if (count > 0) run_case(d, first, words, count);
            if (!more) break;
            memcpy(case_line, line, sizeof line);
            char *rest = case_line + 5;
            snprintf(group, TEXT, "%.60s", strtok_r(rest, " \t", &rest));
            size_t n = 0;
            for (char *word; n < MOST_WORDS / 2 && (word = strtok_r(rest, " \t", &rest)) != NULL;)
                case_words[n++] = word;
            case_words[n] = NULL;
            first = d->n;
            count = 0;
            continue;
        }
        char copy[LINE], *rest = copy;
        memcpy(copy, line, sizeof copy);
        char *sets = strtok_r(rest, " \t", &rest);
        if (!sets || !wanted(d, sets) || (d->only && strcmp(d->only, group) != 0)) continue;
        if (count == MOST_WORKERS || d->n == MOST_RESULTS) die(path, "more rows than bench_drive has room for");
        add_worker(d, group, case_words, line, words[count++]);
    }
    fclose(file);
}

/* ---- the machine --------------------------------------------------------------------------------- */

static void measure_machine(drive *d)
{
    machine *m = &d->machine;
    char command[8 * TEXT], line[LINE] = "", *rest = line;
    snprintf(command, sizeof command, "'%.300s/bench_roof' --steps %d --threads %.10s", d->build, d->quick ? 3 : 7, d->threads);
    FILE *pipe = popen(command, "r"); // NOLINT(cert-env33-c): a program of the same folder
    if (!pipe || !fgets(line, sizeof line, pipe)) die(command, "said nothing");
    pclose(pipe);
    const struct { const char *key; double *to; } table[] = {
        {"gflops_1", &m->gflops[0]}, {"gflops_all", &m->gflops[1]}, {"read_1", &m->read[0]}, {"read_all", &m->read[1]},
        {"copy_1", &m->copy[0]}, {"copy_all", &m->copy[1]}, {"triad_1", &m->triad[0]}, {"triad_all", &m->triad[1]}};
    for (char *word; (word = strtok_r(rest, " \n", &rest)) != NULL;) {
        char *value = strchr(word, '=');
        if (!value) continue;
        *value++ = 0;
        if (!strcmp(word, "blis")) snprintf(m->blis, TEXT, "%.60s", value);
        if (!strcmp(word, "kernels")) snprintf(m->kernels, TEXT, "%.60s", value);
        if (!strcmp(word, "threads")) m->threads = strtoull(value, NULL, 10);
        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
            if (!strcmp(word, table[i].key)) *table[i].to = strtod(value, NULL);
    }
    snprintf(m->cpu, sizeof m->cpu, "unknown CPU");
    FILE *info = fopen("/proc/cpuinfo", "r");
    while (info && fgets(line, sizeof line, info)) {
        if (strncmp(line, "model name", 10) != 0 || !strchr(line, ':')) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(m->cpu, sizeof m->cpu, "%.120s", strchr(line, ':') + 2);
        break;
    }
    if (info) fclose(info);
}

int main(int argc, char **argv)
{
    if (argc < 3) die("usage", "bench_drive CASES BUILD [OPTION...]");
    drive *d = calloc(1, sizeof *d);
    if (!d) die("memory", "none");
    d->build = argv[2];
    d->threads = "0";
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "--quick")) { d->quick = true; continue; }
        if (i + 1 == argc) die(argv[i], "no value, or no such option");
        const char *key = argv[i], *value = argv[++i];
        if (!strcmp(key, "--rounds")) d->rounds = strtoull(value, NULL, 10);
        else if (!strcmp(key, "--only")) d->only = value;
        else if (!strcmp(key, "--threads")) d->threads = value;
        else if (!strcmp(key, "--json")) d->json = value;
        else if (!strcmp(key, "--python")) d->python = value;
        else if (!strcmp(key, "--peers")) d->peers = value;
        else die(key, "no such option");
    }
    if (d->rounds == 0) d->rounds = d->quick ? 3 : 5;
    if (d->rounds > MOST_ROUNDS) d->rounds = MOST_ROUNDS;
    snprintf(d->log, sizeof d->log, "%.200s/workers.log", d->build);
    unlink(d->log);
    double t = now();
    measure_machine(d);
    char threads[TEXT]; /* of all workers that do not ask for another number */
    snprintf(threads, sizeof threads, "%zu", d->machine.threads);
    d->threads = threads;
    report_head(&d->machine, stdout);
    report_columns(stdout);
    fflush(stdout);
    run_cases(d, argv[1]);
    report_notes(&d->machine, d->results, d->n, stdout);
    printf("%zu rows, %zu repetitions, %.0f s\n", d->n, d->rounds, now() - t);
    if (d->json) {
        FILE *out = fopen(d->json, "w");
        if (!out) die(d->json, "cannot be written");
        report_json(&d->machine, d->results, d->n, out);
        if (fclose(out)) die(d->json, "cannot be written");
    }
    free(d);
    return 0;
}
