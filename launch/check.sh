# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Everything that can be wrong with a launch is refused here, on this machine, before a slice is asked
# for: flags, config, mesh and batch on that slice, data, models; then the compile is rehearsed. Sourced.

# Also in a dry run, which asks no cloud: what a bucket holds is then not looked into.
check_launch() {
    local folder words=()
    find_checker
    if rehearses; then install_tpu_compiler "$CHECKER" "the launch is not rehearsed"; fi
    for folder in ${STAGE[@]+"${STAGE[@]}"}; do words+=("--stage=$folder"); done
    if [[ "$DRY_RUN" == 1 ]]; then words+=(--offline); fi
    say "checking the launch on this machine"
    (cd "$REPO" && "$CHECKER" -m f3tok_jax.launch_check "--accelerator=$ACCELERATOR" \
        "--num_slices=$NUM_SLICES" "--flags=$FLAGS" "--rehearse=$REHEARSE" ${words[@]+"${words[@]}"} -- \
        "--config=$CONFIG" "--workdir=$WORKDIR" ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"}) || exit $?
}

# A launch fetches the compiler for its rehearsal; a dry run uses it where it is.
rehearses() { [[ "$REHEARSE" == yes || ("$REHEARSE" == auto && "$DRY_RUN" != 1) ]]; }

# Sets CHECKER, a Python with all that reads a config: the environment's, else this machine's, else one
# that is made now, in a dry run as well. Not in $(...), where bash goes on after what has failed.
find_checker() {
    local needs="jax flax optax orbax.checkpoint grain ml_collections array_record sequence_layers"
    if [[ -f "$VENV/installed" ]]; then
        CHECKER="$VENV/bin/python"
        return 0
    fi
    if CHECKER="$(first_python "import importlib.util, sys
sys.exit(sys.version_info < (3, 11) or not all(map(importlib.util.find_spec, '$needs'.split())))" \
        ${PYTHON:+"$PYTHON"} python3.11 python3 python)"; then return 0; fi
    CHECKER="$VENV/bin/python"
    say "the checks need the environment, which is made now:"
    DRY_RUN=0 install
}
