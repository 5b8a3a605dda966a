#!/usr/bin/env bash
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
#
# Writes launch/requirements.lock anew, from setup.py, in one resolution for Linux on x86-64 and aarch64.
#
#   bash launch/lock.sh                             keeps every version that is pinned
#   bash launch/lock.sh --upgrade-package NAME      further arguments go to `uv pip compile`
#
# It needs uv on the PATH (pip install uv).

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/environment.sh
source "$REPO/launch/environment.sh"

# The extras of every worker. `eval` goes without pesq, which must be compiled.
EXTRAS=(--extra demo --extra tensorboard --extra eval --extra serve --extra stablehlo
    --extra gguf --extra recordings --extra test)
TPU_EXTRAS=(--extra tpu --extra gcs)
# What others ask for and nothing here loads: downloads from Hugging Face (tokenizers), other systems'
# terminals (click, tqdm), and what reads notebooks (orbax).
LEFT_OUT=(pesq huggingface-hub hf-xet httpx2 httpx2-jsfetch httpcore2 truststore filelock colorama
    nest-asyncio)

# compile FILE WORD ...: writes the resolution of setup.py and of what standard input names.
compile() {
    local name output="$1" left_out=()
    for name in "${LEFT_OUT[@]}"; do left_out+=(--no-emit-package "$name"); done
    (cd "$REPO" && uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
        --no-emit-index-url "${left_out[@]}" --output-file "$output" "${@:2}" setup.py - >/dev/null)
}

# section NAME WORDS FILE: the entries of the lock whose names are those of a file's entries.
section() {
    printf '# [%s] %s\n' "$1" "$2"
    awk -F '==' 'NR == FNR { if (/^[^ #]/) wanted[$1] = 1; next }
        /^[^ #]/ { shown = $1 in wanted } shown' "$3" "$PRIVATE/all"
}

make_private
cp "$LOCK" "$PRIVATE/all" # uv keeps the versions that it finds in its output
build=setuptools          # builds this project, without isolation
compile "$PRIVATE/all" --generate-hashes "${EXTRAS[@]}" "${TPU_EXTRAS[@]}" "$@" <<<"$build"$'\n'"uv"
sed 's/ \\$//' "$PRIVATE/all" | grep '==' >"$PRIVATE/versions"
compile "$PRIVATE/core" --constraint "$PRIVATE/versions" "${EXTRAS[@]}" <<<"$build"
grep '^uv==' "$PRIVATE/versions" >"$PRIVATE/python"
awk -F '==' 'NR == FNR { seen[$1] = 1; next } !($1 in seen)' <(cat "$PRIVATE/core" "$PRIVATE/python") \
    "$PRIVATE/versions" >"$PRIVATE/tpu"
{
    echo "# What every worker installs, file by file. Written by launch/lock.sh; read by environment.sh."
    section core "every machine" "$PRIVATE/core"
    section tpu "TPU hosts: the TPU's library, and gs:// buckets" "$PRIVATE/tpu"
    section python "machines without Python 3.11: what brings one" "$PRIVATE/python"
} >"$PRIVATE/lock"
mv "$PRIVATE/lock" "$LOCK"
