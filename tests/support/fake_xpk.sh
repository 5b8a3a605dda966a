#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# An xpk for the tests of the launch scripts: a cluster is $FAKE_CLOUD/workloads, a line per workload as xpk
# lists it. Every call goes into xpk_calls, a NUL after each word and an empty word after each call.
# $FAKE_CLOUD/xpk_fails holds the command that fails, if any.
set -euo pipefail
printf '%s\0' "$@" "" >>"$FAKE_CLOUD/xpk_calls"
[[ "$TELEMETRY_ENABLED" == false ]]
workloads="$FAKE_CLOUD/workloads"
touch "$workloads"
option() { # the value of an option
    local name="$1"
    shift
    while [[ "$1" != "$name" ]]; do shift; done
    printf '%s' "$2"
}
if [[ "$(cat "$FAKE_CLOUD/xpk_fails" 2>/dev/null)" == "$2" ]]; then
    echo "[XPK] XPK failed, error code 1"
    exit 1
fi
case "$2" in
    create) echo "$(option --workload "$@")   2026-01-01T00:00:00Z   medium   4   <none>   <none>   QuotaReserved   Quota reserved   2026" >>"$workloads" ;;
    delete)
        name="$(option --workload "$@")"
        grep -v "^$name " "$workloads" >"$workloads.new" || true
        mv "$workloads.new" "$workloads"
        ;;
    list)
        if [[ "$*" == *--wait-for-job-completion* ]]; then exit "$(cat "$FAKE_CLOUD/xpk_ends" 2>/dev/null || echo 0)"; fi
        echo "[XPK] Workload List Output:"
        echo "Jobset Name   Created Time   Priority   TPU/GPU VMs Needed   TPU/GPU VMs Running/Ran   TPU/GPU VMs Done   Status"
        grep "$(option --filter-by-job "$@")" "$workloads" || true
        ;;
esac
