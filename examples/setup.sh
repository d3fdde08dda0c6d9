# Shared setup, to be sourced by POSIX sh scripts:
#
#     root=/path/to/the/checkout
#     . "$root/examples/setup.sh"
#     atmsae_setup [true|false]      with or without the tests; default false
#
# Makes sure of the packages, configures $root/build and compiles it. Uses the network only if a
# package is missing. Ends the script with a message if something cannot be had.

atmsae_fail() {
    echo "setup: $*" >&2
    exit 1
}

# Version of meson at least 1.0?
atmsae_has_meson() {
    atmsae_version=$(meson --version 2>/dev/null) || return 1
    [ "${atmsae_version%%.*}" -ge 1 ] 2>/dev/null
}

atmsae_has_blis() {
    pkg-config --exists blis 2>/dev/null && return
    printf '#include <blis.h>\n' | ${CC:-cc} -E - >/dev/null 2>&1
}

# Debian's names of what is missing.
atmsae_missing() {
    command -v "${CC:-cc}" >/dev/null || echo gcc libc6-dev
    atmsae_has_meson || echo meson
    command -v ninja >/dev/null || echo ninja-build
    command -v pkg-config >/dev/null || echo pkg-config
    atmsae_has_blis || echo libblis-dev
    [ "$1" = false ] || pkg-config --exists check 2>/dev/null || echo check
}

atmsae_install() {
    if [ "$(id -u)" = 0 ]; then sudo=
    elif sudo -n true 2>/dev/null; then sudo="sudo -n"
    else atmsae_fail "missing packages; please run, as root: apt-get install $*"
    fi
    command -v apt-get >/dev/null || atmsae_fail "no apt-get here; please install: $*"
    echo "setup: installing $*"
    # shellcheck disable=SC2086 # $sudo is empty or two words
    $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" ||
        atmsae_fail "apt-get could not install: $*"
}

atmsae_setup() {
    tests=${1:-false}
    missing=$(atmsae_missing "$tests" | tr '\n' ' ')
    # shellcheck disable=SC2086 # one word a package
    [ -z "$missing" ] || atmsae_install $missing
    missing=$(atmsae_missing "$tests" | tr '\n' ' ')
    [ -z "$missing" ] || atmsae_fail "still missing: $missing"
    if [ -f "$root/build/build.ninja" ]; then
        # An existing folder keeps its other settings; tests are turned on if asked for, never off.
        [ "$tests" = false ] || meson configure "$root/build" -Dtests=true || atmsae_fail "meson configure failed"
    else
        meson setup "$root/build" "$root" -Dtests="$tests" -Dbench="$tests" || atmsae_fail "meson setup failed"
    fi
    ninja -C "$root/build" || atmsae_fail "the build failed"
}
