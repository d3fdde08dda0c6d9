#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_valgrind.sh BUILD [PROGRAM...]
# Unit tests under valgrind's memcheck, without forks: no error, and no block lost definitely,
# indirectly or possibly. valgrind has no AVX-512, so the library and BLIS run their AVX2 code there.
set -u
build=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
shift
[ $# -gt 0 ] || set -- test_base test_locale test_format test_sae_folder test_source test_atm test_synth test_trainer
command -v valgrind >/dev/null || { echo "skipped: no valgrind"; exit 77; }
# Two tools that both replace malloc.
nm "$build/lib/libatmsae.a" 2>/dev/null | grep -q ' U __[at]san_' && { echo "skipped: a build with sanitizers"; exit 77; }
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
failed=0
for program; do
    [ -x "$build/tests/$program" ] || { echo "no $program in $build/tests"; failed=1; continue; }
    CK_FORK=no CK_DEFAULT_TIMEOUT=0 BLIS_NUM_THREADS=1 ATMSAE_TESTS=$here LOCPATH=$build/tests \
        valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect,possible \
        --errors-for-leak-kinds=definite,indirect,possible --num-callers=20 \
        --suppressions="$here/valgrind.supp" "$build/tests/$program" >"$log" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        echo "ok 1 - $program"
    else
        echo "not ok 1 - $program ($status)"
        tail -n 60 "$log"
        failed=1
    fi
done
exit $failed
