# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Where the code comes from, as runs keep it: lines of commit, branch and dirty, an empty line, and
# what differs from the commit; keys never. Sourced by archive.sh, which sends it to where there is no
# git as provenance.txt; run by f3tok_jax/runs/code.py: bash launch/provenance.sh

REPO="${REPO:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}"
MAX_DIFF=200000 # bytes

# Without the optional locks: another command of the user's may be at work there.
in_git() { git --no-optional-locks -C "$REPO" -c core.quotePath=false "$@"; }

# Whether this is a checkout of the code; a package installed inside somebody's repository is none.
in_checkout() { in_git ls-files --error-unmatch launch/provenance.sh >/dev/null 2>&1; }

# Keys stay here even where somebody has added them.
is_key() {
    case "/$1" in
        */.env | */.env.* | */.netrc | */.git-credentials | */.ssh/* | */.aws/* | */id_rsa* | */id_ecdsa* | \
            */id_ed25519* | *.pem | *.key | *.p12 | *.pfx | *credentials*.json | *service_account*.json) ;;
        *) return 1 ;;
    esac
}

# Prints it; nothing where nobody knows.
provenance() {
    local name changed=()
    if ! in_checkout; then
        if [[ -f "$REPO/provenance.txt" ]]; then cat "$REPO/provenance.txt"; fi
        return 0
    fi
    while IFS= read -r -d '' name; do
        if ! is_key "$name"; then changed+=(":(top,literal)$name"); fi
    done < <(in_git diff --name-only -z HEAD 2>/dev/null)
    printf 'commit: %s\nbranch: %s\ndirty: %s\n' "$(in_git rev-parse --verify -q HEAD || echo none)" \
        "$(in_git symbolic-ref --short -q HEAD || echo none)" \
        "$(if in_git diff --quiet HEAD 2>/dev/null; then echo no; else echo yes; fi)"
    if ((${#changed[@]})); then
        echo
        in_git diff --no-ext-diff --no-textconv --no-color HEAD -- "${changed[@]}" |
            { head -c "$MAX_DIFF" && cat >/dev/null; }
    fi
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then provenance; fi
