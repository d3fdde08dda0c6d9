#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_growth.sh SOURCE BUILD
# Is there room to grow? Appends a field to every public struct and a setting to the checkpoint, builds that
# library of the future, and runs today's programs and files on it, and its programs and files on today's.
set -u
unset LD_LIBRARY_PATH # meson's is of today's library; every program here has a path to its own
source=$1 build=$2
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
fail() { echo "$*"; exit 1; }

# Every struct that leads with its size is in the table of first sizes.
awk '/^typedef struct atmsae_[a-z_]+ \{/ { name = $3; getline; if ($0 ~ /size_t size;/) print name }' \
    "$source"/include/atmsae/*.h | sort >"$tmp/in-headers"
sed -n 's/^    S(\(atmsae_[a-z_]*\),.*/\1/p' "$source/lib/base/abi.h" | sort >"$tmp/in-table"
diff "$tmp/in-headers" "$tmp/in-table" || fail "structs of the headers (<) and of lib/base/abi.h (>)"

# ---- the library of the future ----
mkdir "$tmp/grown" && cd "$source" && cp -r meson.build meson_options.txt include lib examples tests "$tmp/grown" || exit 1
for header in atmsae eval; do
    awk '/^typedef struct atmsae_[a-z_]+ \{/ { name = $3; first = NR + 1; sized = 0 }
         NR == first { sized = $0 ~ /size_t size;/ }
         sized && $0 == "} " name ";" { print "    uint64_t grown;" }
         { print }' "$source/include/atmsae/$header.h" >"$tmp/grown/include/atmsae/$header.h"
done
sed -i -e 's/^    double sparsity_warmup.*;$/&\n    double grown;/' \
    -e 's/^        FIRST("trainer.sparsity_warmup".*/&\n        LATER("trainer.grown", F64, grown, "7"),/' \
    -e 's/^        \.sparsity_warmup = t->sparsity_warmup,$/&\n        .grown = getenv("GROWN") ? 8 : 7,/' "$tmp"/grown/lib/train/checkpoint*.[ch]
[ "$(cat "$tmp"/grown/lib/train/checkpoint*.[ch] | grep -c grown)" = 3 ] || fail "the checkpoint did not take the new setting"
[ "$(cat "$tmp"/grown/include/atmsae/*.h | grep -c ' grown;')" = "$(wc -l <"$tmp/in-headers")" ] || fail "a struct did not grow"
programs="examples/atmsae examples/01_hello examples/02_own_loop examples/03_mask_only tests/test_process"
# shellcheck disable=SC2086  # programs are words
{ meson setup -Dtests=true -Dbench=false "$tmp/grown-build" "$tmp/grown" &&
    ninja -C "$tmp/grown-build" $programs tests/test_structs tests/test_abi_layout tests/test_golden; } >"$tmp/log" 2>&1 ||
    { tail -30 "$tmp/log"; fail "the grown library does not build"; }

# Its own tests of structs, and today's files in its reader, which knows one setting more.
(cd "$tmp" && ATMSAE_TESTS=$tmp/grown/tests && export ATMSAE_TESTS && grown-build/tests/test_structs &&
    grown-build/tests/test_abi_layout && grown-build/tests/test_golden) || fail "tests of the grown library"

# ---- each other's programs ----
soname=$(objdump -p "$build/lib/libatmsae.so" | awk '$1 == "SONAME" { print $2 }')
place() { # FOLDER BUILD-OF-PROGRAMS BUILD-OF-LIBRARY
    mkdir -p "$tmp/$1/examples" "$tmp/$1/tests" "$tmp/$1/lib"
    for program in $programs; do cp "$2/$program" "$tmp/$1/$program" || exit 1; done
    cp -L "$3/lib/$soname" "$tmp/$1/lib/" || exit 1
}
place old-program "$build" "$tmp/grown-build"
place new-program "$tmp/grown-build" "$build"
for kind in old-program new-program; do
    cd "$tmp/$kind" || exit 1
    ldd examples/atmsae | grep -q "$tmp/$kind/.*$soname" || fail "$kind does not take the library beside it"
    CK_VERBOSITY=minimal tests/test_process >log 2>&1 || { cat log; fail "test_process as $kind"; }
    for example in 01_hello 02_own_loop 03_mask_only; do
        "examples/$example" >log 2>&1 || { cat log; fail "$example as $kind"; }
    done
    examples/atmsae synth --out rows.npy --rows 4000 --quiet >log 2>&1 &&
        examples/atmsae train rows.npy --out sae --d-sae 64 --batch 100 --rows 4000 --checkpoint-every 1000 --quiet >>log 2>&1 &&
        examples/atmsae eval --sae sae --input rows.npy >>log 2>&1 ||
        { cat log; fail "the command as $kind"; }
done

# ---- each other's checkpoints ----
cd "$tmp" || exit 1
old=old-program/sae/checkpoint.safetensors new=new-program/sae/checkpoint.safetensors
cmp "$old" "$new" || fail "a setting at the value that stood for it changes the file"
"$build/examples/atmsae" resume new-program/sae --rows 5000 --quiet >log 2>&1 || { cat log; fail "today's library does not go on with a file of the grown one"; }
GROWN=1 old-program/examples/atmsae resume old-program/sae --rows 5000 --quiet >log 2>&1 || { cat log; fail "resume as old-program"; }
"$build/examples/atmsae" resume old-program/sae --rows 6000 --quiet >log 2>&1 && fail "a setting that is not known was taken"
grep -q 'trainer.grown = 8 is not known' log || { cat log; fail "the refusal does not name the setting"; }
