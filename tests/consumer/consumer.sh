#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: consumer.sh SOURCE BUILD
# Installs BUILD into a staging folder, then builds and runs a program against it with what
# pkg-config says: against the shared library, and against the static one alone.
set -eu
export LC_ALL=C
source=$1 build=$2
cc=${CC:-cc}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() { echo "consumer.sh: $*"; exit 1; }

meson install -C "$build" --no-rebuild --destdir "$tmp/stage" >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
pc=$(find "$tmp/stage" -name atmsae.pc)
[ -n "$pc" ] || fail "no atmsae.pc was installed"
libdir=$(dirname "$(dirname "$pc")")
for file in libatmsae.so libatmsae.a; do
    [ -e "$libdir/$file" ] || fail "$file was not installed beside pkgconfig/"
done

# The sanitizers' run-time libraries are no part of what pkg-config knows.
if nm -D "$libdir/libatmsae.so" | grep -qE ' U __(a|t|ub)san_'; then
    echo "skipped: a build with sanitizers"
    exit 77
fi

export PKG_CONFIG_PATH="$libdir/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$tmp/stage"
[ "$(pkg-config --modversion atmsae)" = "$(meson introspect "$build" --projectinfo |
    sed -n 's/.*"version": *"\([0-9.]*\)".*/\1/p' | head -n 1)" ] || fail "atmsae.pc has another version than the project"
case $(pkg-config --libs atmsae) in
    *blis*) fail "BLIS is not private: $(pkg-config --libs atmsae)" ;;
esac
case $(pkg-config --static --libs atmsae) in
    *blis*) ;;
    *) fail "a static link would lack BLIS: $(pkg-config --static --libs atmsae)" ;;
esac

# shellcheck disable=SC2046  # flags are words
$cc -std=c11 -Wall -Werror $(pkg-config --cflags atmsae) "$source/tests/consumer/consumer.c" -o "$tmp/shared" \
    $(pkg-config --libs atmsae)
LD_LIBRARY_PATH=$libdir ldd "$tmp/shared" | grep -q "libatmsae.*$libdir" || fail "not linked to the staged shared library"
LD_LIBRARY_PATH=$libdir "$tmp/shared"

rm "$libdir"/libatmsae.so*
# shellcheck disable=SC2046
$cc -std=c11 -Wall -Werror $(pkg-config --cflags atmsae) "$source/tests/consumer/consumer.c" -o "$tmp/static" \
    $(pkg-config --static --libs atmsae)
if ldd "$tmp/static" | grep -q libatmsae; then fail "the static program wants libatmsae.so"; fi
"$tmp/static"
