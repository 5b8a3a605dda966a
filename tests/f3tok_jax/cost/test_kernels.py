# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What custom calls cost, by hand."""

import subprocess
import sys

import pytest

from f3tok_jax.cost import hlo_text
from f3tok_jax.cost import kernels
from tests.f3tok_jax.cost import test_schedule

_SIZES = '"xprof_metadata":"{\\"block_q\\": 256, \\"block_kv\\": 256, \\"block_q_dkv\\": 256, \\"block_kv_dkv\\": 256, \\"block_q_dq\\": 256, \\"block_kv_dq\\": 256}"'
_SEGMENTS = ["s32[8,1280,128]{2,1,0}", "s32[8,8,1280]{2,1,0}"]


def _operands(grid, heads=6, groups=6, more=("s32[1280,128]{1,0}",)):
    mask = f"s8[1,{grid}]{{2,1,0}}"
    arrays = [f"bf16[8,{count},1280,128]{{3,2,1,0}}" for count in (heads, groups, groups)]
    return [mask, mask, *arrays, *_SEGMENTS, *more]


@pytest.mark.parametrize(
    "name, operands, computed, grid, edges",
    [
        # All before a position: 1 + 2 + 3 + 4 + 5 tiles of 25.
        ("splash_mha_fwd_segmented_residuals.5", _operands("5,5"), 15, 25, 1 / 5),
        # A window that reaches into the tile before: the first row has none.
        ("splash_mha_fwd_segmented_residuals.5", _operands("5,2"), 9, 10, 1 / 2),
        ("splash_mha_dkv_segmented_no_residuals", _operands("2,5"), 9, 10, 1 / 2),
        # Two heads that share keys are one sum.
        ("splash_mha_dkv_segmented", _operands("5,5", groups=3), 15, 25, 1 / 10),
        ("splash_mha_dq_segmented", _operands("5,5", groups=3), 15, 25, 1 / 5),
        # Without positions nothing is forbidden, whatever the segments are.
        ("splash_mha_dq_segmented", _operands("5,5", more=()), 25, 25, 1 / 5),
    ],
)
def test_tiles_of_splash_attention_are_those_that_its_masks_allow(
    name, operands, computed, grid, edges
):
    tiles = kernels.tiles(name, _SIZES, operands)
    assert tiles.share == computed / grid and tiles.edges == pytest.approx(edges)
    products = 2 if "fwd" in name else 3 if "dq" in name else 4
    assert tiles.flops == 8 * 6 * computed * products * 2 * 256 * 256 * 128


def test_other_kernels_have_no_tiles():
    assert kernels.tiles("paged_attention.1", _SIZES, _operands("5,5")) is None


_TEXT = """HloModule m

ENTRY %main (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %buffer = f32[8,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %kernel.1 = f32[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"AAAA"}}
  %kernel.2 = f32[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"AAAA"}}
  %kernel.3 = f32[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"BBBB"}}
  ROOT %sorted = f32[8,128]{1,0} custom-call(%p), custom_call_target="TopK"
}
"""


def test_a_kernel_costs_its_schedule_and_what_is_not_known_is_said():
    found = kernels.prices(hlo_text.parse(_TEXT), {"kernel.1": test_schedule.SCHEDULE})
    # Of another kernel than attention every branch counts in every step.
    cycles = {name: price.cycles for name, price in found.items()}
    whole = 92 + 30 + 100
    assert cycles == {"kernel.1": whole, "kernel.2": whole, "kernel.3": None, "sorted": None}
    assert all(price.flops is None for price in found.values())


def test_a_kernel_may_declare_its_flops():
    declared = _TEXT.replace('"body":"BBBB"', '"body":"BBBB","cost_estimate":{"flops":"4096"}')
    assert kernels.prices(hlo_text.parse(declared), {})["kernel.3"].flops == 4096.0


def test_a_loop_without_a_limit_leaves_its_kernel_unpriced():
    broken = test_schedule.SCHEDULE.replace("%s9, 10 /*", "%s9, %s8 /*")
    found = kernels.prices(hlo_text.parse(_TEXT), {"kernel.3": broken})
    assert found["kernel.3"].cycles is None


_ATTENTION = """
import os
from f3tok_jax.devices import slices
os.environ.update(slices.COMPILER_ENVIRONMENT, JAX_PLATFORMS="cpu")
import jax, jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from f3tok_jax.cost import hlo_cost, kept, schedule

with schedule.recording() as recorder:
    (device,) = slices.devices(slices.parse("v5e:1x1"))
    blocks = kernels.BlockSizes(block_q=512, block_kv=512, block_kv_compute=512)
    mask = masks.MultiHeadMask([masks.CausalMask((2048, 2048))] * 2)
    attend = kernels.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=blocks)
    heads = jax.ShapeDtypeStruct((2, 2048, 128), jnp.bfloat16)
    sharding = jax.sharding.SingleDeviceSharding(device)
    options = dict(in_shardings=sharding, out_shardings=sharding)
    compiled = jax.jit(attend, **options).lower(heads, heads, heads).compile()
    found = kept.of(compiled, recorder.collect())
program = hlo_cost.parse(found.text, (), found.schedules)
print(program.unpriced(), *(f"{x:.0f}" for x in (program.kernels().cycles, program.kernels().flops)))
"""


def test_a_kernel_that_the_compiler_made_costs_its_products_and_what_is_around_them(tpu_compiler):
    """In a process of its own, which has not loaded libtpu yet."""
    run = subprocess.run(
        [sys.executable, "-c", _ATTENTION], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    unpriced, cycles, flops = run.stdout.split()
    # Of four tiles a side, those on and below the diagonal: two products of 512 x 512 x 128 each.
    assert unpriced == "[]" and float(flops) == 2 * 10 * 2 * 2 * 512 * 512 * 128
    at_peak = float(flops) / (197e12 / 1.5e9)
    assert at_peak < float(cycles) < 3 * at_peak
