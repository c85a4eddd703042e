#!/bin/sh
# Run a command that opens windows: as it is where there is a screen, under Xvfb where there is none.
set -eu
if [ "$(uname -s)" = Linux ] && [ -z "${DISPLAY-}${WAYLAND_DISPLAY-}" ]; then
    if ! command -v xvfb-run >/dev/null; then
        echo "There is no screen, and xvfb-run is not installed (Debian, Ubuntu: xvfb)." >&2
        exit 1
    fi
    export NAPARI_MRCZ_NO_SCREEN=1 # nobody looks: the demo saves a picture and ends
    exec xvfb-run -a -s "-screen 0 1600x1200x24 +extension GLX" "$@"
fi
exec "$@"
