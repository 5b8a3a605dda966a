# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who says what to whom, each word once."""

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


def test_who_is_alone_says_nothing():
    assert len(hlo_cost.parse(_ALONE, ()).collectives()) == 1
