# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A TPU slice (or several) through gcloud queued resources. Sourced by tpu_train.sh, which sets TPU,
# ZONE, PROJECT, ACCELERATOR and what describe_slice says of it, NUM_SLICES, RUNTIME, CAPACITY, CONFIG, WORKDIR, the
# seconds and TRAIN_ARGUMENTS, all checked.

REMOTE=f3tok_jax   # the tree on each worker, in the home
MAX_SILENT_POLLS=5 # answers of gcloud or of the workers that may fail in a row

# shellcheck source=launch/archive.sh
source "$REPO/launch/archive.sh"
# shellcheck source=launch/supervise.sh
source "$REPO/launch/supervise.sh"

need() {
    local name
    for name in "$@"; do
        case "$name" in
            zone) [[ -n "$ZONE" ]] || die "--zone is missing (or the variable ZONE), for example --zone us-central1-a" ;;
            accelerator)
                [[ -n "$ACCELERATOR" ]] || die "--accelerator is missing, for example --accelerator v5litepod-16"
                [[ -n "$SLICE_TYPE" ]] ||
                    die "no type of TPU VM has the shape of $TOPOLOGY; leave it to the cloud by a name such as v5p-128, or use a cluster (--cluster)"
                [[ -n "${RUNTIME:-$RUNTIME_DEFAULT}" ]] ||
                    die "there are no TPU VMs of $GENERATION; use a cluster (--cluster)"
                ;;
            config)
                [[ -n "$CONFIG" ]] || die "--config is missing, for example --config configs/autoencoder.py:base"
                is_sent "${CONFIG%%:*}" ||
                    die "--config must name a file that goes to the workers, got '$CONFIG': git add it, or name one of configs/"
                ;;
            workdir)
                [[ -n "$WORKDIR" ]] || die "--workdir is missing, for example --workdir gs://BUCKET/RUN"
                [[ "$WORKDIR" == gs://* || "$WORKDIR" == /* ]] ||
                    die "--workdir must be a place that every worker sees (gs://... or a shared /...), got '$WORKDIR'"
                ;;
        esac
    done
}

common_flags() {
    COMMON=(--zone "$ZONE")
    if [[ -n "$PROJECT" ]]; then COMMON+=(--project "$PROJECT"); fi
}

# Names of the slices' nodes, one per line.
nodes() {
    local slice
    if ((NUM_SLICES == 1)); then
        echo "$TPU"
    else
        for ((slice = 0; slice < NUM_SLICES; slice++)); do echo "$TPU-$slice"; done
    fi
}

# Prints the state of the queued resource: ABSENT where there is none, UNKNOWN where gcloud fails.
state() {
    local answer
    if [[ "$DRY_RUN" == 1 ]]; then
        show gcloud compute tpus queued-resources describe "$TPU" "${COMMON[@]}" "--format=value(state.state)" >&2
        echo "${DRY_STATE:-ABSENT}"
    elif answer="$(gcloud compute tpus queued-resources describe "$TPU" "${COMMON[@]}" \
        "--format=value(state.state)" 2>&1)"; then
        printf '%s\n' "${answer##*$'\n'}"
    elif [[ "$answer" == *NOT_FOUND* || "$answer" == *"not found"* ]]; then
        echo ABSENT
    else
        say "gcloud cannot tell the state of $TPU: $answer" >&2
        echo UNKNOWN
    fi
}

# on_workers MAKE [WORD ...]: runs on every worker of every slice what MAKE SLICE [WORD ...] prints.
on_workers() {
    local make="$1" node slice=0
    shift
    for node in $(nodes); do
        run gcloud compute tpus tpu-vm ssh "$node" "${COMMON[@]}" --worker=all --quiet \
            "--command=$("$make" "$slice" "$@")" || return $?
        slice=$((slice + 1))
    done
}

# What on_workers can make: a command that is the same everywhere, and job.sh's ACTION [WORD ...].
everywhere() { printf '%s' "$2"; }
job() { quoted bash "$REMOTE/launch/job.sh" "$2" "$(job_name)" "$1" "${@:3}"; }

# Runs a command up to five times: copying to many workers at once fails now and then.
retry() {
    local attempt
    for attempt in 1 2 3 4 5; do
        if run "$@"; then return 0; fi
        say "attempt $attempt of 5 failed: $1 $2 ..." >&2
        sleep $((attempt * RETRY_SECONDS))
    done
    return 1
}

cloud_create() {
    need zone accelerator
    common_flags
    local request now
    now="$(state)"
    case "$now" in
        ABSENT) ;;
        UNKNOWN) die "$TPU is not asked for while gcloud cannot tell whether it is there" ;;
        FAILED | SUSPENDED)
            say "$TPU is $now; it cannot be restarted: deleting it and asking again"
            delete_and_wait
            ;;
        *)
            say "$TPU exists already: $now"
            return 0
            ;;
    esac
    request=(gcloud compute tpus queued-resources create "$TPU" "${COMMON[@]}"
        --accelerator-type "$SLICE_TYPE" --runtime-version "${RUNTIME:-$RUNTIME_DEFAULT}")
    if ((NUM_SLICES == 1)); then
        request+=(--node-id "$TPU")
    else
        request+=(--node-count "$NUM_SLICES" --node-prefix "$TPU")
    fi
    if [[ "$CAPACITY" != on-demand ]]; then request+=("--$CAPACITY"); fi
    say "asking for $NUM_SLICES x $SLICE_TYPE ($TOPOLOGY: $CHIPS chips, $HOSTS hosts each), $CAPACITY"
    run "${request[@]}" || die "gcloud could not create $TPU; its message is above"
}

cloud_wait() {
    need zone
    common_flags
    local now before="" silent=0
    if [[ "$DRY_RUN" == 1 ]]; then DRY_STATE=ACTIVE; fi
    while :; do
        now="$(state)"
        if [[ "$now" != "$before" ]]; then say "$(date +%H:%M:%S) $TPU is $now"; fi
        before="$now"
        case "$now" in
            ACTIVE) return 0 ;;
            UNKNOWN)
                silent=$((silent + 1))
                ((silent < MAX_SILENT_POLLS)) || die "gcloud has failed $silent times in a row"
                ;;
            FAILED | SUSPENDED | ABSENT)
                run gcloud compute tpus queued-resources describe "$TPU" "${COMMON[@]}" >&2 || true
                die "$TPU is $now and will not become active; 'create' asks again"
                ;;
        esac
        sleep "$POLL_SECONDS"
    done
}

# Copies the code to every worker and makes the environment there.
cloud_setup() {
    need zone
    common_flags
    local node answer different
    make_archive
    for node in $(nodes); do
        retry gcloud compute tpus tpu-vm scp "$ARCHIVE" "$node:$REMOTE.tar.gz" "${COMMON[@]}" \
            --worker=all --quiet || die "could not copy the code to the workers of $node"
    done
    on_workers everywhere "mkdir -p $REMOTE && tar -xzf $REMOTE.tar.gz -C $REMOTE && bash $REMOTE/launch/tpu_train.sh install" ||
        die "the environment could not be made on every worker of $TPU"
    # All hosts must run the same program: compare what is installed and the code itself.
    answer="$(on_workers everywhere "echo \"workers \$($REMOTE/.venv/bin/python -m pip freeze | cksum) \$(cksum < $REMOTE.tar.gz)\"")" ||
        die "a worker of $TPU did not answer after the installation"
    if [[ "$DRY_RUN" == 1 ]]; then
        say "$answer"
        return 0
    fi
    different="$(grep '^workers ' <<<"$answer" | sort -u | wc -l)"
    ((different == 1)) || die "the workers of $TPU do not have the same packages and code: $answer"
    say "$(grep -c '^workers ' <<<"$answer") workers, all with the same packages and code"
}

cloud_status() {
    need zone
    common_flags
    say "$TPU: $(state)"
    on_workers job status
}

cloud_logs() {
    need zone
    common_flags
    on_workers job tail "$LINES_SHOWN"
}

cloud_stop() {
    need zone
    common_flags
    on_workers job stop "$GRACE_SECONDS"
}

delete_and_wait() {
    run gcloud compute tpus queued-resources delete "$TPU" "${COMMON[@]}" --force --quiet ||
        die "gcloud could not delete $TPU; its message is above"
    if [[ "$DRY_RUN" == 1 ]]; then return 0; fi
    while [[ "$(state)" != ABSENT ]]; do sleep "$POLL_SECONDS"; done
}

cloud_delete() {
    need zone
    common_flags
    if [[ "$DRY_RUN" != 1 && "$(state)" == ABSENT ]]; then
        say "$TPU does not exist"
        return 0
    fi
    delete_and_wait
}

cloud_all() {
    need zone accelerator config workdir
    cloud_create
    cloud_wait
    cloud_setup
    local code=0
    cloud_run || code=$?
    say "$TPU is still there and costs money until:"
    show bash launch/tpu_train.sh delete --tpu "$TPU" "${COMMON[@]}"
    return "$code"
}
