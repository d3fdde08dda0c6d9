#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: measures.sh SOURCE BUILD PACKAGE
# The measures of eval.h against a package as it is installed now: reference/make_measures.py runs it on new
# problems, build/tests/test_measures compares. PACKAGE absorption is sae-bench too, from words to scores (absorption.py).
# absorption takes minutes, so it runs where ATMSAE_PEERS_ABSORPTION says how many runs of SAEBench it shall take (8).
# The package is installed once, into BUILD/peers-PACKAGE, or comes from the environment that ATMSAE_PEERS_SAEBENCH,
# _SAELENS or _SAEPROBES names. Exits 77, a skip, where it cannot be had.
set -eu
source=$1 build=$2 package=$3
skip() { echo "skipped: $*"; exit 77; }

if nm -D "$build/lib/libatmsae.so" | grep -qE ' U __(a|t|ub)san_'; then
    skip "a build with sanitizers"
fi
# Exact versions: a failure is then a change of ours and not of theirs.
case $package in
saebench | absorption) pins='torch==2.14.1 sae-bench==0.6.0 scikit-learn==1.9.1 numpy==1.26.4' given=${ATMSAE_PEERS_SAEBENCH:-} ;;
saelens) pins='torch==2.13.0 sae-lens==6.54.12 numpy==2.4.6 safetensors==0.8.0 transformers==5.24.0' given=${ATMSAE_PEERS_SAELENS:-${ATMSAE_PEERS_VENV:-}} ;;
saeprobes) pins='torch==2.14.1 sae-probes==0.4.2 scikit-learn==1.9.1 numpy==1.26.4' given=${ATMSAE_PEERS_SAEPROBES:-} ;;
*) echo "no such package: $package"; exit 2 ;;
esac
script=$package
[ "$package" != absorption ] || [ -n "${ATMSAE_PEERS_ABSORPTION:-}" ] || skip "set ATMSAE_PEERS_ABSORPTION=8, which takes ten minutes"
[ "$package" != absorption ] || package=saebench
# What peers/run installed has the same.
[ "$package$given" != saelens ] || [ ! -e "$build/peers-venv/complete" ] || given=$build/peers-venv
if [ -n "$given" ]; then
    venv=$given
else
    venv=$build/peers-$package
    exec 9>"$venv.lock"
    flock 9 # one test installs, the other of the same package waits
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" || skip "python3 has no working venv module"
        for pin in $pins; do # torch first: the others then take it as it is
            timeout 900 "$venv/bin/pip" install --quiet "$pin" || skip "$pin cannot be installed"
        done
        touch "$venv/complete"
    fi
    exec 9>&-
fi

if [ "$script" = absorption ]; then
    exec "$venv/bin/python" "$source/tests/peers/absorption.py" "$build/examples/atmsae" "$source" --runs "$ATMSAE_PEERS_ABSORPTION"
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for seed in 2 3; do
    "$venv/bin/python" "$source/tests/reference/make_measures.py" "$package" $seed \
        "$tmp/measures_$package.safetensors" "$build/lib/libatmsae.so"
    ATMSAE_MEASURES=$tmp "$build/tests/test_measures"
done
