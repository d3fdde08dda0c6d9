/* SPDX-License-Identifier: MIT
 *
 * The library's messages name its settings; who reads them here has options.
 */
#include "command.h"

#include <stdio.h>
#include <string.h>

static const char *const names[][2] = { /* of the library, of the option */
    {"lr", "lr"}, {"d_sae", "d-sae"}, {"k", "k"}, {"target_l0", "target-l0"}, {"sparsity_coef", "sparsity"}, {"aux_coef", "aux-coef"},
    {"init_threshold", "init-threshold"}, {"bandwidth", "bandwidth"}, {"input_norm", "input-norm"}, {"b_dec_init", "b-dec"}, {"r", "r"},
    {"c", "c"}, {"batch_rows", "batch"}, {"total_rows", "rows"}, {"dead_window", "dead-window"}, {"skip_bad_rows", "skip-bad-rows"},
    {"max_norm", "max-norm"}, {"as_bf16", "bf16"},
};

/* The option that goes by the word [length], if the command has it. */
static const option *option_of(const command *c, const char *word, size_t length)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i][0]) == length && memcmp(names[i][0], word, length) == 0)
            return option_find(c->options, c->n_options, names[i][1]);
    return NULL;
}

/* Does a word end here? Parts of paths and of longer names do not. */
static bool is_end(const char *at)
{
    return strchr(" ,;:()", *at) /* also at the end of all */ || (*at == '.' && (at[1] == 0 || at[1] == ' '));
}

const char *in_options(const command *c, const char *message, char text[MESSAGE_BYTES])
{
    size_t n = 0;
    for (const char *at = message; *at && n < MESSAGE_BYTES - 1;) {
        const bool begins = at == message || at[-1] == ' ' || at[-1] == '(';
        size_t length = 0;
        while (begins && !is_end(at + length)) length++;
        const option *o = length ? option_of(c, at, length) : NULL;
        if (length == 0) length = 1;
        const int written = o ? snprintf(text + n, MESSAGE_BYTES - n, "--%s", o->name)
                              : snprintf(text + n, MESSAGE_BYTES - n, "%.*s", (int)length, at);
        n = written < 0 ? n : n + (size_t)written;
        at += length;
    }
    return text;
}
