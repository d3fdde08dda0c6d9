#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_blis.sh BUILD
# The user's machine chooses which BLIS the library meets: with OpenMP, with threads, or serial. For
# each that is installed: 1000 cycles of loading and unloading the library, fork, small stacks, and
# concurrent calls. And a user's choice of its kernels works. ATMSAE_SCALE multiplies the cycles.
set -u
build=$1
good=0 bad=0 skipped=

if nm "$build/lib/libatmsae.so" 2>/dev/null | grep -qE ' U __(a|t|ub)san_'; then
    echo "skipped: a sanitized library needs its runtime loaded first, and uses memory of its own"
    exit 77
fi
for flavour in openmp pthread serial; do
    dir=
    for candidate in /usr/lib/*/blis-"$flavour"; do
        [ -e "$candidate/libblis.so.4" ] && dir=$candidate
    done
    if [ -z "$dir" ]; then
        skipped="$skipped $flavour"
        continue
    fi
    for test in "dlopen_loop $build/lib/libatmsae.so $((1000 * ${ATMSAE_SCALE:-1}))" test_process test_threads; do
        echo "== $flavour: ${test%% *}"
        # shellcheck disable=SC2086  # words are arguments
        if (cd "$build/tests" && LD_LIBRARY_PATH=$dir ./$test); then good=$((good + 1)); else bad=$((bad + 1)); fi
    done
done
# A program may choose the kernels: 3 is haswell's in BLIS 0.9 to 2.
if grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
    echo "== BLIS_ARCH_TYPE"
    if (cd "$build" && BLIS_ARCH_TYPE=3 ./examples/01_hello >/dev/null); then good=$((good + 1)); else bad=$((bad + 1)); fi
fi
[ -z "$skipped" ] || echo "not installed:$skipped (Debian: libblis4-NAME)"
if [ $((good + bad)) -eq 0 ]; then
    echo "skipped: no flavour of BLIS in a folder of its own"
    exit 77
fi
echo "$good passed, $bad failed"
[ "$bad" -eq 0 ]
