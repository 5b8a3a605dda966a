# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What a launcher leaves in the work folder, so that any machine can go on from there. Sourced.
#
#   WORKDIR/launch/run.json      what was asked for, and how far it got
#   WORKDIR/launch/supervisor    who looks after the run, and when that was last so: "SECONDS WHO"

# shellcheck source=launch/bucket.sh
source "$REPO/launch/bucket.sh"

RECORDED="BACKEND TPU ZONE PROJECT ACCELERATOR NUM_SLICES CAPACITY VALID_UNTIL MAX_RUN_DURATION RUNTIME
    FLAGS PRICE MAX_RESTARTS CONFIG STARTED RESTARTS OUTCOME CLUSTER RESERVATION PRIORITY DOCKER_IMAGE
    IMAGE_REPOSITORY"
GIVEN=" " # options of the command line, which win over those of the record
# shellcheck disable=SC2034 # read by name
STARTED="" RESTARTS=0 OUTCOME=""
HEARTBEAT_SECONDS="${HEARTBEAT_SECONDS:-60}" # between two signs of life; after three it is dead
WHO="$(id -un)@$(hostname) (process $$)"
LAST_BEAT=""

# Writes the record, before anything is asked for and whenever there is news.
keep_record() {
    local name words=() python
    STARTED="${STARTED:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}"
    for name in $RECORDED; do words+=("$name=${!name}"); done
    if [[ "$DRY_RUN" == 1 ]]; then
        bucket_write "$WORKDIR/launch/run.json"
        return 0
    fi
    python="$(any_python)"
    "$python" -S "$REPO/launch/record.py" write "${words[@]}" -- ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"} |
        bucket_write "$WORKDIR/launch/run.json"
}

# What is wrong with a bucket is said when it is used first.
no_access() {
    die "$WORKDIR cannot be read or written from here: the message is above; log in with" \
        "'gcloud auth login', or name a place in --workdir where you may write"
}

# Takes what the command line does not say from the record of $WORKDIR.
read_record() {
    local text name value python kept=() code=0
    text="$(bucket_read "$WORKDIR/launch/run.json")" || code=$?
    ((code != 2)) || no_access
    if ((code == 1)); then
        [[ "$DRY_RUN" == 1 ]] || die "no run was launched in $WORKDIR: there is no launch/run.json"
        return 0
    fi
    make_private
    python="$(any_python)"
    "$python" -S "$REPO/launch/record.py" read <<<"$text" >"$PRIVATE/record" ||
        die "$WORKDIR/launch/run.json is no record of a run; its fault is above"
    while IFS= read -r -d '' name && IFS= read -r -d '' value; do
        if [[ "$name" == TRAIN_ARGUMENTS ]]; then
            # --price is an option of the launcher, too, and comes again from there.
            if [[ "$GIVEN --price " != *" ${value%%=*} "* ]]; then kept+=("$value"); fi
        elif [[ " ${RECORDED//$'\n'/ } " == *" $name "* && "$GIVEN" != *" $name "* ]]; then
            printf -v "$name" '%s' "$value"
        fi
    done <"$PRIVATE/record"
    TRAIN_ARGUMENTS=(${kept[@]+"${kept[@]}"} ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"})
}

# Sets SEEN (seconds since the epoch) and SUPERVISOR to what stands in the work folder, or to nothing.
see_supervisor() {
    local line="" code=0
    line="$(bucket_read "$WORKDIR/launch/supervisor")" || code=$?
    SEEN="${line%% *}" SUPERVISOR="${line#* }"
    [[ "$SEEN" =~ ^[1-9][0-9]{0,11}$ ]] || SEEN=0 SUPERVISOR=""
    return $((code == 2 ? 2 : 0))
}

# Whether another launcher looks after the run. One of this machine is asked itself.
other_lives() {
    local here="${WHO% (*}" process="${SUPERVISOR##* }"
    [[ -n "$SUPERVISOR" && "$SUPERVISOR" != "$WHO" ]] || return 1
    (($(date +%s) - SEEN < 3 * HEARTBEAT_SECONDS)) || return 1
    [[ "${SUPERVISOR% (*}" != "$here" ]] || kill -0 "${process%)}" 2>/dev/null
}

# Makes this launcher the run's supervisor. Another that lives is in the way of all but `resume`.
claim() {
    if [[ "$DRY_RUN" == 1 ]]; then
        bucket_write "$WORKDIR/launch/supervisor"
        return 0
    fi
    see_supervisor || no_access
    if other_lives; then
        [[ "$COMMAND" == resume ]] ||
            die "$SUPERVISOR looks after $WORKDIR, as of $(($(date +%s) - SEEN)) s ago: leave it to that" \
                "launcher, or take over with: $(quoted bash launch/tpu_train.sh resume --workdir "$WORKDIR")"
        say "taking over from $SUPERVISOR, who was there $(($(date +%s) - SEEN)) s ago"
    fi
    sign || no_access
    AT_EXIT=(unclaim "${AT_EXIT[@]}")
}

sign() {
    LAST_BEAT=$SECONDS
    printf '%s %s\n' "$(date +%s)" "$WHO" | bucket_write "$WORKDIR/launch/supervisor"
}

# A sign of life, now and then; ends this launcher where another has taken over.
beat() {
    if [[ -z "$LAST_BEAT" ]] || ((SECONDS - LAST_BEAT < HEARTBEAT_SECONDS)); then return 0; fi
    # A bucket that does not answer for a while is no reason to leave the run alone.
    if see_supervisor && [[ -n "$SUPERVISOR" && "$SUPERVISOR" != "$WHO" ]]; then
        die "$SUPERVISOR has taken over $WORKDIR: this launcher leaves the run to it"
    fi
    sign || true
}

unclaim() {
    if see_supervisor && [[ "$SUPERVISOR" == "$WHO" ]]; then
        bucket_remove "$WORKDIR/launch/supervisor"
    fi
} >/dev/null 2>&1
