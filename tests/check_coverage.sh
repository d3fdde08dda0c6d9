#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_coverage.sh SOURCE [BUILD]
# Line and branch coverage of lib/ by the suite unit (gcc, Debian's gcovr): a table by
# folder, and limits below which it must not fall. BUILD: keep that build folder and what it has
# counted so far.
set -u
export LC_ALL=C
source=$1
command -v gcovr >/dev/null || { echo "skipped: no gcovr"; exit 77; }
command -v gcc >/dev/null || { echo "skipped: no gcc"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
build=${2:-$tmp/build}

# percent of lines, percent of branches: file or folder
limits='
98 87 lib
99 91 lib/format
97 69 lib/train/checkpoint.c
100 95 lib/base/abi.c'

if [ ! -f "$build/build.ninja" ]; then
    CC=gcc meson setup --buildtype=debugoptimized -Db_coverage=true -Dbench=false "$build" "$source" >"$tmp/log" 2>&1 ||
        { cat "$tmp/log"; exit 1; }
fi
# Failures belong to the plain build's run of the same tests.
meson test -C "$build" --suite unit >"$tmp/log" 2>&1 || grep -E 'FAIL|TIMEOUT' "$tmp/log"
gcovr --root "$source" --filter "$source/lib/" --gcov-ignore-parse-errors --csv -j 2 "$build" >"$tmp/csv" || exit 1

awk -F, -v limits="$limits" '
NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
{
    n = split($column["filename"], part, "/")
    name = $column["filename"]
    folder = n > 2 ? part[1] "/" part[2] : part[1]
    names[1] = name; names[2] = folder; names[3] = "lib"
    for (i = 1; i <= 3; i++) {
        lines[names[i]] += $column["line_total"]; hit[names[i]] += $column["line_covered"]
        branches[names[i]] += $column["branch_total"]; taken[names[i]] += $column["branch_covered"]
    }
    folders[folder] = 1
}
function percent(a, b) { return b ? 100 * a / b : 100 }
END {
    if (!lines["lib"]) { print "no coverage of lib/ found"; exit 1 }
    folders["lib"] = 1
    for (f in folders) printf "%-14s lines %5.1f %%   branches %5.1f %%\n", f, percent(hit[f], lines[f]), percent(taken[f], branches[f]) | "sort"
    close("sort")
    n = split(limits, row, "\n")
    for (i = 1; i <= n; i++) {
        if (split(row[i], word, " ") != 3) continue
        name = word[3]
        if (!lines[name]) { print "no coverage of " name; bad = 1; continue }
        if (percent(hit[name], lines[name]) < word[1] || percent(taken[name], branches[name]) < word[2]) {
            printf "%s: lines %.1f %% (limit %s), branches %.1f %% (limit %s)\n", name, percent(hit[name], lines[name]), word[1],
                percent(taken[name], branches[name]), word[2]
            bad = 1
        }
    }
    exit bad
}' "$tmp/csv"
