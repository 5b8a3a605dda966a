#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# Trains in a pod of a cluster, where xpk.sh starts it: pod.sh ARGUMENTS of tpu_train.sh. What SIGTERM
# asks for reaches the training, its exit code says whether JobSet may start it again, and what it prints
# is kept in the work folder, too: WORKDIR/logs/pods/POD.log.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/supervise.sh
source "$REPO/launch/supervise.sh"

output=/dev/stdout keeper=""
for word in "$@"; do
    if [[ "$word" == --workdir=* && -x "$VENV/bin/python" ]]; then
        make_private
        output="$PRIVATE/output" && mkfifo "$output"
        "$VENV/bin/python" "$REPO/launch/keep_log.py" "${word#*=}/logs/pods/$(hostname).log" <"$output" &
        keeper=$!
    fi
done
bash "$REPO/launch/tpu_train.sh" "$@" >"$output" 2>&1 &
training=$!
trap 'kill -TERM "$training" 2>/dev/null || true' TERM
# A signal ends `wait` with its own code; that of the training is there to be asked for once it is gone.
while kill -0 "$training" 2>/dev/null; do wait "$training" || true; done
code=0
wait "$training" || code=$?
if [[ -n "$keeper" ]]; then wait "$keeper" || true; fi
# xpk starts again after 42 and everything from 127 on: it can be told of more codes, not of fewer.
if ((code >= 127)) && ! training_may_restart "$code"; then
    say "ended with exit code $code, after which a restart would end the same way: 1 for the cluster"
    code=1
fi
exit "$code"
