#!/bin/sh
# Makes sure that there is a Chromium, in which the tests of the console open its pages. Does nothing if there is.
#
#   scripts/browser.sh    exit 0: it is there, 1: installing it went wrong, 2: it is missing, told on stderr
#
# As root on Debian it installs the package chromium, with a font for the pages; otherwise it prints the command. Ubuntu
# has Chromium as a snap only: what its packages put into PATH does not start, and counts for nothing here.
set -euf

packages='chromium fonts-dejavu-core'

say() {
    printf '%s\n' "$@" >&2
}

has_browser() {
    for browser in chromium chromium-browser google-chrome; do
        if "$browser" --version >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

if has_browser; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    say 'The tests in a browser are skipped, as there is none of chromium, chromium-browser and google-chrome in PATH.'
    exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
    say 'The tests in a browser are skipped, as there is no Chromium. Run this once, then the same make again:' '' \
        "    sudo $0" ''
    exit 2
fi

say "installing $packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || say 'apt-get update failed; trying with the package lists that are here'
# shellcheck disable=SC2086  # packages are words
apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 $packages >/dev/null || {
    say "apt-get could not install $packages; the tests in a browser are skipped"
    exit 1
}
has_browser || {
    say 'chromium is installed, and does not start; the tests in a browser are skipped'
    exit 1
}
