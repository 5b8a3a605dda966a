#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# Sets up .venv and runs the tests. Under 20 minutes on two CPU cores.
#
#   bash tests/run.sh                    all but the slow ones
#   bash tests/run.sh --slow             the slow ones too
#   bash tests/run.sh tests/test_x.py -k name    further arguments go to pytest
#
# VENV=/path uses (and completes) another environment.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch/common.sh"

selection=(-m "not slow")
arguments=()
for argument in "$@"; do
    if [[ "$argument" == --slow ]]; then selection=(); else arguments+=("$argument"); fi
done

install
cd "$REPO"
# One process per core; a file's tests share what they compile, so they stay together.
exec "$VENV/bin/python" -m pytest -n auto --dist loadfile \
    ${selection[@]+"${selection[@]}"} ${arguments[@]+"${arguments[@]}"}
