/* SPDX-License-Identifier: MIT
 *
 * Texts that somebody else wrote: names of files, tensors and models, keys, labels, messages that quote them. They
 * may be any bytes, and a terminal obeys some of them.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the UTF-8 character at s, and its code; 0 if there is none (overlong forms, surrogates and what is above
 * U+10FFFF included), the code is then the byte. */
size_t text_character(const char *s, uint32_t *code);
/* Whether a terminal acts on a character instead of showing it: C0, DEL and C1 controls, separators of lines, and marks
 * that turn the direction of writing. */
bool text_is_control(uint32_t code);

/* As it may go to a terminal: bytes of controls and bytes that are no UTF-8 as \xNN, all else as it is. Writes at most
 * size bytes, the 0 at the end included; returns the length that the whole has, as snprintf does. */
size_t text_escape(const char *text, char *out, size_t size);
/* The same in new memory. */
char *text_shown(const char *text);

#endif
