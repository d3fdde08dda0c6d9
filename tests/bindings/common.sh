# SPDX-License-Identifier: MIT
#
# Sourced by the tests of bindings: SOURCE BUILD [REFERENCE] are their arguments. `try NAME COMMAND...`
# is one check; `finish` ends the script.
set -u
export LC_ALL=C
source=$1 build=$2
skip() { echo "skipped: $*"; exit 77; }
if nm -D "$build/lib/libatmsae.so" | grep -qE ' U __(a|t|ub)san_'; then
    skip "a build with sanitizers"
fi
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
# The library in the build folder, not an installed one.
export LD_LIBRARY_PATH="$build/lib" PKG_CONFIG_PATH="$build/meson-uninstalled"
tried=0 failed=0
try() {
    name=$1
    shift
    tried=$((tried + 1))
    if "$@" >log 2>&1; then
        echo "ok $tried - $name"
    else
        echo "not ok $tried - $name"
        cat log
        failed=1
    fi
}
finish() { exit $failed; }
short() { [ "$(grep -c . "$1")" -lt 20 ]; } # a hello-world of fewer than 20 lines
