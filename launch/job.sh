#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# One detached job on this worker, so that training outlives the ssh session. gcloud.sh calls it on
# every worker; it can be used by hand there.
#
#   job.sh start NAME SLICE COMMAND [ARGUMENT ...]    does nothing if the job is running
#   job.sh status NAME SLICE                          one line: job WORKER running|absent|exit=CODE
#   job.sh tail NAME SLICE [LINES]
#   job.sh stop NAME SLICE [GRACE_SECONDS]            asks, asks again at half time, then kills
#
# ~/f3tok_jobs/NAME/ holds slice_SSSS_worker_WWWW.{log,pid,exit}. A job is stopped by its recorded
# process group, never by name.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

action="${1:?start, status, tail or stop}" name="${2:?name of the job}" slice="${3:?number of the slice}"
shift 3
take_name name "the name of the job"
take_number slice "the number of the slice" 0 9999
host="$(hostname)"
number="${host##*-w-}" # TPU VMs are called ...-w-0, ...-w-1
[[ "$number" =~ ^[0-9]{1,4}$ ]] || number=0
worker="$(printf 'slice_%04d_worker_%04d' "$slice" "$((10#$number))")"
file="$HOME/f3tok_jobs/$name/$worker"
group="$(cat "$file.pid" 2>/dev/null || true)"
[[ "$group" =~ ^[1-9][0-9]{0,8}$ ]] || group=""

# The job's processes: those of its recorded group that carry its mark. The number alone is a
# stranger's once the machine was restarted.
members() {
    local pid
    for pid in $(pgrep -g "${group:-none}" 2>/dev/null); do
        if grep -qzxF "F3TOK_JOB=$file" "/proc/$pid/environ" 2>/dev/null; then echo "$pid"; fi
    done
}

# Ends what is left of the job and waits until it is gone.
kill_members() {
    local attempt
    for attempt in {1..50}; do
        if [[ -z "$(members)" ]]; then break; fi
        if ((attempt == 1)); then kill -KILL -- "-$group" 2>/dev/null || true; fi
        sleep 0.2
    done
}

running() { [[ ! -f "$file.exit" && -n "$(members)" ]]; }

case "$action" in
    start)
        if running; then
            echo "job $worker runs already"
            exit 0
        fi
        kill_members # what has outlived the last job would hold the chips
        mkdir -p "${file%/*}"
        rm -f "$file.exit" "$file.stopped" "$file.pid"
        # A group of its own: everything that the job starts is stopped with it. Its shell outlives a
        # signal to the group, to write the exit code.
        # shellcheck disable=SC2016
        F3TOK_JOB="$file" setsid bash -c '
            trap : HUP TERM
            file="$1"
            shift
            echo "$$" >"$file.pid"
            code=0
            "$@" >>"$file.log" 2>&1 </dev/null || code=$?
            if [[ -f "$file.stopped" ]]; then code=43; fi
            echo "$code" >"$file.exit.new"
            mv "$file.exit.new" "$file.exit"
        ' _ "$file" "$@" >/dev/null 2>&1 </dev/null &
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            if [[ -s "$file.pid" ]]; then break; fi
            sleep 0.2
        done
        echo "job $worker started"
        ;;
    status)
        if [[ -f "$file.exit" ]]; then
            code="$(cat "$file.exit")"
            [[ "$code" =~ ^[0-9]{1,3}$ ]] || code=unreadable
            echo "job $worker exit=$code"
        elif running; then
            echo "job $worker running"
        elif [[ -f "$file.stopped" ]]; then
            echo "job $worker exit=43"
        elif [[ -f "$file.pid" ]]; then
            echo "job $worker exit=137" # gone without a word: killed, or the machine was restarted
        else
            echo "job $worker absent"
        fi
        ;;
    tail)
        lines="${1:-20}"
        take_number lines "the number of lines" 1 1000000
        echo "== $worker"
        tail -n "$lines" "$file.log" 2>/dev/null || true
        ;;
    stop)
        grace="${1:-120}"
        take_number grace "the grace in seconds" 1 86400
        if running; then touch "$file.stopped"; fi
        for ((waited = 0; waited < grace; waited++)); do
            if [[ -z "$(members)" ]]; then break; fi
            # Twice: the first may have come before the training listened, to an installation.
            if ((waited == 0 || waited == grace / 2)); then
                # The shell of the group must live to write the exit code: ask its children.
                pkill -TERM -P "$group" || members | xargs -r kill -TERM 2>/dev/null || true
            fi
            sleep 1
        done
        # jax.distributed swallows SIGTERM while a peer is stuck; only this ends it.
        if running; then echo 43 >"$file.exit"; fi
        kill_members
        echo "job $worker stopped"
        ;;
    *)
        echo "job.sh: unknown action '$action'" >&2
        exit 2
        ;;
esac
