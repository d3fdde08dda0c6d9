#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The atmsae command's settings, helpers and warnings: test_command_more.sh PATH/TO/atmsae. --config and
# run.json, resume, synth, bench, man pages, completion, progress, and the warnings about known mistakes,
# which must come when they should and not else. TAP on stdout. Rows are made by atmsae synth.
# shellcheck source=tests/command.sh
. "$(dirname "$0")/command.sh"

silent() { # FILE TEXT
    ! grep -q -- "$2" "$1"
    report $? "... and $1 does not say: $2"
}

# ---- synth ----
expect 0 "synth" synth --out rows.npy --rows 3k --d 32 --parents 4 --independent 20 --truth truth.safetensors
says out "features *56"
expect 0 "synth --json" synth --out rows.safetensors --rows 3k --d 32 --parents 4 --independent 20 --json --quiet
says out '"true_l0":'
tail -c 384000 rows.npy >a
tail -c 384000 rows.safetensors >b
same "both forms hold the same rows" a b
expect 0 "later rows alone" synth --out late.npy --rows 1k --first 2k --d 32 --parents 4 --independent 20 --quiet --threads 1
tail -c 128000 rows.npy >a
tail -c 128000 late.npy >b
same "... are those of the longer range" a b
expect 0 "info on the truth" info truth.safetensors
says out "active *U8 \[3000, 56\]"
says out "directions *F32 \[56, 32\]"
for preset in chanin matryoshka; do expect 0 "synth --preset $preset" synth --out p.npy --rows 10 --preset $preset --force; done
expect 2 "a preset has its sizes" synth --out q.npy --preset chanin --d 5
expect 2 "an ending that says nothing" synth --out rows.txt
expect 1 "a folder that is not there" synth --out nowhere/rows.npy --rows 10
[ ! -e .rows.npy.tmp ] && [ ! -e nowhere ]
report $? "... and nothing is left behind"

# ---- a file name is enough ----
expect 0 "train with a file name only" train rows.npy
[ -s rows-sae/sae_weights.safetensors ]
report $? "... and the folder is named after the file"
says rows-sae/run.json '"k": 4,'
says rows-sae/run.json '"rows": 30000,'
says rows-sae/run.json '"d-sae": 150,'
says rows-sae/run.json '"batch": 256,'
silent err "few for"
expect 2 "files in both ways" train rows.npy --input rows.npy
expect 1 "not twice into one folder" train rows.npy
says err "atmsae resume rows-sae"

# ---- --config and run.json ----
small="--d-sae 48 --k 3.3 --batch 100 --rows 3k --lr 1.1e-3 --seed 5 --quiet"
expect 0 "flags" train rows.npy late.npy $small --r 0.1 --metrics flags.csv --out flags
cat >settings.json <<'J'
{"input": ["rows.npy", "late.npy"], "d-sae": 48, "k": 3.3, "batch": 100, "rows": "3k", "lr": 1.1e-3, "seed": 5,
 "r": 0.1, "quiet": true, "out": "\u0066ile", "facts": {"any": [1, {"thing": null}]}, "plot": null}
J
expect 0 "the same settings from a file" train --config settings.json
same "... make the same SAE" flags/sae_weights.safetensors file/sae_weights.safetensors
mkdir elsewhere
(cd elsewhere && "$atmsae" train --config ../flags/run.json --out again --metrics again.csv --quiet) >out 2>err </dev/null
report $? "run.json from another folder"
same "... makes the same SAE" flags/sae_weights.safetensors elsewhere/again/sae_weights.safetensors
same "... and the same metrics" flags.csv elsewhere/again.csv
for arch in "standard --mask paper" "jumprelu --target-l0 3" "jumprelu --jumprelu-form anthropic" gated matryoshka "topk --mask-effect hard --mask-per row --b-dec median" \
    "batchtopk --mask-effect second-loss --mask-per step --alpha 0.5"; do
    rm -rf o p
    expect 0 "--arch $arch" train rows.npy --arch $arch --d-sae 48 --batch 100 --rows 300 --out o --quiet
    expect 0 "... again from its run.json" train --config o/run.json --out p --quiet
    same "... to the same SAE" o/sae_weights.safetensors p/sae_weights.safetensors
    sed 's|/p",|/o",|' p/run.json >p.json
    same "... and the same run.json" o/run.json p.json
done
expect 0 "flags win over the file" train --config settings.json --seed 6 --out six
says six/run.json '"seed": 6,'
expect 0 "an architecture for which a value of the file has no meaning" train --config settings.json --arch standard --out std
says err "k, of the file, is left out"
bad() { # NAME JSON MESSAGE
    printf '%s' "$2" >bad.json
    expect 2 "$1" train rows.npy --config bad.json --out bad
    says err "$3"
}
bad "an unknown key" '{"d_sae": 48}' 'bad.json: d_sae; did you mean d-sae?'
bad "a value out of range" '{"c": -1}' 'bad.json: c -1: expected a number >= 0'
bad "a choice that is none" '{"arch": "batchtpk"}' 'did you mean batchtopk?'
bad "a number for a name" '{"arch": 3}' 'arch: expected a string'
bad "a text for a flag" '{"force": "yes"}' 'expected true or false'
bad "a list for one value" '{"k": [3, 4]}' 'one value, not a list'
bad "a key twice" '{"k": 3, "k": 4}' 'k is there twice'
bad "a missing comma" '{"k": 3
"r": 1}' 'line 2: expected a comma or }'
bad "a cut file" '{"k": 3' 'expected a comma or }'
bad "a list at the top" '[1]' 'expected a JSON object'
bad "more behind the end" '{} {}' 'expected the end of the file'
bad "a cut string" '{"out": "abc' 'expected the end of a string'
expect 2 "no such file" train rows.npy --config nowhere.json
echo '{"json": true}' >info.json
expect 0 "--config of another command" info rows.npy --config info.json
says out '"kind": "tensor file"'

# ---- resume ----
expect 0 "a run without a break" train rows.npy late.npy --d-sae 48 --k 4 --batch 100 --rows 6k --seed 2 --metrics whole/m.csv --out whole --quiet
"$atmsae" train rows.npy late.npy --d-sae 48 --k 4 --batch 100 --rows 60M --seed 2 --checkpoint-every 1k --out part --quiet >out 2>err </dev/null &
pid=$!
tries=0
while [ $tries -lt 600 ] && [ ! -s part/checkpoint.previous.safetensors ]; do sleep 0.05; tries=$((tries + 1)); done
kill -9 $pid
wait $pid 2>/dev/null
mv part moved
(cd elsewhere && "$atmsae" resume ../moved --rows 100k --json) >out 2>err </dev/null
report $? "resume a killed run that was moved, from another folder"
says out '"steps": 1000'
says moved/run.json '"rows": 100000,'
expect 0 "resume once more does nothing" resume moved --quiet
cp -r whole longer
expect 0 "a finished run made longer" resume whole --rows 7k --quiet
expect 0 "... is the one of train --resume" train rows.npy late.npy --rows 7k --resume --out longer --quiet
same "... to the bit" whole/sae_weights.safetensors longer/sae_weights.safetensors
[ "$(wc -l <whole/m.csv)" -eq 71 ]
report $? "... and its metrics go on"
expect 1 "resume takes no other setting" resume whole --k 5
says err "--k is 5"
expect 2 "resume of nothing" resume nowhere
says err "no run to resume"
expect 2 "resume without a folder" resume
expect 2 "resume into another folder" resume whole --out x

# ---- warnings: when they should, and not else ----
warns() { # MESSAGE ARGUMENTS...
    message=$1
    shift
    rm -rf o
    expect 0 "train $*" train "$@" --out o
    says err "warning: .*$message"
}
quiet() { # MESSAGE ARGUMENTS...
    message=$1
    shift
    rm -rf o
    expect 0 "train $*" train "$@" --out o
    silent err "$message"
}
make="synth --rows 3k --d 32 --quiet"
expect 0 "rows of rank 6" $make --out rank.npy --parents 2 --children 2 --independent 0
expect 0 "rows with a mean" $make --out mean.npy --parents 1 --children 1 --p-parent 1 --p-child 0 --independent 20
expect 0 "rows that are nearly all mean" $make --out const.npy --parents 1 --children 1 --p-parent 1 --p-child 0 --independent 1
tiny="--d-sae 48 --rows 3k --batch 500"
long="--d-sae 48 --rows 20k --batch 50"
quiet "warning" rows.npy --k 4 $long
warns "few for" late.npy --k 4 --d-sae 64 --rows 3k --batch 500
warns "too few to learn" rows.npy --k 4 $tiny
warns "--k is above the rank of the rows" rank.npy --k 8 $tiny
quiet "above the rank" rank.npy --k 4 $tiny
quiet "above the rank" rows.npy --k 12 $tiny
warns "rows are not centred.*start b_dec at the mean" mean.npy --k 2 --b-dec zero $tiny
quiet "not centred" mean.npy --k 2 $tiny
quiet "not centred" rows.npy --k 2 --b-dec zero $tiny
warns "not centred.*subtract the mean" const.npy --k 2 $tiny
warns "--k is too small" rows.npy --k 0.3 $long
warns "lower --sparsity" rows.npy --arch standard --sparsity 500 $long
warns "dead latents are rising.*turn AuxK on" rows.npy --k 4 --d-sae 200 --rows 40k --batch 200 --lr 0.05 --aux-coef 0 --dead-window 2k
warns "masks starve latents" rows.npy --k 4 $long --mask-effect hard --r 5 --c 3

# ---- bench ----
expect 0 "bench" bench --d-in 32 --d-sae 64 --k 4 --batch 64 --seconds 0.01 --rows 1M --json
for key in step_seconds product_seconds products rows_per_second time_for_rows; do says out "\"$key\":"; done
expect 2 "bench of nothing" bench --d-in 0

# ---- progress ----
expect 0 "progress into a file" train rows.npy --k 4 $long --out progress
says err "100.0%  20000 rows"
silent err "$(printf '\r')"
if command -v script >/dev/null; then
    for term in xterm dumb; do
        TERM=$term script -qec "$atmsae train rows.npy --k 4 $long --rows 60k --out progress-$term --quiet" /dev/null >out 2>err </dev/null
        [ ! -s out ]
        report $? "--quiet on a terminal ($term)"
        TERM=$term script -qec "$atmsae train rows.npy --k 4 $long --rows 100k --out progress-$term --force" /dev/null >out 2>err </dev/null
        says out "100.0%"
        if grep -q "$(printf '\033')" out; then redraws=yes; else redraws=no; fi
        [ $term = xterm ] || [ $redraws = no ]
        report $? "... redraws nothing where it cannot ($term: $redraws)"
    done
fi

# ---- man pages, completion, exit codes ----
expect 0 "--help" --help
says out "130 *stopped"
sed -n '/^usage/,/^  atmsae/ s/^  \([a-z]*\) .*/\1/p' out | grep -v atmsae >commands
[ "$(wc -l <commands)" -ge 9 ]
report $? "... and lists the commands"
"$atmsae" --man >atmsae.1
while read -r command; do
    expect 0 "$command --help" "$command" --help
    says out "exit codes"
    [ "$command" = resume ] || says out "--config FILE"
    expect 0 "--man $command" --man "$command"
    mv out "atmsae-$command.1"
    grep -q "^.Xr atmsae-$command 1" atmsae.1 && grep -q '^.Sh EXAMPLES' "atmsae-$command.1"
    report $? "... is named by atmsae(1) and has examples"
done <commands
if command -v mandoc >/dev/null; then
    for page in atmsae*.1; do
        mandoc -T lint "$page" 2>/dev/null | grep -v 'referenced manual not found' >err
        [ ! -s err ]
        report $? "mandoc finds nothing in $page"
    done
fi
if command -v man >/dev/null && command -v groff >/dev/null; then
    for page in atmsae*.1; do
        LC_ALL=C.UTF-8 MANROFFSEQ='' man --warnings -E UTF-8 -l "./$page" >out 2>err
        [ ! -s err ] && [ -s out ]
        report $? "man shows $page without a warning"
    done
fi
expect 2 "no such page" --man trian
says err "did you mean train"
expect 2 "no such shell" --completion csh
if command -v bash >/dev/null; then
    complete='source <("$1" --completion bash); shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _atmsae; echo "${COMPREPLY[@]}"'
    completes() { # WANT WORDS...
        want=$1
        shift
        bash -c "$complete" bash "$atmsae" "$@" >out 2>err
        [ "$(cat out)" = "$want" ] && [ ! -s err ]
        report $? "bash completes: $*"
    }
    completes "train" atmsae tr
    completes "matryoshka" atmsae train --arch ma
    completes "--d-sae --dead-window" atmsae train --d
    completes "" atmsae train --input ro
    completes "--rows" atmsae resume moved --ro
    completes "" atmsae resume moved --ar
fi
if command -v zsh >/dev/null; then
    "$atmsae" --completion zsh >_atmsae
    zsh -n _atmsae >out 2>err && zsh -fc 'autoload -U compinit; compinit -D -u; . ./_atmsae; [ "$_comps[atmsae]" = _atmsae ]' >>out 2>>err
    report $? "zsh takes its completion"
fi
if command -v fish >/dev/null; then
    "$atmsae" --completion fish >atmsae.fish
    HOME=$work fish -c 'source atmsae.fish; complete -C "atmsae train --arch ma"' >out 2>err
    says out "^matryoshka"
fi

finish
