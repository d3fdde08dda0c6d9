#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_float.sh SOURCE
# Builds the library in a temporary folder so that it stops where a floating-point number is divided by
# zero or converted to an integer that cannot hold it, and runs the tests that compute.
set -u
source=$1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cc=${CC:-gcc}
flags='-fsanitize=float-divide-by-zero,float-cast-overflow -fno-sanitize-recover=all'
echo 'int main(void) { return 0; }' >"$tmp/probe.c"
# shellcheck disable=SC2086  # words are flags
$cc $flags "$tmp/probe.c" -o "$tmp/probe" 2>/dev/null || { echo "skipped: $cc has no such sanitizer here"; exit 77; }

tests='test_elementary test_kernels test_panels test_precision test_model test_gradients test_atm test_trainer test_reference test_synth
    test_eval test_measures test_source test_input test_numbers'
# shellcheck disable=SC2086  # words are names
targets=$(printf 'tests/%s ' $tests)
# shellcheck disable=SC2086  # words are targets
if ! {
    CC=$cc meson setup -Dc_args="$flags" -Dc_link_args="$flags" -Db_lundef=false -Dtests=true -Dbench=false "$tmp/build" "$source" &&
        meson compile -C "$tmp/build" $targets
} >"$tmp/log" 2>&1; then
    cat "$tmp/log"
    exit 1
fi
good=0 bad=0
for test in $tests; do
    if CK_DEFAULT_TIMEOUT=240 ATMSAE_TESTS=$source/tests "$tmp/build/tests/$test" >"$tmp/out" 2>&1; then
        good=$((good + 1))
    else
        bad=$((bad + 1))
        echo "$test:"
        grep -E 'runtime error|:[EF]:' "$tmp/out" | head -n 20
    fi
done
echo "$good passed, $bad failed"
[ "$bad" -eq 0 ]
