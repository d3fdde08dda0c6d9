/* SPDX-License-Identifier: MIT
 *
 * Completion for shells, from the tables of options.
 */
#include "command.h"

#include <string.h>

static const option *option_of(const command *c, size_t i)
{
    const option *o = i < c->n_options ? &c->options[i] : &option_config;
    return o->name && (!c->listed || c->listed(o)) ? o : NULL;
}

static void put_choices(FILE *out, const option *o)
{
    for (const option_choice *k = o->choices; k->name; k++) fprintf(out, "%s%s", k == o->choices ? "" : " ", k->name);
}

static bool takes_file(const option *o)
{
    return o->kind == OPTION_TEXT || o->kind == OPTION_TEXTS;
}

/* Files are what bash completes by itself where the list is empty. */
static void bash(FILE *out, const command *const *commands, size_t n)
{
    fputs("_atmsae() {\n    local words= cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"", out);
    for (size_t c = 0; c < n; c++) fprintf(out, "%s ", commands[c]->name);
    fputs("--help --version\"\n    else\n        case \"${COMP_WORDS[1]} $prev\" in\n", out);
    for (size_t c = 0; c < n; c++)
        for (size_t i = 0; i <= commands[c]->n_options; i++) {
            const option *o = option_of(commands[c], i);
            if (!o || o->kind != OPTION_CHOICE) continue;
            fprintf(out, "            \"%s --%s\") words=\"", commands[c]->name, o->name);
            put_choices(out, o);
            fputs("\" ;;\n", out);
        }
    for (size_t c = 0; c < n; c++) {
        fprintf(out, "            \"%s \"*) [ \"${cur#-}\" = \"$cur\" ] || words=\"", commands[c]->name);
        for (size_t i = 0; i <= commands[c]->n_options; i++)
            if (option_of(commands[c], i)) fprintf(out, "--%s ", option_of(commands[c], i)->name);
        fputs("--help\" ;;\n", out);
    }
    fputs("        esac\n    fi\n    [ -z \"$words\" ] || COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
          "complete -o default -F _atmsae atmsae\n", out);
}

static void put_quoted(FILE *out, const char *text, const char *escaped, const char *quote)
{
    for (; *text; text++) {
        if (*text == '\'') fputs(quote, out);
        else fprintf(out, "%s%c", strchr(escaped, *text) ? "\\" : "", *text);
    }
}

static void zsh(FILE *out, const command *const *commands, size_t n)
{
    fputs("#compdef atmsae\n_atmsae() {\n    if (( CURRENT == 2 )); then\n        local -a names=(\n", out);
    for (size_t c = 0; c < n; c++) {
        fprintf(out, "            '%s:", commands[c]->name);
        put_quoted(out, commands[c]->summary, ":", "'\\''");
        fputs("'\n", out);
    }
    fputs("        )\n        _describe command names\n        return\n    fi\n    local name=$words[2]\n    shift words\n"
          "    (( CURRENT-- ))\n    case $name in\n", out);
    for (size_t c = 0; c < n; c++) {
        fprintf(out, "    %s) _arguments \\\n", commands[c]->name);
        for (size_t i = 0; i <= commands[c]->n_options; i++) {
            const option *o = option_of(commands[c], i);
            if (!o) continue;
            fprintf(out, "        '%s--%s[", o->kind == OPTION_TEXTS ? "*" : "", o->name);
            put_quoted(out, o->help, "[]:\\", "'\\''");
            fputc(']', out);
            if (o->value) fprintf(out, ":%s:", o->value);
            if (takes_file(o)) fputs("_files", out);
            if (o->kind == OPTION_CHOICE) fputc('(', out), put_choices(out, o), fputc(')', out);
            fputs("' \\\n", out);
        }
        fputs("        '*:file:_files' ;;\n", out);
    }
    fputs("    esac\n}\nif [ \"$funcstack[1]\" = _atmsae ]; then _atmsae \"$@\"; else compdef _atmsae atmsae; fi\n", out);
}

static void fish(FILE *out, const command *const *commands, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        fprintf(out, "complete -c atmsae -f -n __fish_use_subcommand -a %s -d '", commands[c]->name);
        put_quoted(out, commands[c]->summary, "\\", "\\'");
        fputs("'\n", out);
        for (size_t i = 0; i <= commands[c]->n_options; i++) {
            const option *o = option_of(commands[c], i);
            if (!o) continue;
            fprintf(out, "complete -c atmsae -n '__fish_seen_subcommand_from %s' -l %s", commands[c]->name, o->name);
            if (o->kind != OPTION_FLAG) fputs(takes_file(o) ? " -r" : " -x", out);
            if (o->kind == OPTION_CHOICE) fputs(" -a '", out), put_choices(out, o), fputc('\'', out);
            fputs(" -d '", out);
            put_quoted(out, o->help, "\\", "\\'");
            fputs("'\n", out);
        }
    }
}

bool completion_print(FILE *out, const command *const *commands, size_t n, const char *shell)
{
    static const struct {
        const char *name;
        void (*print)(FILE *out, const command *const *commands, size_t n);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
        if (strcmp(shells[i].name, shell) != 0) continue;
        shells[i].print(out, commands, n);
        return true;
    }
    return false;
}
