# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A run as a JobSet on a GKE cluster through xpk: Kueue decides when it starts, JobSet starts it again.
# Nothing here has to live on. Sourced by tpu_train.sh, which sets CLUSTER, ZONE, PROJECT, ACCELERATOR and
# what describe_slice says of it, NUM_SLICES, CAPACITY, RESERVATION, STORAGES, PRIORITY, DOCKER_IMAGE,
# IMAGE_REPOSITORY, CONFIG, WORKDIR and TRAIN_ARGUMENTS, all checked.

XPK_VERSION=1.16.0 # that this was tried with
XPK="${XPK:-xpk}"  # the program
CREATED=0          # whether xpk said that the workload is there
FINISHED=0         # whether the workload's end was seen
START_SECONDS=900  # for the last pod of a run to arrive: some nodes still fetch the image
NAME_LETTERS=19    # of the work folder's name; with the rest 28, xpk's limit where slices are joined

# shellcheck source=launch/gcloud.sh
source "$REPO/launch/gcloud.sh"
# shellcheck source=launch/image.sh
source "$REPO/launch/image.sh"

# What all commands need: the program and the cluster's flags.
prepare() {
    need zone
    [[ -n "$CLUSTER" ]] || die "--cluster is missing: the name of the GKE cluster that runs it"
    if [[ "$DRY_RUN" != 1 ]] && ! command -v "$XPK" >/dev/null; then
        die "xpk is not installed: pip install xpk==$XPK_VERSION into an environment of its own (it pins what we pin otherwise) and set XPK=/path/to/xpk; it needs gcloud and kubectl, too"
    fi
    common_flags
    COMMON+=(--cluster "$CLUSTER")
}

# What commands about a run need, too: the name of its workload.
prepare_run() {
    prepare
    need workdir
    NAME="$(workload_name)"
}

# One workload per work folder, so that the same command finds it again: a DNS label.
workload_name() {
    local LC_ALL=C folder="$WORKDIR" word
    while [[ "$folder" == */ ]]; do folder="${folder%/}"; done
    word="$(printf '%s' "${folder##*/}" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-')"
    word="${word#-}"
    [[ "$word" == [a-z]* ]] || word="run-$word"
    word="${word:0:NAME_LETTERS}"
    printf '%s-%s' "${word%-}" "$(printf '%s' "$folder" | sha256 | cut -c 1-8)"
}

# xpk without its telemetry, and without a terminal to ask whether something may be overwritten.
ask_xpk() { run env TELEMETRY_ENABLED=false "$XPK" workload "$@" "${COMMON[@]}" </dev/null; }

# Prints the state of the workload: ABSENT, THERE (queued or running), FINISHED, FAILED, or UNKNOWN where
# xpk fails.
workload_state() {
    local answer
    if ! answer="$(ask_xpk list --filter-by-job "$NAME" 2>&1)"; then
        say "xpk cannot list the workloads of $CLUSTER: $answer" >&2
        echo UNKNOWN
    elif [[ "$DRY_RUN" == 1 ]]; then
        say "$answer" >&2
        echo ABSENT
    else
        case "$(grep "^$NAME " <<<"$answer" || true)" in
            "") echo ABSENT ;;
            *" Finished "*successfully*) echo FINISHED ;;
            *" Finished "*) echo FAILED ;;
            *) echo THERE ;;
        esac
    fi
}

# Prints words for the command in a manifest: one line of ASCII, in which no $ stands before another
# or before a bracket, for Kubernetes replaces $(NAME) and $$.
container_words() {
    local LC_ALL=C word line=""
    for word in "$@"; do
        printf -v word '%q' "$word"
        if [[ "$word" == "\$'"* ]]; then
            word="${word:2}"
            word="\$'${word//\$/\\x24}"
        fi
        line+=" $word"
    done
    printf '%s' "${line# }"
}

# Prints the exit codes that a new start can help, with commas.
restarted() {
    local code codes=""
    for ((code = 1; code < 256; code++)); do
        if training_may_restart "$code"; then codes+=",$code"; fi
    done
    printf '%s' "${codes#,}"
}

# `exec`, so that the process to which xpk sends SIGTERM is pod.sh, and no shell around it.
pod_command() {
    container_words exec bash launch/pod.sh "--config=$CONFIG" "--workdir=$WORKDIR" \
        "--accelerator=$ACCELERATOR" "--num_slices=$NUM_SLICES" "--flags=$FLAGS" \
        "--start_seconds=$START_SECONDS" ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"}
}

# Sets CAPACITY_FLAGS, which a cluster that provisions by itself heeds; the default is the cluster's own.
capacity_flags() {
    CAPACITY_FLAGS=()
    case "$CAPACITY" in
        spot | flex) CAPACITY_FLAGS=("--$CAPACITY") ;;
        reserved)
            [[ -n "$RESERVATION" ]] || die "--reserved needs the reservation's name on a cluster: --reservation NAME"
            CAPACITY_FLAGS=(--reservation "$RESERVATION")
            ;;
    esac
}

# Builds the image where this tree has none yet.
xpk_setup() {
    prepare
    make_image
    say "image: $IMAGE"
}

# Creates the workload, or says that it is there.
xpk_run() {
    prepare_run
    need config
    [[ -n "$ACCELERATOR" ]] || die "--accelerator is missing, for example --accelerator v5e-16"
    case "$XPK_TYPE" in
        v5litepod-1x1 | v5litepod-2x2) die "xpk has no $XPK_TYPE; the smallest slice of v5e on a cluster is v5e-8" ;;
    esac
    capacity_flags
    need_image
    local state
    state="$(workload_state)"
    case "$state" in
        ABSENT | FAILED) ;;
        THERE)
            CREATED=1
            say "$NAME exists already in $CLUSTER, for $WORKDIR, as it was first asked for; delete it to change that"
            return 0
            ;;
        FINISHED)
            FINISHED=1
            say "$NAME has finished: $WORKDIR; to start it once more, delete it first:"
            show_delete
            return 0
            ;;
        *) die "$NAME is not asked for while xpk cannot tell whether it is there; its message is above" ;;
    esac
    check_launch
    if [[ "$state" == FAILED ]]; then
        say "$NAME has failed; deleting it and asking again"
        xpk_delete
    fi
    stage
    keep_compiled
    if [[ "$WORKDIR" == gs://* ]]; then keep_record || no_access; fi
    make_image
    watch_workload
    say "asking for $NUM_SLICES x $XPK_TYPE ($CHIPS chips each) in $CLUSTER: $NAME"
    ask_xpk create --workload "$NAME" --tpu-type "$XPK_TYPE" --num-slices "$NUM_SLICES" \
        ${CAPACITY_FLAGS[@]+"${CAPACITY_FLAGS[@]}"} --docker-image "$IMAGE" \
        ${PRIORITY:+--priority "$PRIORITY"} ${STORAGES[@]+"${STORAGES[@]}"} --max-restarts "$MAX_RESTARTS" \
        --restart-on-exit-codes "$(restarted)" --termination-grace-period-seconds "$GRACE_SECONDS" \
        --skip-validation "--command=$(pod_command)" ||
        die "xpk could not create $NAME; its message is above (gcloud auth login, if it is about credentials)"
    CREATED=1
}

# Waits for its end, however often it is started again; this may be interrupted, and asked for once more.
xpk_wait() {
    prepare_run
    local code=0
    ask_xpk list --wait-for-job-completion "$NAME" || code=$?
    if [[ "$DRY_RUN" == 1 ]]; then return 0; fi
    case "$code" in
        0) FINISHED=1 && say "finished: $WORKDIR" ;;
        125) FINISHED=1 && say "$NAME has failed, or its restarts are used up (--max_restarts); 'logs' shows why, the same command starts it again" ;;
        *) say "xpk cannot follow $NAME; its message is above" ;;
    esac
    return "$code"
}

xpk_status() {
    prepare_run
    ask_xpk list --filter-by-job "$NAME" || die "xpk cannot list the workloads of $CLUSTER; its message is above"
}

# What all pods printed last, oldest first, pod by line.
xpk_logs() {
    prepare_run
    run gcloud logging read "resource.type=k8s_container AND resource.labels.cluster_name=$CLUSTER AND resource.labels.pod_name:$NAME-slice-job-" \
        --limit "$LINES_SHOWN" --order desc --format "value(resource.labels.pod_name,textPayload)" \
        ${PROJECT:+--project "$PROJECT"} || die "gcloud could not read the logs of $NAME; its message is above"
}

# Its pods are told to leave and save, within GRACE_SECONDS; the same command continues the run.
xpk_delete() {
    prepare_run
    ask_xpk delete --workload "$NAME" || die "xpk could not delete $NAME; its message is above"
}

xpk_stop() { xpk_delete; }

xpk_resume() { xpk_all; } # JobSet is what looks after the run

xpk_create() { die "a cluster is there before its runs (xpk cluster create); commands with --cluster: setup, run, wait, status, logs, stop, resume, delete, all"; }

show_delete() { show bash launch/tpu_train.sh delete "${COMMON[@]}" --workdir "$WORKDIR"; }

# What is asked for trains on without this launcher: unless its end was seen, the last words say so.
watch_workload() {
    if [[ "$DRY_RUN" == 1 ]]; then return 0; fi
    AT_EXIT+=(say_workload)
    trap 'exit 130' INT
}

say_workload() {
    if ((FINISHED)); then return 0; fi
    if [[ "$CREATED$DRY_RUN" == 00 ]]; then say "$NAME may be there; if it is:"; fi
    say "$NAME waits for chips and trains by itself${PRICE_HOUR:+, at $PRICE_HOUR dollars an hour while it does}, until its end or:"
    show_delete
}

xpk_all() {
    xpk_run
    if ((FINISHED)); then return 0; fi
    say_workload
    xpk_wait
}
