#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: inference.sh SOURCE BUILD
# The inference-only build (-Dinference_only=true), without BLIS in reach: its size, what it imports, what
# it exports, and that its results are the full library's to the bit.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
small=$tmp/build
# shellcheck disable=SC2086  # words
cc="${CC:-cc} -std=c11 -Wall -Wextra -Werror -I$source/include"

build_it() { meson setup "$small" "$source" -Dinference_only=true --buildtype=minsize && meson compile -C "$small"; }
no_blis() { # nor threads or files
    nm -D --undefined-only "$small/lib/libatmsae.so" | sed 's/@.*//' |
        awk '$2 ~ /^(bli_|cblas|omp_|GOMP|pthread_create|fopen|open|openat|creat|read|write|pread|pwrite|mmap|rename|fsync|exit|abort)/ { print; bad = 1 } END { exit bad }' &&
        ! ldd "$small/lib/libatmsae.so" | grep -E 'blis|gomp|pthread'
}
exports() { # what is there is in the header, and nothing of training is there
    nm -D --defined-only "$small/lib/libatmsae.so" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort >have
    for f in context_create model_create model_set model_view codes_create codes_get encode decode last_error version_number; do
        grep -qx "atmsae_$f" have || { echo "no atmsae_$f"; return 1; }
    done
    ! grep -E 'trainer|forward|backward|optimizer|tracker|source|tensors|save|load' have
}
static_alone() { # one archive and libm: no -pthread, no BLIS
    $cc "$source/tests/bindings/inference.c" "$small/lib/libatmsae.a" -lm -o alone && ./alone alone.bin
}
same_bits() {
    $cc "$source/tests/bindings/inference.c" "-L$build/lib" -latmsae -o shared || return 1
    LD_LIBRARY_PATH=$build/lib ./shared full.bin && LD_LIBRARY_PATH=$small/lib ./shared small.bin &&
        cmp full.bin small.bin && cmp full.bin alone.bin && [ -s full.bin ]
}

try "builds" build_it
try "no BLIS, threads or files" no_blis
try "exports inference only" exports
try "the archive and libm are enough" static_alone
try "same bits as the full library" same_bits
strip -o stripped.so "$small/lib/libatmsae.so" && strip -o stripped-full.so "$build/lib/libatmsae.so" &&
    echo "size: inference-only $(wc -c <stripped.so) bytes stripped, whole library $(wc -c <stripped-full.so)"
finish
