#!/bin/bash
# SPDX-License-Identifier: MIT
#
# usage: environment.sh PATH/TO/atmsae
# The command where the system does not play along: no room, no rights, limits, links, damaged files,
# two runs in one folder. TAP on stdout; what the machine cannot do is left out with a reason.
data=$(cd "$(dirname "$0")/../../examples/data" && pwd)
# shellcheck source=tests/command.sh
. "$(dirname "$0")/../command.sh"
is() { # NAME TEST...
    name=$1
    shift
    test "$@"
    report $? "... and $name"
}
no_temporary() { # DIR
    [ -z "$(find "$1" -maxdepth 1 -name '*tmp')" ]
    report $? "... and leaves no temporary file"
}

npy rows.npy 0 1500

small="train --input rows.npy --d-sae 64 --k 4 --batch 50 --rows 1500 --shuffle-rows 200 --seed 4 --quiet"
expect_of 0 "a run" "$atmsae" $small --out whole --metrics whole.csv
# A finished run with two checkpoints; and how it was before its last steps.
expect_of 0 "the same with checkpoints on the way" "$atmsae" $small --out kept --checkpoint-every 600 --metrics run.csv
rm -f kept/sae_weights.safetensors kept/cfg.json
mkdir half && cp kept/checkpoint.previous.safetensors half/checkpoint.safetensors
size=$(stat -c %s half/checkpoint.safetensors)

# ---- a full disk ----
# In a mount namespace of its own: a file system of some pages that nearly fills up.
cat >full.sh <<'EOF'
atmsae=$1 small=$2 room=$3
mount -t tmpfs -o "size=$room" none disk || exit 77
cp half/checkpoint.safetensors disk/ || exit 78
"$atmsae" $small --out disk --resume --checkpoint-every 100 >out 2>err
code=$?
cmp half/checkpoint.safetensors disk/checkpoint.safetensors || code=79
ls -A disk >left
exit $code
EOF
mkdir disk
if unshare -rm true 2>/dev/null && unshare -rm mount -t tmpfs none disk 2>/dev/null; then
    room=$(((size * 3 / 2 + 4095) / 4096 * 4096))
    expect_of 1 "a full disk: the command fails" unshare -rm bash full.sh "$atmsae" "$small" "$room"
    says err "No space left on device"
    says err "training goes on"
    is "nothing but the old checkpoint and run.json is there" "$(tr '\n' ' ' <left)" = "checkpoint.safetensors run.json "
    cat >later.sh <<'EOF'
# The disk fills up once the run has begun and is emptied while it goes on.
atmsae=$1 small=$2 room=$3
mount -t tmpfs -o "size=$room" none disk || exit 77
"$atmsae" $small --rows 600k --checkpoint-every 1k --out disk/run --metrics later.csv >out 2>err &
pid=$!
for _ in $(seq 200); do
    [ -e disk/run/checkpoint.safetensors ] && break
    sleep 0.05
done
head -c $room /dev/zero >disk/ballast 2>/dev/null
for _ in $(seq 200); do
    sleep 0.05
    grep -q "training goes on" err && break
done
rm disk/ballast
wait $pid || exit $?
grep -q "training goes on" err || exit 80
[ -s disk/run/sae_weights.safetensors ]
EOF
    expect_of 0 "room that comes back is used" unshare -rm bash later.sh "$atmsae" "${small/--rows 1500/}" 4194304
    cat >pages.sh <<'EOF'
# Pages that are there already, and then no room for new ones. Each command fails once, with a message.
atmsae=$1
mount -t tmpfs -o size=2m none disk || exit 77
cp page.html page.json disk/
head -c 4M /dev/zero >disk/ballast 2>/dev/null
for arguments in "features --sae whole --input rows.npy --quiet --out disk/page.html" "features --sae whole --input rows.npy --quiet --json disk/page.json" \
    "compare whole whole --input rows.npy --html disk/page.html" "eval --sae whole --input rows.npy --html disk/page.html"; do
    "$atmsae" $arguments --force >out 2>err && exit 81
    [ "$(grep -c '^atmsae:.*No space left on device' err)" -eq 1 ] || exit 82
    cmp page.html disk/page.html && cmp page.json disk/page.json || exit 83
done
"$atmsae" synth --rows 100k --out disk/rows.npy --quiet >out 2>err && exit 84
ls -A disk >left
EOF
    expect_of 0 "a page and JSON" "$atmsae" features --sae whole --input rows.npy --quiet --out page.html --json page.json
    expect_of 0 "a full disk: pages and rows" unshare -rm bash pages.sh "$atmsae"
    is "the old ones are whole and no other files are there" "$(tr '\n' ' ' <left)" = "ballast page.html page.json "
else
    skip "a full disk" "no user namespaces here"
fi
expect_of 1 "/dev/full as standard output" sh -c '"$1" info whole >/dev/full' sh "$atmsae"
says err "No space left on device"
ln -s /dev/full full.csv
expect_of 1 "metrics that cannot be written" "$atmsae" $small --out devfull --metrics full.csv
says err "full.csv"
same "the SAE is saved all the same" devfull/sae_weights.safetensors whole/sae_weights.safetensors

# ---- limits ----
rm -rf limit && cp -r half limit
expect_of 1 "a limit of file size" bash -c 'ulimit -f 8; exec "$@"' bash "$atmsae" $small --out limit --resume
says err "File too large"
same "the old checkpoint stands" half/checkpoint.safetensors limit/checkpoint.safetensors
no_temporary limit
expect_of 0 "... and the run goes on without the limit" "$atmsae" $small --out limit --resume
same "ends as if nothing had been" limit/sae_weights.safetensors whole/sae_weights.safetensors
"$atmsae" info whole 2>err | true
[ "${PIPESTATUS[0]}" -ne 141 ]
report $? "a reader that goes away does not kill"

# ---- rights and kinds of files ----
rm -rf readonly && cp -r half readonly && chmod 555 readonly
if ! touch readonly/x 2>/dev/null; then
    expect_of 1 "a folder without write permission" "$atmsae" $small --out readonly --resume
    says err "Permission denied"
    chmod 755 readonly
    same "the old checkpoint stands" half/checkpoint.safetensors readonly/checkpoint.safetensors
else
    skip "a folder without write permission" "this user may write everywhere"
fi
mkdir -p blocked/sae_weights.safetensors
expect_of 1 "a folder in the place of the weights" "$atmsae" $small --out blocked --force
says err "Is a directory"
expect_of 1 "a file in the place of the folder" "$atmsae" $small --out rows.npy
mkdir linked elsewhere
ln -s ../elsewhere/real linked/checkpoint.safetensors
expect_of 0 "a checkpoint that is a symbolic link" "$atmsae" $small --out linked --checkpoint-every 600
is "stays one" -L linked/checkpoint.safetensors
same "leads to the new file" elsewhere/real kept/checkpoint.safetensors
same "the one before it is kept" linked/checkpoint.previous.safetensors kept/checkpoint.previous.safetensors
expect_of 0 "... also with --force" "$atmsae" $small --out linked --checkpoint-every 600 --force
is "stays one" -L linked/checkpoint.safetensors
rm -rf linked && mkdir linked && ln -s ../elsewhere/cfg linked/cfg.json
expect_of 0 "a cfg.json that is a symbolic link" "$atmsae" $small --out linked --force
is "stays one" -L linked/cfg.json
same "leads to the new file" elsewhere/cfg whole/cfg.json

# ---- two runs in one folder ----
long="train --input rows.npy --d-sae 64 --k 4 --batch 50 --rows 100M --shuffle-rows 200 --seed 4 --quiet"
"$atmsae" $long --out shared --metrics shared.csv >/dev/null 2>first.err &
pid=$!
for _ in $(seq 200); do
    [ "$(wc -l 2>/dev/null <shared.csv || echo 0)" -gt 3 ] && break
    sleep 0.05
done
expect_of 1 "a second run in the same folder" "$atmsae" $long --out shared --force
says err "another atmsae train is at work in this folder"
kill -9 $pid
wait $pid 2>/dev/null
expect_of 0 "... but after a SIGKILL the folder is free" "$atmsae" $small --out shared --force

# ---- damaged checkpoints ----
damaged() { # NAME COMMAND-ON-run/checkpoint.safetensors
    rm -rf run && cp -r kept run
    eval "$2"
    expect_of 0 "$1: --resume" "$atmsae" $small --out run --resume --metrics run.csv
    says err "going on from run/checkpoint.previous.safetensors"
    is "keeps the bad file" -s run/checkpoint.safetensors.broken -o -f run/checkpoint.safetensors.broken
    same "ends in the same SAE" run/sae_weights.safetensors whole/sae_weights.safetensors
    same "the same cfg.json" run/cfg.json whole/cfg.json
    same "the same metrics" run.csv whole.csv
}
# shellcheck disable=SC2034  # in what `eval` runs
middle=$((size / 2))
damaged "a flipped bit" 'printf "\377" | dd of=run/checkpoint.safetensors bs=1 seek=$middle conv=notrunc status=none'
damaged "a flipped bit in the version" 'sed -i "s/libatmsae checkpoint 1/libatmsae checkpoint 3/" run/checkpoint.safetensors'
damaged "a truncated file" 'truncate -s $middle run/checkpoint.safetensors'
damaged "an empty file" 'truncate -s 0 run/checkpoint.safetensors'
damaged "zeros" 'head -c $size /dev/zero >run/checkpoint.safetensors'
# A sector that cannot be read (EIO), where strace may say so.
if strace -o /dev/null true 2>/dev/null; then
    rm -rf run && cp -r kept run
    expect_of 0 "a checkpoint that cannot be read" strace -f -o /dev/null -P "$work/run/checkpoint.safetensors" -e trace=pread64 \
        -e inject=pread64:error=EIO:when=4+ "$atmsae" $small --out run --resume
    is "keeps the bad file" -s run/checkpoint.safetensors.broken
    same "ends in the same SAE" run/sae_weights.safetensors whole/sae_weights.safetensors
else
    skip "a checkpoint that cannot be read" "strace may not trace here"
fi
rm -rf run && cp -r kept run && rm run/checkpoint.safetensors
expect_of 0 "no newest checkpoint, but a previous one" "$atmsae" $small --out run --resume
same "ends in the same SAE" run/sae_weights.safetensors whole/sae_weights.safetensors
rm -rf run && cp -r kept run && truncate -s 99 run/checkpoint.safetensors run/checkpoint.previous.safetensors
expect_of 1 "both damaged" "$atmsae" $small --out run --resume
says err "checkpoint.previous.safetensors"
expect_of 0 "... and --force starts anew" "$atmsae" $small --out run --force
expect_of 0 "... whose checkpoints are its own" "$atmsae" info run/checkpoint.safetensors run/checkpoint.previous.safetensors
rm -rf run && cp -r kept run
expect_of 1 "other settings are no damage" "$atmsae" $small --out run --resume --lr 5
is "the checkpoint stays" -s run/checkpoint.safetensors

finish
