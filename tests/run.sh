#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# Sets up .venv and runs the tests. Under 20 minutes on two CPU cores.
#
#   bash tests/run.sh                    all but the slow ones
#   bash tests/run.sh --slow             the slow ones too, and those with the real xpk
#   bash tests/run.sh --reliability      those of the reliability anchors, and a table of them
#   bash tests/run.sh tests/f3tok_jax/test_x.py -k name    further arguments go to pytest
#
# The programs of tests/reliability, which kill runs, flip bits and fill disks for as long as they are
# told to, and train with several processes, are started by hand: python -m tests.reliability.kills
# --help, and flips, disks and processes.
#
# VENV=/path uses (and completes) another environment.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch/common.sh"
# shellcheck source=launch/environment.sh
source "$REPO/launch/environment.sh"

# A test that takes a quarter of an hour stands still: all stacks are written, and its process ends.
selection=(-m "not slow" -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true)
arguments=()
for argument in "$@"; do
    if [[ "$argument" == --slow ]]; then selection=(); else arguments+=("$argument"); fi
done

# The real xpk, for the tests of what a cluster is asked for: in an environment of its own, since it pins
# what our lock pins otherwise. 380 MB.
install_xpk() {
    local version folder="$VENV/xpk"
    version="xpk==$(sed -n 's/^XPK_VERSION=\([^ ]*\).*/\1/p' "$REPO/launch/xpk.sh")"
    if [[ ! -f "$folder/$version" ]]; then
        say "for the tests of clusters: $version"
        "$VENV/bin/python" -m venv --clear "$folder"
        if ! narrate "$folder/bin/python" -m pip --disable-pip-version-check install --progress-bar off \
            "$version"; then
            say "$version cannot be had: tests that ask it are skipped"
            return 0
        fi
        touch "$folder/$version"
    fi
    export F3TOK_XPK="$folder/bin/xpk"
}

install
install_tpu_compiler "$VENV/bin/python" "tests that compile for TPUs are skipped"
if ((${#selection[@]} == 0)); then install_xpk; fi
cd "$REPO"
# One process per core; a file's tests share what they compile, so they stay together, in the order
# of conftest.py. A process that dies is not replaced: pytest-xdist can wait for ever for one that is.
exec "$VENV/bin/python" -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0 \
    ${selection[@]+"${selection[@]}"} ${arguments[@]+"${arguments[@]}"}
