#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# One detached job on this worker, so that training outlives the ssh session. gcloud.sh calls it on
# every worker; it can be used by hand there.
#
#   job.sh start NAME SLICE [--logs=FOLDER] COMMAND [ARGUMENT ...]   does nothing if that is running;
#                                                     refuses if the job runs another command
#   job.sh status NAME SLICE             one line: job WORKER running|absent|exit=CODE SECONDS
#   job.sh tail NAME SLICE [LINES]
#   job.sh stop NAME SLICE [GRACE_SECONDS]            asks, asks again at half time, then kills
#
# With --logs the log and the exit code are copied to that folder or bucket, every COPY_SECONDS (60) and
# at the end. SECONDS is the time of the end, since the epoch.
#
# ~/f3tok_jobs/NAME/ holds slice_SSSS_worker_WWWW.{log,pid,exit,command}. A job is stopped by its recorded
# process group, never by name.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/bucket.sh
source "$REPO/launch/bucket.sh"

COPY_SECONDS="${COPY_SECONDS:-60}"
take_number COPY_SECONDS COPY_SECONDS 1 86400
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

# The words of a command in one order, as a launcher that was resumed gives them in another.
command_words() { printf '%s\0' "$@" | sort -z | cksum; }

running() { [[ ! -f "$file.exit" && -n "$(members)" ]]; }

# Prints running, absent or exit=CODE, with the time of the end where that is known.
answer() {
    local code runs=0
    if running; then runs=1; fi # asked first: what ends meanwhile has left its code
    if [[ -f "$file.exit" ]]; then
        code="$(cat "$file.exit")"
        [[ "$code" =~ ^[0-9]{1,3}$ ]] || code=unreadable
        echo "exit=$code $(stat -c %Y "$file.exit")"
    elif ((runs)); then
        echo running
    elif [[ -f "$file.stopped" ]]; then
        echo exit=43
    elif [[ -f "$file.pid" ]]; then
        echo exit=137 # gone without a word: killed, or the machine was restarted
    else
        echo absent
    fi
}

# Copies the log to a folder while the job runs, and its end: the last lines, before a preemption, are the
# ones that are asked for.
copy_log() {
    local waited attempt
    for ((waited = 1; ; waited++)); do
        if [[ "$(answer)" != running ]]; then break; fi
        if ((waited % COPY_SECONDS == 0)); then bucket_put "$1/$worker.log" <"$file.log" || true; fi
        sleep 1
    done
    for attempt in 1 2 3 4 5; do
        if bucket_put "$1/$worker.log" <"$file.log" &&
            answer | sed 's/^exit=//' | bucket_put "$1/$worker.exit"; then
            break
        fi
        sleep "$attempt"
    done
    rm -f "$file.copier"
}

# The next start of the job is not before the last one's end has been copied.
await_copier() {
    local attempt copier
    for attempt in {1..100}; do
        copier="$(cat "$file.copier" 2>/dev/null || true)"
        if [[ ! "$copier" =~ ^[1-9][0-9]{0,8}$ ]] || ! kill -0 "$copier" 2>/dev/null; then break; fi
        sleep 0.2
    done
}

case "$action" in
    start)
        logs=""
        if [[ "${1:-}" == --logs=* ]]; then logs="${1#--logs=}" && shift; fi
        if running; then
            [[ ! -f "$file.command" || "$(cat "$file.command")" == "$(command_words "$@")" ]] ||
                die "job $worker runs already with other arguments: stop it first, or give the same"
            echo "job $worker runs already"
            exit 0
        fi
        await_copier
        kill_members # what has outlived the last job would hold the chips
        mkdir -p "${file%/*}"
        rm -f "$file.exit" "$file.stopped" "$file.pid"
        command_words "$@" >"$file.command"
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
        until [[ -s "$file.pid" ]] || ! kill -0 "$!" 2>/dev/null; do sleep 0.1; done
        if [[ -n "$logs" ]]; then
            # Inherited from its first moment: a machine that shuts down leaves some seconds for the last
            # lines.
            trap '' HUP INT TERM
            setsid bash "${BASH_SOURCE[0]}" copy "$name" "$slice" "$logs" >"$file.copies" 2>&1 </dev/null &
            echo "$!" >"$file.copier"
            trap - HUP INT TERM
        fi
        echo "job $worker started"
        ;;
    copy) copy_log "${1:?the folder of the copies}" ;;
    status) echo "job $worker $(answer)" ;;
    tail)
        lines="${1:-20}"
        take_number lines "the number of lines" 1 1000000
        echo "== $worker"
        tail -n "$lines" "$file.log" 2>/dev/null || true
        ;;
    stop)
        grace="${1:-120}"
        take_number grace "the grace in seconds" 1 86400
        if [[ "$(answer)" == absent ]]; then
            echo "job $worker absent"
            exit 0
        fi
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
        if running; then echo 43 >"$file.exit.new" && mv "$file.exit.new" "$file.exit"; fi
        kill_members
        echo "job $worker stopped"
        ;;
    *)
        echo "job.sh: unknown action '$action'" >&2
        exit 2
        ;;
esac
