#!/bin/bash
# SPDX-License-Identifier: MIT
#
# usage: kill_replace.sh PATH/TO/atmsae
# train --force in the folder of an older run, killed with SIGKILL before each of its system calls on the folder's files;
# then with each of those that change the folder failing (EIO).
# Afterwards an SAE loads, the older one or the new one; resume goes on with one of the two runs, to the SAE of that run
# without a break; run.json is then of that SAE, and nothing else is left. TAP on stdout; needs strace.
command -v strace >/dev/null || { echo "skipped: strace is not installed"; exit 77; }
strace -o /dev/null true 2>/dev/null || { echo "skipped: strace may not trace here"; exit 77; }
# shellcheck source=tests/command.sh
. "$(dirname "$0")/../command.sh"
exec 2>/dev/null # the shell tells of each kill

# cfg.json names its weights by their checksum.
same_config() { cmp -s run/cfg.json "$1/cfg.json"; }
same_sae() { cmp -s run/sae_weights.safetensors "$1/sae_weights.safetensors" && cmp -s run/cfg.json "$1/cfg.json"; }
# What is there after a kill, in a word.
look() {
    "$atmsae" info run >/dev/null 2>info || { echo "no SAE: $(tail -n 1 info)"; return 1; }
    same_config old || same_config new || { echo "an SAE of neither run"; return 1; }
    "$atmsae" resume run --quiet --threads 1 >resumed 2>&1 </dev/null || { echo "no resume: $(tail -n 1 resumed)"; return 1; }
    same_sae old && which=old
    same_sae new && which=new
    grep -q "\"seed\": $([ "$which" = old ] && echo 1 || echo 2)," run/run.json || { echo "run.json of another run"; return 1; }
    "$atmsae" compare run --input rows.npy >/dev/null 2>compared
    if grep -q run.json compared; then echo "run.json not of the SAE"; return 1; fi
    cmp -s run/m.csv $which/m.csv || { echo "metrics of another run"; return 1; }
    [ -z "$(find run -name '*.next' -o -name '*tmp')" ] || { echo "left: $(ls -A run)"; return 1; }
    echo "goes on with the $which run"
}

"$atmsae" synth --out rows.npy --rows 300 --d 8 --parents 2 --independent 4 --quiet >out
train() { # SEED DIR ARGUMENTS...
    "${trace[@]}" "$atmsae" train rows.npy --d-sae 16 --k 2 --batch 50 --rows 300 --checkpoint-every 100 --shuffle-rows 20 --quiet --threads 1 \
        --seed "$1" --out "$2" --metrics "$2/m.csv" "${@:3}" >out 2>err </dev/null
}
trace=()
train 1 old && train 2 new
report $? "two runs"
paths=(-P run)
for name in run.json run.json.next .run.json.tmp .run.json.next.tmp checkpoint.safetensors checkpoint.safetensors.next .checkpoint.safetensors.tmp \
    .checkpoint.safetensors.next.tmp checkpoint.previous.safetensors checkpoint.previous.safetensors.tmp importance.safetensors \
    .importance.safetensors.tmp cfg.json .cfg.json.tmp sae_weights.safetensors .sae_weights.safetensors.tmp m.csv .m.csv.tmp; do
    paths+=(-P "$work/run/$name" -P "run/$name")
done
kills=0
: >found
for call in mkdir openat unlink unlinkat rename renameat linkat write fsync flock close; do
    bad=0
    for ((number = 1; ; number++)); do
        rm -rf run && cp -r old run
        trace=(strace -f -o /dev/null "${paths[@]}" -e "trace=$call" -e "inject=$call:signal=KILL:when=$number")
        train 2 run --force
        code=$?
        [ $code -eq 0 ] || [ $code -eq 137 ] || { echo "# $call $number: exit code $code"; bad=$((bad + 1)); }
        look >word || { echo "# $call $number: $(cat word)"; bad=$((bad + 1)); }
        cat word >>found
        [ $code -eq 137 ] || break
        kills=$((kills + 1))
    done
    [ $bad -eq 0 ]
    report $? "$call: killed before $((number - 1)) calls"
done
sort found | uniq -c | sed 's/^/# /'
[ $kills -ge 60 ]
report $? "$kills kills"

# A name that has changed may still fail to be synced, and the command says that it failed.
for call in fsync rename renameat linkat unlink unlinkat; do
    bad=0
    for ((number = 1; ; number++)); do
        rm -rf run && cp -r old run
        trace=(strace -f -o log "${paths[@]}" -e "trace=$call" -e "inject=$call:error=EIO:when=$number")
        train 2 run --force
        code=$?
        grep -q INJECTED log || break
        [ $code -eq 0 ] || [ $code -eq 1 ] || { echo "# $call $number: exit code $code"; bad=$((bad + 1)); }
        look >word || { echo "# $call $number: $(cat word)"; bad=$((bad + 1)); }
    done
    [ $bad -eq 0 ]
    report $? "$call: $((number - 1)) calls that fail"
done
finish
