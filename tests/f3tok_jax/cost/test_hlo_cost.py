# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Costs of small programs whose every figure can be counted by hand."""

import pytest

from f3tok_jax.cost import hlo_cost
from tests.f3tok_jax.cost import test_schedule

_SCOPES = ("encoder", "decoder", "discriminators")

_PROGRAM = """HloModule jit_step, is_scheduled=true

%fused_computation.1 (param_0: bf16[6,380,768], param_1: bf16[768,512,1]) -> bf16[6,380,512] {
  %param_0 = bf16[6,380,768]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = bf16[768,512,1]{1,0,2:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = bf16[6,380,512]{2,1,0:T(8,128)(2,1)} convolution(%param_0, %param_1), window={size=1}, dim_labels=0bf_io0->0bf, metadata={op_name="jit(step)/jvp(Autoencoder)/encoder/dot_general"}
}

%body.1 (arg.1: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %arg.1 = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %state.1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%arg.1), index=1
  %multiply.1 = f32[8,128]{1,0:T(8,128)} multiply(%state.1, %state.1), metadata={op_name="jit(step)/optimizer/while/body/mul"}, backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %tuple.1 = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%state.1, %multiply.1)
}

%condition.1 (arg.2: (s32[], f32[8,128])) -> pred[] {
  %arg.2 = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %constant.1 = s32[]{:T(128)} constant(1)
  %constant.2 = s32[]{:T(128)} constant(12)
  ROOT %compare.1 = pred[] compare(%constant.1, %constant.2), direction=LT
}

%cheap.1 (arg.3: f32[8,128]) -> f32[8,128] {
  ROOT %arg.3 = f32[8,128]{1,0:T(8,128)} parameter(0)
}

%dear.1 (arg.4: f32[8,128]) -> f32[8,128] {
  %arg.4 = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %add.9 = f32[8,128]{1,0:T(8,128)} add(%arg.4, %arg.4), metadata={op_name="jit(step)/cond/branch_1_fun/transpose(jvp(discriminators))/period/add"}, backend_config={"window_config":{"estimated_cycles":"7"}}
}

ENTRY %main.1 (state: bf16[6,380,768], weights: bf16[768,512]) -> bf16[6,380,512] {
  %state = bf16[6,380,768]{2,1,0:T(8,128)(2,1)} parameter(0)
  %weights = bf16[768,512]{1,0:T(8,128)(2,1)} parameter(1)
  %all-gather.1 = bf16[3072,512]{1,0:T(8,128)(2,1)} all-gather(%weights), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="jit(step)/encoder/gather"}
  %fusion.1 = bf16[6,380,512]{2,1,0:T(8,128)(2,1)} fusion(%state, %weights), kind=kOutput, calls=%fused_computation.1, metadata={op_name="jit(step)/jvp(Autoencoder)/decoder/tanh"}, backend_config={"window_config":{"estimated_cycles":"5000"}}
  %tuple.2 = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%state, %weights)
  %while.1 = (s32[], f32[8,128]{1,0:T(8,128)}) while(%tuple.2), condition=%condition.1, body=%body.1
  %element.1 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%while.1), index=1
  %conditional.1 = f32[8,128]{1,0:T(8,128)} conditional(%state, %element.1, %element.1), branch_computations={%cheap.1, %dear.1}
  %all-reduce-start.1 = f32[8,128]{1,0:T(8,128)} all-reduce-start(%conditional.1), channel_id=2, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%cheap.1, metadata={op_name="jit(step)/optimizer/psum"}
  %send.1 = (f32[8,128]{1,0:T(8,128)}, u32[], token[]) send(%element.1), channel_id=2, is_host_transfer=true
  %all-reduce-done.1 = f32[8,128]{1,0:T(8,128)} all-reduce-done(%all-reduce-start.1)
  ROOT %copy.1 = bf16[6,380,512]{2,1,0:T(8,128)(2,1)} copy(%fusion.1), metadata={op_name="jit(step)/copy"}, backend_config={"window_config":{"estimated_cycles":"40"}}
}
"""


@pytest.fixture(scope="module")
def program():
    return hlo_cost.parse(_PROGRAM, _SCOPES)


def test_cycles_go_to_the_scope_loops_and_branches_included(program):
    cycles = {name: cost.cycles for name, cost in program.costs().items() if cost.cycles}
    assert cycles == {
        "encoder": 5000,
        "discriminators": 7,
        "optimizer": 12 * 100,
        "other": 40,
    }


def test_a_counter_that_grows_by_two_counts_half_as_often():
    """As XLA writes the ring in which a product is summed or gathered over chips."""
    counted = _PROGRAM.replace(
        "%constant.1 = s32[]{:T(128)} constant(1)",
        "%counter.2 = u32[]{:T(128)} get-tuple-element(%arg.2), index=0",
    ).replace("compare(%constant.1, ", "compare(%counter.2, ")
    counted = counted.replace("%constant.2 = s32[]", "%constant.2 = u32[]").replace(
        "  ROOT %tuple.1 = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%state.1, ",
        "  %counter.1 = u32[]{:T(128)} get-tuple-element(%arg.1), index=0\n"
        "  %constant.3 = u32[]{:T(128)} constant(2)\n"
        "  %add.1 = u32[]{:T(128)} add(%counter.1, %constant.3)\n"
        "  ROOT %tuple.1 = (u32[], f32[8,128]{1,0:T(8,128)}) tuple(%add.1, ",
    )
    assert hlo_cost.parse(counted, _SCOPES).costs()["optimizer"].cycles == 6 * 100


def test_flops_are_those_of_the_product_inside_the_fusion(program):
    costs = program.costs()
    assert costs["encoder"].flops == 2 * 6 * 380 * 768 * 512
    assert sum(cost.flops for cost in costs.values()) == costs["encoder"].flops


def test_bytes_are_operands_and_results_of_what_runs(program):
    costs = program.costs()
    # 380 positions lie in 48 tiles of 8.
    activation, kernel, result = 2 * 6 * 384 * 768, 2 * 768 * 512, 2 * 6 * 384 * 512
    # The fusion, and the all-gather of the kernel to four times its size.
    assert costs["encoder"].bytes == activation + kernel + result + 5 * kernel
    sent = 2 * 8 * 128 * 4 + 4  # the operand, and a result of the same size and a counter
    assert costs["other"].bytes == 2 * result + sent
    # A product of 8 x 128 float32 reads one operand and writes one result, twelve times.
    assert costs["optimizer"].bytes == 12 * 2 * 8 * 128 * 4 + 2 * 8 * 128 * 4


def test_collectives_carry_bytes_and_groups(program):
    gather, reduce, send = program.collectives()
    assert (gather.opcode, gather.num_bytes) == ("all-gather", 4 * 2 * 768 * 512)
    assert (gather.is_async, reduce.is_async) == (False, True)
    assert gather.groups == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert (reduce.opcode, reduce.num_bytes, reduce.times) == ("all-reduce", 8 * 128 * 4, 1)
    assert gather.bytes_by_dtype == {"bf16": gather.num_bytes}
    assert reduce.bytes_by_dtype == {"f32": 8 * 128 * 4}
    assert reduce.op_name == "jit(step)/optimizer/psum"
    assert send.leaves_slice and not reduce.leaves_slice and send.num_bytes == 8 * 128 * 4
    assert reduce.groups == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_operations_are_listed_dearest_first(program):
    names = list(program.operations())
    assert names[0] == "jit(step)/jvp(Autoencoder)/encoder/dot_general"
    assert names[1] == "jit(step)/optimizer/while/body/mul"


@pytest.mark.parametrize(
    "op_name, module",
    [
        ("jit(train_step)/transpose(jvp(Autoencoder))/encoder/conv", "encoder"),
        ("jit(train_step)/jvp(decoder)/stage_0/add", "decoder"),
        ("jit(train_step)/discriminators/decoder", "discriminators"),
        ("jit(train_step)/encoder_output/add", "other"),
        ("", "other"),
    ],
)
def test_module_is_the_outermost_scope(program, op_name, module):
    assert program.module_of(op_name) == module


def test_slices_and_updates_of_stacked_arrays_move_their_part_alone():
    text = """HloModule m

%sliced (a: f32[28,64], b: s32[]) -> f32[1,64] {
  %a = f32[28,64]{1,0} parameter(0)
  %b = s32[] parameter(1)
  ROOT %slice = f32[1,64]{1,0} dynamic-slice(%a, %b), dynamic_slice_sizes={1,64}
}

%updated (c: f32[28,64], d: f32[1,64], e: s32[]) -> f32[28,64] {
  %c = f32[28,64]{1,0} parameter(0)
  %d = f32[1,64]{1,0} parameter(1)
  %e = s32[] parameter(2)
  ROOT %update = f32[28,64]{1,0} dynamic-update-slice(%c, %d, %e)
}

ENTRY %main (x: f32[28,64], i: s32[]) -> f32[28,64] {
  %x = f32[28,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %part = f32[1,64]{1,0} fusion(%x, %i), kind=kLoop, calls=%sliced, metadata={op_name="encoder/slice"}
  ROOT %whole = f32[28,64]{1,0} fusion(%x, %part, %i), kind=kLoop, calls=%updated, metadata={op_name="decoder/update"}
}
"""
    costs = hlo_cost.parse(text, _SCOPES).costs()
    assert costs["encoder"].bytes == 2 * 64 * 4 + 4  # a slice read and written, and the index
    assert costs["decoder"].bytes == 2 * 64 * 4 + 4  # the update read and written


def test_a_step_with_a_kernel_that_nobody_priced_says_so():
    called = _PROGRAM.replace(
        "  ROOT %copy.1 = ",
        "  %kernel.1 = f32[8,128]{1,0} custom-call(%element.1), "
        'custom_call_target="tpu_custom_call"\n  ROOT %copy.1 = ',
    )
    assert hlo_cost.parse(called, _SCOPES).unpriced() == ["kernel.1"]
    written = {"kernel.1": test_schedule.SCHEDULE}
    priced = hlo_cost.parse(called, _SCOPES, written)
    assert not priced.unpriced() and priced.kernels().cycles == 222
    assert priced.uncounted() == ["kernel.1"]
    assert priced.costs()["other"].cycles == 40 + 222


def test_a_loop_without_a_limit_that_can_be_read_is_said():
    carried = _PROGRAM.replace(
        "  %constant.1 = s32[]{:T(128)} constant(1)\n",
        "  %constant.1 = s32[]{:T(128)} get-tuple-element(%arg.2), index=0\n",
    ).replace(
        "  %constant.2 = s32[]{:T(128)} constant(12)\n",
        "  %constant.2 = s32[]{:T(128)} get-tuple-element(%arg.2), index=2\n",
    )
    assert carried.count("constant(12)") == 0
    assert hlo_cost.parse(carried, _SCOPES).unpriced() == ["while.1"]
    assert not hlo_cost.parse(_PROGRAM, _SCOPES).unpriced()
