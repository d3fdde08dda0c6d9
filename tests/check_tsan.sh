#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_tsan.sh SOURCE
# Builds the library in a temporary folder for the thread sanitizer, and runs the tests in which
# threads meet: they must pass without a single report. ATMSAE_SCALE makes them longer.
set -u
source=$1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# Is the runtime there, and can it run? Some kernels randomise addresses more than it can stand.
cc=${CC:-gcc}
echo 'int main(void) { return 0; }' >"$tmp/probe.c"
if ! $cc -fsanitize=thread "$tmp/probe.c" -o "$tmp/probe" 2>/dev/null; then
    echo "skipped: $cc has no thread sanitizer here"
    exit 77
fi
run=
if ! "$tmp/probe" 2>/dev/null; then
    run="setarch $(uname -m) -R"
    if ! $run "$tmp/probe" 2>/dev/null; then
        echo "skipped: the thread sanitizer does not run on this kernel"
        exit 77
    fi
fi

tests='test_threads test_pieces test_trainer test_model'
# shellcheck disable=SC2086  # words are names
targets=$(printf 'tests/%s ' $tests)
# shellcheck disable=SC2086  # words are targets
if ! {
    CC=$cc meson setup -Db_sanitize=thread -Db_lundef=false -Dtests=true "$tmp/build" "$source" &&
        meson compile -C "$tmp/build" $targets
} >"$tmp/log" 2>&1; then
    cat "$tmp/log"
    exit 1
fi

# One process for all: a process a test, Check's way, would end before the sanitizer has its say.
export CK_FORK=no TSAN_OPTIONS="exitcode=66 log_path=$tmp/report ${TSAN_OPTIONS:-}"
good=0 bad=0
for test in $tests; do
    if (cd "$tmp" && $run "$tmp/build/tests/$test") >"$tmp/out" 2>&1; then good=$((good + 1)); else bad=$((bad + 1)); fi
    tail -n 5 "$tmp/out"
done
for report in "$tmp"/report*; do
    [ -f "$report" ] || continue
    bad=$((bad + 1))
    cat "$report"
done
echo "$good passed, $bad failed"
[ "$bad" -eq 0 ]
