#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: kill_each_call.sh PATH/TO/save_once
# Kills a process with SIGKILL at every system call on the files that it saves, for each kind of call
# and each of its numbers, and looks at what is there afterwards. TAP on stdout; needs strace.
set -u
save_once=$1
command -v strace >/dev/null || { echo "skipped: strace is not installed"; exit 77; }
strace -o /dev/null true 2>/dev/null || { echo "skipped: strace may not trace here"; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
live=$work/x/live
"$save_once" prepare "$work/x" || { echo "not ok 1 - prepare"; exit 1; }

tests=0 failures=0 kills=0
for call in openat flock fallocate write fsync renameat unlinkat close newfstatat mkdir readlink; do
    number=1 ended=
    while [ -z "$ended" ]; do
        "$save_once" prepare "$work/x" >"$work/out" || break
        : >"$live/.checkpoint.tmp" # of writers that died: they get removed
        : >"$live/sae/.cfg.json.tmp"
        # What a signal cannot catch the process at is no call on these paths.
        strace -f -o /dev/null -P "$live" -P "$live/checkpoint" -P "$live/.checkpoint.tmp" -P "$live/sae" \
            -P "$live/sae/cfg.json" -P "$live/sae/.cfg.json.tmp" -P "$live/sae/sae_weights.safetensors" \
            -P "$live/sae/.sae_weights.safetensors.tmp" -P "$live/sae/sae_weights.staged.safetensors" -e trace="$call" \
            -e inject="$call:signal=KILL:when=$number" "$save_once" save "$work/x" >"$work/out" 2>&1
        case $? in
            0) ended=yes ;;
            137) kills=$((kills + 1)) ;;
            *) echo "# strace: exit code $?"; failures=$((failures + 1)); ended=yes ;;
        esac
        if ! "$save_once" check "$work/x" >>"$work/found" 2>&1; then
            echo "# $call, number $number: $(tail -n 1 "$work/found")"
            failures=$((failures + 1))
        fi
        number=$((number + 1))
    done
    tests=$((tests + 1))
    [ "$failures" -eq 0 ] && echo "ok $tests - $call: killed at $((number - 2)) calls" ||
        echo "not ok $tests - $call"
done
sort "$work/found" | uniq -c | sed 's/^/# /'
[ "$kills" -ge 60 ] || { echo "# only $kills kills"; failures=$((failures + 1)); }
echo "1..$tests"
[ "$failures" -eq 0 ]
