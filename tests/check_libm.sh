#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_libm.sh SAME_BITS
# Results do not depend on the C library's mathematics. glibc has variants of exp, sin and others for CPUs with
# FMA, which differ in last bits; it can be told to use the others.
set -u
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

"$1" >"$tmp/with" || exit 1
GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2_Usable,-FMA_Usable,-FMA4_Usable,-AVX2,-FMA,-FMA4,-AVX512F "$1" >"$tmp/without" || exit 1
grep '^C library' "$tmp/with" >"$tmp/its"
if grep -qxFf "$tmp/its" "$tmp/without"; then
    echo "skipped: this C library has no two variants on this CPU"
    exit 77
fi
grep -v '^C library' "$tmp/with" >"$tmp/ours"
grep -v '^C library' "$tmp/without" | diff "$tmp/ours" - || exit 1
echo "$(wc -l <"$tmp/ours") results are the same to the bit"
