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
#   job.sh stop NAME SLICE [GRACE_SECONDS]            asks, waits for the save, then kills
#
# ~/f3tok_jobs/NAME/ holds slice_SSSS_worker_WWWW.{log,pid,exit}. A job is stopped by its recorded
# process group, never by name.

set -euo pipefail

action="${1:?start, status, tail or stop}" name="${2:?name of the job}" slice="${3:?number of the slice}"
shift 3
folder="$HOME/f3tok_jobs/$name"
host="$(hostname)"
number="${host##*-w-}" # TPU VMs are called ...-w-0, ...-w-1
[[ "$number" =~ ^[0-9]+$ ]] || number=0
worker="$(printf 'slice_%04d_worker_%04d' "$slice" "$number")"
file="$folder/$worker"
mkdir -p "$folder"

running() { [[ -f "$file.pid" && ! -f "$file.exit" ]] && kill -0 -- "-$(cat "$file.pid")" 2>/dev/null; }

case "$action" in
    start)
        if running; then
            echo "job $worker runs already"
            exit 0
        fi
        rm -f "$file.exit" "$file.stopped" "$file.pid"
        # A group of its own: everything that the job starts is stopped with it.
        # shellcheck disable=SC2016
        setsid bash -c '
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
            if [[ -f "$file.pid" ]]; then break; fi
            sleep 0.2
        done
        echo "job $worker started"
        ;;
    status)
        if [[ -f "$file.exit" ]]; then
            echo "job $worker exit=$(cat "$file.exit")"
        elif running; then
            echo "job $worker running"
        elif [[ -f "$file.pid" ]]; then
            echo "job $worker exit=137" # gone without a word: killed, or the machine was restarted
        else
            echo "job $worker absent"
        fi
        ;;
    tail)
        echo "== $worker"
        tail -n "${1:-20}" "$file.log" 2>/dev/null || true
        ;;
    stop)
        if running; then
            group="$(cat "$file.pid")"
            touch "$file.stopped"
            # The shell of the group must live to write the exit code: ask its children.
            pkill -TERM -P "$group" 2>/dev/null || true
            for ((waited = 0; waited < ${1:-120}; waited++)); do
                running || break
                sleep 1
            done
            # jax.distributed swallows SIGTERM while a peer is stuck; only this ends it.
            if running; then
                echo 43 >"$file.exit"
                kill -KILL -- "-$group" 2>/dev/null || true
            fi
        fi
        echo "job $worker stopped"
        ;;
    *)
        echo "job.sh: unknown action '$action'" >&2
        exit 2
        ;;
esac
