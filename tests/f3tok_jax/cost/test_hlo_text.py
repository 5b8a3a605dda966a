# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Small pieces of HLO text, read."""

import pytest

from f3tok_jax.cost import hlo_text


def test_shapes_are_measured_with_padding_where_they_lie_and_without_where_they_are_sent():
    shape = "(bf16[6,380,64]{2,1,0:T(8,128)(2,1)}, f32[100,3]{0,1:T(4,128)S(1)}, s32[])"
    assert hlo_text.dtype_bytes(shape) == {"bf16": 2 * 6 * 380 * 64, "f32": 4 * 300, "s32": 4}
    assert hlo_text.hbm_bytes(shape) == 2 * 6 * 384 * 128 + 4
    assert hlo_text.stored_bytes(shape) == 2 * 6 * 384 * 128 + 4 * 128 * 4 + 4
    assert hlo_text.stored_bytes("(f32[3]{0}, s32[], pred[8,2]{1,0})") == 12 + 4 + 16
    assert hlo_text.dimensions("f32[1,10,4]{2,1,0}") == (1, 10, 4)


def test_instructions_keep_shape_operands_and_op_name():
    text = hlo_text.parse(
        "ENTRY %main (p: f32[2]) -> (f32[2], f32[2]) {\n"
        "  %p = f32[2]{0} parameter(0)\n"
        '  ROOT %t = (f32[2]{0:T(128)}, f32[2]{0}) tuple(%p, %p), metadata={op_name="jit(f)/g"}\n'
        "}\n"
    )
    assert text.entry == "main" and list(text.computations["main"]) == ["p", "t"]
    root = text.computations["main"]["t"]
    assert (root.shape, root.opcode) == ("(f32[2]{0:T(128)}, f32[2]{0})", "tuple")
    assert root.operands == ("p", "p") and root.op_name == "jit(f)/g"


@pytest.mark.parametrize(
    "text, groups",
    [
        ("replica_groups={{0,1},{2,3}}, x", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}, y", ((0, 1, 2, 3),)),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
        ("replica_groups={}", ()),
    ],
)
def test_every_notation_of_groups(text, groups):
    assert hlo_text.parse_groups(text) == groups


@pytest.mark.parametrize(
    "window, sizes, products",
    [
        # 10 outputs of 3 taps, less the two that meet the padding.
        ("size=3 pad=1_1", ((1, 10, 4), (3, 4, 5), (1, 10, 5)), 28 * 4 * 5),
        ("size=3 stride=2 pad=1_0", ((1, 10, 4), (3, 4, 5), (1, 5, 5)), 14 * 4 * 5),
        # A transposed convolution: 22 of 5 taps x 10 outputs meet one of 5 inputs with holes.
        ("size=5 pad=2_3 lhs_dilate=2", ((1, 5, 4), (5, 4, 5), (1, 10, 5)), 22 * 4 * 5),
    ],
)
def test_convolutions_count_products_with_real_inputs(window, sizes, products):
    shapes = ["f32[" + ",".join(map(str, size)) + "]{2,1,0}" for size in sizes]
    attributes = f", window={{{window}}}, dim_labels=b0f_0io->b0f"
    assert hlo_text.convolution_flops(attributes, *shapes) == 2 * products


@pytest.mark.parametrize(
    "window, labels",
    [
        ("2x5x16 stride=1x4x1 pad=1_1x0_0x0_0 lhs_dilate=1x5x1", "12fb0_12i0o->1b0f2"),
        ("5x2x16 stride=4x1x1 pad=0_0x1_1x0_0 lhs_dilate=5x1x1", "02fb1_02i1o->0b1f2"),
        ("5x16x2 stride=4x1x1 pad=0_0x0_0x1_1 lhs_dilate=5x1x1", "01fb2_01i2o->0b2f1"),
        ("16x2x5 stride=1x1x4 pad=0_0x1_1x0_0 lhs_dilate=1x1x5", "20fb1_20i1o->2b1f0"),
    ],
)
def test_a_convolution_counts_the_same_however_its_axes_are_numbered(window, labels):
    """A gradient in a ring of XLA's: 5 layers' weights of 12 x 2 x 8, over 16 rows of 7 positions."""
    attributes = f", window={{size={window}}}, dim_labels={labels}"
    shapes = ("bf16[5,16,7,12,1]", "bf16[5,16,7,2,8]", "bf16[5,12,2,8,1]")
    products = 5 * 16 * 7 * 12 * 2 * 8
    assert hlo_text.convolution_flops(attributes, *shapes) == 2 * products


def test_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY computation"):
        hlo_text.parse("HloModule nothing\n")


def test_attributes_of_a_kernel_over_several_lines_do_not_end_its_computation():
    text = """HloModule m
ENTRY %main (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %k = f32[4]{0} custom-call(%p), frontend_attributes={kernel_metadata={
"blocks":"{128}"
}}, metadata={op_name="attention"}
  ROOT %n = f32[4]{0} negate(%k)
}
"""
    computation = hlo_text.parse(text).computations["main"]
    assert list(computation) == ["p", "k", "n"]
    assert computation["k"].op_name == "attention"
