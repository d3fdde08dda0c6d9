/* SPDX-License-Identifier: MIT
 *
 * Writes a self-contained HTML page: one stylesheet, readable in light and dark, nothing from elsewhere.
 * Charts are plot.h's, put anywhere in the page by plot_svg(file, &chart). Texts are escaped here, so
 * callers pass them as they are. Errors stay in the FILE: look at ferror and fclose at the end.
 *
 *     html_begin(f, "Title", NULL);
 *     html_paragraph(f, "What this page shows.");
 *     html_heading(f, "table", "A table");
 *     html_table_begin(f, (html_column[]){{.name = "letter"}, {.name = "L0", .number = true}}, 2);
 *     html_row_begin(f);  html_cell(f, "a");  html_number(f, "31.9");  html_row_end(f);
 *     html_table_end(f);
 *     html_end(f);
 */
#ifndef HTML_H
#define HTML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct html_column {
    const char *name;
    const char *help; /* shown when the pointer rests on the name; NULL: none */
    bool number;      /* aligned to the right */
} html_column;

/* head: markup of your own for the end of <head> (a <style>, say), as it is; NULL: none. */
void html_begin(FILE *f, const char *title, const char *head);
void html_end(FILE *f);

/* A text for an element or an attribute in either kind of quotes: & < > " ' are escaped; control
 * characters and bytes that are no UTF-8 become U+FFFD. */
void html_text(FILE *f, const char *text);

/* id: of the anchor; NULL: none. */
void html_heading(FILE *f, const char *id, const char *text);
void html_paragraph(FILE *f, const char *text);

void html_table_begin(FILE *f, const html_column *columns, size_t n_columns);
void html_row_begin(FILE *f);
void html_cell(FILE *f, const char *text);
void html_number(FILE *f, const char *text); /* aligned to the right; "" or NULL: a dash */
void html_row_end(FILE *f);
void html_table_end(FILE *f);

#endif
