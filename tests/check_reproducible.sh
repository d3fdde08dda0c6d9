#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check_reproducible.sh SOURCE
# The same sources in two folders, built at different times: the same bytes of the shared library,
# the static one and the command, with debugging information; and, from git, the same tarball.
set -u
source=$1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
status=0

# The second is a copy of the first: the sources may change meanwhile.
mkdir -p "$tmp/one/src" "$tmp/two/far longer/place" && cd "$source" &&
    cp -r meson.build meson_options.txt include lib examples "$tmp/one/src" && cp -r "$tmp/one/src" "$tmp/two/far longer/place" || exit 1
for place in one "two/far longer/place"; do
    cd "$tmp/$place" || exit 1
    if ! { meson setup --buildtype=debugoptimized -Dtests=false -Dbench=false build src && meson compile -C build; } >log 2>&1; then
        cat log
        exit 1
    fi
    (cd build && sha256sum lib/libatmsae.so lib/libatmsae.a examples/atmsae) >"$tmp/sums-${#place}"
done
if ! diff "$tmp"/sums-*; then
    echo "the same sources gave different bytes"
    status=1
fi
if strings -a "$tmp/one/build/lib/libatmsae.a" | grep -F "$tmp"; then
    echo "the build folder's path is in the library"
    status=1
fi

if git -C "$source" rev-parse --verify -q HEAD >/dev/null 2>&1; then
    tarball() { git -C "$source" archive --prefix=libatmsae/ HEAD | gzip -n9 | sha256sum; }
    first=$(tarball)
    sleep 1
    [ "$first" = "$(tarball)" ] || { echo "two tarballs of one commit differ"; status=1; }
fi
exit $status
