/* SPDX-License-Identifier: MIT
 *
 * See options.h.
 */
#include "options.h"
#include "program.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 28
#define HELP_WIDTH 100

/* ---- nearest name -------------------------------------------------------------------------------- */

/* Edits (insert, delete, replace) between two words; long ones count as far apart. */
static size_t distance(const char *a, const char *b)
{
    size_t row[33];
    const size_t la = strlen(a), lb = strlen(b);
    if (la > 32 || lb > 32) return 32;
    for (size_t j = 0; j <= lb; j++) row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            const size_t other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = replaced < other ? replaced : other;
        }
    }
    return row[lb];
}

const char *nearest_name(const char *word, const char *(*name)(const void *, size_t), const void *table, size_t n)
{
    const char *best = NULL;
    size_t least = 1 + (strlen(word) + 1) / 3;
    for (size_t i = 0; i < n; i++) {
        const char *candidate = name(table, i);
        if (!candidate) continue;
        const bool starts = strlen(word) > 1 && strncmp(candidate, word, strlen(word)) == 0;
        const size_t d = starts ? 0 : distance(word, candidate);
        if (d < least) {
            least = d;
            best = candidate;
        }
    }
    return best;
}

static const char *option_name(const void *table, size_t i)
{
    return ((const option *)table)[i].name;
}

static const char *choice_name(const void *table, size_t i)
{
    return ((const option_choice *)table)[i].name;
}

/* ---- values ---------------------------------------------------------------------------------------- */

static void range_text(const option *o, char *text, size_t size)
{
    const char *sign = o->above_min ? ">" : ">=";
    if (o->max > 0) snprintf(text, size, "%s%.10g .. %.10g", o->above_min ? "above " : "", o->min, o->max);
    else snprintf(text, size, "%s %.10g", sign, o->min);
}

static bool in_range(const option *o, double value)
{
    if (!(o->above_min ? value > o->min : value >= o->min)) return false;
    return !(o->max > 0) || value <= o->max;
}

static bool bad_value(const option *o, const char *text, const char *where)
{
    char range[96];
    range_text(o, range, sizeof range);
    program_error("%s%s %s: expected %s%sa %snumber %s", where, o->name, text, o->choices ? o->choices->name : "", o->choices ? " or " : "",
            o->kind == OPTION_REAL ? "" : "whole ", range);
    return false;
}

/* A whole number up to `end`. Plain digits are exact to 2^64 - 1; other forms up to 2^53. */
static bool count_value(const char *text, const char *end, uint64_t *value)
{
    if (text == end || *text < '0' || *text > '9') return false;
    char *stop;
    errno = 0;
    *value = strtoull(text, &stop, 10);
    if (stop == end) return errno == 0;
    double number = strtod(text, &stop);
    if (stop + 1 == end) {
        const char *unit = strchr("kMG", *stop);
        if (!unit) return false;
        number *= *unit == 'k' ? 1e3 : *unit == 'M' ? 1e6 : 1e9;
        stop++;
    }
    if (stop != end || !(number <= 9007199254740992.0) || number != floor(number)) return false;
    *value = (uint64_t)number;
    return true;
}

static bool counts_value(const option *o, const char *text, const char *where, setting *s)
{
    size_t n = 1;
    for (const char *c = text; *c; c++) n += *c == ',';
    free(s->counts);
    s->counts = program_alloc(n, sizeof *s->counts);
    s->n = 0;
    for (const char *at = text;; at = strchr(at, ',') + 1) {
        const char *end = strchr(at, ',');
        if (!count_value(at, end ? end : at + strlen(at), &s->counts[s->n]) ||
            !in_range(o, (double)s->counts[s->n]))
            return bad_value(o, text, where);
        s->n++;
        if (!end) return true;
    }
}

static bool choice_value(const option *o, const char *text, const char *where, setting *s)
{
    size_t n = 0;
    for (; o->choices[n].name; n++) {
        if (strcmp(o->choices[n].name, text) != 0) continue;
        s->choice = o->choices[n].value;
        return true;
    }
    const char *near = nearest_name(text, choice_name, o->choices, n);
    char all[256];
    size_t used = 0;
    for (size_t i = 0; i < n && used < sizeof all; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", o->choices[i].name);
    program_error("%s%s %s: expected one of %s%s%s%s", where, o->name, text, all, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    return false;
}

static void add_text(setting *s, const char *text)
{
    const char **longer = program_alloc(s->n + 1, sizeof *longer);
    if (s->n) memcpy(longer, s->texts, s->n * sizeof *longer);
    free(s->texts);
    longer[s->n++] = text;
    s->texts = longer;
    s->text = longer[0];
}

bool option_take(const option *o, const char *text, const char *where, setting *s)
{
    s->given = true;
    if (!*text) { /* an unset variable of a shell, most likely */
        program_error("%s%s: an empty text, expected %s", where, o->name ? o->name : "argument", o->value);
        return false;
    }
    if (o->kind == OPTION_TEXTS) {
        add_text(s, text);
        return true;
    }
    s->text = text;
    char *stop;
    switch (o->kind) {
    case OPTION_COUNT:
        return (count_value(text, text + strlen(text), &s->count) && in_range(o, (double)s->count)) ||
               bad_value(o, text, where);
    case OPTION_REAL:
        if (o->choices && strcmp(text, o->choices->name) == 0) return s->real = o->choices->value, true;
        s->real = strtod(text, &stop);
        return (stop != text && *stop == 0 && isfinite(s->real) && in_range(o, s->real)) ||
               bad_value(o, text, where);
    case OPTION_CHOICE: return choice_value(o, text, where, s);
    case OPTION_COUNTS: return counts_value(o, text, where, s);
    default: return true;
    }
}

/* ---- the command line ------------------------------------------------------------------------------ */

const option option_config = {.group = "settings", .name = "config", .kind = OPTION_TEXT, .file = OPTION_READ, .value = "FILE",
                              .help = "a JSON object of options by name, e.g. {\"k\": 32}; those given here win over it"};

const option *option_find(const option *options, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (name ? options[i].name && strcmp(options[i].name, name) == 0 : !options[i].name) return &options[i];
    return NULL;
}

bool option_unknown(const option *options, size_t n, const char *name, const char *where)
{
    const char *near = nearest_name(name, option_name, options, n);
    program_error("unknown option %s%s%s%s%s%s (--help lists all)", where, name, near ? "; did you mean " : "",
                  near && strcmp(where, "--") == 0 ? where : "", near ? near : "", near ? "?" : "");
    return false;
}

static bool is_option(const char *argument)
{
    return argument[0] == '-' && argument[1] == '-' && argument[2];
}

static bool stray(const char *argument)
{
    program_error("\"%s\" is no option (they start with --) and belongs to none", argument);
    return false;
}

/* argv[*i] is "--name=value", "--name value" or "--name"; moves *i behind it. */
static bool take_option(const option *options, size_t n, int argc, char **argv, int *i, setting *settings)
{
    char name[64];
    const char *argument = argv[(*i)++] + 2, *equals = strchr(argument, '=');
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - argument) : (int)strlen(argument), argument);
    const bool config = strcmp(name, option_config.name) == 0;
    const option *o = config ? &option_config : option_find(options, n, name);
    if (!o) return option_unknown(options, n, name, "--");
    setting *s = &settings[config ? n : (size_t)(o - options)];
    if (o->kind == OPTION_FLAG) {
        if (equals) program_error("--%s takes no value", o->name);
        s->given = true;
        return !equals;
    }
    if (!equals && (*i == argc || is_option(argv[*i]))) {
        program_error("--%s needs a value: --%s %s", o->name, o->name, o->value);
        return false;
    }
    if (!option_take(o, equals ? equals + 1 : argv[(*i)++], "--", s)) return false;
    while (o->kind == OPTION_TEXTS && *i < argc && !is_option(argv[*i]))
        if (!option_take(o, argv[(*i)++], "--", s)) return false;
    return true;
}

bool options_parse(const option *options, size_t n, int argc, char **argv, setting *settings)
{
    const option *rest = option_find(options, n, NULL);
    for (int i = 0; i < argc;) {
        if (is_option(argv[i])) {
            if (!take_option(options, n, argc, argv, &i, settings)) return false;
        } else if (!rest || (argv[i][0] == '-' && argv[i][1])) {
            return stray(argv[i]);
        } else if (!option_take(rest, argv[i++], "", &settings[rest - options])) {
            return false;
        }
    }
    return !settings[n].given || options_load(options, n, settings[n].text, settings);
}

bool options_required(const option *options, size_t n, const setting *settings)
{
    for (size_t i = 0; i < n; i++) {
        if (!options[i].required || settings[i].given) continue;
        program_error("%s%s%s%s is missing (--help explains)", options[i].name ? "--" : "",
                options[i].name ? options[i].name : "", options[i].name ? " " : "", options[i].value);
        return false;
    }
    return true;
}

void options_free(setting *settings, size_t n)
{
    for (size_t i = 0; i <= n; i++) {
        free(settings[i].texts);
        free(settings[i].counts);
        free(settings[i].owned);
    }
}

void setting_real(const setting *from, double *target)
{
    if (from->given) *target = from->real;
}

void setting_count(const setting *from, uint64_t *target)
{
    if (from->given) *target = from->count;
}

void setting_choice(const setting *from, int32_t *target)
{
    if (from->given) *target = from->choice;
}

/* ---- help ------------------------------------------------------------------------------------------- */

/* Prints words from `column` on, broken before HELP_WIDTH; returns the column reached. */
static int print_wrapped(FILE *out, const char *text, int column)
{
    for (const char *word = text; *word;) {
        const size_t length = strcspn(word, " ");
        if (column + 1 + (int)length > HELP_WIDTH && column > HELP_COLUMN) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        if (column > HELP_COLUMN) column += fprintf(out, " ");
        column += fprintf(out, "%.*s", (int)length, word);
        word += length + strspn(word + length, " ");
    }
    return column;
}

void option_facts(const option *o, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    if (o->kind == OPTION_CHOICE) {
        used = (size_t)snprintf(text, size, ": ");
        for (const option_choice *c = o->choices; c->name && used < size; c++)
            used += (size_t)snprintf(text + used, size - used, "%s%s", c == o->choices ? "" : ", ", c->name);
    } else if (o->kind == OPTION_COUNT || o->kind == OPTION_REAL) {
        char range[96];
        range_text(o, range, sizeof range);
        used = (size_t)snprintf(text, size, "; %s", range);
    }
    if (o->preset && used < size) snprintf(text + used, size - used, "; default %s", o->preset);
}

void option_usage(const option *o, char *text, size_t size)
{
    snprintf(text, size, "%s%s%s%s%s", o->name ? "--" : "", o->name ? o->name : "", o->value && o->name ? " " : "",
             o->value ? o->value : "", o->kind == OPTION_TEXTS ? "..." : "");
}

static void option_help(FILE *out, const option *o)
{
    char left[64], facts[256], text[768];
    option_usage(o, left, sizeof left);
    option_facts(o, facts, sizeof facts);
    snprintf(text, sizeof text, "%s%s", o->help, facts);
    int column = fprintf(out, "  %s", left);
    if (column > HELP_COLUMN - 2) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", HELP_COLUMN - column, "");
    print_wrapped(out, text, HELP_COLUMN);
    fputc('\n', out);
}

void options_help(FILE *out, const option *options, size_t n, bool (*listed)(const option *))
{
    const char *group = NULL, *printed = NULL;
    for (size_t i = 0; i <= n; i++) {
        const option *o = i < n ? &options[i] : &option_config;
        if (o->group) group = o->group;
        if (listed && !listed(o)) continue;
        if (group != printed) fprintf(out, "\n%s\n", group);
        printed = group;
        option_help(out, o);
    }
}
