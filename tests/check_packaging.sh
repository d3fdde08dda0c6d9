#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_packaging.sh SOURCE
# What is handed out, made from these sources: the tarball of `meson dist`, which builds outside of git,
# passes a few tests and trains; that tarball as a subproject, linked shared and static; and Debian's
# packages, about which lintian has nothing to say. tests/consumer has pkg-config and CMake.
set -u
export LC_ALL=C
source=$1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
run=0 failed=0 left_out=

pass() { echo "ok $((run += 1)) - $1"; }
fail() { tail -n 40 "$tmp/log"; echo "not ok $((run += 1)) - $1"; failed=1; }
check() { # NAME COMMAND...
    what=$1
    shift
    if "$@" >"$tmp/log" 2>&1; then pass "$what"; else fail "$what"; fi
}

# meson dist takes a commit: one of the files as they are.
commit() {
    mkdir "$tmp/tree" && cd "$source" || return 1
    if git rev-parse --verify -q HEAD; then git ls-files -z -co --exclude-standard
    else find . -type f -not -path './build*' -not -path './out/*' -print0
    fi | tar -c --ignore-failed-read --null -T - | tar -x -C "$tmp/tree" &&
        cd "$tmp/tree" && git init -q . && git add -A &&
        git -c user.name=test -c user.email=test@test.invalid -c commit.gpgsign=false commit -q -m all
}
dist() {
    meson setup -Dtests=false -Dbench=false "$tmp/tree/build" "$tmp/tree" &&
        meson dist -C "$tmp/tree/build" --no-tests --formats gztar &&
        (cd "$tmp/tree/build/meson-dist" && sha256sum -c ./*.sha256sum) &&
        tar -xzf "$tmp/tree/build/meson-dist/"*.tar.gz -C "$tmp" && mv "$tmp"/libatmsae-* "$tmp/dist" && ls -l "$tmp/tree/build/meson-dist"
}
builds() {
    meson setup "$tmp/build" "$tmp/dist" &&
        meson compile -C "$tmp/build" atmsae:executable quickstart_run 01_hello test_core test_format test_trainer &&
        meson test -C "$tmp/build" --no-rebuild --print-errorlogs test_core test_format test_trainer && "$tmp/build/examples/01_hello"
}
trains() {
    "$tmp/build/examples/atmsae" train --input "$tmp/dist/examples/data/activations-valid.npy" --d-sae 256 --k 8 --rows 8192 \
        --batch 1024 --out "$tmp/sae" && "$tmp/build/examples/atmsae" info "$tmp/sae"
}
subproject() { # shared|static
    if [ ! -d "$tmp/parent" ]; then
        mkdir -p "$tmp/parent/subprojects" && cp "$tmp/dist/tests/consumer/consumer.c" "$tmp/dist/tests/consumer/meson.build" "$tmp/parent" &&
            mv "$tmp/dist" "$tmp/parent/subprojects/atmsae" && ln -s parent/subprojects/atmsae "$tmp/dist" &&
            meson setup "$tmp/child" "$tmp/parent" || return 1
    fi
    meson configure "$tmp/child" -Ddefault_library="$1" && meson compile -C "$tmp/child" && "$tmp/child/consumer" &&
        if ldd "$tmp/child/consumer" | grep libatmsae; then [ "$1" = shared ]; else [ "$1" = static ]; fi
}
parent_installs() { # its program and, with it, the library, but none of our programs
    meson install -C "$tmp/child" --destdir "$tmp/stage" && find "$tmp/stage" -name 'libatmsae.so.*' | grep . &&
        find "$tmp/stage" -name consumer | grep . && ! find "$tmp/stage" -name atmsae -type f | grep .
}
debian() { DEB_BUILD_OPTIONS=nocheck "$tmp/dist/doc/packaging/build-deb" "$tmp/deb"; }
debian_runs() { # out of the packages, unpacked
    for package in "$tmp"/deb/*.deb; do dpkg -x "$package" "$tmp/root" || return 1; done
    soname=$(objdump -p "$tmp"/root/usr/lib/*/libatmsae.so | awk '$1 == "SONAME" { print $2 }')
    ls "$tmp/deb/libatmsae${soname#*.so.}_"* && LD_LIBRARY_PATH=$(echo "$tmp"/root/usr/lib/*-*) "$tmp/root/usr/bin/atmsae" --version
}

command -v git >/dev/null || { echo "skipped: git is not installed"; exit 77; }
check "a commit" commit
check "meson dist" dist
[ "$failed" -eq 0 ] || exit 1
check "the tarball builds and passes" builds
check "the tarball trains" trains
check "subproject, shared" subproject shared
check "subproject, installed by its parent" parent_installs
check "subproject, static" subproject static
lacking=
for tool in dpkg-buildpackage:dpkg-dev dh:debhelper lintian:lintian; do
    command -v "${tool%:*}" >/dev/null || lacking="$lacking ${tool#*:}"
done
if [ -n "$lacking" ]; then
    left_out="Debian's packages (apt-get install$lacking)"
else
    check "Debian's packages, and lintian" debian
    check "Debian's packages run" debian_runs
fi
[ -z "$left_out" ] || echo "left out: $left_out"
exit $failed
