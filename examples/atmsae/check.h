/* SPDX-License-Identifier: MIT
 *
 * atmsae info --check.
 */
#ifndef CHECK_H
#define CHECK_H

#include "command.h"

/* Reads all rows of a file as train would and tells what they are like. bad: whether one of them
 * would fail a run, which is said on stderr. tensor NULL: the one that train takes. False after a message. */
bool check_rows(atmsae_context *context, const char *path, const char *tensor, bool as_bf16, fields *out, bool *bad);

#endif
