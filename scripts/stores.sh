#!/bin/sh
# Makes sure that the servers of PostgreSQL (14 or newer) and Redis are installed, which the tests of the cluster and its
# demo start for themselves. Does nothing if they are.
#
#   scripts/stores.sh    exit 0: they are there, 1: installing them went wrong, 2: something is missing, told on stderr
#
# As root on Debian and Ubuntu it installs what is missing; otherwise it prints the command. Debian's packages start a
# server each, now and at every boot: that is kept from happening, as nobody has asked for system-wide servers here.
set -euf

oldest_postgres=14
policy=/usr/sbin/policy-rc.d

say() {
    printf '%s\n' "$@" >&2
}

# is_postgres DIR: whether DIR has a server that is new enough, and what makes its databases
is_postgres() {
    [ -x "$1/initdb" ] || return 1
    version=$("$1/postgres" --version 2>/dev/null | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    [ "${version:-0}" -ge "$oldest_postgres" ]
}

has_postgres() {
    if in_path=$(command -v postgres) && is_postgres "$(dirname "$(readlink -f "$in_path")")"; then
        return 0
    fi
    set +f
    for directory in "${DEBIAN_POSTGRES:-/usr/lib/postgresql}"/*/bin; do
        if is_postgres "$directory"; then
            set -f
            return 0
        fi
    done
    set -f
    return 1
}

has_redis() {
    command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1
}

# Sets packages to what is missing.
look() {
    packages=
    has_postgres || packages=postgresql
    has_redis || packages="${packages:+$packages }redis-server"
}

look
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    say "The tests of the cluster and its demo need servers of PostgreSQL ($oldest_postgres or newer) and Redis, and do" \
        "not find: $packages. Install them, with postgres, initdb and redis-server in PATH."
    exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
    say "The tests of the cluster and its demo need: $packages. Run this once, then the same make again:" '' \
        "    sudo $0" ''
    exit 2
fi

say "installing $packages"
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" # invoke-rc.d: starting services is forbidden
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || say 'apt-get update failed; trying with the package lists that are here'
# shellcheck disable=SC2086  # packages are words
apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 $packages >/dev/null || {
    say "apt-get could not install $packages"
    exit 1
}
if command -v systemctl >/dev/null 2>&1; then
    for package in $packages; do
        systemctl --quiet --now disable "$package" >/dev/null 2>&1 || true
    done
fi
installed=$packages
look
[ -z "$packages" ] || {
    say "$installed is installed, and still not found or too old: $packages"
    exit 1
}
