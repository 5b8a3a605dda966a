#!/bin/sh
# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# `gcloud storage` for the tests of the launch scripts: $FAKE_CLOUD/buckets/NAME is gs://NAME. Where
# $FAKE_CLOUD/no_account lies, nobody has logged in.
set -eu
if [ -e "$FAKE_CLOUD/no_account" ]; then
    echo "ERROR: You do not currently have an active account selected." >&2
    exit 1
fi
for word in "$@"; do target="$word"; done
path="$FAKE_CLOUD/buckets/${target#gs://}"
if [ -e "$FAKE_CLOUD/notice" ]; then cat "$FAKE_CLOUD/notice" >&2; fi
generation() { if [ -e "$1" ]; then stat -c %.9Y.%i "$1" | tr -d .; else echo 0; fi; }
if [ "$2 $3" = "objects describe" ]; then
    for word in "$@"; do case "$word" in gs://*) path="$FAKE_CLOUD/buckets/${word#gs://}" ;; esac done
    if [ -e "$path" ]; then generation "$path" && exit 0; fi
    echo "ERROR: (gcloud.storage.objects.describe) $path not found: 404." >&2
    exit 1
fi
if [ "$2" = cp ]; then
    mkdir -p "${path%/*}"
    exec 9>"$FAKE_CLOUD/lock"
    flock 9
    for word in "$@"; do
        case "$word" in
            --quiet | - | gs://*) ;;
            --if-generation-match="$(generation "$path")") ;;
            --if-generation-match=*)
                echo "ERROR: HTTPError 412: At least one of the pre-conditions you specified did not hold." >&2
                exit 1
                ;;
            storage | cp) ;;
            *) echo "ERROR: unrecognized arguments: $word" >&2 && exit 2 ;;
        esac
    done
    cat >"${path%/*}/.new.$$"
    mv "${path%/*}/.new.$$" "$path"
    exit 0
fi
if [ ! -e "${path%/}" ]; then
    echo "ERROR: The following URLs matched no objects or files:" >&2
    exit 1
fi
case "$2" in
    cat) cat "$path" ;;
    rm) rm "$path" ;;
    ls) for entry in "$path"*; do if [ -d "$entry" ]; then echo "$target${entry##*/}/"; else echo "$target${entry##*/}"; fi; done ;;
    *) exit 2 ;;
esac
