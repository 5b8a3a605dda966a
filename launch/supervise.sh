# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Starts the training on every worker, watches it and decides what an end means. Sourced by gcloud.sh.
#
#   0           finished
#   42          preempted and saved: start again, on a new slice if this one is gone
#   124         nothing moved for too long (watchdog): start again
#   134         another worker died: start again
#   137         killed, often for host memory: start again
#   43          stopped by `stop`: leave it
#   4           the disk is full, or no checkpoint is whole: with room, the same command continues
#   any other   wrong config, data, non-finite loss: a restart would end the same way
#
# Restarts are bounded by --max_restarts; every one resumes from the newest whole checkpoint.

MAX_SILENT_POLLS=5 # ssh that fails this often in a row while the slice is ACTIVE

# One run per work folder: its name decides where its log and exit code are on the workers.
job_name() {
    local name="${WORKDIR:-run}"
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
            124) say "the watchdog ended a run in which nothing moved" ;;
            134) say "a worker died and the others ended with it" ;;
            137) say "a worker was killed; often its host was out of memory" ;;
            255) say "the slice is gone" ;;
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
    local name answer silent=0 command
    name="$(job_name)"
    command="bash $REMOTE/launch/job.sh start $name {SLICE} $(worker_command)"
    on_workers "$command" || return 255
    if [[ "$DRY_RUN" == 1 ]]; then
        on_workers "bash $REMOTE/launch/job.sh status $name {SLICE}"
        on_workers "bash $REMOTE/launch/job.sh tail $name {SLICE} 1"
        say "... until every worker has ended"
        return 0
    fi
    while :; do
        sleep "$POLL_SECONDS"
        if ! answer="$(on_workers "bash $REMOTE/launch/job.sh status $name {SLICE}" 2>&1)"; then
            if [[ "$(state)" != ACTIVE ]]; then return 255; fi
            silent=$((silent + 1))
            say "no answer from the workers ($silent of $MAX_SILENT_POLLS)"
            if ((silent >= MAX_SILENT_POLLS)); then return 255; fi
            continue
        fi
        silent=0
        decide "$name" "$answer" || return $?
        if ! grep -q 'running$' <<<"$answer"; then return 0; fi
    done
}

# Looks at the workers' status lines. Returns the code to act on if one failed, else 0.
decide() {
    local name="$1" answer="$2" failed code
    # Peers of a worker that failed abort with 134: any other code is the cause.
    failed="$(sed -n 's/^job \(.*\) exit=\([0-9]*\)$/\2 \1/p' <<<"$answer" | grep -v '^0 ' |
        sort -k1,1 | awk '$1 != 134 {print; found = 1; exit} {rest = $0} END {if (!found && rest) print rest}')" || true
    if [[ -z "$failed" ]]; then
        if grep -q 'absent$' <<<"$answer"; then return 255; fi
        on_workers "bash $REMOTE/launch/job.sh tail $name {SLICE} 1" 2>/dev/null | grep -v '^==' | head -n 1 || true
        return 0
    fi
    code="${failed%% *}"
    say "${failed#* } ended with exit code $code; the ends of all logs:"
    on_workers "bash $REMOTE/launch/job.sh tail $name {SLICE} 15" || true
    # On preemption the others are saving the same step: they end by themselves, within the grace.
    on_workers "bash $REMOTE/launch/job.sh stop $name {SLICE} ${GRACE_SECONDS:-120}" >/dev/null || true
    return "$code"
}
