#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# A Python for the tests of the launch scripts: makes environments of itself, installs nothing, and
# "trains" by writing down its arguments and ending with the next line of ~/exit_codes (else 0). Called
# python3 it is Python 3.10, which can only install uv: that is itself, too.
set -euo pipefail
case "$*" in
    -c*) [[ "${0##*/}" != python3 || "$*" == *"(3, 10)"* ]] ;;
    "-S "*) exec "$REAL_PYTHON" "$@" ;;
    *"pip --version") [[ ! -f "$HOME/no_pip" ]] ;;
    "-m ensurepip") exit 1 ;;
    *"--target "*)
        folder="$*" && folder="${folder#*--target }"
        mkdir -p "${folder%% *}/bin"
        cp "${BASH_SOURCE[0]}" "${folder%% *}/bin/uv"
        ;;
    *"python install"*)
        mkdir -p "$UV_PYTHON_INSTALL_DIR/bin"
        cp "${BASH_SOURCE[0]}" "$UV_PYTHON_INSTALL_DIR/bin/python3.11"
        ;;
    *"python find"*) echo "$UV_PYTHON_INSTALL_DIR/bin/python3.11" ;;
    "-m f3tok_jax.launch_check "*) [[ ! -e "${FAKE_CLOUD:-}/check_refuses" ]] ;;
    */keep_log.py\ *) exec "$REAL_PYTHON" "$@" ;;
    "-m venv "*)
        mkdir -p "$3/bin"
        cp "${BASH_SOURCE[0]}" "$3/bin/python"
        ;;
    *"pip freeze") cat "$HOME/packages" 2>/dev/null || echo "jax==0.0" ;;
    *"pip "*) echo "Collecting nothing" ;;
    "-m f3tok_jax.train "*)
        printf '%s\0' "$@" >"$HOME/train_arguments"
        echo "step 1"
        if [[ -f "$HOME/sleep" ]]; then
            trap 'echo "saved"; exit 42' TERM
            for _ in {1..600}; do sleep 0.1; done
        fi
        left="$(cat "$FAKE_CLOUD/preemptions" 2>/dev/null || echo 0)"
        if ((left)) && [[ "$HOME" == *-w-0 ]]; then
            # A slice has seconds for its last words: the other worker's are in the bucket.
            count="$(cat "$FAKE_CLOUD/preempted" 2>/dev/null || echo 0)"
            until (($(find "$FAKE_CLOUD/buckets" -name '*_worker_0001.exit' | wc -l) > count)); do sleep 0.1; done
            echo $((count + 1)) >"$FAKE_CLOUD/preempted"
            echo $((left - 1)) >"$FAKE_CLOUD/preemptions"
            echo SUSPENDED >"$FAKE_CLOUD/state"
            exit 42
        fi
        if [[ -f "$HOME/waits_for" ]]; then # as a worker does that loses its peer
            until [[ -e "$(cat "$HOME/waits_for")" ]]; do sleep 0.1; done
        fi
        code=0
        if [[ -s "$HOME/exit_codes" ]]; then
            code="$(head -n 1 "$HOME/exit_codes")"
            sed -i 1d "$HOME/exit_codes"
        fi
        if [[ -f "$HOME/preempt" ]]; then
            echo SUSPENDED >"$FAKE_CLOUD/state"
        fi
        echo "ends with $code"
        exit "$code"
        ;;
    *) printf '%s\n' "$*" >>"${FAKE_CALLS:-/dev/null}" ;;
esac
