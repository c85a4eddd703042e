#!/bin/sh
# system_packages.sh [PACKAGE ...]: see that Debian packages are there, by default those that a Qt
# window with OpenGL needs. Installs the missing ones where it may; else names them and goes on.
set -eu
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || exit 0 # another system

if [ $# = 0 ]; then
    set -- libdbus-1-3 libegl1 libfontconfig1 libgl1 libgl1-mesa-dri libglib2.0-0 libxcb-cursor0 \
        libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 \
        libxcb-shape0 libxcb-xkb1 libxkbcommon-x11-0
    if [ -z "${DISPLAY-}${WAYLAND_DISPLAY-}" ]; then # what with_display.sh makes a screen from
        set -- "$@" fonts-dejavu-core xauth xvfb
    fi
fi

# Provides counts: libglib2.0-0 is called libglib2.0-0t64 in newer releases.
present=$(dpkg-query --show --showformat '${db:Status-Status},${Package},${Provides}\n' |
    sed -n 's/ ([^)]*)//g; s/^installed,//p' | tr -d ' ' | tr ',' '\n')
missing=
for package in "$@"; do
    echo "$present" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    may="env"
elif sudo -n true 2>/dev/null; then
    may="sudo -n env"
else
    may=
fi
apt_get() { $may DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null >/dev/null; }
install_missing() {
    [ -n "$may" ] || return 1
    echo "Installing system packages:$missing"
    apt_get update || true # a stale repository need not matter
    apt_get install --yes --no-install-recommends $missing
}
install_missing ||
    echo "Please install, if what follows fails: apt-get install --no-install-recommends$missing" >&2
