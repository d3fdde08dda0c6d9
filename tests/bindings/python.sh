#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: python.sh SOURCE BUILD REFERENCE plain|memory|torch|saelens|dump
# The Python binding: alone, its memory under the address sanitizer, with torch, inside SAELens. Uses the
# environment that ATMSAE_PEERS_VENV names, else BUILD/peers-venv (which the suite `peers` makes), else
# python3; `memory` makes one of its own with h5py and pandas where they can be had.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
reference=$3 what=$4
export ATMSAE_LIBRARY="$build/lib/libatmsae.so" PYTHONPATH="$source/examples/python" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
python='' own=$build/python-venv
if [ "$what" = memory ] && [ ! -e "$own/complete" ]; then
    rm -rf "$own"
    python3 -m venv "$own" && "$own/bin/pip" install --quiet numpy==2.4.6 h5py==3.16.0 pandas==3.1.1 && touch "$own/complete"
fi
[ "$what" != memory ] || [ ! -e "$own/complete" ] || python=$own/bin/python
[ -n "$python" ] || for candidate in "${ATMSAE_PEERS_VENV:-/nonexistent}/bin/python" "$build/peers-venv/bin/python" python3 /usr/bin/python3; do
    case $what in plain | memory) module=numpy ;; torch) module=torch ;; dump) module=torch,transformers,tokenizers,safetensors ;; *) module=sae_lens ;; esac
    "$candidate" -c "import numpy, $module" 2>/dev/null && { python=$candidate; break; }
done
[ -n "$python" ] || skip "no Python with numpy and $module"
here=$source/tests/bindings examples=$source/examples/python

same_as_c() { "$reference" c.bin && "$python" "$here/reference.py" python.bin && cmp c.bin python.bin; }
layout() { "$python" "$here/test_atmsae.py" layout >layout.c && ${CC:-cc} -std=c11 -fsyntax-only "-I$source/include" layout.c; }
small() { [ "$(wc -c <"$examples/atmsae.py")" -lt 28672 ]; }
by_pkg_config() { env -u ATMSAE_LIBRARY -u LD_LIBRARY_PATH "$python" -c 'import atmsae'; }
hello() { "$python" "$examples/hello.py" && [ -e hello-sae/cfg.json ]; }
unit() { "$python" "$here/$1"; }
# Python is not built with the sanitizer, so its library is loaded first; memory of Python's own comes from
# malloc too. Python leaves memory to the end of the process, which is no leak.
asan=$build/python-asan
preload=$(gcc -print-file-name=libasan.so 2>/dev/null)
build_asan() {
    [ -e "$asan/build.ninja" ] || CC=gcc meson setup "$asan" "$source" -Db_sanitize=address,undefined -Db_lundef=false \
        --buildtype=debugoptimized -Dtests=false -Dbench=false || return 1
    ninja -C "$asan" lib/libatmsae.so.0.1.0
}
under_asan() {
    LD_PRELOAD=$preload ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 PYTHONMALLOC=malloc LD_LIBRARY_PATH="$asan/lib" \
        ATMSAE_LIBRARY="$asan/lib/libatmsae.so.0.1" "$python" "$@"
}
can_asan() { LD_PRELOAD=$preload ASAN_OPTIONS=detect_leaks=0 "$python" -c 'import numpy'; }
unit_asan() { under_asan "$here/$1"; }

case $what in
    memory)
        try "memory" unit test_memory.py
        if [ -e "$preload" ] && can_asan 2>/dev/null; then
            try "a library with sanitizers" build_asan
            try "memory, under the address sanitizer" unit_asan test_memory.py
            try "arrays, lifetimes, errors, under the address sanitizer" unit_asan test_atmsae.py
        else
            echo "no gcc with an address sanitizer: memory was not watched"
        fi
        ;;
    plain)
        try "structs and constants as in the header" layout
        try "same bits as C" same_as_c
        try "arrays, lifetimes, errors" unit test_atmsae.py
        try "hello" hello
        try "hello in under 20 lines" short "$examples/hello.py"
        try "one module of less than 28 KB" small
        try "found through pkg-config" by_pkg_config
        ;;
    torch) try "masks in a PyTorch loop" unit test_torch.py ;;
    dump) try "activations of a model with random weights" unit test_dump.py ;;
    saelens) try "masks inside SAELens" unit test_saelens.py ;;
esac
finish
