# Sourced by scripts/demo and scripts/test: one environment, .venv at the root, into which only what is missing
# is installed. GPT_SOVITS_MLX_BUILD=cuda takes MLX's build for NVIDIA instead of the one for the CPU.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# find_python: the first interpreter of 3.10 to 3.13
find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3.10 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.10 to 3.13 is needed and was not found" >&2
    return 1
}

# make_environment EXTRAS...: .venv with this checkout and its extras
make_environment() {
    local extras=("$@") python list stamp
    if [ "$(uname)" = Linux ]; then extras+=("${GPT_SOVITS_MLX_BUILD:-cpu}"); fi
    if [ ! -x "$root/.venv/bin/python" ]; then
        python=$(find_python)
        if ! "$python" -m venv "$root/.venv" 2>/dev/null; then
            rm -rf "$root/.venv"
            echo "installing python3-venv (Debian keeps it in a package of its own)" >&2
            as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv
            "$python" -m venv "$root/.venv"
        fi
    fi
    list=$(IFS=,; echo "${extras[*]}")
    stamp="$root/.venv/installed-${list//,/-}-$(cksum <"$root/pyproject.toml" | cut -d' ' -f1)"
    if [ ! -e "$stamp" ]; then
        echo "installing into .venv (once)" >&2
        "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[$list]"
        rm -f "$root/.venv/installed-${list//,/-}-"*
        touch "$stamp"
    fi
}
