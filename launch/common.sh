# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the launch scripts share: messages, dry runs, the virtual environment. Sourced, never run.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$REPO/.venv}"
DRY_RUN="${DRY_RUN:-0}"

say() { printf '%s\n' "$*"; }

die() {
    printf 'tpu_train.sh: %s\n' "$*" >&2
    exit 1
}

# Prints a command as it could be pasted into a shell.
show() {
    local word line="+"
    for word in "$@"; do
        if [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
            line+=" $word"
        else
            line+=" '${word//\'/\'\\\'\'}'"
        fi
    done
    printf '%s\n' "$line"
}

# Runs a command; in a dry run prints it and does nothing.
run() {
    if [[ "$DRY_RUN" == 1 ]]; then show "$@"; else "$@"; fi
}

# Runs a command up to five times: copying to many workers at once fails now and then.
retry() {
    local attempt
    for attempt in 1 2 3 4 5; do
        if run "$@"; then return 0; fi
        say "attempt $attempt of 5 failed: $1 $2 ..." >&2
        sleep $((attempt * ${RETRY_SECONDS:-5}))
    done
    return 1
}

find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    die "Python 3.11 or later is needed and none of ${PYTHON:-python3.11 python3 python} is; set PYTHON=/path/to/python3.11"
}

# "tpu", "gpu" or "cpu": what this machine has, without starting anything.
find_device() {
    if compgen -G '/dev/accel[0-9]*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
        echo tpu
    elif [[ -e /dev/nvidia0 ]]; then
        echo gpu
    else
        echo cpu
    fi
}

# Makes $VENV with everything in requirements.lock; does nothing where that was done before.
install() {
    local device stamp python
    device="${DEVICE:-$(find_device)}"
    # The stamp holds what was installed, so a changed lock file is noticed.
    stamp="$device $(cat "$REPO"/launch/requirements*.lock "$REPO/setup.py" | cksum)"
    if [[ "$DRY_RUN" != 1 && -f "$VENV/installed" && "$(cat "$VENV/installed")" == "$stamp" ]]; then
        say "environment $VENV is up to date"
        return 0
    fi
    if [[ "$DRY_RUN" == 1 ]]; then python="${PYTHON:-python3.11}"; else python="$(find_python)"; fi
    make_venv "$python"
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check install --no-deps --progress-bar off)
    narrate "${pip[@]}" -r "$REPO/launch/requirements.lock"
    case "$device" in
        tpu) narrate "${pip[@]}" -r "$REPO/launch/requirements_tpu.lock" ;;
        gpu)
            say "NVIDIA GPU found: installing jax[cuda12] for it (CUDA comes inside the wheels)"
            narrate "$VENV/bin/python" -m pip --disable-pip-version-check install --progress-bar off \
                "jax[cuda12]==$(sed -n 's/^jax==//p' "$REPO/launch/requirements.lock")"
            ;;
    esac
    narrate "${pip[@]}" --no-build-isolation -e "$REPO"
    if [[ "$DRY_RUN" != 1 ]]; then printf '%s\n' "$stamp" >"$VENV/installed"; fi
}

# Some systems split ensurepip off; the pip that is here can then fill the environment.
make_venv() {
    if run "$1" -m venv "$VENV"; then return 0; fi
    "$1" -m venv --without-pip "$VENV"
    "$1" -m pip --python "$VENV/bin/python" install pip
}

# Runs pip and shows one short line per package, all of its output if it fails.
narrate() {
    if [[ "$DRY_RUN" == 1 ]]; then
        show "$@"
        return 0
    fi
    local log code=0
    log="$(mktemp)"
    { "$@" 2>&1 || echo "$?" >"$log.code"; } | tee "$log" |
        sed -n -u -E 's/^(Collecting [^ ]+).*/  \1/p; s/^(Installing collected packages).*/  \1/p'
    if [[ -f "$log.code" ]]; then
        code="$(cat "$log.code")"
        tail -n 30 "$log" >&2
    fi
    rm -f "$log" "$log.code"
    return "$code"
}
