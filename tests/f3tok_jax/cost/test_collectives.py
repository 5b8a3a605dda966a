# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who says what to whom, each word once."""

from f3tok_jax.cost import communication
from f3tok_jax.cost import hlo_cost
from tests.f3tok_jax.cost import test_traffic

_ALONE = test_traffic.TEXT.replace(
    "  ROOT %out = ",
    "  %alone = bf16[4,128]{1,0} all-reduce(%w), channel_id=7, replica_groups={{0},{1},{2},{3}}, "
    "to_apply=%doubled\n  ROOT %out = ",
)


def test_one_that_passes_through_fusions_is_one():
    (gather,) = hlo_cost.parse(test_traffic.TEXT, ()).collectives()
    assert (gather.opcode, gather.times, gather.is_async) == ("all-gather", 1.0, True)
    assert gather.bytes_by_dtype == {"bf16": 2 * 16 * 128}


def test_who_is_alone_or_speaks_to_itself_says_nothing():
    assert len(hlo_cost.parse(_ALONE, ()).collectives()) == 1


def test_what_is_combined_is_told_apart_by_what_it_was():
    """XLA sums the losses and some gradients at once, under the losses' name."""
    combined = test_traffic.TEXT.replace(
        "  ROOT %out = ",
        '  %grad = f32[3,64]{1,0} negate(%w), metadata={op_name="jit(s)/transpose(jvp(D))/dot"}\n'
        '  %loss = f32[] negate(%w), metadata={op_name="jit(s)/reduce_sum"}\n'
        "  %sum = (f32[3,64]{1,0}, f32[]) all-reduce(%grad, %loss), channel_id=9, "
        'replica_groups={{0,1,2,3}}, to_apply=%doubled, metadata={op_name="jit(s)/reduce_sum"}\n'
        "  ROOT %out = ",
    )
    assert communication.backward_sums(hlo_cost.parse(combined, ())) == {"f32": 4 * 3 * 64}
