/* SPDX-License-Identifier: MIT
 *
 * What atmsae train writes besides its SAE, --metrics and --plot: checked before the first step, so that no run of hours
 * ends in a typo.
 *
 * What is there already is replaced only with --force, an input never. A file, --config or the run.json of somebody
 * else's folder, may name outputs within the run's folder, no others: those take a word on the command line.
 */
#include "files.h"
#include "program.h"
#include "run_file.h"
#include "train.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    int option;
    const char *endings[2]; /* of the name; the second may be NULL */
} outputs[] = {{T_METRICS, {".csv", ".jsonl"}}, {T_PLOT, {".svg"}}};
#define N_OUTPUTS (sizeof outputs / sizeof *outputs)

/* A relative path of a file is one in the run's folder, wherever that is now. */
static void into_folder(setting *s, const char *folder)
{
    if (!s->given || !s->from_file || s->text[0] == '/') return;
    free(s->owned);
    s->owned = program_path(folder, s->text);
    s->text = s->owned;
}

bool train_outputs_complete(setting *s)
{
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        setting *output = &s[outputs[i].option];
        if (!output->given) continue;
        const char *const *end = outputs[i].endings;
        if (!program_ends_with(output->text, end[0]) && !(end[1] && program_ends_with(output->text, end[1]))) {
            program_error("--%s %s: the name must end in %s%s%s", train_options[outputs[i].option].name, output->text, end[0], end[1] ? " or " : "",
                          end[1] ? end[1] : "");
            return false;
        }
        if (s[T_OUT].given) into_folder(output, s[T_OUT].text);
    }
    return true;
}

/* ---- on whose word ---------------------------------------------------------------------------------------- */

/* A word of a shell command, which a user will paste: the name comes from a file that somebody else may have written. */
static void print_word(FILE *out, const char *word)
{
    if (*word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./%@") == strlen(word)) {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word; word++) fputs(*word == '\'' ? "'\\''" : (char[]){*word, 0}, out);
    fputc('\'', out);
}

static bool asked_for(const setting *s)
{
    bool good = true;
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        const setting *output = &s[outputs[i].option];
        if (!output->given || !output->from_file || file_within(s[T_OUT].text, output->text)) continue;
        program_error("--%s %s, as a file says, lies outside of the run's folder %s: such a file is written only if the command line says so",
                      train_options[outputs[i].option].name, output->text, s[T_OUT].text);
        good = false;
    }
    if (good) return true;
    char *line = NULL;
    size_t size;
    FILE *out = program_text_open(&line, &size);
    if (s[T_RESUME].given) {
        fputs("atmsae resume ", out);
        print_word(out, s[T_OUT].text);
    } else {
        fputs("the same command with", out);
    }
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        if (!s[outputs[i].option].given) continue;
        fprintf(out, " --%s ", train_options[outputs[i].option].name);
        print_word(out, s[outputs[i].option].text);
    }
    program_error("if that is right: %s. Else other names, or null for them in the file", program_text_close(out, &line));
    free(line);
    return false;
}

/* ---- what is there already ---------------------------------------------------------------------------------- */

/* Whether the run that goes on has written this file: its run.json says so, and not by way of a link. */
static bool is_own(const setting *s, int which, const char *path)
{
    char *run = program_path(s[T_OUT].text, RUN_FILE);
    setting *was = program_alloc(T_OPTIONS + 1, sizeof *was);
    bool own = access(run, R_OK) == 0 && options_load(train_options, T_OPTIONS, run, was);
    into_folder(&was[which], s[T_OUT].text);
    struct stat info;
    own = own && was[which].given && lstat(was[which].text, &info) == 0 && S_ISREG(info.st_mode) && file_same(path, was[which].text);
    options_free(was, T_OPTIONS);
    free(was);
    free(run);
    return own;
}

/* A run that goes on replaces what it wrote before, and nothing else. */
static bool goes_on(const setting *s)
{
    struct stat info;
    if (!s[T_RESUME].given) return true;
    if (s[T_METRICS].given && !metrics_file_goes_on(s[T_METRICS].text)) return false;
    if (!s[T_PLOT].given || stat(s[T_PLOT].text, &info) != 0 || !S_ISREG(info.st_mode) || is_own(s, T_PLOT, s[T_PLOT].text)) return true;
    program_error("%s: is there already and not of this run; give --plot another name", s[T_PLOT].text);
    return false;
}

bool train_outputs_check(const setting *s, int *code)
{
    const bool asked = asked_for(s);
    if (!asked) *code = EXIT_USAGE;
    return asked && goes_on(s) && paths_allowed(train_options, T_OPTIONS, s);
}
