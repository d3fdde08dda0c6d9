#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_static.sh SOURCE [gcc|clang|cppcheck|clang-tidy|scan-build|shellcheck...]
# The compilers' warnings as errors, cppcheck, clang-tidy, scan-build, shellcheck: no findings. What is wrong about a finding is said where it is, in a
# NOLINT or cppcheck-suppress comment with the reason. A tool that is missing is left out, and said.
set -u
export LC_ALL=C
source=$1
shift
[ $# -gt 0 ] || set -- shellcheck cppcheck gcc clang clang-tidy scan-build
cd "$source" || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
run=0

pass() { echo "ok $((run += 1)) - $1"; }
fail() { echo "not ok $((run += 1)) - $1"; failed=1; }
missing() { echo "left out: $1 (Debian: $2)"; left_out="${left_out:+$left_out, }$1"; }
failed=0 left_out=

# Callers may have small stacks; tests and benchmarks need not.
compile() { # COMPILER
    for build in "false 16384" "true 131072"; do
        CC=$1 meson setup --werror -Dtests="${build% *}" -Dbench="${build% *}" -Dc_args=-Wframe-larger-than="${build#* }" "$tmp/$1-${build% *}" . >"$tmp/log" 2>&1 &&
            meson compile -C "$tmp/$1-${build% *}" --ninja-args=-k0 >"$tmp/log" 2>&1 && continue
        grep -E 'error|ERROR|FAILED' "$tmp/log"
        fail "$1"
        return
    done
    pass "$1"
}

# clang-tidy: all of bugprone, cert, misc, performance, portability and the analyser, but not
#   easily-swappable-parameters            style; (n, d) of one type are everywhere
#   sizeof-expression                      takes sizeof of an array of pointers for a slip
#   cert-err33-c                           results of fprintf to a terminal
#   signed-char-misuse, cert-str34-c       int8_t is a number here
#   no-int-to-ptr                          only const is taken away that way
#   DeprecatedOrUnsafeBufferHandling       asks for Annex K, which no libc has
#   Padding                                tables are in the order in which they are read
checks='-*,bugprone-*,cert-*,misc-*,performance-*,portability-*,clang-analyzer-*'
checks="$checks,readability-misleading-indentation,readability-redundant-*,readability-duplicate-include"
for check in bugprone-easily-swappable-parameters bugprone-sizeof-expression bugprone-signed-char-misuse cert-str34-c cert-err33-c performance-no-int-to-ptr \
    clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling clang-analyzer-optin.performance.Padding; do
    checks=$checks,-$check
done

commands() { # the compile commands of lib/, examples/ and bench/, once a file
    CC=clang meson setup -Dtests=false -Dbench=true "$tmp/commands" . >"$tmp/log" 2>&1 || { cat "$tmp/log"; return 1; }
    sed -n 's/^ *"file": "\(.*\)",*$/\1/p' "$tmp/commands/compile_commands.json" | sort -u >"$tmp/files"
    [ -s "$tmp/files" ]
}

for tool; do
    case $tool in
    gcc | clang)
        command -v "$tool" >/dev/null || { missing "$tool" "$tool libomp-dev"; continue; }
        echo '#include <blis.h>' | "$tool" -fsyntax-only -xc - 2>/dev/null || { missing "$tool with blis.h" "libomp-dev"; continue; }
        compile "$tool" ;;
    cppcheck)
        command -v cppcheck >/dev/null || { missing cppcheck cppcheck; continue; }
        # invalidPointerCast: rows are bytes whose type is known at run time only.
        cppcheck --std=c11 -D_GNU_SOURCE -D__x86_64__ -D__GNUC__=12 -Iinclude -Ilib -Iexamples/common --library=posix,gnu \
            --enable=warning,portability,performance,style --inline-suppr --suppress=missingIncludeSystem --suppress=invalidPointerCast \
            --error-exitcode=1 --quiet -j2 lib examples >"$tmp/log" 2>&1 && pass cppcheck || { cat "$tmp/log"; fail cppcheck; } ;;
    clang-tidy)
        tidy=$(command -v clang-tidy-14 || command -v clang-tidy) || { missing clang-tidy clang-tidy; continue; }
        commands || { fail clang-tidy; continue; }
        # One file a run: after others, version 14 finds va_lists that are not initialised.
        (cd "$tmp/commands" && xargs -P2 -n1 "$tidy" -quiet -p . --checks="$checks" --warnings-as-errors='*' <"$tmp/files") \
            >"$tmp/log" 2>/dev/null && pass clang-tidy || { grep -E '(warning|error):' "$tmp/log"; fail clang-tidy; } ;;
    scan-build)
        scan=$(command -v scan-build-14 || command -v scan-build) || { missing scan-build clang-tools; continue; }
        for command in "meson setup -Dtests=false -Dbench=true $tmp/scan ." "meson compile -C $tmp/scan"; do
            # shellcheck disable=SC2086  # words
            "$scan" --use-cc=clang --status-bugs -o "$tmp/reports" $command >"$tmp/log" 2>&1 && continue
            grep -E 'warning|error|ERROR' "$tmp/log"
            fail scan-build
            continue 2
        done
        pass scan-build ;;
    shellcheck)
        command -v shellcheck >/dev/null || { missing shellcheck shellcheck; continue; }
        # SC2086: words that are meant to split; SC1091, SC2154: what a sourced file has
        { git ls-files -co --exclude-standard 2>/dev/null || find . -type f -not -path './build*'; } |
            xargs grep -lE '^#!/bin/(ba)?sh' | xargs shellcheck -x -S warning && pass shellcheck || fail shellcheck ;;
    *) echo "no tool $tool"; exit 2 ;;
    esac
done
[ -z "$left_out" ] || echo "skipped: $left_out"
[ "$failed" -eq 0 ] || exit 1
[ "$run" -gt 0 ] || exit 77
