#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_abi.sh SOURCE BUILD [--renew]
# Compares the library's ABI with the last release's (tests/abi/libatmsae-*.abi; Debian:
# abigail-tools). Fails on any incompatible change: a function, a constant or a struct of the public
# header that went or changed. New functions are allowed; --renew writes the baseline anew, which a
# release does, and before the first release whoever decides on a change.
set -u
export LC_ALL=C
source=$1 build=$2
version=$(sed -n "s/^  version: '\([0-9]*\.[0-9]*\)\..*/\1/p" "$source/meson.build")
baseline=$source/tests/abi/libatmsae-$version.abi
command -v abidw >/dev/null && command -v abidiff >/dev/null || { echo "skipped: no abidw, abidiff (abigail-tools)"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# Types come from debugging information, which a release build does not have.
build_debug() { # SOURCE
    if ! { meson setup --buildtype=debug -Dc_args=-w -Dtests=false -Dbench=false "$1-build" "$1" &&
        meson compile -C "$1-build" atmsae:shared_library; } >"$tmp/log" 2>&1; then
        cat "$tmp/log"
        exit 1
    fi
    library=$(readlink -f "$1-build/lib/libatmsae.so")
}
copy() { # NAME: the sources, in a folder of their own
    mkdir "$tmp/$1" && cd "$source" && cp -r meson.build meson_options.txt include lib examples "$tmp/$1"
}
(copy now) && build_debug "$tmp/now"
debug=$library
# It exports what the library that was built to be used does.
exported() { nm -D --defined-only "$1" | awk '{ print $NF }' | grep ^atmsae_ | sort; }
exported "$build/lib/libatmsae.so" >"$tmp/built"
exported "$debug" | diff "$tmp/built" - || exit 1

# Both sides as abidw writes them: abidiff 2.2 itself fails on what --drop-private-types leaves out.
describe() { # LIBRARY INCLUDE FILE
    abidw --headers-dir "$2" --drop-private-types --no-show-locs --no-corpus-path --no-comp-dir-path \
        --out-file "$3" "$1"
}
if [ "${3:-}" = --renew ]; then
    describe "$debug" "$tmp/now/include" "$baseline" && echo "written: $baseline"
    exit
fi
[ -f "$baseline" ] || { echo "no $baseline: $0 SOURCE BUILD --renew writes it"; exit 1; }
describe "$debug" "$tmp/now/include" "$tmp/now.abi" || exit 1
if ! abidiff --no-added-syms "$baseline" "$tmp/now.abi" >"$tmp/diff"; then
    cat "$tmp/diff"
    echo "the ABI is not that of $baseline"
    exit 1
fi
if ! abidiff "$baseline" "$tmp/now.abi" >"$tmp/diff"; then
    cat "$tmp/diff"
    echo "New functions are compatible. To promise them: $0 SOURCE BUILD --renew"
fi

# The gate must be able to fail: the same library, but a field is half as wide.
(copy changed) || exit 1
sed -i 's/^    uint64_t d_out;/    uint32_t d_out, d_out_high;/' "$tmp/changed/include/atmsae/atmsae.h"
build_debug "$tmp/changed"
describe "$library" "$tmp/changed/include" "$tmp/changed.abi" || exit 1
if abidiff "$baseline" "$tmp/changed.abi" >"$tmp/diff"; then
    echo "abidiff did not see a changed field"
    exit 1
fi
