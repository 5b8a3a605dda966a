# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What still costs money, said last, however a launcher ends. Sourced by gcloud.sh.

# From here on this launcher does not end without a word about $TPU, unless that is known to be absent.
watch_costs() {
    if [[ "$DRY_RUN" == 1 || " ${AT_EXIT[*]:-} " == *" say_costs "* ]]; then return 0; fi
    AT_EXIT+=(say_costs)
    trap 'exit 130' INT # gcloud takes Ctrl-C for itself; bash would go on
}

# Words for what all slices cost.
price() {
    if [[ -n "${PRICE_HOUR:-}" ]]; then
        printf '$%s an hour' "$PRICE_HOUR"
        if [[ -z "$PRICE" ]]; then printf ' at the list price on demand'; fi
    elif [[ -n "$ACCELERATOR" ]]; then
        printf 'money (--price DOLLARS, per chip and hour, says how much)'
    else
        printf 'money (--accelerator says how much)'
    fi
}

say_costs() {
    case "$STATE" in
        ABSENT) return 0 ;;
        FAILED | SUSPENDED) say "$TPU is $STATE: its chips are gone, but the request stays until:" ;;
        ACCEPTED | WAITING_FOR_RESOURCES | CREATING | PROVISIONING)
            say "$TPU is $STATE: from the moment it is ACTIVE it costs $(price), until:"
            ;;
        "" | UNKNOWN) say "$TPU may be there; if it is, it costs $(price) until:" ;;
        *) say "$TPU is still there and costs $(price) until:" ;;
    esac
    show bash launch/tpu_train.sh delete --tpu "$TPU" "${COMMON[@]}" ${WORKDIR:+--workdir "$WORKDIR"}
}
