# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Small files of a work folder: in a bucket (gs://...) through gcloud, else plain files. Sourced.

# bucket_write PATH TEXT: an empty text is a fault of its maker, and overwrites nothing.
bucket_write() {
    [[ -n "$2" || "$DRY_RUN" == 1 ]] || fail "nothing is written to $1: there is no text" || return
    bucket_put "$1" <<<"$2"
}

# Writes standard input; a reader never sees half of it.
bucket_put() {
    if [[ "$1" == gs://* ]]; then
        run gcloud storage cp --quiet - "$1"
    elif [[ "$DRY_RUN" == 1 ]]; then
        show tee "$1"
    else
        local new="$1.$$.$RANDOM"
        mkdir -p "${1%/*}" && cat >"$new" && mv "$new" "$1"
    fi
}

# Prints a file. Returns 1 where there is none, and 2 with a message where that cannot be told.
bucket_read() {
    local text
    if [[ "$1" != gs://* ]]; then
        [[ ! -e "$1" ]] || cat "$1" || return 2
        [[ -e "$1" ]]
    elif [[ "$DRY_RUN" == 1 ]]; then
        show gcloud storage cat "$1" >&2
        return 1
    elif text="$(ask gcloud storage cat "$1" 2>&1)"; then
        printf '%s' "$text"
    else
        if [[ "$text" == *"matched no objects"* ]]; then return 1; fi
        printf '%s\n' "$text" >&2
        return 2
    fi
}

# Prints what tells a file's content from any other that it had, 0 where there is none. Returns 2 with a
# message where that cannot be told.
bucket_version() {
    local text
    if [[ "$1" != gs://* ]]; then
        if [[ -e "$1" ]]; then cksum <"$1" | tr -s ' \t' _; else echo 0; fi
    elif text="$(ask gcloud storage objects describe "$1" "--format=value(generation)" 2>&1)"; then
        printf '%s\n' "$text"
    elif [[ "$text" == *"not found: 404"* || "$text" == *"matched no objects"* ]]; then
        echo 0
    else
        printf '%s\n' "$text" >&2
        return 2
    fi
}

# bucket_swap PATH VERSION TEXT: writes the text if the file still has that version. Returns 1 where
# somebody else was first, 2 with a message where it cannot be written.
bucket_swap() {
    local said new="$1.$$.$RANDOM" lock="$1.after_$2"
    if [[ "$DRY_RUN" == 1 && "$1" != gs://* ]]; then
        show tee "$1"
    elif [[ "$DRY_RUN" == 1 ]]; then
        show gcloud storage cp --quiet "--if-generation-match=$2" - "$1"
    elif [[ "$1" == gs://* ]]; then
        said="$(printf '%s\n' "$3" | gcloud storage cp --quiet "--if-generation-match=$2" - "$1" 2>&1)" && return 0
        if [[ "$said" == *412* || "$said" == *pre-condition* ]]; then return 1; fi
        printf '%s\n' "$said" >&2
        return 2
    else
        mkdir -p "${1%/*}" && printf '%s\n' "$3" >"$new" || return 2
        if [[ "$2" == 0 ]]; then
            said=0
            ln "$new" "$1" 2>/dev/null || said=1
        else
            # One of those who follow this version makes the folder; one killed in here left it.
            if [[ -n "$(find "$lock" -maxdepth 0 -mmin +1 2>/dev/null)" ]]; then rmdir "$lock" || true; fi
            said=1
            if mkdir "$lock" 2>/dev/null; then
                if [[ "$(bucket_version "$1")" == "$2" ]]; then mv "$new" "$1" && said=0; fi
                rmdir "$lock"
            fi
        fi
        rm -f "$new"
        return "$said"
    fi
}

# Prints the names in a folder, one a line, sorted; nothing where there is none.
bucket_list() {
    if [[ "$1" == gs://* ]]; then
        run gcloud storage ls "$1/" 2>/dev/null | sed 's|/$||; s|.*/||; /^$/d' | sort
    elif [[ -d "$1" ]]; then
        (cd "$1" && printf '%s\n' *)
    fi
}

bucket_remove() {
    if [[ "$1" == gs://* ]]; then gcloud storage rm --quiet "$1"; else rm -f "$1"; fi
}
