#!/bin/sh
# Makes the virtual environment DIR, or mends one that does not work. A sound one is left as it is.
#
#   scripts/venv.sh DIR            make or mend; exit 0: DIR is sound, 1: it went wrong, 2: something is missing, told on stderr
#   scripts/venv.sh --check DIR    exit 0 if DIR is sound, 1 if not; changes nothing
#
# PYTHON in the environment names the interpreter to use; without it the first python3 that is new enough is taken.
# Sound means: finished (DIR/.home is written last), still where it was made (environments hold absolute paths),
# its Python starts, is new enough and has pip, and it is of the PYTHON asked for.
#
# Debian and Ubuntu keep half of the venv module in a package of its own, python3-venv, and without it leave a half-made
# directory behind. As root this script installs that package; otherwise it prints the command.
set -euf

unset PYTHONHOME PYTHONPATH PYTHONSTARTUP VIRTUAL_ENV __PYVENV_LAUNCHER__

newest_first='python3.14 python3.13 python3.12 python3.11'
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

say() {
    printf '%s\n' "$@" >&2
}

# is_new_enough PYTHON
is_new_enough() {
    "$1" -c "$new_enough" >/dev/null 2>&1
}

# has_ensurepip PYTHON
has_ensurepip() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# identity PYTHON: the interpreter behind it, the same inside an environment and outside
identity() {
    "$1" -c 'import sys; print(sys.base_prefix, *sys.version_info[:3])' 2>/dev/null
}

is_sound() {
    [ -f "$dir/.home" ] && [ "$(cat "$dir/.home")" = "$dir" ] || return 1
    is_new_enough "$dir/bin/python" || return 1
    "$dir/bin/python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("pip") is None)' || return 1
    [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity "$dir/bin/python")" ]
}

# without_bin PATH: PATH without DIR/bin, so that an environment that is active is not made from itself
without_bin() (
    IFS=:
    kept=
    for entry in $1; do
        [ "$entry" = "$dir/bin" ] || kept=$kept${kept:+:}$entry
    done
    printf '%s\n' "$kept"
)

# Sets python to the interpreter to use, and whole to "yes" if it can make environments, else to "no".
choose_python() {
    python=
    whole=no
    for candidate in ${PYTHON:-python3 $newest_first}; do
        if is_new_enough "$candidate"; then
            if has_ensurepip "$candidate"; then
                python=$candidate
                whole=yes
                return
            fi
            python=${python:-$candidate}
        fi
    done
}

# The Debian package with the missing half of venv for $python.
venv_package() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ -x /usr/bin/python3 ] && [ "$(identity /usr/bin/python3)" = "$(identity "$python")" ]; then
        echo python3-venv
    else
        echo "python$version-venv"
    fi
}

require_python() {
    choose_python
    if [ -z "$python" ]; then
        if [ -n "${PYTHON:-}" ]; then
            say "haulcast needs Python 3.11 or newer, and PYTHON=$PYTHON is not."
        else
            say 'haulcast needs Python 3.11 or newer, and none is on the PATH.' \
                'Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv),' \
                'or name it: make PYTHON=/path/to/python3.12'
        fi
        exit 2
    fi
    [ "$whole" = no ] || return 0

    if ! command -v apt-get >/dev/null 2>&1; then
        say "$python comes without the modules venv and ensurepip. Install them, or name another: make PYTHON=..."
        exit 2
    fi
    package=$(venv_package)
    if [ "$(id -u)" -ne 0 ]; then
        say "$python cannot make virtual environments yet. Run this once, then the same make again:" '' \
            "    sudo apt-get update && sudo apt-get install -y $package" ''
        exit 2
    fi
    say "$python cannot make virtual environments yet; installing $package"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say 'apt-get update failed; trying with the package lists that are here'
    apt-get install -y -qq "$package" >/dev/null || {
        say "apt-get could not install $package"
        exit 2
    }
    choose_python
    [ "$whole" = yes ] || {
        say "$python still cannot make virtual environments, though $package is installed."
        exit 2
    }
}

check=no
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
[ $# -eq 1 ] || {
    say "usage: $0 [--check] DIR"
    exit 2
}
case $1 in
    /*) dir=$1 ;;
    *) dir=$(pwd -P)/$1 ;;
esac

if is_sound; then
    exit 0
fi
[ "$check" = no ] || exit 1

PATH=$(without_bin "$PATH")
require_python
rm -rf "$dir" 2>/dev/null || {
    say "$dir is unusable and cannot be removed by $(id -un); remove it as its owner."
    exit 2
}
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
"$python" -m venv "$dir"
printf '%s\n' "$dir" >"$dir/.home"
is_sound || {
    say "$python made an environment in $dir that does not work."
    exit 1
}
trap - EXIT
