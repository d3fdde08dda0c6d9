/* SPDX-License-Identifier: MIT
 *
 * Man pages (mdoc) from the tables of options and the texts of --help.
 */
#include "command.h"

#include <ctype.h>
#include <string.h>

#define LINE 72
#define MANUAL_DATE "November 24, 2026" /* of the last change to the texts */

static void put_char(FILE *out, char c)
{
    if (c == '\\') fputs("\\e", out);
    else if (c == '-') fputs("\\-", out);
    else fputc(c, out);
}

/* Words, in lines that are not too long and end where a sentence does, as mdoc wants them. */
static void put_words(FILE *out, const char *text, const char *end)
{
    int column = 0;
    for (const char *at = text; at < end;) {
        at += strspn(at, " \n");
        size_t length = strcspn(at, " \n");
        if (at + length > end) length = (size_t)(end - at);
        if (length == 0) break;
        if (column > 0 && column + 1 + (int)length > LINE) column = 0, fputc('\n', out);
        if (column > 0) fputc(' ', out);
        if (column == 0 && (at[0] == '.' || at[0] == '\'')) fputs("\\&", out);
        for (size_t i = 0; i < length; i++) put_char(out, at[i]);
        column += 1 + (int)length;
        at += length;
        if (strchr(".!?", at[-1])) column = LINE;
    }
    fputc('\n', out);
}

/* Runs of text up to a blank line. */
static void put_paragraphs(FILE *out, const char *text, const char *end)
{
    for (const char *at = text; at < end;) {
        const char *stop = strstr(at, "\n\n");
        if (!stop || stop > end) stop = end;
        if (at != text) fputs(".Pp\n", out);
        put_words(out, at, stop);
        at = stop + strspn(stop, "\n");
    }
}

static void put_literal(FILE *out, const char *text, size_t length)
{
    fputs(".Bd -literal\n", out);
    for (size_t i = 0; i < length; i++) put_char(out, text[i]);
    fputs(".Ed\n", out);
}

static void head(FILE *out, const char *page, const char *summary)
{
    fprintf(out, ".\\\" Written by atmsae --man.\n.Dd " MANUAL_DATE "\n.Dt ");
    for (const char *c = page; *c; c++) fputc(toupper((unsigned char)*c), out);
    fprintf(out, " 1\n.Os\n.Sh NAME\n.Nm %s\n.Nd %s\n", page, summary);
}

static void option_item(FILE *out, const option *o)
{
    char facts[256], text[768];
    option_facts(o, facts, sizeof facts);
    fputs(".It", out);
    if (o->name) fprintf(out, " Fl \\-%s", o->name);
    if (o->value) fprintf(out, " Ar %s%s", o->value, o->kind == OPTION_TEXTS ? " ..." : "");
    fputc('\n', out);
    snprintf(text, sizeof text, "%s%s.", o->help, facts);
    put_words(out, text, text + strlen(text));
}

static void options_section(FILE *out, const command *c)
{
    const char *group = NULL, *printed = NULL;
    fputs(".Sh OPTIONS\n", out);
    for (size_t i = 0; i <= c->n_options; i++) {
        const option *o = i < c->n_options ? &c->options[i] : &option_config;
        if (o->group) group = o->group;
        if (c->listed && !c->listed(o)) continue;
        if (group != printed) {
            if (printed) fputs(".El\n", out);
            fprintf(out, ".Ss %c%s\n.Bl -tag -width Ds\n", toupper((unsigned char)group[0]), group + 1);
        }
        printed = group;
        option_item(out, o);
    }
    fputs(".El\n", out);
}

/* In order of name, which is the order that a list of pages has. */
static void see_commands(FILE *out, const command *const *commands, size_t n)
{
    const char *last = "";
    for (size_t done = 0; done < n; done++) {
        const char *next = NULL;
        for (size_t i = 0; i < n; i++)
            if (strcmp(commands[i]->name, last) > 0 && (!next || strcmp(commands[i]->name, next) < 0)) next = commands[i]->name;
        if (!next) return;
        fprintf(out, ".Xr atmsae-%s 1%s\n", next, done + 1 < n ? " ," : "");
        last = next;
    }
}

static void tail(FILE *out, const command *const *commands, size_t n, const command *c)
{
    const size_t codes = sizeof exit_codes / sizeof *exit_codes;
    fputs(".Sh EXIT STATUS\n.Bl -tag -width Ds\n", out);
    for (size_t i = 0; i < codes; i++) fprintf(out, ".It %s\n%s.\n", exit_codes[i][0], exit_codes[i][1]);
    fputs(".El\n", out);
    const char *examples = c ? strstr(c->help, "\nexamples\n") : NULL;
    if (examples) {
        examples += strlen("\nexamples\n");
        fputs(".Sh EXAMPLES\n", out);
        put_literal(out, examples, strlen(examples));
    }
    fputs(".Sh SEE ALSO\n", out);
    if (c) fputs(".Xr atmsae 1\n", out);
    else see_commands(out, commands, n);
}

static void command_page(FILE *out, const command *c)
{
    char page[64];
    snprintf(page, sizeof page, "atmsae-%s", c->name);
    head(out, page, c->summary);
    const char *usage = c->help + strlen("usage: "), *text = strstr(usage, "\n\n"), *end = strstr(usage, "\nexamples\n");
    fputs(".Sh SYNOPSIS\n", out);
    put_literal(out, usage, (size_t)(text + 1 - usage));
    fputs(".Sh DESCRIPTION\n", out);
    text += 2;
    put_paragraphs(out, text, end ? end : text + strlen(text));
    options_section(out, c);
}

static void program_page(FILE *out, const command *const *commands, size_t n)
{
    head(out, "atmsae", "sparse autoencoders with Adaptive Temporal Masking");
    fputs(".Sh SYNOPSIS\n.Nm\n.Ar COMMAND\n.Op Ar OPTIONS\n.Sh DESCRIPTION\n"
          "Trains, measures, converts and shows sparse autoencoders of\nlanguage\\-model activations.\n"
          "Each command has a page of its own, and\n.Fl \\-help .\n.Bl -tag -width features\n", out);
    for (size_t i = 0; i < n; i++) fprintf(out, ".It Cm %s\n%s\n", commands[i]->name, commands[i]->summary);
    fputs(".El\n.Pp\nOptions of every command may also come from a JSON object in a file, with\n"
          ".Fl \\-config Ar FILE :\nnames of options without dashes, numbers, strings, true and\nlists, as in\n"
          ".Pa run.json ,\nwhich\n.Cm train\nwrites beside its result.\nThe command line wins over the file.\n"
          "Counts may be written 10k, 2.5M, 1G or 1e6.\n.Pp\n"
          "Results go to standard output; settings, progress, warnings and errors to\nstandard error.\n", out);
}

void manual_print(FILE *out, const command *const *commands, size_t n, const command *c)
{
    if (c) command_page(out, c);
    else program_page(out, commands, n);
    tail(out, commands, n, c);
}
