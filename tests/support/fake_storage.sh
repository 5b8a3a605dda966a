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
if [ "$2" = cp ]; then
    mkdir -p "${path%/*}"
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
