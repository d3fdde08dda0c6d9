#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_symbols.sh SOURCE BUILD
# What the library exports and imports: header = map = dynamic symbols; the static library defines
# nothing outside atmsae_* and ams_*; nothing that prints, ends the process or changes its settings
# is called, nor a function whose last bit is the C library's own; no writable globals but those named here; the hardening of meson.build is there.
set -u
export LC_ALL=C
source=$1 build=$2
shared=$build/lib/libatmsae.so static=$build/lib/libatmsae.a
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
status=0

headers() { cat "$source"/include/atmsae/*.h; }

same() { # NAME1 NAME2: the two lists of names are equal
    if ! diff "$tmp/$1" "$tmp/$2" >"$tmp/diff"; then
        echo "names differ: $1 (<) and $2 (>)"
        cat "$tmp/diff"
        status=1
    fi
}
none() { # TEXT: standard input is empty. Ends a pipeline, and so runs in a shell of its own.
    if grep . >"$tmp/found"; then
        echo "$1:"
        cat "$tmp/found"
        : >"$tmp/bad"
    fi
}

# Declarations: comments and directives gone, one a line, the name before the first parenthesis.
headers | sed '/^#/d' | tr '\n' ' ' | sed 's|/\*[^*]*\*\{1,\}\([^/*][^*]*\*\{1,\}\)*/| |g' | tr ';{}' '\n\n\n' |
    sed -n 's/.*ATMSAE_API[^(]*[ *]\([a-z0-9_]*\) *(.*/\1/p' | sort >"$tmp/header"
sed -n 's/^ *\(atmsae_[a-z0-9_]*\);$/\1/p' "$source/lib/libatmsae.map" | sort >"$tmp/map"
nm -D --defined-only "$shared" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$tmp/shared"
grep -q . "$tmp/header" || { echo "no declarations found in the headers"; exit 1; }
same header map
same map shared

grep '\*' "$source/lib/libatmsae.map" | grep -v '^ *\*;$' | none "pattern in the map"
headers | grep -E '^ *# *define' | grep -vE 'define (ATMSAE_[A-Z_]+)( |$)' | none "macro without our prefix in the header"
# DW.ref.* is the compiler's own, of the tables that exceptions pass through.
nm -g --defined-only "$static" | awk 'NF == 3 { print $3 }' | grep -vE '^((atmsae|ams)_|DW\.ref\.)' | none "global name without our prefix in the static library"

nm -D --undefined-only "$shared" | awk '{ sub(/@.*/, "", $2); print $2 }' |
    grep -xE '(v?f?printf|__(v?f?printf)_chk|puts|fputs|putchar|perror|std(in|out|err)|_?exit|_Exit|quick_exit|abort|__assert_fail|signal|sigaction|raise|kill|setenv|unsetenv|putenv|s?rand(om)?(_r)?|[dlm]rand48|setlocale|atexit|chdir|umask|system|fork)' |
    none "calls that a library must not make"

# lib/base/elementary.c has them. sqrt, floor, ldexp and the like are exact and may stay.
nm -D --undefined-only "$shared" | awk '{ sub(/@.*/, "", $2); print $2 }' |
    grep -xE '(exp(2|10|m1)?|log(1p|2|10)?|pow|sincos|a?(sin|cos|tan)h?|atan2|erfc?|cbrt|hypot|[lt]gamma)[fl]?(_r)?|fmaf?|__.*_finite|_ZGV.*' |
    none "functions whose last bit depends on the C library"

# State belongs to handles. The one exception caches which vector level the CPU has. (Sanitizers
# add data of their own.)
if ! nm "$static" 2>/dev/null | grep -qE ' U __(a|t|ub)san_'; then
    objdump -t "$static" | grep -E ' O \.t?(data|bss)' | grep -vE ' O \.data\.rel\.(ro|local\.DW\.ref\.)' | awk '{ print $NF }' |
        grep -vE '^chosen(\.[0-9]+)?$' | none "writable global"
fi

# What meson.build asks of compiler and linker is there.
if ! nm "$static" 2>/dev/null | grep -qE ' U __(a|t|ub)san_'; then
    for file in "$shared" "$build/examples/atmsae"; do
        [ -e "$file" ] || continue
        readelf -lW "$file" | grep -q GNU_RELRO && readelf -dW "$file" | grep -q BIND_NOW || echo "relocations stay writable"
        readelf -lW "$file" | grep -qE 'GNU_STACK.* RW +0x' || echo "the stack can be executed"
        ! readelf -dW "$file" | grep TEXTREL
        nm -D --undefined-only "$file" | grep -q __stack_chk_fail || echo "no guard of the stack"
        ! grep -q FORTIFY_SOURCE=2 "$build/build.ninja" || nm -D --undefined-only "$file" | grep -qE '__[a-z]+_chk' || echo "no checked copies"
    done | none "hardening"
fi

[ ! -e "$tmp/bad" ] || status=1
exit $status
