#!/bin/sh
# Set up this checkout: Debian packages, the virtual environment, the peers of the tests.
# usage: deploy/setup.sh run | test
# As root, or where sudo works without a password, missing Debian packages are installed. Otherwise the ones that are
# needed are named and nothing is installed; `run` needs only python3-venv (without mosquitto it uses a Python broker).
set -eu
cd "$(dirname "$0")/.."
purpose=${1:?usage: deploy/setup.sh run|test}
python=${PYTHON:-python3}

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
header() { [ -n "$(find /usr/include -name "$1" -print -quit 2>/dev/null)" ]; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $python is $("$python" -V 2>&1); Andon needs Python 3.11 or newer. Name one with PYTHON=/path/to/python3 make ..." >&2
    exit 1
}

needed="" wanted=""
"$python" -c 'import venv, ensurepip' 2>/dev/null || needed="$needed python3-venv"
have mosquitto || wanted="$wanted mosquitto"
if [ "$purpose" = test ]; then
    have mosquitto_sub || wanted="$wanted mosquitto-clients"
    have mbpoll || wanted="$wanted mbpoll"
    have promtool || wanted="$wanted prometheus"
    have chromium || have chromium-browser || have google-chrome || wanted="$wanted chromium"
    have node || wanted="$wanted nodejs"
    have npm || wanted="$wanted npm"
    have cc || wanted="$wanted gcc libc6-dev"
    header modbus.h || wanted="$wanted libmodbus-dev"
    have strace || wanted="$wanted strace"
    have pkg-config || wanted="$wanted pkg-config"
    needed="$needed$wanted" wanted=""
fi

if [ -n "$needed$wanted" ]; then
    if [ "$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root=none; fi
    if [ "$as_root" != none ]; then
        echo "setup: installing Debian packages:$needed$wanted"
        $as_root apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $needed $wanted >/dev/null
    elif [ -n "$needed" ]; then
        echo "setup: these Debian packages are missing and need root to install:$needed" >&2
        echo "setup: ask your administrator for: apt-get install$needed" >&2
        exit 1
    else
        echo "setup: not installed (no root):$wanted; going on without"
    fi
fi

stamp=.venv/.locked
if ! cmp -s locks/dev.txt "$stamp"; then
    echo "setup: installing the Python packages of locks/dev.txt into .venv"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    cp locks/dev.txt "$stamp"
fi

if [ "$purpose" = test ]; then
    for peer in tests/peers/*/package-lock.json; do
        folder=$(dirname "$peer")
        if ! cmp -s "$peer" "$folder/node_modules/.locked"; then
            echo "setup: installing the npm packages of $folder"
            npm ci --silent --no-audit --no-fund --prefix "$folder"
            cp "$peer" "$folder/node_modules/.locked"
        fi
    done
fi
