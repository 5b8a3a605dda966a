# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A TPU slice (or several) through gcloud queued resources. Sourced by tpu_train.sh, which sets TPU,
# ZONE, PROJECT, ACCELERATOR and what describe_slice says of it, NUM_SLICES, RUNTIME, CAPACITY, CONFIG,
# WORKDIR, the seconds and TRAIN_ARGUMENTS, all checked.

MAX_SILENT_POLLS=5 # answers of gcloud or of the workers that may fail in a row
STATE="" # of the queued resource, as it was last seen: ABSENT where there is none
WAS_ACTIVE="" # whether this launcher has seen it at work

# shellcheck source=launch/bill.sh
source "$REPO/launch/bill.sh"
# shellcheck source=launch/workers.sh
source "$REPO/launch/workers.sh"
# shellcheck source=launch/check.sh
source "$REPO/launch/check.sh"
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

# Sets COMMON. The project is gcloud's own of this machine where none is given, and then the record's: on
# another machine gcloud's own may be another.
common_flags() {
    if [[ "$DRY_RUN" != 1 ]]; then
        need_gcloud
        make_private
        if [[ -z "$PROJECT" ]]; then
            PROJECT="$(ask gcloud config get-value project)" && [[ -n "$PROJECT" && "$PROJECT" != "(unset)" ]] ||
                die "gcloud has no project of its own: give --project, or set one with 'gcloud config set project NAME'"
            take_name PROJECT "gcloud's own project" :
        fi
    fi
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

# What every command does that may leave something behind which costs money.
begin() {
    common_flags
    watch_costs
}

# Sets STATE: UNKNOWN where gcloud fails or says what is none. Much else may be "not found" (an account, a
# zone, a program): only this very resource is ABSENT.
look() {
    local answer letters='[^A-Za-z0-9._-]'
    if [[ "$DRY_RUN" == 1 ]]; then
        show gcloud compute tpus queued-resources describe "$TPU" "${COMMON[@]}" "--format=value(state.state)"
        STATE="${DRY_STATE:-ABSENT}"
    elif answer="$(ask gcloud compute tpus queued-resources describe "$TPU" "${COMMON[@]}" \
        "--format=value(state.state)" 2>&1)" && [[ "$answer" =~ ^[A-Z_]+$ ]]; then
        STATE="$answer"
        if [[ "$STATE" == ACTIVE ]]; then WAS_ACTIVE=1; fi
    elif [[ "$answer" == *NOT_FOUND* && "$answer" =~ $letters"$TPU"($letters|$) ]]; then
        STATE=ABSENT
    else
        say "gcloud cannot tell the state of $TPU: $answer" >&2
        STATE=UNKNOWN
    fi
}

cloud_create() {
    need zone accelerator
    begin
    look
    case "$STATE" in
        ABSENT) ;;
        UNKNOWN) fail "$TPU is not asked for while gcloud cannot tell whether it is there" || return ;;
        FAILED | SUSPENDED)
            say "$TPU is $STATE; it cannot be restarted: deleting it and asking again"
            delete_and_wait || return
            ;;
        *)
            say "$TPU exists already: $STATE"
            return 0
            ;;
    esac
    say "asking for $NUM_SLICES x $SLICE_TYPE ($TOPOLOGY: $CHIPS chips, $HOSTS hosts each), $CAPACITY: $(price)"
    make_request
    hold || fail "$TPU is not asked for while it cannot be told whether the run is still this launcher's" || return
    STATE="" # until gcloud has answered
    if ! run "${REQUEST[@]}"; then
        look
        fail "gcloud could not create $TPU; its message is above" || return
    fi
    STATE=ACCEPTED
}

# Sets REQUEST: gcloud's words for the slices. Flex-start is known to its alpha commands alone.
make_request() {
    REQUEST=(gcloud compute tpus queued-resources create)
    if [[ "$CAPACITY" == flex ]]; then REQUEST=(gcloud alpha compute tpus queued-resources create); fi
    REQUEST+=("$TPU" "${COMMON[@]}" --accelerator-type "$SLICE_TYPE"
        --runtime-version "${RUNTIME:-$RUNTIME_DEFAULT}")
    if ((NUM_SLICES == 1)); then
        REQUEST+=(--node-id "$TPU")
    else
        REQUEST+=(--node-count "$NUM_SLICES" --node-prefix "$TPU")
    fi
    case "$CAPACITY" in
        flex) REQUEST+=(--provisioning-model flex-start --max-run-duration "${MAX_RUN_DURATION:-7d}") ;;
        spot | reserved) REQUEST+=("--$CAPACITY") ;;
    esac
    if [[ -n "$VALID_UNTIL" ]]; then REQUEST+=(--valid-until-duration "$VALID_UNTIL"); fi
}

cloud_wait() {
    need zone
    begin
    local before="" silent=0
    if [[ "$DRY_RUN" == 1 ]]; then DRY_STATE=ACTIVE; fi
    while :; do
        look
        if [[ "$STATE" != "$before" ]]; then say "$(date +%H:%M:%S) $TPU is $STATE"; fi
        before="$STATE"
        case "$STATE" in
            ACTIVE) return 0 ;;
            UNKNOWN)
                silent=$((silent + 1))
                ((silent < MAX_SILENT_POLLS)) || fail "gcloud has failed $silent times in a row" || return
                ;;
            FAILED | SUSPENDED | ABSENT)
                run gcloud compute tpus queued-resources describe "$TPU" "${COMMON[@]}" >&2 || true
                fail "$TPU is $STATE and will not become active; 'create' asks again" || return
                ;;
            *) silent=0 ;;
        esac
        pause "$POLL_SECONDS"
        if [[ -n "$BEATING" ]] && stop_is_wanted; then
            say "stopped before it began"
            return 43
        fi
    done
}

delete_and_wait() {
    local silent=0
    hold || fail "$TPU is not deleted while it cannot be told whether the run is still this launcher's" || return
    WAS_ACTIVE=""
    run gcloud compute tpus queued-resources delete "$TPU" "${COMMON[@]}" --force --quiet ||
        fail "gcloud could not delete $TPU; its message is above" || return
    if [[ "$DRY_RUN" == 1 ]]; then return 0; fi
    look
    while [[ "$STATE" != ABSENT ]]; do
        if [[ "$STATE" == UNKNOWN ]]; then silent=$((silent + 1)); else silent=0; fi
        ((silent < MAX_SILENT_POLLS)) || fail "gcloud has failed $silent times in a row; whether $TPU is gone is not known" || return
        pause "$POLL_SECONDS"
        look
    done
}

# Prints the state of another queued resource.
state_of() {
    local STATE="" WAS_ACTIVE="" TPU="$1" COMMON=(--zone "$2" --project "$3")
    look >/dev/null
    printf '%s\n' "$STATE"
}

# A work folder knows one slice: another is not bought while that of its record may be there.
refuse_another() {
    local tpu zone project words state
    if [[ "$DRY_RUN" == 1 ]] || ! fetch_record; then return 0; fi
    tpu="$(recorded TPU)" zone="$(recorded ZONE)" project="$(recorded PROJECT)"
    project="${project:-$PROJECT}"
    if [[ -z "$tpu" || "$tpu $zone $project" == "$TPU $ZONE $PROJECT" ]]; then return 0; fi
    state="$(state_of "$tpu" "$zone" "$project")"
    if [[ "$state" == ABSENT ]]; then return 0; fi
    words="$(quoted --tpu "$tpu" --zone "$zone" --project "$project" --workdir "$WORKDIR")"
    STATE=ABSENT # nothing of this command's costs
    die "$WORKDIR has a slice already, $tpu in $zone of $project, which is $state: go on with it by" \
        "'bash launch/tpu_train.sh resume $words', or delete it first by 'bash launch/tpu_train.sh delete $words'"
}

cloud_delete() {
    need zone
    begin
    if [[ -n "$WORKDIR" ]]; then let_go; fi
    if [[ "$DRY_RUN" != 1 ]]; then look; fi
    if [[ "$STATE" == ABSENT ]]; then
        say "$TPU does not exist"
        return 0
    fi
    delete_and_wait
}

# A launcher that still looks after the run would ask for the slice again: the run is taken from it, and
# the record says why. A slice can be deleted though its bucket cannot be read.
let_go() {
    bucket_read "$WORKDIR/launch/run.json" >/dev/null || return 0
    fetch_record || return 0
    if [[ "$(recorded TPU) $(recorded ZONE)" != "$TPU $ZONE" ]]; then return 0; fi
    claim
    keep_outcome deleted || true
}

cloud_all() {
    begin
    refuse_another
    take_run
    cloud_create
    cloud_wait
    cloud_setup
    supervise
}
