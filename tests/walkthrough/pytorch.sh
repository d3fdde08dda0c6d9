#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: pytorch.sh SOURCE BUILD
# A PyTorch user with an own loop: the section "PyTorch" of doc/getting-started.md. Uses the environment that
# ATMSAE_PEERS_VENV names, else BUILD/peers-venv (which the suite `peers` makes), else python3.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
python=
for candidate in "${ATMSAE_PEERS_VENV:-/nonexistent}/bin/python" "$build/peers-venv/bin/python" python3 /usr/bin/python3; do
    "$candidate" -c "import numpy, torch" 2>/dev/null && { python=$candidate; break; }
done
[ -n "$python" ] || skip "no Python with numpy and torch"
use_installed
export PYTHONPATH="$source/examples/python" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
section='PyTorch: only the masks'

block "$guide" "$section" python 1 >loop.py
block "$guide" "$section" python 2 >load.py
loop() { "$python" loop.py; }
try "the loop trains with the library's masks" loop
cp "$tmp/log" steps
cat steps
masked() { grep -qE '^step 100: .* [1-9][0-9]*% of what fired was masked' steps; }
try "... entries were masked" masked
fell() { awk '/^step/ { sub(",", "", $4); if (n++ && $4 >= last) bad = 1; last = $4 } END { exit bad || n != 3 || last > 0.6 }' steps; }
try "... and the error fell at every look" fell
read_back() { atmsae eval --sae torch-sae --input examples/data/activations-valid.npy >measured && between measured l0 24 45; }
try "the saved folder encodes new rows, L0 near 32" read_back
if "$python" -c "import sae_lens" 2>/dev/null; then
    saelens() { "$python" load.py | tail -n 1 | grep -x 'jumprelu 576'; }
    try "SAELens loads it" saelens
else
    echo "not tried: SAELens is not installed"
fi
finish
