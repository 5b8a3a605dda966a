# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Starts the training on every worker, watches it and decides what an end means. Sourced by gcloud.sh.
#
#   0           finished
#   42          preempted and saved: start again, on a new slice if this one is gone
#   129, 130, 143   told to leave before training could listen (HUP, INT, TERM): as 42
#   124         nothing moved for too long (watchdog): start again
#   134         another worker died: start again
#   137         killed, often for host memory: start again
#   43          stopped by `stop`: leave it
#   4           the disk is full, or no checkpoint is whole: with room, the same command continues
#   any other   wrong config, data, non-finite loss: a restart would end the same way
#
# Restarts are bounded by --max_restarts; every one resumes from the newest whole checkpoint.

NO_SLICE=75       # in place of an exit code: none could be had, or set up
REFUSED=64        # likewise: a worker's job.sh does not take the job
STARTS="launched_" # folders of logs, one for each start of the jobs

# One run per work folder: its name decides where its log and exit code are on the workers. Words to read,
# and a digest, as BUCKET/a_b and BUCKET/a/b are two runs.
job_name() {
    local LC_ALL=C name="${WORKDIR#gs://}"
    name="${name//[^A-Za-z0-9_.-]/_}" name="${name:0:40}"
    printf '%s-%.8s' "$name" "$(printf '%s' "$WORKDIR" | sha256)"
}

# Makes the run this launcher's, from here on.
take_run() {
    claim
    withdraw_stop
    keep_record || no_access
}

# This, cloud_resume and cloud_all are begun by tpu_train.sh, which has checked what they need.
cloud_run() {
    begin
    refuse_another
    take_run
    look
    supervise
}

# Goes on with a run from its record, on this machine: with the jobs that run, or on a new slice.
cloud_resume() {
    begin
    refuse_another
    look
    if [[ "$OUTCOME" == finished && -z "$CHANGED" ]]; then
        say "finished: $WORKDIR"
        return 0
    fi
    OUTCOME=""
    take_run
    make_active
    supervise
}

# Starts the training and starts it again as long as that helps.
supervise() {
    local code=0
    start_and_watch || code=$?
    while restart_helps "$code"; do
        if ((RESTARTS >= MAX_RESTARTS)); then
            say "$MAX_RESTARTS restarts are used up (--max_restarts)"
            break
        fi
        if ((code == NO_SLICE)); then pause $((RETRY_SECONDS * (RESTARTS < 60 ? RESTARTS : 60))); fi
        if stop_is_wanted; then
            code=43
            break
        fi
        RESTARTS=$((RESTARTS + 1))
        say "restart $RESTARTS of at most $MAX_RESTARTS"
        keep_record || true # a bucket that is away for a while is no reason to give up
        code=0
        if make_active; then start_and_watch || code=$?; else code=$NO_SLICE; fi
        if ((code == NO_SLICE)) && stop_is_wanted; then code=43; fi
    done
    if ((code == 0)); then OUTCOME=finished; else OUTCOME="ended with exit code $code"; fi
    [[ "$DRY_RUN" == 1 ]] || keep_record || true
    return "$code"
}

# Says what an exit code means; returns whether to start again.
restart_helps() {
    case "$1" in
        0) [[ "$DRY_RUN" == 1 ]] || say "finished: $WORKDIR" ;;
        42) say "preempted and saved" && return 0 ;;
        129 | 130 | 143) say "told to leave before there was anything to save" && return 0 ;;
        124) say "the watchdog ended a run in which nothing moved" && return 0 ;;
        134) say "a worker died and the others ended with it" && return 0 ;;
        137) say "a worker was killed; often its host was out of memory" && return 0 ;;
        "$NO_SLICE") say "there are no workers to go on with; asking again" && return 0 ;;
        "$REFUSED") say "a worker does not take the job; its message is above" ;;
        255) say "the slice is gone, or does not answer" && return 0 ;;
        43) say "stopped; the same command continues it" ;;
        4) say "the disk is full, or no checkpoint is whole; with room, the same command continues" ;;
        *) say "training ended with exit code $1; a restart would end the same way" ;;
    esac
    return 1
}

# The same of an exit code of the training itself, without a word: two are the launcher's own.
training_may_restart() { (($1 != NO_SLICE && $1 != 255)) && restart_helps "$1" >/dev/null; }

# Workers that are ready: those that are there, else a new slice. A preempted one cannot be restarted.
make_active() {
    look
    if [[ "$STATE" == ACTIVE ]] && are_set_up; then return 0; fi
    # What was preempted is SUSPENDED, until it is deleted. What is flex-start's ends by itself.
    if [[ -n "$WAS_ACTIVE" && "$CAPACITY" != flex && ("$STATE" == ABSENT || "$STATE" == DELETING) ]]; then
        OUTCOME=deleted
        keep_record || true
        die "$TPU was deleted from elsewhere: this launcher asks for no other; 'resume' would"
    fi
    if [[ "$STATE" != ACTIVE ]]; then
        cloud_create || return
        cloud_wait || return
    fi
    cloud_setup
}

start_and_watch() {
    local answer silent=0
    if stop_is_wanted; then
        say "stopped before it began"
        return 43
    fi
    start_jobs || return
    if stop_is_wanted; then on_workers job stop "$GRACE_SECONDS" || true; fi # it came in between
    if [[ "$DRY_RUN" == 1 ]]; then
        on_workers job status
        on_workers job tail 1
        say "... until every worker has ended"
        return 0
    fi
    while :; do
        pause "$POLL_SECONDS"
        if ! answer="$(on_workers job status 2>&1)" || ! are_all '^job slice_' "$answer"; then
            look
            if [[ "$STATE" != ACTIVE && "$STATE" != UNKNOWN ]]; then return 255; fi
            silent=$((silent + 1))
            say "no answer from the workers ($silent of $MAX_SILENT_POLLS)"
            if ((silent >= MAX_SILENT_POLLS)); then return 255; fi
            continue
        fi
        silent=0
        decide "$answer" || return $?
        if ! grep -q '^job .* running$' <<<"$answer"; then return 0; fi
    done
}

# Every start has its own folder of logs: those of a slice that is gone stay. Returns REFUSED where a
# worker answers but does not take the job, else 255 for what cannot be reached.
start_jobs() {
    local answer code=0
    keep_compiled
    hold || true
    if [[ "$DRY_RUN" == 1 ]]; then
        ask_start
        return
    fi
    answer="$(ask_start 2>&1)" || code=$?
    printf '%s\n' "$answer"
    ((code)) || return 0
    if grep -q '^job[.]sh: ' <<<"$answer"; then return "$REFUSED"; fi
    return 255
}

ask_start() {
    on_workers job start "--logs=$WORKDIR/logs/$STARTS$(date -u +%Y%m%dT%H%M%SZ)_$(printf %04d "$RESTARTS")" \
        bash "$REMOTE/launch/tpu_train.sh" "--config=$CONFIG" "--workdir=$WORKDIR" \
        "--accelerator=$ACCELERATOR" "--num_slices=$NUM_SLICES" "--flags=$FLAGS" \
        ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"}
}

# Compiled programs lie in the work folder unless the command line has another place: the next slice
# loads what this one compiles.
keep_compiled() {
    if [[ " ${TRAIN_ARGUMENTS[*]:-}" != *" --compilation_cache"* ]]; then
        TRAIN_ARGUMENTS+=("--compilation_cache=$WORKDIR/compiled")
    fi
}

# Looks at the workers' status lines. Returns the code to act on if one failed, else 0.
decide() {
    local found worker code
    found="$(cause "$1")"
    if [[ -z "$found" ]]; then
        if grep -q '^job .* absent$' <<<"$1"; then
            hold || true
            on_workers job stop "$GRACE_SECONDS" >/dev/null || true # they wait for it in vain
            return 255
        fi
        on_workers job tail 1 2>/dev/null | grep -v '^==' | head -n 1 || true
        return 0
    fi
    worker="${found%% *}" code="${found#* }"
    if [[ "$code" =~ ^[1-9][0-9]{0,2}$ ]] && ((code < 256)); then
        say "$worker ended with exit code $code; the ends of all logs, this one first:"
    else
        say "$worker ended, but its exit code cannot be read (got '$code'); the ends of all logs, this one first:"
        code=1
    fi
    on_workers job tail 15 | first "$worker" || true
    hold || true
    # On preemption the others are saving the same step: they end by themselves, within the grace.
    on_workers job stop "$GRACE_SECONDS" >/dev/null || true
    return "$code"
}

# Of blocks that begin with "== WORKER", puts one worker's in front.
first() {
    awk -v wanted="== $1" '/^== / { ours = $0 == wanted } { if (ours) print; else rest = rest $0 "\n" }
        END { printf "%s", rest }'
}

# Prints "WORKER CODE" of the worker to blame, nothing if none failed. What cannot be helped by a
# restart is the cause of the rest: peers of a worker that failed hang, are killed or abort. Of equals
# it is the one that ended first.
cause() {
    local word worker answer when rank best=9 earliest=0 found=""
    while read -r word worker answer when; do
        if [[ "$word $answer" != "job exit="* ]]; then continue; fi
        [[ "$when" =~ ^[1-9][0-9]{0,11}$ ]] || when=999999999999
        case "${answer#exit=}" in
            0) continue ;;
            134) rank=4 ;;
            124 | 137) rank=3 ;;
            42 | 129 | 130 | 143) rank=2 ;;
            43) rank=1 ;;
            *) rank=0 ;;
        esac
        if ((rank < best || (rank == best && when < earliest))); then
            best=$rank earliest=$when found="$worker ${answer#exit=}"
        fi
    done <<<"$1"
    printf '%s' "$found"
}
