#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: llama.sh SOURCE BUILD
# The engine example in llama.cpp itself, with a tiny model of random weights.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
program=$build/examples/04_stream_from_llama
[ -x "$program" ] || skip "llama.cpp was not found at configuration"
python3 -c 'import numpy' 2>/dev/null || skip "python3 has no numpy"
unset LD_LIBRARY_PATH # the program knows where it was linked

run() {
    tokens=$(python3 "$source/tests/bindings/tiny_gguf.py" tiny.gguf text.txt) && "$program" tiny.gguf text.txt 1 | tee out &&
        grep -q "^$((tokens / 512)) steps: FVU 0\." out && [ -e engine-sae/cfg.json ]
}
refuses() { ! "$program" text.txt text.txt; }
try "every token of every prompt reaches the trainer" run
try "no model is an error" refuses
finish
