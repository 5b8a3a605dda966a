# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# One place for what differs between TPU generations: images, sizes, compiler flags. Sourced.

# Accelerator type -> generation. Counts in the names are chips for v5e and v6e, TensorCores (two per
# chip) for v4 and v5p.
generation_of() {
    [[ "$1" =~ ^[a-z0-9]+-[1-9][0-9]{0,5}$ ]] ||
        die "--accelerator must be v4-N, v5litepod-N, v5p-N or v6e-N with a number N, got '$1'"
    case "$1" in
        v4-*) echo v4 ;;
        v5litepod-*) echo v5e ;;
        v5p-*) echo v5p ;;
        v6e-*) echo v6e ;;
        *) die "--accelerator must be v4-N, v5litepod-N, v5p-N or v6e-N, got '$1'" ;;
    esac
}

# Of a type that generation_of has taken.
chips_of() {
    local count="${1##*-}"
    case "$1" in v4-* | v5p-*) echo $((count / 2)) ;; *) echo "$count" ;; esac
}

# Hosts of a slice: four chips each; a single v5e or v6e host may have eight.
workers_of() {
    local chips
    chips="$(chips_of "$1")"
    case "$1" in
        v5litepod-* | v6e-*) if ((chips <= 8)); then echo 1; else echo $((chips / 4)); fi ;;
        *) echo $(((chips + 3) / 4)) ;;
    esac
}

runtime_of() {
    case "$1" in
        v4) echo tpu-ubuntu2204-base ;;
        v5e) echo v2-alpha-tpuv5-lite ;;
        v5p) echo v2-alpha-tpuv5 ;;
        v6e) echo v2-alpha-tpuv6e ;;
    esac
}

# Flags for LIBTPU_INIT_ARGS, by set (--flags SET) and generation. The default is none: libtpu's own
# defaults overlap collectives from v5 on, and no set has been measured here on hardware. Flags belong
# to a libtpu version; tests/launch/test_launch.py --slow asks the pinned one whether it knows each.
FLAG_SETS="default overlap data_parallel windowed debug"

tpu_flags() {
    local generation="$1" set="$2"
    case "$set" in
        default)
            # v4 alone does not gather asynchronously by default.
            if [[ "$generation" == v4 ]]; then
                echo "--xla_enable_async_all_gather=true --xla_enable_async_collective_permute=true"
            fi
            ;;
        overlap)
            # Large models over fsdp: gathers of weights run beside the matrix products.
            echo "--xla_tpu_enable_async_collective_fusion=true" \
                "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true" \
                "--xla_tpu_enable_async_collective_fusion_multiple_steps=true" \
                "--xla_tpu_overlap_compute_collective_tc=true" \
                "--xla_enable_async_all_gather=true"
            ;;
        data_parallel)
            # Small models and several slices: one all-reduce of gradients, of mixed sizes.
            echo "--xla_tpu_enable_data_parallel_all_reduce_opt=true" \
                "--xla_tpu_data_parallel_opt_different_sized_ops=true"
            ;;
        windowed)
            # Never split a product into a loop over chips: it hinders fusion at our sizes.
            echo "--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"
            ;;
        debug)
            # Suspicion of a bad chip: computations repeated and compared; halves the speed.
            echo "--xla_tpu_enable_sdc_checker=true --xla_tpu_sdc_check_halt_on_detection=true"
            ;;
        *) die "--flags must be one of: $FLAG_SETS; got '$set'" ;;
    esac
    # More fast memory for fusions than the default; the two generations that have it.
    if [[ "$set" == overlap && "$generation" == v6e ]]; then
        echo "--xla_tpu_scoped_vmem_limit_kib=98304"
    elif [[ "$set" == overlap && "$generation" == v5p ]]; then
        echo "--xla_tpu_scoped_vmem_limit_kib=65472"
    fi
}
