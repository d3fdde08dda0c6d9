# SPDX-License-Identifier: MIT
#
# Sourced by the walk-throughs: SOURCE BUILD are their arguments. Each does what a document tells a new user to do,
# with the blocks of the document itself, in a folder that stands for a checkout. `try NAME COMMAND...` is one
# check, `finish` prints the time and "N passed, N failed".
set -u
export LC_ALL=C
source=$1 build=$2
guide=$source/doc/getting-started.md
skip() { echo "skipped: $*"; exit 77; }
if nm -D "$build/lib/libatmsae.so" | grep -qE ' U __(a|t|ub)san_'; then
    skip "a build with sanitizers"
fi
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
export HOME="$tmp"
mkdir "$tmp/checkout" && cd "$tmp/checkout" && ln -s "$source"/* . && rm -rf build out sae || exit 1
passed=0 failed=0 start=$(date +%s)

try() {
    name=$1 since=$(date +%s)
    shift
    if "$@" >"$tmp/log" 2>&1; then
        passed=$((passed + 1))
        echo "passed, $(($(date +%s) - since)) s: $name"
    else
        failed=$((failed + 1))
        echo "FAILED: $name"
        tail -n 30 "$tmp/log"
    fi
}
finish() {
    echo "took $(($(date +%s) - start)) s"
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

# The N-th fenced block of a language in a section of a document.
block() { # DOCUMENT HEADING LANGUAGE N
    awk -v heading="## $2" -v fence="\`\`\`$3" -v n="$4" '
        /^```$/ { on = 0 }
        on
        /^## / { inside = $0 == heading }
        inside && $0 == fence && ++seen == n { on = 1 }' "$1"
}
run_block() { block "$@" >"$tmp/block.sh" && [ -s "$tmp/block.sh" ] && sh -ex "$tmp/block.sh"; }

# What the guide's first block leaves: here the build folder's files, installed where it puts them.
use_installed() {
    meson install -C "$build" --no-rebuild --destdir "$tmp/stage" >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
    pc=$(find "$tmp/stage" -name atmsae.pc)
    lib=$(dirname "$(dirname "$pc")")
    PATH=$(dirname "$(find "$tmp/stage" -name atmsae -path '*/bin/*')"):$PATH
    export PATH LD_LIBRARY_PATH="$lib" PKG_CONFIG_PATH="$lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$tmp/stage"
}
# 0 if the first number after NAME in FILE lies between LOW and HIGH; prints it.
between() { # FILE NAME LOW HIGH
    awk -v name="$2" -v low="$3" -v high="$4" '$1 == name { print name, $2; good = $2 >= low && $2 <= high; exit }
        END { exit !good }' "$1"
}
