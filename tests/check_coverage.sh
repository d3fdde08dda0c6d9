#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_coverage.sh SOURCE [BUILD]
# Line and branch coverage of lib/ by the suite unit, test_structs and the command's warnings (gcc,
# Debian's gcovr): a table, limits below which it must not fall, and coverage-exceptions.txt, which names
# every branch of what reads, writes and guards that no test takes. BUILD: keep that build folder and what
# it has counted so far.
set -u
export LC_ALL=C
source=$1
command -v gcovr >/dev/null || { echo "skipped: no gcovr"; exit 77; }
command -v gcc >/dev/null || { echo "skipped: no gcc"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
build=${2:-$tmp/build}

# Optimised for debugging: above that, gcov counts branches of inlined copies. __gcov_dump: for children of
# tests, which end without exit.
if [ ! -f "$build/build.ninja" ]; then
    CC=gcc meson setup --buildtype=custom -Doptimization=g -Ddebug=true -Db_coverage=true -Dbench=false \
        -Dc_link_args=-Wl,-u,__gcov_dump "$build" "$source" >"$tmp/log" 2>&1 ||
        { cat "$tmp/log"; exit 1; }
fi
# Failures belong to the plain build's run of the same tests.
meson test -C "$build" --suite unit >"$tmp/log" 2>&1 || grep -E 'FAIL|TIMEOUT' "$tmp/log"
meson test -C "$build" test_structs "command more" >"$tmp/log" 2>&1 || grep -E 'FAIL|TIMEOUT' "$tmp/log"
# Of the tests' own objects only the one that compiles a file of the library again, for a processor that this one may not
# be; else what tests ask of the inline functions in headers would count as code that wants a test.
gcovr --root "$source" --filter "$source/lib/" --gcov-ignore-parse-errors --exclude-throw-branches -j 2 --json "$tmp/json" "$build/lib" "$build/tests/test_panels.p" >"$tmp/log" 2>&1 ||
    { cat "$tmp/log"; exit 1; }
exec python3 "$(dirname "$0")/coverage.py" "$source" "$tmp/json"
