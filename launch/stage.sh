# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# --stage DIR: a folder of this machine (shards, a language model) goes into the run's bucket, and the
# training is told where it lies now, so that the same command line with local paths works on a pod.
# Sourced by tpu_train.sh, which sets WORKDIR and TRAIN_ARGUMENTS.

STAGE=() # folders, as they were given

# take_stage DIR: refuses what could not be staged, before anything is done.
take_stage() {
    local folder="$1"
    while [[ "$folder" == */ && "$folder" != / ]]; do folder="${folder%/}"; done
    [[ -d "$folder" ]] || die "--stage must be a folder of this machine, got '$1'"
    [[ "$folder" != *=* ]] || die "--stage must be a folder without = in its name, got '$1'"
    STAGE+=("$folder")
}

# Prints the name of a folder in the bucket: another one for other content. Shards are known by their
# manifest, which holds their checksums; all else is read.
staged_name() {
    local LC_ALL=C digest name
    digest="$(cd "$1" && find -L . -name '.?*' -prune -o -type f -print0 | sort -z | while IFS= read -r -d '' name; do
        if [[ "$name" == *.array_record && -f "${name%/*}/manifest.json" ]]; then continue; fi
        printf '%s\0' "$name" && sha256 <"$name"
    done | sha256)" || die "$1 cannot be read whole"
    name="$(basename -- "$(cd "$1" && pwd)")"
    printf '%s-%s' "${name//[^A-Za-z0-9_.-]/_}" "${digest:0:16}"
}

# Copies every folder of --stage that is not there yet. Manifests go last: what has one is whole.
stage() {
    local folder url what hidden='(^|.*/)\..*' manifests='(^|.*/)manifest\.json$'
    ((${#STAGE[@]})) || return 0
    [[ "$WORKDIR" == gs://* ]] || die "--stage needs a --workdir in a bucket, gs://BUCKET/RUN, got '$WORKDIR'"
    for folder in "${STAGE[@]}"; do
        url="${WORKDIR%/}/staged/$(staged_name "$folder")" || exit
        say "staging $folder, $(du -shL -- "$folder" | cut -f1), as $url"
        for what in "$hidden,$manifests" "$hidden"; do
            run gcloud storage rsync --recursive "--exclude=$what" "$folder" "$url" ||
                die "$folder could not be copied to $url; gcloud's message is above"
        done
        TRAIN_ARGUMENTS+=("--map=$folder=$url")
    done
}
