#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# Trains. Four ways, by the arguments:
#
#   bash launch/tpu_train.sh
#       The whole main job at tiny scale on whatever device is here: environment, embedded corpora,
#       training, evaluation, report. Under 10 minutes on two CPU cores, nothing else needed.
#       With the word `install` the environment alone.
#
#   bash launch/tpu_train.sh --config configs/autoencoder.py:base --workdir gs://BUCKET/RUN [--config.KEY=VALUE ...]
#       That training on this machine. Run it on every worker of a TPU slice: the workers find each
#       other. The same command resumes. Exit codes: those of `python -m f3tok_jax.train`.
#
#   bash launch/tpu_train.sh [COMMAND] --tpu NAME --zone ZONE --accelerator v5litepod-16 --config ... --workdir gs://...
#       Through gcloud: checks everything here first, then creates the slice, copies this tree,
#       installs, trains, restarts after preemption. v5e-16 and v5e:4x4 are the same slice (what one
#       is: python -m f3tok_jax.slices v5e-16). COMMAND: create | wait | setup | run | status | logs |
#       stop | resume | delete | all (default: create, wait, setup, run). The slice costs money until
#       `delete`: nothing deletes it for you; however this ends, its last words are what that costs and
#       how it is deleted.
#
#       --num_slices N      slices, joined by the data-centre network (default 1)
#       --project NAME      of the cloud (default: gcloud's own)
#       --runtime VERSION   of the TPU software (default: that of the generation)
#       --max_restarts N    after preemption, a lost worker or a stall (default 20)
#       --rehearse WHETHER  to compile the step for that slice before: auto, yes or no (default auto:
#                           a launch does, fetching the compiler; a dry run where it is installed)
#       --price DOLLARS     per chip and hour (default: the list price, on demand); one that
#                           is given training adds up, too
#       --stage DIR         of shards or of a language model, here: copied into the work folder's bucket,
#                           where the workers find it by the same name; may be given more than once
#       --spot | --reserved | --flex | --on-demand   kind of capacity (default --on-demand; on a
#                           cluster what that has)
#       --max_run_duration TIME   of --flex, after which the slice goes (default 7d, which is the most)
#       --valid_until TIME  from now, after which slices that were not to be had are not waited for
#
#   bash launch/tpu_train.sh status | logs | stop | resume | delete --workdir gs://BUCKET/RUN
#       From any machine: what that run was launched with lies in its work folder. `resume` looks after
#       it from here on, and asks for the slice again if that is gone.
#
#   bash launch/tpu_train.sh [COMMAND] --cluster NAME --zone ZONE --accelerator v5e-16 --config ... --workdir gs://...
#       On a GKE cluster through xpk: a JobSet that Kueue queues and that is started again up to
#       --max_restarts times, with nothing of this machine. COMMAND: setup (the image) | run | wait |
#       status | logs | stop | resume | delete | all (default: setup, run, wait).
#
#       --image_repository R   where this tree's image is kept, such as us-docker.pkg.dev/PROJECT/REPO
#       --docker-image IMAGE   that exists, instead
#       --priority P        very-low, low, medium, high or very-high
#       --reservation NAME  of --reserved
#       --storage NAME      that xpk knows and mounts, for a --workdir that is no bucket's; repeats
#
# --backend local | tpu | xpk says which of these it is (default: xpk with --cluster, tpu with --tpu).
# --flags NAME is a set of the compiler's flags for --accelerator: default, overlap, data_parallel,
# windowed, debug. --dry-run (or DRY_RUN=1) checks all of it, prints the exact commands and asks
# no cloud; its checks need the environment, which is made where it is not there. ZONE, PROJECT, ACCELERATOR, RUNTIME, NUM_SLICES, REHEARSE, PRICE, MAX_RESTARTS and
# IMAGE_REPOSITORY may be variables. More in launch/README.md.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/environment.sh
source "$REPO/launch/environment.sh"
# shellcheck source=launch/stage.sh
source "$REPO/launch/stage.sh"
# shellcheck source=launch/slices.sh
source "$REPO/launch/slices.sh"
# shellcheck source=launch/record.sh
source "$REPO/launch/record.sh"
# shellcheck source=launch/arguments.sh
source "$REPO/launch/arguments.sh"

# Trains on this worker. The environment is made if it is not there.
train_here() {
    [[ -n "$CONFIG" ]] || die "--config is missing, for example --config configs/autoencoder.py:base"
    [[ -n "$WORKDIR" ]] || die "--workdir is missing: the folder or bucket path of this run"
    ((${#STAGE[@]} == 0)) || die "--stage goes with --tpu or --cluster; to have copies of gs://... in a folder here, give --data_cache"
    install
    cd "$REPO"
    export PYTHONUNBUFFERED=1
    # Orbax and Grain keep many files open.
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    if [[ -n "$ACCELERATOR" ]]; then
        TRAIN_ARGUMENTS=("--accelerator=$ACCELERATOR" "--num_slices=$NUM_SLICES"
            ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"})
    fi
    if [[ -n "$ACCELERATOR" && -z "${LIBTPU_INIT_ARGS:-}" ]]; then
        export LIBTPU_INIT_ARGS="$COMPILER_FLAGS"
    fi
    if [[ "$DRY_RUN" == 1 ]]; then
        show "LIBTPU_INIT_ARGS=${LIBTPU_INIT_ARGS:-}" "$VENV/bin/python" -m f3tok_jax.train \
            "--config=$CONFIG" "--workdir=$WORKDIR" ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"}
        return 0
    fi
    exec "$VENV/bin/python" -m f3tok_jax.train \
        "--config=$CONFIG" "--workdir=$WORKDIR" ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"}
}

parse_arguments "$@"
# A run that was launched is known by its work folder, wherever it is asked about.
case "$COMMAND" in
    resume) if [[ -n "$WORKDIR" ]]; then read_record; fi ;;
    status | logs | stop | delete) if [[ -n "$WORKDIR" && -z "$TPU$CLUSTER" ]]; then read_record; fi ;;
esac
check_arguments
if (($# == 0)) || [[ "$*" == --dry-run || "$*" == --dry_run ]]; then
    # shellcheck source=launch/local.sh
    source "$REPO/launch/local.sh"
    main_job
elif [[ "$COMMAND" == install ]]; then
    install
else
    case "$BACKEND" in
        tpu)
            [[ -n "$TPU" ]] || die "--tpu is missing: the name of the TPU that trains, or is made"
            # shellcheck source=launch/gcloud.sh
            source "$REPO/launch/gcloud.sh"
            case "${COMMAND:-all}" in
                all | run | resume)
                    if [[ "$COMMAND" == resume ]]; then
                        need workdir
                        if [[ "$REHEARSE" == auto ]]; then REHEARSE=no; fi # it was, at the launch
                    fi
                    need zone accelerator config workdir
                    check_launch
                    stage
                    ;;
                create) if [[ -n "$CONFIG" ]]; then check_launch; fi ;;
            esac
            "cloud_${COMMAND:-all}"
            ;;
        xpk)
            # shellcheck source=launch/xpk.sh
            source "$REPO/launch/xpk.sh"
            "xpk_${COMMAND:-all}"
            ;;
        local)
            [[ -z "$COMMAND" ]] || die "--tpu is missing: '$COMMAND' needs the name of a TPU, --cluster that of a cluster, or --workdir of a run that was launched"
            train_here
            ;;
        *) die "--backend must be local, tpu or xpk, got '$BACKEND'" ;;
    esac
fi
