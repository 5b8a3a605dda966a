# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The workers of a slice or several: commands over ssh, the tree and its environment, jobs and their
# logs. Sourced by gcloud.sh.

REMOTE=f3tok_jax # the tree on each worker, in the home

# shellcheck source=launch/archive.sh
source "$REPO/launch/archive.sh"

# on_workers MAKE [WORD ...]: runs on every worker of every slice what MAKE SLICE [WORD ...] prints, on
# all slices at once: what one installs, the others would wait for.
on_workers() {
    local make="$1" node slice=0 code=0 process ssh=() begun=()
    shift
    for node in $(nodes); do
        ssh=(gcloud compute tpus tpu-vm ssh "$node" "${COMMON[@]}" --worker=all --quiet
            "--command=$("$make" "$slice" "$@")")
        if ((NUM_SLICES == 1)) || [[ "$DRY_RUN" == 1 ]]; then
            run "${ssh[@]}" || return $?
        else
            "${ssh[@]}" &
            begun+=("$!")
        fi
        slice=$((slice + 1))
    done
    for process in ${begun[@]+"${begun[@]}"}; do wait "$process" || code=$?; done
    return "$code"
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
        pause $((attempt * RETRY_SECONDS))
    done
    return 1
}

# Prints the command that puts the archive in the place of the tree: what is not in it goes, but for the
# environment.
unpack() {
    printf '%s' "rm -rf $REMOTE.new $REMOTE.old && mkdir -p $REMOTE $REMOTE.new && tar -xzf $REMOTE.tar.gz -C $REMOTE.new &&" \
        " mv $REMOTE $REMOTE.old && { for kept in $REMOTE.old/.venv*; do [ ! -e \"\$kept\" ] || mv \"\$kept\" $REMOTE.new/; done; } &&" \
        " mv $REMOTE.new $REMOTE && rm -rf $REMOTE.old"
}

# Copies the code to every worker and makes the environment there.
cloud_setup() {
    need zone
    begin
    local node answer different mirror="${UV_PYTHON_INSTALL_MIRROR:-}"
    if [[ -z "$STATE" ]]; then look; fi
    make_archive
    for node in $(nodes); do
        retry gcloud compute tpus tpu-vm scp "$ARCHIVE" "$node:$REMOTE.tar.gz" "${COMMON[@]}" \
            --worker=all --quiet || fail "could not copy the code to the workers of $node" || return
    done
    on_workers everywhere "$(unpack) &&${mirror:+ $(quoted export "UV_PYTHON_INSTALL_MIRROR=$mirror") &&} bash $REMOTE/launch/tpu_train.sh install" ||
        fail "the environment could not be made on every worker of $TPU" || return
    # All hosts must run the same program: compare what is installed and the code itself.
    answer="$(on_workers everywhere "echo \"workers \$($REMOTE/.venv/bin/python -m pip freeze | cksum) \$(cksum < $REMOTE.tar.gz)\"")" ||
        fail "a worker of $TPU did not answer after the installation" || return
    if [[ "$DRY_RUN" == 1 ]]; then
        say "$answer"
        return 0
    fi
    are_all '^workers ' "$answer" ||
        fail "of $((HOSTS * NUM_SLICES)) workers of $TPU $(grep -c '^workers ' <<<"$answer") have answered after the installation" || return
    different="$(grep '^workers ' <<<"$answer" | sort -u | wc -l)"
    ((different == 1)) ||
        fail "the workers of $TPU do not have the same packages and code: $answer" || return
    say "$(grep -c '^workers ' <<<"$answer") workers, all with the same packages and code"
}

# are_all PATTERN ANSWER: whether every worker has answered with such a line; some, where --accelerator is
# not given, which says how many there are.
are_all() {
    local answered
    answered="$(grep -c "$1" <<<"$2")"
    ((answered > 0 && (${HOSTS:-0} == 0 || answered == HOSTS * NUM_SLICES)))
}

# Whether every worker has been set up: a new one, or one that was replaced, has not.
are_set_up() { on_workers everywhere "test -f $REMOTE/.venv/installed"; }

cloud_status() {
    need zone
    common_flags
    look
    say "$TPU: $STATE"
    if [[ -n "$OUTCOME$STARTED" ]]; then
        say "run of $STARTED, $RESTARTS restarts, ${OUTCOME:-not ended}: $WORKDIR"
        see_supervisor && say "looked after by ${SUPERVISOR:-nobody}${SUPERVISOR:+, $(($(date +%s) - SEEN)) s ago}"
    fi
    if [[ -z "$WORKDIR" ]]; then
        say "its jobs are those of a run: --workdir says of which"
    elif [[ "$STATE" == ACTIVE || "$DRY_RUN" == 1 ]]; then
        on_workers job status
    else
        kept_status
    fi
}

cloud_logs() {
    need zone workdir
    common_flags
    if [[ -n "$STARTED" ]]; then look; else STATE=ACTIVE; fi
    if [[ "$STATE" == ACTIVE || "$DRY_RUN" == 1 ]]; then
        on_workers job tail "$LINES_SHOWN"
    else
        kept_logs "$LINES_SHOWN"
    fi
}

# Stops the jobs, and a launcher that has none yet. The wish lies there before the jobs are asked: a
# launcher that starts them now looks for it afterwards.
cloud_stop() {
    local answer="" code=0
    need zone workdir
    begin
    if [[ "$DRY_RUN" != 1 ]]; then see_supervisor || no_access; fi # it may be gone in a moment
    wish_to_stop || no_access
    look
    if [[ "$DRY_RUN" == 1 ]]; then
        on_workers job stop "$GRACE_SECONDS"
        return
    fi
    if [[ "$STATE" == ACTIVE ]]; then
        answer="$(on_workers job stop "$GRACE_SECONDS")" || code=$?
        if [[ -n "$answer" ]]; then say "$answer"; fi
    fi
    ((code == 0)) || return "$code"
    if grep -q '^job .* stopped$' <<<"$answer"; then return 0; fi
    if other_lives; then
        say "no job of $WORKDIR runs yet; $SUPERVISOR, who looks after it, will start none"
        return 0
    fi
    fail "there is nothing to stop: no job of $WORKDIR on $TPU, which is $STATE"
}

# Prints the newest folder of logs in the work folder; each start of the jobs has its own.
newest_logs() { printf '%s/logs/%s' "$WORKDIR" "$(bucket_list "$WORKDIR/logs" | grep "^$STARTS" | tail -n 1)"; }

# What the workers said before their slice went.
kept_status() {
    local folder name
    folder="$(newest_logs)"
    for name in $(bucket_list "$folder" | grep '[.]exit$'); do
        say "job ${name%.exit} exit=$(bucket_read "$folder/$name")"
    done
}

kept_logs() {
    local folder name
    folder="$(newest_logs)"
    for name in $(bucket_list "$folder" | grep '[.]log$'); do
        say "== ${name%.log}"
        bucket_read "$folder/$name" | tail -n "$1"
    done
}
