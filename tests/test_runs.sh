#!/bin/bash
# SPDX-License-Identifier: MIT
#
# usage: test_runs.sh PATH/TO/atmsae
# What a run leaves, whatever ends it; what it writes over and what not; which run an SAE belongs to. TAP on stdout.
# Rows are made by atmsae synth.
# shellcheck source=tests/command.sh
. "$(dirname "$0")/command.sh"

silent() { # FILE TEXT
    ! grep -q -- "$2" "$1"
    report $? "... and $1 does not say: $2"
}
# A row of 32 floats of rows.npy, whose header has 128 bytes, gets a NaN.
spoil() { # FILE ROW
    printf '\000\000\300\177' | dd of="$1" bs=1 seek=$((128 + 128 * $2 + 20)) conv=notrunc status=none
}
# Starts a run in the background; waits until m.csv tells of some steps.
begin() { # ARGUMENTS...
    rm -f m.csv
    env --default-signal=INT,TERM,HUP,XCPU,USR1 "$atmsae" "$@" >out 2>err </dev/null &
    pid=$!
    wait_for_lines m.csv 21
}
ends() { # CODE NAME
    wait "$pid" 2>/dev/null
    code=$?
    [ "$code" -eq "$1" ] || echo "exit code $code, not $1" >>err
    [ "$code" -eq "$1" ]
    report $? "$2"
}
endless="--d-sae 48 --k 4 --batch 50 --rows 500M --quiet --metrics m.csv"
expect 0 "rows" synth --out rows.npy --rows 3k --d 32 --parents 4 --independent 20 --quiet
# Beyond the rows that a run looks at before its first step.
expect 0 "more rows" synth --out bad.npy --rows 40k --d 32 --parents 4 --independent 20 --quiet
spoil bad.npy 36100 && spoil bad.npy 38777
small="--d-sae 48 --k 4 --batch 50 --rows 6k --seed 3 --shuffle-rows 500 --quiet"

# ---- a step that fails ends nothing but itself ----
once="${small/--rows 6k/--rows 40k}"
expect 0 "bad rows that may be skipped" train bad.npy $once --skip-bad-rows 2 --out whole --metrics whole.csv
says err "2 rows with a NaN or infinite value were left out"
says whole/run.json '"bad-rows": 2'
expect 1 "bad rows that may not" train bad.npy $once --out part --metrics part.csv
says err "bad.npy: row 36100 (from 0)"
says err "atmsae resume part --skip-bad-rows N"
expect 1 "... are met again" resume part --metrics part.csv
says err "bad.npy: row 36100 (from 0)"
expect 1 "one of them may be skipped" resume part --skip-bad-rows 1 --metrics part.csv
says err "bad.npy: row 38777 (from 0)"
expect 0 "all of them" resume part --skip-bad-rows 2 --metrics part.csv
same "... ends in the SAE of the run without a break" whole/sae_weights.safetensors part/sae_weights.safetensors
same "... and its metrics" whole.csv part.csv
same "... and its last checkpoint" whole/checkpoint.safetensors part/checkpoint.safetensors
cp rows.npy cut.npy
begin train rows.npy cut.npy $endless --shuffle-rows 100 --out cut
truncate -s 1000 cut.npy
ends 1 "rows that are truncated under the run"
says err "cut.npy"
says err "atmsae resume cut"
cp rows.npy cut.npy
"$atmsae" info cut/checkpoint.safetensors >told 2>&1
[ "$(sed -n 's/^ *steps-done *//p' told)" -ge 20 ]
report $? "... the steps until then are kept"

# ---- signals ----
for signal in HUP XCPU USR1; do
    rm -rf stop
    begin train rows.npy $endless --out stop
    kill -s $signal "$pid"
    ends 130 "SIG$signal"
    says err "atmsae resume stop"
    [ -s stop/checkpoint.previous.safetensors ]
    report $? "... saves a checkpoint"
done
rm -rf stop
begin train rows.npy $endless --out stop
kill -s TERM "$pid"
sleep 0.002
kill -s TERM "$pid" 2>/dev/null
ends 130 "two signals at once are one"
says err "interrupted after"
rm -rf stop m.csv # a job of nohup ignores HUP
nohup "$atmsae" train rows.npy $endless --out stop >out 2>err </dev/null &
pid=$!
wait_for_lines m.csv 21
kill -s HUP "$pid"
sleep 0.3
kill -s 0 "$pid" 2>/dev/null
report $? "a signal that the parent ignores stays ignored"
kill -s TERM "$pid"
ends 130 "... and another counts"

# ---- what is there already ----
echo "mine" >mine.csv && cp mine.csv mine.svg
for option in "--metrics mine.csv" "--plot mine.svg"; do
    expect 1 "$option, which is there already" train rows.npy $small --out new $option
    says err "--force"
done
grep -qx mine mine.csv && grep -qx mine mine.svg && [ ! -e new/checkpoint.safetensors ]
report $? "... stays, and nothing was trained"
cp rows.npy rows.csv
expect 1 "an input is no output" train rows.csv $small --out new --force --metrics rows.csv
same "... and stays" rows.npy rows.csv
expect 2 "a plot that is none" train rows.npy $small --out new --plot plot.png
expect 2 "metrics that are none" train rows.npy $small --out new --metrics m.txt
expect 1 "metrics in a folder that is not there" train rows.npy $small --out new --metrics nowhere/m.csv
expect 1 "--valid that is not there" train rows.npy $small --out new --valid nowhere.npy
"$atmsae" synth --out narrow.npy --rows 10 --d 16 --parents 2 --independent 4 --quiet >out 2>err
expect 1 "--valid of another width" train rows.npy $small --out new --valid narrow.npy
says err "rows of 16 numbers, but the SAE takes 32"
[ ! -e new/checkpoint.safetensors ]
report $? "... is noticed before anything is trained"
expect 2 "--out of no name" train rows.npy $small --out ""
expect 2 "--metrics of no name" train rows.npy $small --out new --metrics ""
mkdir -p taken/cfg.json
expect 1 "a folder in the place of cfg.json" train rows.npy $small --out taken
[ ! -e taken/checkpoint.safetensors ]
report $? "... is noticed before anything is trained"

# ---- what a file may name ----
expect 0 "a run with outputs of its own" train rows.npy $small --out first --metrics first/m.csv --plot first/p.svg
says first/run.json '"metrics": "m.csv"'
cp -r first before
expect 0 "the same settings for another run" train --config first/run.json --seed 5 --out second --quiet
same "... leave the first run's metrics" first/m.csv before/m.csv
same "... and plot" first/p.svg before/p.svg
[ -s second/m.csv ] && [ -s second/p.svg ]
report $? "... and make their own"
mv second moved
expect 0 "resume of a run that was moved" resume moved --rows 7k --quiet
[ "$(wc -l <moved/m.csv)" -eq 141 ] && [ ! -e second ]
report $? "... goes on in its own files"
expect 0 "a run with outputs elsewhere" train rows.npy $small --out else --metrics else.csv --plot else.svg
expect 2 "resume asks for a word on them" resume else --rows 7k
says err "atmsae resume else --metrics $work/else.csv --plot $work/else.svg"
expect 0 "... and takes it" resume else --rows 7k --metrics "$work/else.csv" --plot "$work/else.svg" --quiet
[ "$(wc -l <else.csv)" -eq 141 ]
report $? "... and goes on with them"
cp -r first theirs
echo "precious" >precious.csv && cp precious.csv precious.svg
sed -i "s|\"m.csv\"|\"$work/precious.csv\"|; s|\"p.svg\"|\"../precious.svg\"|" theirs/run.json
expect 2 "a run.json of somebody else" resume theirs --rows 7k
cp first/run.json theirs/ && rm theirs/m.csv theirs/p.svg && ln -s ../precious.csv theirs/m.csv && ln -s ../precious.svg theirs/p.svg
expect 2 "... or his links" resume theirs --rows 7k
expect 1 "what is no metrics file" resume theirs --rows 7k --metrics precious.csv --plot new.svg
expect 1 "what is another's plot" resume theirs --rows 7k --metrics new.csv --plot precious.svg
grep -qx precious precious.csv && grep -qx precious precious.svg
report $? "... write over nothing outside of the folder"

# ---- which run an SAE belongs to ----
expect 0 "compare knows the settings" compare first --input rows.npy
says out "batchtopk *atm"
begin train rows.npy $endless --mask none --seed 8 --out first --force
kill -s KILL "$pid"
ends 137 "a run in its place, killed before it saved an SAE"
same "the older SAE is there" first/sae_weights.safetensors before/sae_weights.safetensors
expect 0 "compare loads it" compare first --input rows.npy
says err "first/run.json is not yet of the SAE beside it"
silent out "none"
expect 0 "features too, without importances of another run" features --sae first --input rows.npy --json features.json
expect 0 "... and resume ends the new run" resume first --rows 5k --quiet --metrics m.csv
expect 0 "... whose SAE has its settings" compare first --input rows.npy
says out "batchtopk *none"
silent err "run.json"

# ---- a checkpoint is no SAE ----
rm -rf stop
begin train rows.npy $endless --out stop
kill -s TERM "$pid"
ends 130 "a run that was stopped"
rows=$(sed -n 's/.*interrupted after \([0-9]*\) steps.*/\1/p' err)
rows=$((rows * 50))
for command in "info stop" "eval --sae stop --input rows.npy" "compare stop --input rows.npy" "convert stop sae" "convert stop/checkpoint.safetensors sae" \
    "features --sae stop --input rows.npy --json f.json"; do
    expect 1 "$command" $command
    says err "atmsae resume stop --rows $rows"
done
expect 0 "a length below what was done" resume stop --rows 5 --metrics m.csv --quiet
says err "has seen $rows rows already, and 5 were asked for"
says stop/run.json "\"rows\": $rows,"
expect 0 "... ends the run" info stop

finish
