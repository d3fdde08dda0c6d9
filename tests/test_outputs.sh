#!/bin/bash
# SPDX-License-Identifier: MIT
#
# usage: test_outputs.sh PATH/TO/atmsae
# What the command writes and where: nothing that is there without --force, nothing that it reads, whole files or none;
# text inputs of any kind; names of any bytes; a terminal that obeys no file; closed descriptors. TAP on stdout.
# shellcheck source=tests/command.sh
. "$(dirname "$0")/command.sh"

kept() { # NAME FILE TEXT: the file still holds this
    [ "$(cat "$2")" = "$3" ]
    report $? "... and $1 stays"
}
limited() { timeout 60 "$@"; } # a command that would hang or write for ever ends

synth="synth --d 16 --parents 4 --independent 8 --quiet"
expect 0 "rows" $synth --out rows.npy --rows 1500
expect 0 "an SAE" train rows.npy --d-sae 64 --k 4 --batch 50 --rows 1500 --seed 4 --quiet --out sae
one="--sae sae --input rows.npy"

# ---- what is there already, and what is read ----
cat >writers <<'W'
features --out|features --sae sae --input rows.npy --quiet --out
features --json|features --sae sae --input rows.npy --quiet --json
eval --html|eval --sae sae --input rows.npy --html
compare --html|compare sae sae --input rows.npy --html
synth --out|synth --d 16 --rows 10 --quiet --out
synth --truth|synth --d 16 --rows 10 --quiet --out new.npy --truth
convert|convert sae
W
while IFS='|' read -r writer arguments <&3; do
    for there in there.npy there.safetensors; do # a name that each of them takes
        case $writer in "synth --truth") [ $there = there.npy ] && continue ;; "synth --out") ;; *) [ $there = there.npy ] || continue ;; esac
        echo precious >$there
        expect 1 "$writer does not replace a file" $arguments $there
        says err "$there.* is there already; --force replaces it"
        kept "the file" $there precious
        ln -sf $there link-$there
        expect 1 "... nor through a link" $arguments link-$there
        kept "the file" $there precious
        case $writer in convert) rm -f $there ;; esac # its format is told by the name
        rm -f new.npy
        expect 0 "... but with --force" $arguments $there --force
        case $writer in convert) rm -rf $there link-$there; continue ;; esac
        [ "$(head -c 8 $there)" != precious ]
        report $? "... it does"
        chmod 600 $there
        expect 0 "... and again" $arguments $there --force
        [ "$(stat -c %a $there)" = 600 ]
        report $? "... a private file stays private"
        rm -f $there link-$there new.npy
    done
    case $writer in synth*) continue ;; esac
    # What is read, by its name, through links, as a part of a folder: not even with --force.
    ln -sfn sae folder
    ln -f rows.npy hard.npy
    inputs="rows.npy hard.npy ./rows.npy sae/cfg.json folder/sae_weights.safetensors sae/run.json sae/importance.safetensors"
    [ "$writer" != convert ] || inputs="sae folder sae/cfg.json sae/sae_weights.safetensors"
    for input in $inputs; do
        cp -r sae before && cp rows.npy before.npy
        expect 1 "$writer --force does not replace $input" $arguments "$input" --force
        says err "is read by this command"
        diff -r sae before >out 2>err && cmp rows.npy before.npy >>out 2>>err
        report $? "... it stays"
        rm -rf before before.npy
    done
done 3<writers
cp sae/sae_weights.safetensors sae/sae_weights.staged.safetensors # as a save leaves it that was killed between its steps
expect 1 "nor the weights of a save that was interrupted" features $one --out sae/sae_weights.staged.safetensors --force
says err "is read by this command"
rm sae/sae_weights.staged.safetensors
printf 'w\n%.0s' $(seq 1500) >words.txt
echo '{"quiet": true}' >settings.json
expect 1 "nor a text that is read" features $one --words words.txt --out words.txt --force
expect 1 "nor the settings" features $one --config settings.json --json settings.json --force
printf 'w\n' >page.words.txt && cp sae/sae_weights.safetensors page.safetensors && echo '["t"]' >page.tasks.json
expect 1 "nor rows beside the names of tasks" eval $one --probing page.tasks.json --html page.safetensors --force
says err "is read by this command"
expect 1 "two outputs in one file" features $one --out both --json ./both
says err "both are"
[ ! -e both ]
report $? "... and nothing was written"
expect 1 "a folder that is not there, before the work" features $one --out none/x.html
says err "cannot open its folder"
expect 1 "a folder in the place of a page" features $one --out sae --force
for arguments in "features $one --out" "eval $one --html" "compare sae --input rows.npy --html" "synth --out" "convert sae" "info" "train rows.npy --out" "train --input" \
    "features $one --words" "eval --input rows.npy --sae" "resume" "train rows.npy --metrics" "train rows.npy --config"; do
    expect 2 "an empty name: $arguments" $arguments ""
    says err "empty text"
done
expect_of 0 "a page for a pipe" bash -c '"$1" features --sae sae --input rows.npy --quiet --out /dev/stdout | tail -n 1 | grep -q "</html>"' bash "$atmsae"
expect_of 0 "... and JSON for -" bash -c '"$1" features --sae sae --input rows.npy --quiet --json - | tail -c 3 | grep -q "]}"' bash "$atmsae"
expect_of 1 "... that is full" bash -c '"$1" features --sae sae --input rows.npy --quiet --json - >/dev/full' bash "$atmsae"
says err "No space left"

# ---- a folder with files of somebody else ----
small="train rows.npy --d-sae 64 --k 4 --batch 50 --rows 1500 --quiet"
for file in cfg.json run.json importance.safetensors sae_weights.staged.safetensors; do
    mkdir other && echo precious >other/$file
    expect 1 "train does not replace $file" $small --out other
    says err "other holds .*$file.*; --force replaces it"
    kept "the file" other/$file precious
    [ "$(ls -A other)" = $file ]
    report $? "... alone"
    expect 0 "... but with --force" $small --out other --force
    rm -rf other
done
# A run that was killed before its first checkpoint has left its settings alone.
mkdir other && cp sae/run.json other/
expect 0 "a run.json of train alone is replaced" $small --out other
rm -rf other
# Whoever made a folder may have put links into it.
for file in cfg.json sae_weights.safetensors importance.safetensors run.json.next checkpoint.safetensors.next; do
    cp -r sae other && echo precious >victim && ln -sf "$work/victim" other/$file
    expect 2 "resume does not follow $file out of the folder" resume other --rows 2k --quiet
    says err "other/$file: is "
    kept "what it leads to" victim precious
    rm -rf other
done
cp -r sae other && mv other/cfg.json other/here && ln -s here other/cfg.json
expect 0 "a link within the folder is followed" resume other --rows 2k --quiet
[ -L other/cfg.json ]
report $? "... and stays one"
rm -rf other victim

# ---- old or new, never half ----
mkdir whole
expect 0 "a page and JSON" features $one --out whole/f.html --json whole/f.json --quiet
expect 0 "a comparison" compare sae sae --input rows.npy --html whole/c.html
expect 0 "an evaluation" eval $one --html whole/e.html
cp -r whole limit
small() { # NAME ARGUMENTS...
    writer=$1
    shift
    expect_of 1 "$writer beyond a limit of file size" bash -c 'ulimit -f 8; exec "$@"' bash "$atmsae" "$@"
    says err "File too large"
    [ "$(grep -c '^atmsae:' err)" -eq 1 ]
    report $? "... once"
}
small features features $one --out limit/f.html --quiet --force
small "features --json" features $one --json limit/f.json --quiet --force
small compare compare sae sae --input rows.npy --html limit/c.html --force
small eval eval $one --html limit/e.html --force
small synth $synth --rows 2000 --out limit/y.npy
small "synth --truth" $synth --rows 200 --out limit/x.npy --truth limit/t.safetensors
diff -r whole limit >out 2>err
report $? "the old files are whole, and no others are there"

# ---- charts of equal results ----
for i in 1 2 3 4 5 6; do cp -r sae equal$i; done
for n in 2 3 4 6; do
    (ulimit -f 20000; limited "$atmsae" compare $(seq -f equal%g $n) --input rows.npy --html equal.html --force) >out 2>err
    report $? "a page of $n equal SAEs ends"
    [ "$(stat -c %s equal.html)" -lt 500000 ]
    report $? "... and is small"
done
rm -r equal?

# ---- inputs that are no files ----
mkfifo pipe
for input in pipe /dev/zero . sparse; do
    case $input in /*) target=$input ;; *) target=../$input ;; esac
    rm -f sparse && truncate -s 6G sparse
    expect_of 1 "--words $input" limited "$atmsae" features $one --words $input --out x.html
    expect_of 2 "--config $input" limited "$atmsae" features $one --config $input --out x.html
    expect_of 1 "--probing $input" limited "$atmsae" eval $one --probing $input.tasks.json
    rm -rf odd && cp -r sae odd && rm odd/run.json && ln -s $target odd/run.json
    expect_of 0 "run.json is $input" limited "$atmsae" compare odd --input rows.npy
    says err "run.json: .*\(no regular file\|a folder\|are read\)"
    rm -rf odd && cp -r sae odd && rm odd/importance.safetensors && ln -s $target odd/importance.safetensors
    expect_of 0 "importance.safetensors is $input" limited "$atmsae" compare odd --input rows.npy
done
rm -rf odd sparse
expect 1 "a pipe that nobody reads" features $one --out pipe
says err "nobody reads"

# ---- names of any bytes ----
for odd in $'caf\xe9' $'a\nb' 'q"\x' $'c\x01\x1b[31m' ' ' '<b>' "$(printf 'n%.0s' $(seq 255))"; do
    mkdir "./$odd" && cp rows.npy "./$odd/rows.npy"
    shown=$(printf %s "$odd" | LC_ALL=C tr -c ' -~' '?' | cut -c 1-20)
    expect 0 "train in $shown" train "$odd/rows.npy" --d-sae 64 --k 4 --batch 50 --rows 1500 --quiet --out "$odd/out"
    expect 0 "... again from run.json" train --config "$odd/out/run.json" --quiet --out "$odd/again"
    same "... the same SAE" "$odd/out/sae_weights.safetensors" "$odd/again/sae_weights.safetensors"
    expect 0 "... resume" resume "$odd/out" --rows 3000 --quiet
    expect 0 "... features" features --sae "$odd/out" --input "$odd/rows.npy" --quiet --json "$odd/f.json"
    expect 0 "... info --json" info "$odd/out" --json
    iconv -f UTF-8 -t UTF-8 out >/dev/null && iconv -f UTF-8 -t UTF-8 "$odd/f.json" >/dev/null && ! LC_ALL=C grep -q $'[\x01-\x09\x0b-\x1f]' out
    report $? "... is UTF-8 without controls"
    if command -v python3 >/dev/null; then
        python3 -c 'import json, os, sys; name = lambda j, k: json.loads(j)[k]; d = sys.argv[1]
assert os.fsencode(name(sys.stdin.buffer.read(), "path")) == os.fsencode(d + "/out")
assert os.fsencode(name(open(d + "/out/run.json", "rb").read(), "input")[0]).endswith(os.fsencode(d + "/rows.npy"))
assert os.fsencode(name(open(d + "/f.json", "rb").read(), "sae")) == os.fsencode(d + "/out")' "$odd" <out >checks 2>err
        report $? "... and names the same bytes"
    fi
    rm -rf "./$odd"
done

# ---- what a terminal is shown ----
if command -v python3 >/dev/null; then
    cp -r sae evil
    python3 - <<'P'
import json, struct
evil = "\x1b]0;title\x07\x1b[2J\x9b31m\u202efake\n\r"
def tensors(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)
tensors("names.safetensors", {evil: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
tensors("hole.safetensors", {evil: {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8))
cfg = json.load(open("evil/cfg.json"))
cfg["metadata"]["model_name"], cfg["metadata"]["hook_name"], cfg[evil] = evil, "a\nkind        trusted", 1
json.dump(cfg, open("evil/cfg.json", "w"))
run = json.load(open("evil/run.json"))
run["arch"] = run["mask"] = evil
json.dump(run, open("evil/run.json", "w"), ensure_ascii=False)
json.dump({evil: 1}, open("key.json", "w"))
json.dump({"arch": evil}, open("choice.json", "w"))
P
    odd=$'\e]0;title\a\u009b1m\u202e.npy'
    clean() { # NAME ARGUMENTS...
        shown=$1
        shift
        limited "$atmsae" "$@" >out 2>err </dev/null
        # Left over when UTF-8's printable characters and line feeds are taken out.
        ! cat out err | LC_ALL=C grep -q $'[\x01-\x09\x0b-\x1f\x7f]\|\xc2[\x80-\x9f]\|\xe2\x80[\xa8-\xae]'
        report $? "no controls on the terminal: $shown"
    }
    clean "names of tensors" info names.safetensors
    says out 'x1b\]0;title'
    clean "... in an error" info hole.safetensors
    clean "names of models and keys" info evil
    [ "$(grep -c '^  kind' out)" -eq 1 ]
    report $? "... no line is added"
    clean "... as JSON" info evil names.safetensors --json
    clean "settings in a table" compare evil sae --input rows.npy
    clean "... as JSON" compare evil sae --input rows.npy --json
    clean "a name of a file" info "$odd"
    clean "... of an SAE" features --sae "$odd" --input rows.npy --out x.html
    clean "... of rows" eval --sae sae --input "$odd"
    clean "... of a page" features $one --out "none/$odd"
    clean "... of a page that is written" features $one --out "$odd"
    clean "... of a page that is there" features $one --out "$odd"
    clean "... of settings" train rows.npy --config "$odd"
    clean "... of words" features $one --words "$odd" --out x.html
    clean "... of an output" train rows.npy --out "none/$odd"
    clean "a command" "$odd"
    clean "an option" info "--$odd"
    clean "a value" train rows.npy --arch "$odd"
    clean "a number" train rows.npy --rows "$odd"
    clean "a key of settings" train rows.npy --config key.json
    clean "a value of settings" train rows.npy --config choice.json
    rm -rf evil
else
    skip "what a terminal is shown" "no python3"
fi

# ---- descriptors that are closed ----
expect 0 "a page" features $one --out f0.html --json f0.json --quiet
expect 0 "a comparison" compare sae sae --input rows.npy --html c0.html
expect 0 "an .npz" convert sae n0.npz
rm -f err
"$atmsae" features $one --out f1.html --json f1.json --quiet <&- >&- 2>&-
report $? "features with 0, 1 and 2 closed"
"$atmsae" features $one --out f2.html --json f2.json 2>&-
report $? "... with 2 closed"
! "$atmsae" compare sae sae --input rows.npy --html c1.html <&- >&- 2>&-
report $? "compare fails: its table went nowhere"
! "$atmsae" convert sae n1.npz <&- >&- 2>&-
report $? "so does convert"
for n in 1 2; do
    same "the page is the same" f0.html f$n.html
    same "the JSON is the same" f0.json f$n.json
done
same "the page is the same" c0.html c1.html
same "the .npz is the same" n0.npz n1.npz
again="train rows.npy --d-sae 64 --k 4 --batch 50 --rows 1500 --seed 4 --checkpoint-every 500"
expect 0 "train with metrics" $again --quiet --out open --metrics open.csv
"$atmsae" $again --out closed1 --metrics closed1.csv 2>&-
report $? "train with 2 closed"
"$atmsae" $again --out closed2 --metrics closed2.csv <&- >&- 2>&-
report $? "train with 0, 1 and 2 closed"
! "$atmsae" $again --out closed3 --metrics closed3.csv --json <&- >&- 2>&-
report $? "train --json fails: its result went nowhere"
for n in 1 2 3; do
    same "the metrics are the same" open.csv closed$n.csv
    for file in cfg.json sae_weights.safetensors checkpoint.safetensors importance.safetensors; do same "$file is the same" open/$file closed$n/$file; done
done
finish
