# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Small files of a work folder: in a bucket (gs://...) through gcloud, else plain files. Sourced.

# Writes standard input; a reader never sees half of it.
bucket_write() {
    if [[ "$1" == gs://* ]]; then
        run gcloud storage cp --quiet - "$1"
    elif [[ "$DRY_RUN" == 1 ]]; then
        show tee "$1"
    else
        mkdir -p "${1%/*}" && cat >"$1.$$" && mv "$1.$$" "$1"
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
    elif text="$(gcloud storage cat "$1" 2>&1)"; then
        printf '%s' "$text"
    else
        if [[ "$text" == *"matched no objects"* ]]; then return 1; fi
        printf '%s\n' "$text" >&2
        return 2
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
