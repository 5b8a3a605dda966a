# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The virtual environment: what requirements.lock pins, with this machine's Python or one of its own.
# Sourced after common.sh.

LOCK="$REPO/launch/requirements.lock"
PYTHON_VERSION=3.11.18 # of the build that uv fetches where there is no Python 3.11

# Prints a section of the lock: core, tpu or python.
locked() { sed -n "/^# \\[$1\\]/,/^# \\[/{/^#/!p;}" "$LOCK"; }

# Prints the version of a package in the lock.
pinned() { sed -n "s/^$1==\\([^ ]*\\).*/\\1/p" "$LOCK"; }

# Prints a Python that is new enough: this machine's, else one that is fetched.
find_python() {
    local names=(python3.11 python3.12 python3.13 python3 python)
    if [[ -n "${PYTHON:-}" ]]; then names=("$PYTHON"); fi
    if first_python 'import sys; sys.exit(sys.version_info < (3, 11))' "${names[@]}"; then return 0; fi
    [[ -z "${PYTHON:-}" ]] || die "PYTHON must be Python 3.11 or later, got '$PYTHON'"
    fetch_python
}

# Prints a Python beside $VENV. TPU images have 3.10: its pip brings uv, and uv a build of CPython whose
# checksum it knows. $UV_PYTHON_INSTALL_MIRROR is uv's, for networks that have their own; it goes along to
# the workers.
fetch_python() {
    local name python="" folder="$VENV-python"
    for name in python3 python; do
        if "$name" -m pip --version >/dev/null 2>&1 || "$name" -m ensurepip >/dev/null 2>&1; then
            python="$name"
            break
        fi
    done
    [[ -n "$python" ]] || die "Python 3.11 or later is needed, and to fetch it a python3 with pip, which" \
        "is not here: install python3-pip, or set PYTHON=/path/to/python3.11"
    say "no Python 3.11 here: fetching $PYTHON_VERSION with uv $(pinned uv) into $folder" >&2
    mkdir -p "$folder"
    locked python >"$folder/requirements.txt"
    narrate "$python" -m pip --disable-pip-version-check install --no-deps --require-hashes --upgrade \
        --progress-bar off --target "$folder/uv" -r "$folder/requirements.txt" >&2 ||
        die "uv could not be installed with $python -m pip; its message is above"
    export UV_PYTHON_INSTALL_DIR="$folder/builds"
    "$folder/uv/bin/uv" --no-config --no-cache python install --no-bin "$PYTHON_VERSION" >&2 ||
        die "uv could not fetch Python $PYTHON_VERSION; its message is above: set" \
            "UV_PYTHON_INSTALL_MIRROR, or PYTHON=/path/to/python3.11"
    "$folder/uv/bin/uv" --no-config --no-cache python find --managed-python "$PYTHON_VERSION"
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
    local device stamp python pins="$VENV/requirements.txt"
    device="${DEVICE:-$(find_device)}"
    # The stamp holds what was installed, so a changed lock file is noticed.
    stamp="$device $(cat "$LOCK" "$REPO/setup.py" | cksum)"
    if [[ "$DRY_RUN" != 1 && -f "$VENV/installed" && "$(cat "$VENV/installed")" == "$stamp" ]]; then
        say "environment $VENV is up to date"
        return 0
    fi
    if [[ "$DRY_RUN" == 1 ]]; then python="${PYTHON:-python3.11}"; else python="$(find_python)"; fi
    make_venv "$python"
    if [[ "$DRY_RUN" != 1 ]]; then
        locked core >"$pins"
        if [[ "$device" == tpu ]]; then locked tpu >>"$pins"; fi
    fi
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check install --progress-bar off)
    narrate "${pip[@]}" --no-deps --require-hashes -r "$pins"
    if [[ "$device" == gpu ]]; then
        say "NVIDIA GPU found: installing jax[cuda12] for it (CUDA comes inside the wheels)"
        narrate "${pip[@]}" "jax[cuda12]==$(pinned jax)"
    fi
    narrate "${pip[@]}" --no-deps --no-build-isolation -e "$REPO"
    if [[ "$DRY_RUN" != 1 ]]; then printf '%s\n' "$stamp" >"$VENV/installed"; fi
}

# install_tpu_compiler PYTHON OTHERWISE: the TPU's compiler, which needs no TPU. Beside the environment and
# not in it, where it would have every program look for TPUs. 213 MB to fetch, for Linux on x86-64 only:
# elsewhere it says what OTHERWISE is.
install_tpu_compiler() {
    local version folder="$VENV/tpu_compiler"
    if "$1" -m pip show --quiet libtpu 2>/dev/null; then return 0; fi
    version="libtpu==$(pinned libtpu)"
    if [[ ! -f "$folder/$version" ]]; then
        say "the TPU's compiler: $version"
        if ! narrate "$1" -m pip --disable-pip-version-check install --no-deps \
            --progress-bar off --only-binary :all: --upgrade --target "$folder" "$version"; then
            say "there is no $version for this machine: $2"
            return 0
        fi
        touch "$folder/$version"
    fi
    export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}"
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
    local line output="" code
    while IFS= read -r line; do
        code="$line" # the last line, which is ours
        output+="$line"$'\n'
        case "$line" in
            "Collecting "*) line="${line#Collecting }" && say "  Collecting ${line%% *}" ;;
            "Installing collected packages"*) say "  Installing collected packages" ;;
        esac
    done < <(
        code=0
        "$@" 2>&1 || code=$?
        printf '\n%s\n' "$code"
    )
    if [[ "$code" != 0 ]]; then printf '%s' "$output" | tail -n 30 >&2; fi
    return "$code"
}
