# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What a slice is, by any of its names: asked of f3tok_jax/devices/slices.py, the one table. Sourced.

# describe_slice ACCELERATOR NUM_SLICES: sets, of one slice, SLICE_TYPE (of gcloud; empty for a shape
# that has none), XPK_TYPE, GENERATION, TOPOLOGY, CHIPS, HOSTS and RUNTIME_DEFAULT (empty where there
# are no TPU VMs), and PRICE_HOUR in dollars for all slices (empty where no price is known) and
# COMPILER_FLAGS. Refuses what no product is.
# shellcheck disable=SC2034
describe_slice() {
    local python facts name value
    python="$(any_python)"
    facts="$(cd "$REPO" && "$python" -S -m f3tok_jax.slices --num_slices="$2" --flags="$FLAGS" \
        ${PRICE:+"--price=$PRICE"} --shell -- "$1")" || exit 1
    while IFS='=' read -r name value; do
        case "$name" in
            SLICE_TYPE | XPK_TYPE | GENERATION | TOPOLOGY | CHIPS | HOSTS | RUNTIME_DEFAULT | PRICE_HOUR | \
                COMPILER_FLAGS) printf -v "$name" '%s' "$value" ;;
        esac
    done <<<"$facts"
}

# Any Python that can read the table: the environment's, else one that is here.
any_python() {
    first_python 'import sys; sys.exit(sys.version_info < (3, 10))' \
        "$VENV/bin/python" ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 ||
        die "Python 3.10 or later is needed and there is none; set PYTHON=/path/to/python3"
}
