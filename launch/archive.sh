# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What goes to the workers, as one archive: the files that git knows, as they are here now, committed
# or not. `git add` is enough for a new one; what it does not know is named and stays here, be it a
# key, a run or a shard set. Sourced by gcloud.sh.

MAX_NAMED=8 # of the files that stay here

# shellcheck source=launch/provenance.sh
source "$REPO/launch/provenance.sh"

# Prints the files that may go, a NUL after each.
sent() {
    if in_checkout; then
        git -C "$REPO" ls-files -z
    else
        (cd "$REPO" && find LICENSE README.md pytest.ini ruff.toml setup.py configs data_pipelines \
            f3tok_jax launch \( -name '.*' -o -name __pycache__ -o -name '*.egg-info' \) -prune -o \
            -type f \( -name '*.py' -o -name '*.sh' -o -name '*.md' -o -name '*.ini' -o -name '*.txt' \
            -o -name '*.toml' -o -name '*.jsonl' -o -name '*.lock' -o -name '*.jinja' -o -name '*.css' \
            -o -name '*.js' -o -name '*.svg' -o -name '*.yaml' -o -name Dockerfile -o -name LICENSE \
            -o -path '*/shipped/*' -o -path '*/evidence/*' \) -print0)
    fi
}

# Prints the files that stay though no .gitignore names them, a NUL after each.
unknown() {
    if in_checkout; then git -C "$REPO" ls-files -z --others --exclude-standard --directory; fi
}

# Whether the recipe of --config will be on the workers; an absolute path is a matter of theirs.
is_sent() {
    local name
    while IFS= read -r -d '' name; do
        if [[ "$name" == "${1#./}" ]]; then return 0; fi
    done < <(sent)
    [[ "$1" == /* ]]
}

# Prints the names of what goes, a NUL after each.
list_files() {
    local name
    while IFS= read -r -d '' name; do
        if ! is_key "$name" && [[ -f "$REPO/$name" || -L "$REPO/$name" ]]; then printf './%s\0' "$name"; fi
    done < <(sent)
}

say_what_stays() {
    local name stay=()
    while IFS= read -r -d '' name; do
        if is_key "$name"; then stay+=("$name"); fi
    done < <(sent)
    while IFS= read -r -d '' name; do stay+=("$name"); done < <(unknown)
    in_checkout || say "packing: this is no git checkout, so the project's own files alone"
    if ((${#stay[@]})); then
        say "packing: not sent, as git does not know them or they look like keys:" \
            "$(quoted "${stay[@]:0:MAX_NAMED}")$( ((${#stay[@]} <= MAX_NAMED)) || echo " and $((${#stay[@]} - MAX_NAMED)) more")"
    fi
}

# Makes $ARCHIVE, with provenance.txt beside the files. Times of files stay as they are: Python takes a
# module whose time and size are those of before for unchanged. A Mac adds nothing of its own.
make_archive() {
    make_private
    ARCHIVE="$PRIVATE/f3tok_jax.tar.gz"
    local names="$PRIVATE/names"
    say_what_stays
    if [[ "$DRY_RUN" != 1 ]]; then
        list_files >"$names"
        provenance >"$PRIVATE/provenance.txt"
    fi
    COPYFILE_DISABLE=1 run tar -czf "$ARCHIVE" -C "$REPO" --null -T "$names" -C "$PRIVATE" ./provenance.txt ||
        die "the code could not be packed"
}
