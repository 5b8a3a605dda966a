# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What a launcher leaves in the work folder, so that any machine can go on from there. Sourced.
#
#   WORKDIR/launch/run.json      what was asked for, and how far it got
#   WORKDIR/launch/supervisor    who looks after the run, and when that was last so: "SECONDS WHO"
#   WORKDIR/launch/stop          that `stop` was asked for since `run` or `resume`

# shellcheck source=launch/bucket.sh
source "$REPO/launch/bucket.sh"

RECORDED="BACKEND TPU ZONE PROJECT ACCELERATOR NUM_SLICES CAPACITY VALID_UNTIL MAX_RUN_DURATION RUNTIME
    FLAGS PRICE MAX_RESTARTS CONFIG STARTED RESTARTS OUTCOME CLUSTER RESERVATION PRIORITY DOCKER_IMAGE
    IMAGE_REPOSITORY"
GIVEN=" " # options of the command line, which win over those of the record
# shellcheck disable=SC2034 # read by name
STARTED="" RESTARTS=0 OUTCOME=""
HEARTBEAT_SECONDS="${HEARTBEAT_SECONDS:-60}" # between two signs of life; after three it is dead
take_number HEARTBEAT_SECONDS HEARTBEAT_SECONDS 1 86400
WHO="$(id -un)@$(hostname) (process $$)"
CHANGED="" # whether the training is given what the record has not
BEATING="" # the process that gives the signs of life, once this launcher has claimed the run

# Writes the record, before anything is asked for and whenever there is news.
keep_record() {
    local name words=()
    STARTED="${STARTED:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}"
    for name in $RECORDED; do words+=("$name=${!name}"); done
    write_record "${words[@]}" -- ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"}
}

# write_record NAME=VALUE ... -- TRAIN_ARGUMENT ...
write_record() {
    local python text=""
    hold || true # a bucket that cannot be asked may still be written
    if [[ "$DRY_RUN" != 1 ]]; then
        python="$(any_python)" || return
        text="$("$python" -S "$REPO/launch/record.py" write "$@")" || return
    fi
    bucket_write "$WORKDIR/launch/run.json" "$text"
}

# keep_outcome WORDS: changes nothing else of the record that was fetched; a finished run stays finished.
keep_outcome() {
    local name value words=() arguments=()
    if [[ "$(recorded OUTCOME)" == finished ]]; then return 0; fi
    while IFS= read -r -d '' name && IFS= read -r -d '' value; do
        case "$name" in
            TRAIN_ARGUMENTS) arguments+=("$value") ;;
            OUTCOME) words+=("OUTCOME=$1") ;;
            *) words+=("$name=$value") ;;
        esac
    done <"$PRIVATE/record"
    write_record "${words[@]}" -- ${arguments[@]+"${arguments[@]}"}
}

# What is wrong with a bucket is said when it is used first.
no_access() {
    die "$WORKDIR cannot be read or written from here: the message is above; log in with" \
        "'gcloud auth login', or name a place in --workdir where you may write"
}

# Fetches the record of $WORKDIR for `recorded` and read_record. Returns 1 where there is none.
fetch_record() {
    local text python code=0
    if [[ "$WORKDIR" == gs://* ]]; then need_gcloud; fi
    make_private
    text="$(bucket_read "$WORKDIR/launch/run.json")" || code=$?
    ((code != 2)) || no_access
    ((code == 0)) || return 1
    python="$(any_python)"
    "$python" -S "$REPO/launch/record.py" read <<<"$text" >"$PRIVATE/record" ||
        die "$WORKDIR/launch/run.json is no record of a run; its fault is above"
}

# Prints what the fetched record has under a name.
recorded() {
    local name value
    while IFS= read -r -d '' name && IFS= read -r -d '' value; do
        if [[ "$name" == "$1" ]]; then printf '%s' "$value" && return 0; fi
    done <"$PRIVATE/record"
}

# shellcheck disable=SC2034 # CHANGED is read by supervise.sh
# Takes what the command line does not say from the record of $WORKDIR.
read_record() {
    local name value kept=()
    if ! fetch_record; then
        [[ "$DRY_RUN" == 1 ]] || die "no run was launched in $WORKDIR: there is no launch/run.json"
        return 0
    fi
    while IFS= read -r -d '' name && IFS= read -r -d '' value; do
        if [[ "$name" == TRAIN_ARGUMENTS ]]; then
            # --price is an option of the launcher, too, and comes again from there.
            if [[ "$GIVEN --price " != *" ${value%%=*} "* ]]; then kept+=("$value"); fi
        elif [[ -n "$value" && " ${RECORDED//$'\n'/ } " == *" $name "* && "$GIVEN" != *" $name "* ]]; then
            printf -v "$name" '%s' "$value"
        fi
    done <"$PRIVATE/record"
    if [[ "$CONFIG" != "$(recorded CONFIG)" ]]; then CHANGED=1; fi
    for value in ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"}; do
        has_argument "$value" || CHANGED=1
    done
    TRAIN_ARGUMENTS=(${kept[@]+"${kept[@]}"} ${TRAIN_ARGUMENTS[@]+"${TRAIN_ARGUMENTS[@]}"})
}

# Whether the fetched record has this argument of the training.
has_argument() {
    local name value
    while IFS= read -r -d '' name && IFS= read -r -d '' value; do
        if [[ "$name" == TRAIN_ARGUMENTS && "$value" == "$1" ]]; then return 0; fi
    done <"$PRIVATE/record"
    return 1
}

# The wish of `stop`, which finds no jobs while a launcher waits for a slice or sets it up.
wish_to_stop() { bucket_write "$WORKDIR/launch/stop" "$(date +%s) $WHO"; }
stop_is_wanted() { [[ "$DRY_RUN" != 1 ]] && bucket_read "$WORKDIR/launch/stop" >/dev/null; }
withdraw_stop() { if stop_is_wanted; then bucket_remove "$WORKDIR/launch/stop"; fi; }

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

# Makes this launcher the run's supervisor. Another that lives is in the way of all but `resume` and
# `delete`; of several that come at once, one is.
claim() {
    local version code _
    if [[ "$DRY_RUN" == 1 ]]; then
        sign 0
        return 0
    fi
    for _ in 1 2 3; do
        version="$(bucket_version "$WORKDIR/launch/supervisor")" || no_access
        see_supervisor || no_access
        if other_lives; then
            [[ "$COMMAND" == resume || "$COMMAND" == delete ]] ||
                die "$SUPERVISOR looks after $WORKDIR, as of $(($(date +%s) - SEEN)) s ago: leave it to that" \
                    "launcher, or take over with: $(quoted bash launch/tpu_train.sh resume --workdir "$WORKDIR")"
            say "taking over from $SUPERVISOR, who was there $(($(date +%s) - SEEN)) s ago"
        fi
        code=0
        sign "$version" || code=$?
        case "$code" in
            0)
                AT_EXIT+=(unclaim) # the last: what costs money is said even where no bucket answers
                keep_beating >/dev/null 2>&1 &
                BEATING=$!
                return 0
                ;;
            2) no_access ;;
        esac
    done
    die "another launcher claims $WORKDIR at the same moment; look who with: $(quoted bash launch/tpu_train.sh status --workdir "$WORKDIR")"
}

# sign VERSION: a sign of life, unless somebody has written another since that version.
sign() { bucket_swap "$WORKDIR/launch/supervisor" "$1" "$(date +%s) $WHO"; }

# Signs now and then, whatever the launcher waits for; ends with it, or when another has taken over.
keep_beating() {
    local me waited version
    # shellcheck disable=SC2016
    me="$(exec sh -c 'echo "$PPID"')"
    while :; do
        for ((waited = 0; waited < HEARTBEAT_SECONDS; waited++)); do
            sleep 1
            kill -0 "$$" 2>/dev/null || exit 0
        done
        [[ "$(ps -o ppid= -p "$me" | tr -d ' ')" == "$$" ]] || exit 0
        # A bucket that does not answer for a while is no reason to leave the run alone.
        if version="$(bucket_version "$WORKDIR/launch/supervisor")" && see_supervisor; then
            [[ "$SUPERVISOR" == "$WHO" ]] || exit 0
            sign "$version" || true
        fi
    done
}

# Ends this launcher where the run is no longer its own; asked after every sleep (a laptop may have been
# closed for hours) and before what cannot be taken back. Returns 1 where that cannot be told.
hold() {
    [[ -n "$BEATING" ]] || return 0
    see_supervisor || return 1
    if [[ "$SUPERVISOR" == "$WHO" ]]; then return 0; fi
    if [[ -n "$SUPERVISOR" ]]; then
        die "$SUPERVISOR has taken over $WORKDIR: this launcher leaves the run to it"
    fi
    if fetch_record && [[ "$(recorded OUTCOME)" == deleted ]]; then
        die "the slice of $WORKDIR was deleted from elsewhere: this launcher asks for no other;" \
            "'resume' would"
    fi
    die "another launcher has taken over $WORKDIR and ended: this one leaves the run as it is"
}

# pause SECONDS, after which the run may be another's.
pause() {
    sleep "$1"
    hold || true
}

# At most 10 s: who is gone is taken for dead soon in any case.
unclaim() {
    local _
    kill "$BEATING" 2>/dev/null
    wait "$BEATING" 2>/dev/null
    remove_claim >/dev/null 2>&1 &
    for _ in {1..100}; do
        kill -0 "$!" 2>/dev/null || break
        sleep 0.1
    done
}

remove_claim() {
    if see_supervisor && [[ "$SUPERVISOR" == "$WHO" ]]; then bucket_remove "$WORKDIR/launch/supervisor"; fi
}
