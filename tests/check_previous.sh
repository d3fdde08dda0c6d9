#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_previous.sh SOURCE BUILD
# Programs of the last release against this library: builds the newest tagged version of this soname
# in a temporary folder, and runs its command, its examples and test_process with the new shared library in
# place of its own.
set -u
source=$1 build=$2
skip() { echo "skipped: $*"; exit 77; }
soname=$(objdump -p "$build/lib/libatmsae.so" | awk '$1 == "SONAME" { print $2 }')
git -C "$source" rev-parse --git-dir >/dev/null 2>&1 || skip "not a git checkout"
version=${soname##*.so.}
tag=$(git -C "$source" tag --list "v$version.*" --sort=-version:refname --merged HEAD | sed -n 1p)
[ -n "$tag" ] || skip "no release of $soname yet (no tag v$version.*)"
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/old" && git -C "$source" archive "$tag" | tar -x -C "$tmp/old" || exit 1
if ! { meson setup -Dtests=true -Dbench=false "$tmp/build" "$tmp/old" && meson compile -C "$tmp/build"; } >"$tmp/log" 2>&1; then
    cat "$tmp/log"
    exit 1
fi
cp -L "$build/lib/libatmsae.so" "$(readlink -f "$tmp/build/lib/libatmsae.so")" || exit 1
# Most unit tests of that time link their own static library; these, and the examples, use the shared one.
meson test -C "$tmp/build" --no-rebuild --print-errorlogs test_process command 'command more' report features &&
    "$tmp/build/examples/01_hello" >/dev/null &&
    (cd "$tmp" && build/examples/02_own_loop >/dev/null && build/examples/03_mask_only >/dev/null) &&
    echo "$tag runs with this library"
