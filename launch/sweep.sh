#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# Trains the runs of a sweep, each in a folder of its own below --workdir:
#
#   bash launch/sweep.sh --sweep configs/sweeps/bottleneck.py:tiny --workdir runs/bottleneck \
#       --config.data.train=DIR/train --config.data.heldout=DIR/test [--max_parallel N]
#
# The same command goes on where it was stopped or killed, and trains nothing twice. Where:
#
#   --backend local         this machine, N processes at a time (default 1)
#   --backend tpu --tpu NAME --zone ZONE --accelerator v5litepod-16 ...
#                           slices, NAME or NAME-0 to NAME-(N-1), each with one run after the other,
#                           by launch/tpu_train.sh, which gets all further flags. They cost money until
#                           `bash launch/tpu_train.sh delete --tpu NAME --zone ZONE`
#   --backend xpk --cluster NAME ...
#                           workloads of a cluster, all at once (or N): Kueue decides when
#
#   --status [--top N] [--output FILE.json]   how far it is, from the runs' folders alone
#   --stop                  asks what is trained to save and leave
#   --only ARM,ARM          these alone
#   --prune halving         stops the worse runs early; needs Optuna, the extra sweeps
#
# --dry_run (or DRY_RUN=1) prints the command of every run and touches nothing. Everything else is a flag
# of every run: python -m f3tok_jax.sweep --help. Exit codes: 0 done, 42 told to leave, else 1.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/environment.sh
source "$REPO/launch/environment.sh"

arguments=()
for argument in "$@"; do
    case "$argument" in
        -h | --help) sed -n '5,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
        --dry-run | --dry_run) DRY_RUN=1 ;;
        *) arguments+=("$argument") ;;
    esac
done
((${#arguments[@]})) || die "--sweep and --workdir are missing; see --help"

install
cd "$REPO"
program=("$VENV/bin/python" -m f3tok_jax.sweep "${arguments[@]}")
if [[ "$DRY_RUN" == 1 ]]; then
    program+=(--dry_run)
    show "${program[@]}"
    # What is installed says the runs' own commands, too.
    if [[ ! -f "$VENV/installed" ]]; then exit 0; fi
fi
exec "${program[@]}"
