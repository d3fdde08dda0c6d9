#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: python.sh SOURCE BUILD REFERENCE plain|torch|saelens|dump
# The Python binding: alone, with torch, inside SAELens. Uses the environment that ATMSAE_PEERS_VENV
# names, else BUILD/peers-venv (which the suite `peers` makes), else python3.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
reference=$3 what=$4
export ATMSAE_LIBRARY="$build/lib/libatmsae.so" PYTHONPATH="$source/examples/python" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
python=
for candidate in "${ATMSAE_PEERS_VENV:-/nonexistent}/bin/python" "$build/peers-venv/bin/python" python3 /usr/bin/python3; do
    case $what in plain) module=numpy ;; torch) module=torch ;; dump) module=torch,transformers,tokenizers,safetensors ;; *) module=sae_lens ;; esac
    "$candidate" -c "import numpy, $module" 2>/dev/null && { python=$candidate; break; }
done
[ -n "$python" ] || skip "no Python with numpy and $module"
here=$source/tests/bindings examples=$source/examples/python

same_as_c() { "$reference" c.bin && "$python" "$here/reference.py" python.bin && cmp c.bin python.bin; }
layout() { "$python" "$here/test_atmsae.py" layout >layout.c && ${CC:-cc} -std=c11 -fsyntax-only "-I$source/include" layout.c; }
small() { [ "$(wc -c <"$examples/atmsae.py")" -lt 22528 ]; }
by_pkg_config() { env -u ATMSAE_LIBRARY -u LD_LIBRARY_PATH "$python" -c 'import atmsae'; }
hello() { "$python" "$examples/hello.py" && [ -e hello-sae/cfg.json ]; }
unit() { "$python" "$here/$1"; }

case $what in
    plain)
        try "structs and constants as in the header" layout
        try "same bits as C" same_as_c
        try "arrays, lifetimes, errors" unit test_atmsae.py
        try "hello" hello
        try "hello in under 20 lines" short "$examples/hello.py"
        try "one module of less than 22 KB" small
        try "found through pkg-config" by_pkg_config
        ;;
    torch) try "masks in a PyTorch loop" unit test_torch.py ;;
    dump) try "activations of a model with random weights" unit test_dump.py ;;
    saelens) try "masks inside SAELens" unit test_saelens.py ;;
esac
finish
