#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_valgrind.sh BUILD [PROGRAM...]
# Test programs under valgrind's memcheck, without forks, two at a time, each for at most 20 s x
# ATMSAE_SCALE of a processor's time: no error, and, of those that end, no block lost definitely,
# indirectly or possibly, but for what valgrind.supp says of BLIS. valgrind has no AVX-512, so the
# library and BLIS run their AVX2 code there. Without a fair scheduler test_threads does not end.
set -u
build=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
shift
# Not test_process, whose floating-point environments and stacks valgrind does not have; and not what
# repeats one thing for very long: test_alloc, test_io_faults, test_resume_matrix, test_numbers.
[ $# -gt 0 ] || set -- test_sae_folder test_formats test_format test_precision test_panels test_kernels test_base test_locale \
    test_source test_input test_model test_gradients test_atm test_trainer test_reference test_synth test_eval test_measures \
    test_core test_dense test_trees test_controls test_structs test_threads test_golden
command -v valgrind >/dev/null || { echo "skipped: no valgrind"; exit 77; }
# Two tools that both replace malloc.
nm "$build/lib/libatmsae.a" 2>/dev/null | grep -q ' U __[at]san_' && { echo "skipped: a build with sanitizers"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
export CK_FORK=no CK_DEFAULT_TIMEOUT=0 BLIS_NUM_THREADS=1 ATMSAE_TESTS="$here" LOCPATH="$build/tests"
seconds=$((20 * ${ATMSAE_SCALE:-1})) cut=
# shellcheck disable=SC2016  # the inner shell expands
printf '%s\n' "$@" | xargs -P 2 -I NAME sh -c '
    ulimit -t "$3"
    valgrind -q --fair-sched=try --error-exitcode=99 --exit-on-first-error=yes --leak-check=full --show-leak-kinds=definite,indirect,possible \
        --errors-for-leak-kinds=definite,indirect,possible --num-callers=20 --suppressions="$0/valgrind.supp" \
        "$1/tests/$2" >"$4/$2" 2>&1
    echo $? >"$4/$2.status"' "$here" "$build" NAME "$seconds" "$tmp"
good=0 bad=0
for program; do
    status=$(cat "$tmp/$program.status")
    case $status in
        0) good=$((good + 1)) ;;
        137) good=$((good + 1)) cut="$cut $program" ;;
        *)
            bad=$((bad + 1))
            echo "$program: status $status"
            tail -n 60 "$tmp/$program" ;;
    esac
done
[ -z "$cut" ] || echo "no error in their first $seconds s:$cut"
echo "$good passed, $bad failed"
[ "$bad" -eq 0 ]
