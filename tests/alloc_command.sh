#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The atmsae command when the C library's allocations fail, the n-th once or from then on:
# alloc_command.sh PATH/TO/atmsae PATH/TO/liballoc_shim.so. It must end by itself, with code 0 or with
# code 1 and a message, leave whole files only, and an SAE that was there must still load. BLIS is
# the exception that the manual names: it aborts (and libgomp, under it, exits) when its own
# allocation fails. TAP on stdout. Some 12 n of each kind by default; ATMSAE_SCALE=10: all.
set -u
atmsae=$1 shim=${2:-}
[ -n "$shim" ] || { echo "skipped: a sanitizer's malloc cannot be replaced"; exit 77; }
case $shim in /*) ;; *) shim=$PWD/$shim ;; esac
data=$(cd "$(dirname "$0")/../examples/data" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
tests=0 failures=0 runs=0 aborts=0 survived=0
scale=${ATMSAE_SCALE:-1}
points=$((12 * scale))

npy() { # FILE FIRST COUNT: rows of the validation sample
    {
        printf '\223NUMPY\001\000\166\000'
        printf '%-117s\n' "{'descr': '<f2', 'fortran_order': False, 'shape': ($3, 576), }"
        tail -c +"$((129 + $2 * 1152))" "$data/activations-valid.npy" | head -c "$(($3 * 1152))"
    } >"$1"
}
npy a.npy 0 100
npy v.npy 100 40
small="--d-sae 16 --k 2 --batch 20 --seed 3 --threads 2"
"$atmsae" train --input a.npy $small --rows 100 --out first --quiet </dev/null || { echo "not ok 1 - a run without failures"; exit 1; }
"$atmsae" train --input v.npy $small --rows 40 --out other --quiet </dev/null || exit 1
"$atmsae" features --sae other --input v.npy --out first/page.html --json first/features.json --quiet </dev/null || exit 1

# Every file that is there must be whole.
whole() { # FOLDER
    for file in "$1"/* "$1"/.[!.]*; do
        [ -e "$file" ] || continue
        case ${file##*/} in
            cfg.json | run.json) [ "$(tail -c 2 "$file" | tr -d '\n')" = "}" ] || return 1 ;;
            *.safetensors) "$atmsae" info "$file" >/dev/null || return 1 ;;
            *.html) [ "$(tail -n 1 "$file")" = "</html>" ] || return 1 ;;
            features.json) [ "$(tail -n 1 "$file")" = "]}" ] || return 1 ;;
            plot.svg) [ "$(tail -n 1 "$file")" = "</svg>" ] || return 1 ;;
            metrics.csv) ;; # a log: it ends where the run ended
            *.next) ;; # of a run that began to take the folder over: the next command ends or undoes that
            *) echo "$file was left behind"; return 1 ;;
        esac
    done
    return 0
}

# One run. The exit code must be right, and what is left too.
one() { # SAE_BEFORE(1: out holds an SAE) FAIL ARGUMENTS...
    before=$1 fail=$2
    shift 2
    rm -rf out
    [ "$before" -eq 0 ] || cp -r first out
    rm -f log
    timeout 100 env LD_PRELOAD="$shim" ALLOC_SHIM_FAIL="$fail" ALLOC_SHIM_LOG="$work/log" "$atmsae" "$@" >stdout 2>stderr </dev/null
    code=$?
    runs=$((runs + 1))
    hit=$(grep -c failed log 2>/dev/null)
    if { [ "$code" -eq 134 ] && grep -q libblis log; } || { [ "$code" -eq 1 ] && grep -q '^libgomp' stderr; }; then
        aborts=$((aborts + 1))
    elif [ "$code" -eq 0 ]; then
        [ "$hit" -eq 0 ] || survived=$((survived + 1))
    elif [ "$code" -ne 1 ] || [ ! -s stderr ]; then
        echo "# allocation $fail: exit code $code, message: $(head -n 1 stderr), log: $(tr '\n' ' ' <log)"
        return 1
    fi
    [ ! -d out ] || whole out >why 2>&1 || { echo "# allocation $fail: $(cat why)"; ls -la out | sed 's/^/# /'; return 1; }
    [ "$before" -eq 0 ] || "$atmsae" info out >/dev/null 2>why || { echo "# allocation $fail: $(cat why)"; return 1; }
}

command_fails() { # NAME SAE_BEFORE ARGUMENTS...
    name=$1 had=$2
    shift 2
    one "$had" 0 "$@"
    all=$(sed -n 's/^allocations \([0-9]*\).*/\1/p' log | tail -n 1)
    tests=$((tests + 1))
    if [ "$code" -ne 0 ] || [ -z "$all" ]; then
        echo "not ok $tests - $name without a failure: exit code $code"
        sed 's/^/# /' stderr
        failures=$((failures + 1))
        return
    fi
    runs=0 aborts=0 survived=0 bad=0
    for on in '' +; do
        n=1 last=0
        while [ "$last" -lt "$points" ]; do
            # Evenly spread, the first ones and the last one among them.
            if [ "$scale" -ge 10 ]; then n=$((last + 1)); points=$all; else n=$((1 + last * (all - 1) / (points - 1))); fi
            one "$had" "$n$on" "$@" || bad=$((bad + 1))
            last=$((last + 1))
        done
    done
    [ "$bad" -eq 0 ] || failures=$((failures + 1))
    [ "$bad" -eq 0 ] && echo "ok $tests - $name" || echo "not ok $tests - $name: $bad wrong"
    echo "# $all allocations, $runs failures: $survived without effect, $aborts aborts in BLIS, the rest code 1"
    points=$((12 * scale))
}

command_fails "train" 0 train --input a.npy $small --rows 100 --valid v.npy --plot out/plot.svg --checkpoint-every 40 --out out
command_fails "train over an SAE" 1 train --input a.npy $small --rows 100 --valid v.npy --metrics out/metrics.csv --plot out/plot.svg --checkpoint-every 40 --out out --force
command_fails "train --resume" 1 train --input a.npy $small --rows 160 --out out --resume
command_fails "eval" 0 eval --sae other --input v.npy --json
command_fails "features over a page" 1 features --sae other --input v.npy --out out/page.html --json out/features.json --quiet --force
command_fails "compare over a page" 1 compare other first --input v.npy --html out/page.html --force
command_fails "info" 0 info other other/checkpoint.safetensors a.npy
echo "1..$tests"
[ "$failures" -eq 0 ]
