#!/bin/sh
# Makes sure that there is promtool, which checks and tests the rules in deploy/prometheus. Does nothing if there is.
#
#   scripts/promtool.sh DIR    exit 0: it is in PATH or in DIR, 1: getting it went wrong, 2: it is missing, told on stderr
#
# On Debian and Ubuntu it is taken out of the package prometheus and put into DIR. The package itself is not installed, as
# that would bring a server that starts at every boot.
set -euf

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 1
fi
if [ -x "$1/promtool" ] || command -v promtool >/dev/null 2>&1; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo 'promtool is missing, so the tests of the rules in deploy/prometheus are skipped: install Prometheus.' >&2
    exit 2
fi

echo "getting promtool into $1" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
target=$(cd "$1" && pwd)
cd "$work"
chmod 755 . # apt-get, as root, downloads as a user of its own
if [ "$(id -u)" -eq 0 ]; then
    chown _apt . 2>/dev/null || true
    apt-get update -qq || echo 'apt-get update failed; trying with the package lists that are here' >&2
fi
if ! apt-get download -qq prometheus >/dev/null; then
    echo 'apt-get could not download the package prometheus; the tests of the rules are skipped' >&2
    exit 1
fi
set +f
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
cp usr/bin/promtool "$target/promtool"
