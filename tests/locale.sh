#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A decimal comma changes nothing: locale.sh PATH/TO/atmsae UNIT_TEST...
# The command under LC_ALL=de_DE.utf8 writes the same bytes as under C and takes the same numbers; the
# unit tests pass in a process that has called setlocale(LC_ALL, ""). TAP on stdout.
set -u
here=$PWD atmsae=$1
shift
[ -d "${LOCPATH:-}/de_DE.utf8" ] || { echo "skipped: no locale de_DE.utf8; it is made from Debian's package locales"; exit 77; }
data=$(cd "$(dirname "$0")/../examples/data" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
tests=0 failures=0

report() { # STATUS NAME
    tests=$((tests + 1))
    [ "$1" -eq 0 ] && echo "ok $tests - $2" && return
    failures=$((failures + 1))
    echo "not ok $tests - $2"
    sed 's/^/# /' out err 2>/dev/null | tail -n 12
}

{
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '<f2', 'fortran_order': False, 'shape': (600, 576), }"
    tail -c +129 "$data/activations-valid.npy" | head -c $((600 * 1152))
} >rows.npy
for locale in C de_DE.utf8; do
    for metrics in csv jsonl; do
        rm -rf sae
        LC_ALL=$locale "$atmsae" train --input rows.npy --valid rows.npy --d-sae 48 --k 3.5 --lr 1.5e-3 --r 0.25 --c 0.5 \
            --batch 50 --rows 2.5k --seed 5 --out sae --metrics metrics.$metrics --plot plot.svg >out 2>err </dev/null
        report $? "$locale: train"
        mkdir -p "$locale-$metrics"
        mv sae/cfg.json sae/sae_weights.safetensors sae/checkpoint.safetensors sae/run.json metrics.$metrics plot.svg "$locale-$metrics"
        cp out "$locale-$metrics/out"
        LC_ALL=$locale "$atmsae" eval --sae "$locale-$metrics" --input rows.npy --json >out 2>err </dev/null
        report $? "$locale: eval"
        cp out "$locale-$metrics/eval"
        LC_ALL=$locale "$atmsae" info "$locale-$metrics" "$locale-$metrics/checkpoint.safetensors" >out 2>err </dev/null
        report $? "$locale: info"
        cp out "$locale-$metrics/info"
    done
done
# What tells the time or the folder differs anyway.
plain() { sed -e 's/C-\(csv\|jsonl\)/FOLDER/g; s/de_DE.utf8-\(csv\|jsonl\)/FOLDER/g' -e '/second\|rows\/s\|time/d' "$1"; }
for metrics in csv jsonl; do
    for file in cfg.json sae_weights.safetensors checkpoint.safetensors metrics.$metrics plot.svg; do
        cmp "C-$metrics/$file" "de_DE.utf8-$metrics/$file" >out 2>err
        report $? "$file, $metrics: the same bytes"
    done
    for file in run.json out eval info; do
        plain "C-$metrics/$file" >one
        plain "de_DE.utf8-$metrics/$file" >two
        [ -s one ] && diff one two >out 2>err
        report $? "$file, $metrics: the same text"
    done
done

for program; do
    case $program in /*) ;; *) program=$here/$program ;; esac
    LC_ALL=de_DE.utf8 ATMSAE_SETLOCALE=1 "$program" >out 2>err </dev/null
    code=$?
    [ $code -eq 77 ] || report $code "${program##*/} under de_DE"
done
echo "1..$tests"
[ "$failures" -eq 0 ]
