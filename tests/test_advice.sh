#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Known mistakes and what the atmsae command answers: one warning that names the cause and a remedy, and no advice that makes
# nothing better: test_advice.sh PATH/TO/atmsae. TAP on stdout.
# shellcheck source=tests/command.sh
. "$(dirname "$0")/command.sh"

# ---- rows ----
expect 0 "rows" synth --out x.npy --rows 20k --quiet
expect 0 "rows held back" synth --out v.npy --rows 2k --first 20k --quiet
python3 - <<'PYTHON'
import array
head, body = open('v.npy', 'rb').read(128), array.array('f')
body.frombytes(open('v.npy', 'rb').read()[128:])
for name, rows in (('small', [x * 6e-5 for x in body]), ('other', [3 * x + 1 for x in reversed(body)])):
    open(name + '.npy', 'wb').write(head + array.array('f', rows).tobytes())
PYTHON
head -c $((128 + 500 * 384)) x.npy >few.body
# The header of 128 bytes of an array of f32 [$1, 96].
header() {
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': ($1, 96), }"
}
{ header 500; tail -c +129 few.body; } >few.npy
{ header 2000; head -c 768000 /dev/zero; } >zero.npy
{ header 2000; for _ in 1 2 3 4 5 6 7 8 9 10; do tail -c +129 few.body | head -c 76800; done; } >repeated.npy
cp v.npy nan.npy
printf '\000\000\300\177' | dd of=nan.npy bs=1 seek=$((128 + 777 * 384)) conv=notrunc 2>/dev/null

# ---- train: warning, number of warnings, arguments ----
# Lines of `warning | how many lines of warnings | options`; a dot stands for none. The fixed options come first, so that
# these win.
mistakes() {
    while IFS='|' read -r warning number options; do
        warning=$(echo "$warning" | sed 's/^ *//; s/ *$//')
        rm -rf o
        # shellcheck disable=SC2086
        "$atmsae" train $options --out o --quiet --threads 2 >out 2>err </dev/null
        if [ "$warning" = . ]; then ! grep -q warning err
        else grep -q -- "warning: .*$warning" err
        fi && [ "$(grep -c warning err)" -eq "$number" ]
        report $? "train$options:$warning"
    done
}
mistakes <<'TABLE'
. | 0 | x.npy --d-sae 192 --valid v.npy
. | 0 | x.npy --d-sae 192 --arch jumprelu --target-l0 8
. | 0 | x.npy --d-sae 192 --lr 0.01
diverged: .*lower --lr (it is 1; 0.0018 is usual | 1 | x.npy --d-sae 192 --lr 1
diverged: .*lower --lr | 1 | x.npy --d-sae 192 --lr 1 --arch topk
diverged: .*lower --lr | 1 | x.npy --d-sae 192 --lr 1 --arch jumprelu
diverged: .*lower --lr | 1 | x.npy --d-sae 192 --lr 1 --arch standard
diverged: .*lower --lr | 1 | x.npy --d-sae 192 --lr 1 --arch gated
diverged: .*lower --lr | 1 | x.npy --d-sae 192 --lr 1 --arch jumprelu --target-l0 8 --valid v.npy
dead latents are rising: .*: lower --lr | 1 | x.npy --d-sae 192 --lr 0.1
dead latents are rising: .*: turn AuxK on: --aux-coef | 1 | x.npy --d-sae 192 --lr 0.05 --aux-coef 0
--lr is too low: raise it | 1 | x.npy --d-sae 192 --lr 1e-5
--lr is too low: raise it | 1 | x.npy --d-sae 192 --lr 1e-5 --arch standard
--k is near the width of the rows | 1 | x.npy --d-sae 192 --k 90
--k is too small: raise it | 2 | x.npy --d-sae 96 --k 0.5
--d-sae is too small: raise it | 1 | x.npy --d-sae 8
lower --sparsity | 1 | x.npy --d-sae 192 --arch standard --sparsity 1e6
lower --sparsity | 1 | x.npy --d-sae 192 --arch gated --sparsity 1e6
too sparse: lower --sparsity | 1 | x.npy --d-sae 192 --arch jumprelu --jumprelu-form anthropic --sparsity 1e6
not sparse: .*raise --sparsity | 1 | x.npy --d-sae 192 --arch standard --sparsity 0
no latent ever fires: lower --init-threshold | 1 | x.npy --d-sae 192 --arch jumprelu --init-threshold 100
--target-l0 is missed: .*more than about half of --d-sae cannot fire | 2 | x.npy --d-sae 192 --arch jumprelu --target-l0 180 --mask-effect hard
raise --target-l0 | 1 | x.npy --d-sae 192 --arch jumprelu --target-l0 0.01
masks starve latents: .*: lower --r (it is 20; 0.25 is usual) | 1 | x.npy --d-sae 192 --mask-effect hard --r 20
--dead-window is 100000000 rows, .*lower --dead-window | 1 | x.npy --d-sae 192 --dead-window 100M
50 steps are too few .*raise --rows to 51200 | 1 | x.npy --d-sae 192 --rows 12800 --batch 256
500 rows are few for 96 latents.*give 1920 rows or more | 1 | few.npy --d-sae 96 --rows 60k --batch 256
20000 rows are few for 1500 latents.*lower --d-sae to 1000 | 1 | x.npy --d-sae 1500
rows are all the same, so there is nothing to learn | 1 | zero.npy --d-sae 96 --rows 60k --batch 256
rows repeat: of [0-9]* looked at only | 1 | repeated.npy --d-sae 96 --rows 60k --batch 256
times smaller than settings expect.*set --input-norm to sqrt-d | 1 | small.npy --d-sae 96 --rows 60k --batch 256 --input-norm raw --arch jumprelu
--valid x.npy is trained on too | 1 | x.npy --d-sae 192 --valid x.npy
--valid: FVU is above 1, .*another layer, model or scale | 1 | x.npy --d-sae 192 --valid other.npy
TABLE

# ---- what fails ----
expect 1 "a learning rate beyond all measure" train x.npy --d-sae 192 --lr 1e8 --out far --quiet
says err "diverged: lower --lr"
says err "start anew with --force"
expect 1 "k above d_sae" train x.npy --d-sae 192 --k 300 --out far --force --quiet
says err "--k = 300, allowed: above 0, at most --d-sae = 192"
expect 1 "a target above d_sae" train x.npy --d-sae 192 --arch gated --target-l0 500 --out far --force --quiet
says err "--target-l0 = 500, allowed: 0 to 192"
expect 1 "a bad row" train nan.npy --d-sae 192 --out far --force --quiet
says err "nan.npy: row 777 (from 0) has a NaN or infinite value"
[ "$(grep -c 'NaN or infinite' err)" -eq 1 ]
report $? "... once"

# ---- eval and compare ----
expect 0 "an SAE" train x.npy --d-sae 192 --out sae --quiet
for words in "eval --sae sae --input" "compare sae --input"; do
    expect 0 "$words other.npy" $words other.npy
    says out "note: FVU is above 1, .*another layer, model or scale"
    expect 0 "$words v.npy" $words v.npy
    ! grep -q "note:" out
    report $? "... and nothing of rows like those of the training"
done

finish
