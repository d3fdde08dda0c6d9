#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: researcher.sh SOURCE BUILD
# A researcher with files of activations: the section "Files" of doc/getting-started.md, on the shipped rows.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
use_installed
section='Files: from activations to a table'

first() { run_block "$guide" "$section" sh 1; }
try "two runs, a table, a page of latents" first
cp "$tmp/log" first
grep -A 3 '^SAE' first
table() { grep -q '^SAE.*FVU' first && grep -qE '^(out/)?atm .*[0-9]' first && grep -qE '^(out/)?none .*[0-9]' first; }
try "... the table has a line for each" table
plots() { grep -q '<svg' out/atm/plot.svg && grep -q '<svg' out/compare.html && [ "$(wc -l <out/atm/metrics.csv)" -gt 100 ]; }
try "... plots and metrics are there" plots
page() { [ "$(wc -c <out/features.html)" -gt 100000 ] && ! grep -qE 'src="https?:' out/features.html; }
try "... the page of latents needs no network" page

second() { run_block "$guide" "$section" sh 2; }
try "eval, resume, run again with another seed, convert, info" second
cp "$tmp/log" second
try "... FVU under 0.5" between second fvu 0.05 0.5
try "... L0 near 32" between second l0 24 45
more() { grep -q '100000' second && grep -q 'gemma-scope' second && grep -q 'pair_mcc' second; }
try "... the run grew to 100,000 rows, the .npz was recognised, two SAEs were matched" more
finish
