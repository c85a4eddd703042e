#!/bin/sh
# make_venv.sh DIRECTORY: a fresh virtual environment of the newest Python >= 3.11, or of $PYTHON.
set -eu
new_enough() { "$1" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; }

for python in ${PYTHON-python3.14 python3.13 python3.12 python3.11 python3 python}; do
    new_enough "$python" || continue
    # Debian and Ubuntu keep what a virtual environment needs in a package of its own.
    "$python" -c "import venv, ensurepip" 2>/dev/null ||
        "$(dirname "$0")/system_packages.sh" \
            "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    "$python" -m venv --clear "$1" && exit
    rm -rf "$1" # half an environment would look like a whole one to make
    exit 1
done
echo "No Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3 ..." >&2
exit 1
