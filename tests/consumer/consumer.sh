#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: consumer.sh SOURCE BUILD
# Installs BUILD into a staging folder, then builds and runs a program against it with what pkg-config and
# CMake's package file say: against the shared library, and against the static one alone.
set -eu
export LC_ALL=C
unset LD_LIBRARY_PATH # which meson sets, and which would come before what a program has in it
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

# CMake, from a tree that is not where it was configured to be: the staging folder, moved, through a link.
version=$(pkg-config --modversion atmsae)
configure() { # FOLDER VERSION; -Datmsae_DIR would leave out the search
    cmake -S "$source/tests/consumer" -B "$1" -DWANTED="$2" -DCMAKE_PREFIX_PATH="$tmp/link" -DCMAKE_C_COMPILER="$cc" >"$tmp/log" 2>&1
}
if command -v cmake >/dev/null; then
    prefix=$(sed -n "s/^prefix=//p" "$pc")
    mkdir "$tmp/moved"
    cp -a "$tmp/stage$prefix/." "$tmp/moved/"
    ln -s moved "$tmp/link"
    configure "$tmp/cmake" "$version" && cmake --build "$tmp/cmake" >>"$tmp/log" 2>&1 || { cat "$tmp/log"; fail "CMake"; }
    ldd "$tmp/cmake/shared" | grep -q "libatmsae.*$tmp/moved" || fail "CMake did not link to the moved shared library"
    if ldd "$tmp/cmake/static" | grep -q libatmsae; then fail "CMake's static program wants libatmsae.so"; fi
    "$tmp/cmake/shared" && "$tmp/cmake/static"
    # Another series of the ABI, or a newer release, is not what was asked for.
    for wanted in 0.0.1 "${version%.*}.999" 99 99...100; do
        ! configure "$tmp/cmake-$wanted" "$wanted" || fail "find_package(atmsae $wanted) takes $version"
    done
    for wanted in "${version%.*}" 0.0.1...99; do
        configure "$tmp/cmake-$wanted" "$wanted" || { cat "$tmp/log"; fail "find_package(atmsae $wanted) does not take $version"; }
    done
else
    echo "left out: CMake (Debian: cmake)"
fi

rm "$libdir"/libatmsae.so*
# shellcheck disable=SC2046
$cc -std=c11 -Wall -Werror $(pkg-config --cflags atmsae) "$source/tests/consumer/consumer.c" -o "$tmp/static" \
    $(pkg-config --static --libs atmsae)
if ldd "$tmp/static" | grep -q libatmsae; then fail "the static program wants libatmsae.so"; fi
"$tmp/static"
