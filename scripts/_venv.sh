# Sourced by the other scripts: makes .venv from the lock file, with uv where it is there and pip where it is not.
# make_venv runtime|dev   SLUICE_EXTRAS: comma list of extras to install as well (default: local, where it installs)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

find_python() {
    for each in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [ -n "$each" ] && "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$each"
            return
        fi
    done
    echo "Sluice needs Python 3.11 or newer." >&2
    exit 1
}

make_venv() {
    local kind=$1 extras=${SLUICE_EXTRAS-local} stamp want
    stamp=.venv/.sluice-$kind
    want=$(cat uv.lock scripts/lock/*.txt | cksum; echo "$extras")
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && [ -x .venv/bin/python ]; then
        return
    fi
    echo "installing what the lock file names into .venv ..." >&2
    if ! install "$kind" "$extras"; then
        [ -z "${SLUICE_EXTRAS+set}" ] || exit 1
        echo "local models do not install on this machine; going on without them" >&2
        install "$kind" "" || exit 1
    fi
    printf '#!/bin/sh\nPYTHONPATH="%s${PYTHONPATH:+:$PYTHONPATH}" exec "%s/.venv/bin/python" -m app "$@"\n' "$root" "$root" >.venv/bin/sluice
    chmod +x .venv/bin/sluice
    printf '%s' "$want" >"$stamp"
}

install() {
    if command -v uv >/dev/null 2>&1; then uv_install "$@"; else pip_install "$@"; fi
}

uv_install() {
    local options=(--frozen --inexact --quiet)
    [ "$1" = dev ] || options+=(--no-dev)
    for each in ${2//,/ }; do options+=(--extra "$each"); done
    uv sync "${options[@]}"
}

pip_install() {
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv || return 1
    local files=(-r "scripts/lock/$1.txt")
    for each in ${2//,/ }; do files+=(-r "scripts/lock/$each.txt"); done
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes "${files[@]}"
}
