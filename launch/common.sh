# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the launch scripts share: messages, checks of what comes from outside, dry runs, the virtual
# environment. Sourced, never run.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$REPO/.venv}"
[[ "$VENV" == /* ]] || VENV="$PWD/$VENV" # the folder changes later
DRY_RUN="${DRY_RUN:-0}"
PRIVATE="" # folder of this run's temporary files, once make_private has been called

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

[[ "$DRY_RUN" == [01] ]] || die "DRY_RUN must be 0 or 1, got '$DRY_RUN'"

# take_number VARIABLE WORDS LEAST MOST: every number from outside passes here where it enters, for
# bash runs the commands in whatever it takes for arithmetic. It stays as digits without leading zeros.
take_number() {
    local LC_ALL=C
    if [[ ! "${!1}" =~ ^[0-9]{1,9}$ ]] || ((10#${!1} < $3 || 10#${!1} > $4)); then
        die "$2 must be a whole number from $3 to $4, got '${!1}'"
    fi
    printf -v "$1" '%d' "$((10#${!1}))"
}

# take_name VARIABLE WORDS [MORE CHARACTERS]: a name that is no flag, no path and nothing to a shell.
take_name() {
    local LC_ALL=C
    [[ "${!1}" =~ ^[A-Za-z0-9_][A-Za-z0-9._${3:-}-]{0,127}$ ]] ||
        die "$2 must be letters, digits, _ . ${3:-}- and begin with a letter, a digit or _, got '${!1}'"
}

# Prints words as they could be pasted into a shell.
quoted() {
    local LC_ALL=C word line="" mark="'" marked="'\\''"
    for word in "$@"; do
        if [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
            line+=" $word"
        else
            line+=" '${word//$mark/$marked}'"
        fi
    done
    printf '%s' "${line# }"
}

show() { printf '+ %s\n' "$(quoted "$@")"; }

# Makes $PRIVATE, which nobody else can enter or foresee; it goes however this script ends.
make_private() {
    if [[ "$DRY_RUN" == 1 ]]; then
        PRIVATE="${TMPDIR:-/tmp}/tmp.XXXXXXXXXX"
    elif [[ -z "$PRIVATE" ]]; then
        PRIVATE="$(mktemp -d)" || die "no temporary folder could be made in ${TMPDIR:-/tmp}"
        trap 'rm -rf -- "$PRIVATE"' EXIT
    fi
}

# Runs a command; in a dry run prints it and does nothing.
run() {
    if [[ "$DRY_RUN" == 1 ]]; then show "$@"; else "$@"; fi
}

find_python() {
    local name names=(python3.11 python3.12 python3.13 python3 python)
    if [[ -n "${PYTHON:-}" ]]; then names=("$PYTHON"); fi
    for name in "${names[@]}"; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    die "Python 3.11 or later is needed and none of ${names[*]} is; set PYTHON=/path/to/python3.11"
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
