# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The command line of tpu_train.sh: what may be given, what that is when it is not, and whether it can
# be. Sourced by tpu_train.sh; the variables are for all that it sources later.
# shellcheck disable=SC2034

COMMAND="" BACKEND="" TPU="" CLUSTER="" WORKDIR="" CONFIG="" FLAGS="default" CAPACITY=on-demand
IMAGE_REPOSITORY="${IMAGE_REPOSITORY:-}" DOCKER_IMAGE="" PRIORITY="" RESERVATION="" STORAGES=()
ZONE="${ZONE:-}" PROJECT="${PROJECT:-}" ACCELERATOR="${ACCELERATOR:-}" RUNTIME="${RUNTIME:-}"
NUM_SLICES="${NUM_SLICES:-1}" REHEARSE="${REHEARSE:-auto}" PRICE="${PRICE:-}" MAX_RESTARTS="${MAX_RESTARTS:-20}"
POLL_SECONDS="${POLL_SECONDS:-30}" RETRY_SECONDS="${RETRY_SECONDS:-5}"
GRACE_SECONDS="${GRACE_SECONDS:-120}" LINES_SHOWN="${LINES_SHOWN:-50}"
VALID_UNTIL="" MAX_RUN_DURATION=""
TRAIN_ARGUMENTS=()

# `--name value` and `--name=value` are the same.
parse_arguments() {
    local name value
    while (($#)); do
        case "$1" in
            create | wait | setup | run | resume | status | logs | stop | delete | all | install)
                [[ -z "$COMMAND" ]] || die "one command at a time, got '$COMMAND' and '$1'"
                COMMAND="$1"
                shift
                continue
                ;;
            --dry-run | --dry_run) DRY_RUN=1 && shift && continue ;;
            --spot | --reserved | --flex | --on-demand)
                CAPACITY="${1#--}" GIVEN+="CAPACITY "
                shift
                continue
                ;;
            -h | --help) sed -n '5,/^$/s/^# \{0,1\}//p' "$REPO/launch/tpu_train.sh" && exit 0 ;;
        esac
        name="${1%%=*}"
        case "$name" in
            --backend | --tpu | --cluster | --zone | --project | --accelerator | --num_slices | --runtime | \
                --flags | --price | --rehearse | --image_repository | --docker-image | --docker_image | --priority | \
                --reservation | --storage | --max_restarts | --valid_until | --max_run_duration | \
                --config | --workdir | --stage)
                if [[ "$1" == *=* ]]; then
                    value="${1#*=}"
                else
                    (($# > 1)) || die "$name needs a value"
                    value="$2"
                    shift
                fi
                shift
                set_option "$name" "$value"
                ;;
            --*) TRAIN_ARGUMENTS+=("$1") && GIVEN+="$name " && shift ;;
            *) die "unknown argument '$1'; see --help" ;;
        esac
    done
}

set_option() {
    local name="${1#--}"
    GIVEN+="$(tr '[:lower:]' '[:upper:]' <<<"$name") "
    case "$1" in
        --backend) BACKEND="$2" ;;
        --tpu) TPU="$2" ;;
        --cluster) CLUSTER="$2" ;;
        --image_repository) IMAGE_REPOSITORY="$2" ;;
        --docker-image | --docker_image) DOCKER_IMAGE="$2" ;;
        --priority) PRIORITY="$2" ;;
        --reservation) RESERVATION="$2" ;;
        --storage)
            STORAGE="$2"
            take_name STORAGE --storage
            STORAGES+=(--storage "$STORAGE")
            ;;
        --zone) ZONE="$2" ;;
        --project) PROJECT="$2" ;;
        --accelerator) ACCELERATOR="$2" ;;
        --num_slices) NUM_SLICES="$2" ;;
        --runtime) RUNTIME="$2" ;;
        --flags) FLAGS="$2" ;;
        --price) PRICE="$2" ;;
        --valid_until) VALID_UNTIL="$2" ;;
        --max_run_duration) MAX_RUN_DURATION="$2" ;;
        --rehearse) REHEARSE="$2" ;;
        --max_restarts) MAX_RESTARTS="$2" ;;
        --config) CONFIG="$2" ;;
        --workdir) # gs://B/RUN/ and gs://B/RUN are one run
            WORKDIR="$2"
            while [[ "$WORKDIR" == ?*/ && "$WORKDIR" != *:// ]]; do WORKDIR="${WORKDIR%/}"; done
            ;;
        --stage) take_stage "$2" ;;
    esac
}

check_arguments() {
    take_number NUM_SLICES --num_slices 1 1000
    take_number MAX_RESTARTS --max_restarts 0 1000000
    take_number RESTARTS "the number of restarts" 0 1000000
    take_number POLL_SECONDS POLL_SECONDS 0 86400
    take_number RETRY_SECONDS RETRY_SECONDS 0 86400
    take_number GRACE_SECONDS GRACE_SECONDS 1 86400
    take_number LINES_SHOWN LINES_SHOWN 1 1000000
    take_duration VALID_UNTIL --valid_until
    take_duration MAX_RUN_DURATION --max_run_duration
    [[ "$CAPACITY" =~ ^(on-demand|spot|reserved|flex)$ ]] || die "the kind of capacity must be on-demand, spot, reserved or flex, got '$CAPACITY'"
    if [[ -n "$TPU" ]]; then take_name TPU --tpu; fi
    if [[ -n "$CLUSTER" ]]; then take_name CLUSTER --cluster; fi
    if [[ -n "$IMAGE_REPOSITORY" ]]; then take_name IMAGE_REPOSITORY --image_repository :/; fi
    if [[ -n "$RESERVATION" ]]; then take_name RESERVATION --reservation /; fi
    if [[ -n "$DOCKER_IMAGE" && ! "$DOCKER_IMAGE" =~ ^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,400}$ ]]; then
        die "--docker-image must be the name of an image, got '$DOCKER_IMAGE'"
    fi
    case "$PRIORITY" in
        "" | very-low | low | medium | high | very-high) ;;
        *) die "--priority must be very-low, low, medium, high or very-high, got '$PRIORITY'" ;;
    esac
    if [[ -z "$BACKEND" ]]; then
        [[ -z "$TPU" || -z "$CLUSTER" ]] || die "--tpu and --cluster are two ways to train: give one, or --backend"
        if [[ -n "$CLUSTER" ]]; then BACKEND=xpk; elif [[ -n "$TPU" ]]; then BACKEND=tpu; else BACKEND=local; fi
    fi
    case "$BACKEND" in
        tpu) refuse_others "a slice of --tpu" docker-image "$DOCKER_IMAGE" priority "$PRIORITY" reservation "$RESERVATION" storage "${STORAGES[*]:-}" ;;
        xpk) refuse_others "a cluster" valid_until "$VALID_UNTIL" max_run_duration "$MAX_RUN_DURATION" ;;
    esac
    if [[ -n "$ZONE" ]]; then take_name ZONE --zone; fi
    if [[ -n "$PROJECT" ]]; then take_name PROJECT --project :; fi
    if [[ -n "$RUNTIME" ]]; then take_name RUNTIME --runtime; fi
    # What launch/ does not know is training's, which a launch without a config never asks.
    if [[ -n "$COMMAND" && -z "$CONFIG" && ${#TRAIN_ARGUMENTS[@]} -gt 0 ]]; then
        die "unknown argument '${TRAIN_ARGUMENTS[0]}' of '$COMMAND'; see --help"
    fi
    if [[ -n "$PRICE" ]]; then
        [[ "$PRICE" =~ ^[0-9]{1,6}(\.[0-9]{1,6})?$ ]] ||
            die "--price must be dollars per chip and hour, such as 1.2, got '$PRICE'"
        TRAIN_ARGUMENTS+=("--price=$PRICE")
    fi
    [[ "$REHEARSE" =~ ^(auto|yes|no)$ ]] || die "--rehearse must be auto, yes or no, got '$REHEARSE'"
    if [[ -n "$ACCELERATOR" ]]; then describe_slice "$ACCELERATOR" "$NUM_SLICES"; fi
}

# refuse_others WAY OPTION VALUE ...: what another way to train heeds would be ignored by this one.
refuse_others() {
    local way="$1"
    shift
    while (($#)); do
        [[ -z "$2" ]] || die "--$1 is not of $way, got '$2': leave it out"
        shift 2
    done
}
