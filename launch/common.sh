# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the launch scripts share: messages, checks of what comes from outside, dry runs. Sourced, never
# run.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$REPO/.venv}"
[[ "$VENV" == /* ]] || VENV="$PWD/$VENV" # the folder changes later
DRY_RUN="${DRY_RUN:-0}"
PRIVATE="" # folder of this run's temporary files, once make_private has been called
AT_EXIT=() # functions that are called, in this order, however this script ends

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    return 1
}

die() { fail "$@" || exit 1; }

leave() {
    trap '' HUP INT TERM PIPE # nothing cuts this short
    set +e
    local task
    for task in ${AT_EXIT[@]+"${AT_EXIT[@]}"}; do "$task"; done
    if [[ -n "$PRIVATE" && "$DRY_RUN" != 1 ]]; then rm -rf -- "$PRIVATE"; fi
}
trap leave EXIT

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

# take_duration VARIABLE WORDS: what gcloud takes for a length of time; empty is none.
take_duration() {
    [[ "${!1}" =~ ^([1-9][0-9]{0,6}[smhd])?$ ]] || die "$2 must be a number with s, m, h or d, such as 12h, got '${!1}'"
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

# Prints the digest of standard input; a Mac has another program for it.
sha256() {
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
}

# first_python CODE [NAME ...]: prints the first of these Pythons that runs the code well.
first_python() {
    local name
    for name in "${@:2}"; do
        if "$name" -c "$1" 2>/dev/null; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    return 1
}

show() { printf '+ %s\n' "$(quoted "$@")"; }

# Makes $PRIVATE, which nobody else can enter or foresee; it goes however this script ends.
make_private() {
    if [[ "$DRY_RUN" == 1 ]]; then
        PRIVATE="${TMPDIR:-/tmp}/tmp.XXXXXXXXXX"
    elif [[ -z "$PRIVATE" ]]; then
        PRIVATE="$(mktemp -d)" || die "no temporary folder could be made in ${TMPDIR:-/tmp}"
    fi
}

# Runs a command for its answer alone: what it says beside that (news of updates, warnings) is shown
# only if it fails.
ask() {
    local said code=0
    said="$(mktemp "${PRIVATE:-${TMPDIR:-/tmp}}/said.XXXXXX")" || return
    "$@" 2>"$said" || code=$?
    if ((code)); then cat "$said" >&2; fi
    rm -f -- "$said"
    return "$code"
}

need_gcloud() {
    if [[ "$DRY_RUN" == 1 ]] || command -v gcloud >/dev/null; then return 0; fi
    die "gcloud is not on PATH here: install the Google Cloud CLI, then log in with 'gcloud auth login'"
}

# Runs a command; in a dry run prints it and does nothing.
run() {
    if [[ "$DRY_RUN" == 1 ]]; then show "$@"; else "$@"; fi
}
