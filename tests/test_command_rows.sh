#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What the atmsae command says about rows that cannot be used, and about files that change:
# test_command_rows.sh PATH/TO/atmsae. TAP on stdout.
data=$(cd "$(dirname "$0")/../examples/data" && pwd)
# shellcheck source=tests/command.sh
. "$(dirname "$0")/command.sh"

# Bytes of a file, from an offset on, become others, given in octal.
put() { printf '%b' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }
# The first element of a row of a file that npy made becomes an infinite f16.
spoil() { put "$1" $((128 + $2 * 1152)) '\0000\0174'; }

npy a.npy 0 900
npy b.npy 900 900
npy v.npy 1800 300
cp a.npy bad.npy
spoil bad.npy 456
spoil bad.npy 801
small="--d-sae 192 --k 8 --batch 100 --lr 1e-3 --seed 7 --shuffle-rows 500 --quiet"
expect 0 "a run on good rows" train a.npy b.npy $small --rows 20k --out sae

# ---- a bad row is named by its file and its place there ----
names_it() { says err "bad.npy: row 456 (from 0) has a NaN or infinite value"; }
expect 1 "eval" eval --sae sae --input v.npy bad.npy
names_it
expect 1 "compare" compare sae sae --input b.npy bad.npy
names_it
expect 1 "features" features --sae sae --input a.npy b.npy bad.npy --out page.html --quiet
names_it
expect 1 "train --valid" train a.npy b.npy $small --rows 1k --out valid --valid bad.npy
names_it
{
    printf '\060\001\000\000\000\000\000\000'
    printf '%-304s' '{"activations":{"dtype":"F16","shape":[40,576],"data_offsets":[0,46080]},"letter":{"dtype":"I8","shape":[40],"data_offsets":[46080,46120]},"labels":{"dtype":"I8","shape":[40,1],"data_offsets":[46120,46160]},"is_train":{"dtype":"U8","shape":[40],"data_offsets":[46160,46200]}}'
    tail -c +129 a.npy | head -c 46080
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do printf '\000\001\001\000'; done
} >texts.safetensors
echo '["one"]' >texts.tasks.json
put texts.safetensors $((312 + 23 * 1152 + 8)) '\0001\0174' # a NaN
expect 1 "eval --words" eval --sae sae --input v.npy --words texts.safetensors --words-tensor activations
says err "texts.safetensors: row 23 (from 0) has a NaN or infinite value"
expect 1 "eval --probing" eval --sae sae --input v.npy --probing texts.tasks.json
says err "texts.safetensors: row 23 (from 0) has a NaN or infinite value"

# ---- info --check ----
expect 0 "--check of good rows" info --check a.npy v.npy
says out "rows *900"
says out "rows *300"
says out "width *576"
says out "type *F16"
says out "bad-rows *0"
expect 1 "--check of bad ones" info --check a.npy bad.npy b.npy
says out "bad-rows *2"
says out "first-bad-rows *\[456, 801\]"
says err "bad.npy: 2 of 900 rows with a NaN or infinite value, row 456 the first"
[ "$(grep -c norm-median out)" -eq 3 ]
report $? "... and the files after it are checked"
expect 1 "--check --json" info --check bad.npy --json
says out '"bad-rows": 2,'
says out '"first-bad-rows": \[456, 801\],'
# Three columns of f32, and of bf16 as .npy holds them: rows of zeros, a constant column, NaN, norms 0 .. 5.
{
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3), }"
    printf '\000\000\000\000\000\000\000\000\000\000\000\000'
    printf '\000\000\100\100\000\000\200\100\000\000\000\000'
    printf '\000\000\000\000\000\000\000\000\000\000\000\000'
    printf '\000\000\200\077\000\000\000\000\000\000\000\000'
    printf '\000\000\000\000\000\000\000\000\000\000\300\377'
} >f32.npy
{
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '<u2', 'fortran_order': False, 'shape': (5, 3), }"
    printf '\000\000\000\000\000\000\100\100\200\100\000\000\000\000\000\000\000\000\200\077\000\000\000\000\000\000\000\000\300\377'
} >bf16.npy
for file in f32.npy "bf16.npy --bf16"; do
    expect 1 "--check $file" info --check $file
    says out "zero-rows *2"
    says out "constant-columns *1"
    says out "norm-min *0"
    says out "norm-median *1"
    says out "norm-max *5"
    says out "norm-max-row *1"
    says out "first-bad-rows *\[4\]"
done
says out "type *BF16"
expect 1 "--check of bf16 without a word" info --check bf16.npy
expect 0 "--check of a tensor" info --check "$data/words.safetensors" --tensor prompted
expect 1 "--check of a tensor that is not there" info --check "$data/words.safetensors" --tensor promted
expect 1 "--check of a folder" info --check sae
head -c 5000 a.npy >cut.npy
expect 1 "--check of a file that was cut" info --check cut.npy
says err "cut.npy"

# ---- rows in other shapes, and files of other programs ----
# The same five rows as [5, 1, 3], and column by column.
{
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 1, 3), }"
    tail -c 60 f32.npy
} >three.npy
{
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '<f4', 'fortran_order': True, 'shape': (5, 3), }"
    for column in 0 1 2; do
        for row in 0 1 2 3 4; do tail -c 60 f32.npy | tail -c +$((row * 12 + column * 4 + 1)) | head -c 4; done
    done
} >columns.npy
expect 1 "--check f32.npy" info --check f32.npy
grep -v path out >plain
for file in three columns; do
    expect 1 "--check $file.npy" info --check $file.npy
    grep -v path out | cmp -s - plain
    report $? "... gives what the rows as they were give"
done
# What is said names the file, what it is, and what to do; no command gets past it.
says_of() { # FILE TEXT
    for words in "train $1 $small --rows 10k --out nowhere" "eval --sae sae --input $1" "compare sae --input $1" \
        "features --sae sae --input $1 --out page.html" "info --check $1"; do
        expect 1 "$words" $words
        says err "$1: $2"
    done
}
{
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 576), }"
} >empty.npy
says_of empty.npy "no rows"
printf '1.5,2,3\n4,5,6\n' >rows.csv
says_of rows.csv 'a text file: not read; save its rows with NumPy: numpy.save("rows.npy", numpy.loadtxt(FILE'
printf 'PAR1............PAR1' >rows.parquet
says_of rows.parquet "a Parquet file: not read"
says_of bf16.npy "the array holds U16; rows are of F32, F16, BF16 or F64. If it is bfloat16, for which NumPy has no type, say so: --bf16"

# ---- files that change between a run and its resume ----
changed() { # FILE: another one of the same shape, only its first and last row the same, in `other`
    {
        head -c $((128 + 1152)) "$1"
        tail -c +$((129 + 2000 * 1152)) "$data/activations-valid.npy" | head -c $((898 * 1152))
        tail -c 1152 "$1"
    } >other
}
cp a.npy kept.npy
changed a.npy
[ "$(wc -c <other)" -eq "$(wc -c <a.npy)" ] && cat other >a.npy
expect 1 "resume on other rows of the same shape" resume sae --rows 30k --quiet
says err "a.npy) is not what it was: its checksum"
cp kept.npy a.npy
touch -d 2001-01-01 a.npy
expect 0 "a new copy with an old date is the same file" resume sae --rows 30k --quiet

# ---- files that change while a run reads them ----
# A run over both files that is long enough; what its arguments do once it is at work; its exit code is in $code.
while_it_runs() {
    rm -rf part part.csv
    "$atmsae" train a.npy b.npy $small --rows 2M --out part --metrics part.csv >out 2>err </dev/null &
    pid=$!
    wait_for_lines part.csv 60
    "$@"
    wait $pid
    code=$?
}
cp b.npy kept.npy
changed b.npy
while_it_runs mv other b.npy
[ "$code" -eq 1 ]
report $? "another file of the same shape takes the place of one"
says err "b.npy: the file has changed since it was added: other rows"
cp kept.npy b.npy
while_it_runs truncate -s 100000 b.npy
[ "$code" -eq 1 ]
report $? "a file is cut"
says err "b.npy: "
cp kept.npy b.npy
changed b.npy
while_it_runs dd if=other of=b.npy bs=1M conv=notrunc status=none
[ "$code" -eq 1 ]
report $? "a file is written to"
says err "b.npy: the file has changed since it was added: other rows"
cp kept.npy b.npy
go_on() { # copies and dates are no change; the run is stopped after more steps
    cp kept.npy copy.npy && mv copy.npy b.npy && touch -d 2001-01-01 a.npy
    lines=$(wc -l <part.csv)
    tries=0
    while [ $tries -lt 600 ] && [ "$(wc -l <part.csv)" -lt $((lines + 100)) ] && kill -0 $pid; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -TERM $pid
}
while_it_runs go_on
[ "$code" -eq 130 ]
report $? "a copy takes the place of a file, and the run goes on"

finish
