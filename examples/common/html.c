/* SPDX-License-Identifier: MIT
 *
 * See html.h.
 */
#include "html.h"
#include "text.h"

/* .chart .. are the classes that plot.c gives to the parts of a chart. */
static const char stylesheet[] =
    ":root{color-scheme:light dark;--page:#fff;--text:#1d2127;--soft:#5d6673;--line:#e1e5ea;--band:#f4f6f8;--link:#1f5fa8}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#15181c;--text:#e3e6ea;--soft:#9da6b2;--line:#30363e;--band:#1d2227;"
    "--link:#82b6ee}}\n"
    "body{margin:2rem auto 4rem;max-width:64rem;padding:0 1rem;background:var(--page);color:var(--text);"
    "font:15px/1.5 system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif}\n"
    "h1{font-size:1.5rem;line-height:1.25;margin:0 0 .5rem}h2{font-size:1.15rem;margin:2.6rem 0 .5rem}\n"
    "p{margin:.4rem 0;max-width:48rem}a{color:var(--link)}.soft{color:var(--soft)}\n"
    ".scroll{overflow-x:auto;margin:.8rem 0}\n"
    "table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.22rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:baseline}\n"
    "th{color:var(--soft);font-weight:600;white-space:nowrap}tbody tr:hover{background:var(--band)}\n"
    "th.n,td.n,td:first-child{white-space:nowrap}th.n,td.n{text-align:right}th[title]{text-decoration:underline dotted;cursor:help}\n"
    "svg.chart{display:block;width:100%;max-width:900px;height:auto;margin:.6rem 0}\n"
    ".chart text{fill:var(--soft);font-size:12px}.chart .title,.chart .panel{fill:var(--text);font-weight:600;font-size:13px}\n"
    ".chart .title{font-size:15px}.chart .tick{font-size:11px}.chart .grid{stroke:var(--line)}.chart .axis{stroke:var(--soft)}\n";

void html_begin(FILE *f, const char *title, const char *head)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>", f);
    html_text(f, title);
    fprintf(f, "</title>\n<style>\n%s</style>\n%s</head>\n<body>\n<h1>", stylesheet, head ? head : "");
    html_text(f, title);
    fputs("</h1>\n", f);
}

void html_end(FILE *f)
{
    fputs("</body>\n</html>\n", f);
}

void html_text(FILE *f, const char *text)
{
    for (const char *s = text; *s;) {
        uint32_t code;
        const size_t n = text_character(s, &code);
        const bool control = (code < 0x20 && code != '\t' && code != '\n') || (code >= 0x7f && code < 0xa0);
        if (n == 0 || control) fputs("\xef\xbf\xbd", f);
        else if (*s == '&') fputs("&amp;", f);
        else if (*s == '<') fputs("&lt;", f);
        else if (*s == '>') fputs("&gt;", f);
        else if (*s == '"') fputs("&quot;", f);
        else if (*s == '\'') fputs("&#39;", f);
        else fwrite(s, 1, n, f);
        s += n ? n : 1;
    }
}

static void element(FILE *f, const char *before, const char *text, const char *after)
{
    fputs(before, f);
    html_text(f, text);
    fputs(after, f);
}

void html_heading(FILE *f, const char *id, const char *text)
{
    fputs("<h2", f);
    if (id) element(f, " id=\"", id, "\"");
    element(f, ">", text, "</h2>\n");
}

void html_paragraph(FILE *f, const char *text)
{
    element(f, "<p>", text, "</p>\n");
}

void html_table_begin(FILE *f, const html_column *columns, size_t n_columns)
{
    fputs("<div class=\"scroll\"><table>\n<thead><tr>", f);
    for (size_t i = 0; i < n_columns; i++) {
        fputs(columns[i].number ? "<th class=\"n\"" : "<th", f);
        if (columns[i].help) element(f, " title=\"", columns[i].help, "\"");
        element(f, ">", columns[i].name, "</th>");
    }
    fputs("</tr></thead>\n<tbody>\n", f);
}

void html_row_begin(FILE *f)
{
    fputs("<tr>", f);
}

void html_cell(FILE *f, const char *text)
{
    element(f, "<td>", text, "</td>");
}

void html_number(FILE *f, const char *text)
{
    element(f, "<td class=\"n\">", text && *text ? text : "\xe2\x80\x93", "</td>");
}

void html_row_end(FILE *f)
{
    fputs("</tr>\n", f);
}

void html_table_end(FILE *f)
{
    fputs("</tbody>\n</table></div>\n", f);
}
