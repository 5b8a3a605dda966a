# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes of small pieces of HLO text, those of main memory alone."""

import pytest

from f3tok_jax.cost import hlo_text
from f3tok_jax.cost import traffic

TEXT = """HloModule m

%rows (a: f32[5000,64], b: s32[8,1]) -> f32[8,64] {
  %a = f32[5000,64]{1,0} parameter(0)
  %b = s32[8,1]{1,0} parameter(1)
  ROOT %gather = f32[8,64]{1,0} gather(%a, %b), offset_dims={1}
}

%started (c: bf16[4,128]) -> (bf16[4,128], bf16[16,128], s32[2]) {
  %c = bf16[4,128]{1,0} parameter(0)
  %all-gather.1 = bf16[16,128]{1,0} all-gather(%c), channel_id=3, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %start = (bf16[4,128]{1,0}, bf16[16,128]{1,0}, s32[2]{0:S(4)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%passed (d: bf16[4,128], e: bf16[16,128], f: f32[128]) -> (f32[128], bf16[4,128], bf16[16,128]) {
  %d = bf16[4,128]{1,0} parameter(0)
  %e = bf16[16,128]{1,0} parameter(1)
  %f = f32[128]{0} parameter(2)
  %all-gather.2 = bf16[16,128]{1,0} all-gather(%d), channel_id=3, replica_groups={{0,1,2,3}}, dimensions={0}
  %sum = f32[128]{0} add(%f, %f)
  ROOT %both = (f32[128]{0}, bf16[4,128]{1,0}, bf16[16,128]{1,0}) tuple(%sum, %d, %all-gather.2)
}

%ended (g: bf16[4,128], h: bf16[16,128]) -> bf16[16,128] {
  %g = bf16[4,128]{1,0} parameter(0)
  %h = bf16[16,128]{1,0} parameter(1)
  %all-gather.3 = bf16[16,128]{1,0} all-gather(%g), channel_id=3, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %done = bf16[16,128]{1,0} custom-call(%g, %h, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%doubled (i: f32[128]) -> f32[128] {
  %i = f32[128]{0:S(1)} parameter(0)
  ROOT %double = f32[128]{0} add(%i, %i)
}

ENTRY %main (x: f32[5000,64], n: s32[8,1], w: bf16[4,128], v: f32[128]) -> f32[128] {
  %x = f32[5000,64]{1,0} parameter(0)
  %n = s32[8,1]{1,0} parameter(1)
  %w = bf16[4,128]{1,0} parameter(2)
  %v = f32[128]{0} parameter(3)
  %looked = f32[8,64]{1,0} fusion(%x, %n), kind=kLoop, calls=%rows
  %fetch = (f32[128]{0:T(128)S(1)}, f32[128]{0:T(128)}, u32[]{:S(2)}) copy-start(%v)
  %fetched = f32[128]{0:T(128)S(1)} copy-done(%fetch)
  %part = ((f32[5000,64]{1,0}), f32[10,64]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:10], [0:64]}
  %parted = f32[10,64]{1,0:T(8,128)S(1)} slice-done(%part)
  %near = f32[128]{0} fusion(%fetched), kind=kLoop, calls=%doubled
  %kept = f32[128]{0:T(128)S(1)} negate(%fetched)
  %begin = (bf16[4,128]{1,0}, bf16[16,128]{1,0}, s32[2]{0:S(4)}) fusion(%w), kind=kCustom, calls=%started
  %between = (f32[128]{0}, bf16[4,128]{1,0}, bf16[16,128]{1,0}) fusion(%w, %w, %near), kind=kCustom, calls=%passed
  %end = bf16[16,128]{1,0} fusion(%w, %w), kind=kCustom, calls=%ended
  %swap = (bf16[4,128]{1,0}, bf16[4,128]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%w), source_target_pairs={{0,0},{1,1}}
  ROOT %out = f32[128]{0} copy(%near)
}
"""
_GATHERED = 2 * 4 * 128 + 2 * 16 * 128  # what is sent, and what comes


@pytest.mark.parametrize(
    "name, num_bytes",
    [
        # Eight rows of a table, not all of it; their numbers; the result.
        ("looked", 2 * 4 * 8 * 64 + 4 * 8),
        # Read once from main memory, by the fetch, and by nobody after it.
        ("fetch", 4 * 128),
        ("fetched", 0),
        ("part", 4 * 16 * 128),  # in whole tiles
        ("near", 4 * 128),
        ("kept", 0),
        # A collective counts where it begins; what it passes through counts its own work alone.
        ("begin", _GATHERED),
        ("between", 2 * 4 * 128),
        ("end", 0),
        ("swap", 2 * 2 * 4 * 128),  # its result holds what it reads
        ("out", 2 * 4 * 128),
    ],
)
def test_what_an_instruction_moves(name, num_bytes):
    text = hlo_text.parse(TEXT)
    assert traffic.Traffic(text).of(text.computations["main"][name]) == num_bytes
