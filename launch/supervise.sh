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

# shellcheck disable=SC2034
RESTARTED="42 124 129 130 134 137 143" # of these, which a cluster is told, and pod.sh

# One run per work folder: its name decides where its log and exit code are on the workers.
job_name() {
    local LC_ALL=C name="${WORKDIR:-run}"
    name="${name#gs://}"
    printf '%s' "${name//[^A-Za-z0-9_.-]/_}"
}

cloud_run() {
    need zone accelerator config workdir
    common_flags
    local restarts=0 code
    while :; do
        code=0
        start_and_watch || code=$?
        case "$code" in
            0)
                [[ "$DRY_RUN" == 1 ]] || say "finished: $WORKDIR"
                return 0
                ;;
            42) say "preempted and saved" ;;
            129 | 130 | 143) say "told to leave before there was anything to save" ;;
            124) say "the watchdog ended a run in which nothing moved" ;;
            134) say "a worker died and the others ended with it" ;;
            137) say "a worker was killed; often its host was out of memory" ;;
            255) say "the slice is gone, or does not answer" ;;
            43)
                say "stopped; the same command continues it"
                return 43
                ;;
            4)
                say "the disk is full, or no checkpoint is whole; with room, the same command continues"
                return 4
                ;;
            *)
                say "training ended with exit code $code; a restart would end the same way"
                return "$code"
                ;;
        esac
        restarts=$((restarts + 1))
        if ((restarts > MAX_RESTARTS)); then
            say "$MAX_RESTARTS restarts are used up (--max_restarts)"
            return "$code"
        fi
        say "restart $restarts of at most $MAX_RESTARTS"
        make_active
    done
}

# A preempted spot slice cannot be restarted: ask for a new one and set it up.
make_active() {
    if [[ "$(state)" == ACTIVE ]]; then return 0; fi
    cloud_create
    cloud_wait
    cloud_setup
}

start_and_watch() {
    local answer now silent=0
    on_workers job start bash "$REMOTE/launch/tpu_train.sh" "--config=$CONFIG" "--workdir=$WORKDIR" \
        "--accelerator=$ACCELERATOR" "--flags=$FLAGS" \
        ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"} || return 255
    if [[ "$DRY_RUN" == 1 ]]; then
        on_workers job status
        on_workers job tail 1
        say "... until every worker has ended"
        return 0
    fi
    while :; do
        sleep "$POLL_SECONDS"
        if ! answer="$(on_workers job status 2>&1)" || ! grep -q '^job slice_' <<<"$answer"; then
            now="$(state)"
            if [[ "$now" != ACTIVE && "$now" != UNKNOWN ]]; then return 255; fi
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

# Looks at the workers' status lines. Returns the code to act on if one failed, else 0.
decide() {
    local found code
    found="$(cause "$1")"
    if [[ -z "$found" ]]; then
        if grep -q '^job .* absent$' <<<"$1"; then return 255; fi
        on_workers job tail 1 2>/dev/null | grep -v '^==' | head -n 1 || true
        return 0
    fi
    code="${found#* }"
    if [[ "$code" =~ ^[1-9][0-9]{0,2}$ ]] && ((code < 256)); then
        say "${found%% *} ended with exit code $code; the ends of all logs:"
    else
        say "${found%% *} ended, but its exit code cannot be read (got '$code'); the ends of all logs:"
        code=1
    fi
    on_workers job tail 15 || true
    # On preemption the others are saving the same step: they end by themselves, within the grace.
    on_workers job stop "$GRACE_SECONDS" >/dev/null || true
    return "$code"
}

# Prints "WORKER CODE" of the worker to blame, nothing if none failed. What cannot be helped by a
# restart is the cause of the rest: peers of a worker that failed hang, are killed or abort.
cause() {
    local word worker answer rank best=9 found=""
    while read -r word worker answer; do
        if [[ "$word $answer" != "job exit="* ]]; then continue; fi
        case "${answer#exit=}" in
            0) continue ;;
            134) rank=4 ;;
            124 | 137) rank=3 ;;
            42 | 129 | 130 | 143) rank=2 ;;
            43) rank=1 ;;
            *) rank=0 ;;
        esac
        if ((rank < best)); then best=$rank found="$worker ${answer#exit=}"; fi
    done <<<"$1"
    printf '%s' "$found"
}
