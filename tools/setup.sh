#!/bin/sh
# Finds a Python >= 3.11 and lets it set up .venv. Usage: setup.sh [PYTHON]
# POSIX sh on purpose: it runs before anything of ours is there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
wanted=${1-}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "$wanted" ]; then
    if ! new_enough "$wanted"; then
        found=$("$wanted" --version 2>/dev/null) || found="no Python that starts"
        echo "jupyter_train needs Python 3.11 or newer, but PYTHON=$wanted is $found." >&2
        exit 2
    fi
    exec "$wanted" "$here/setup_venv.py"
fi

for python in python3 python3.13 python3.12 python3.11 python; do
    if new_enough "$python"; then
        exec "$python" "$here/setup_venv.py"
    fi
done

found=$(python3 --version 2>/dev/null) || found="missing"
echo "jupyter_train needs Python 3.11 or newer; python3 here is $found." \
    "Install a newer one, or say where one is:  make PYTHON=/path/to/python3.12 ..." >&2
exit 2
