# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Meshes, the shape rule, global batches, and the checks that JAX does not make."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from tests.support import sliced_devices


def _section(replica=1, fsdp=-1, tensor=1):
    return dict(replica=replica, fsdp=fsdp, tensor=tensor)


def _spec(array_sharding) -> tuple:
    return tuple(array_sharding.spec)


def test_one_size_is_filled_and_all_axes_are_auto():
    mesh = sharding.make_mesh(_section(replica=2))
    assert dict(mesh.shape) == {"replica": 2, "fsdp": 4, "tensor": 1}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
    assert sharding.num_data_shards(mesh) == 8
    assert sharding.num_data_shards(sharding.make_mesh(_section(tensor=2))) == 4
    assert sharding.describe(mesh) == "{replica: 2, fsdp: 4, tensor: 1}"


@pytest.mark.reliability("R30")
@pytest.mark.parametrize(
    "section, message",
    [
        (_section(fsdp=3), "replica=1, fsdp=3, tensor=1 must multiply out to 8 devices"),
        (_section(fsdp=-1, tensor=-1), "at most one of them -1"),
        (_section(fsdp=0), "at least 1"),
        (_section(replica=16), "must multiply out to 8 devices"),
        (_section(replica=3), "must multiply out to 8 devices"),
    ],
)
def test_impossible_meshes(section, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(section)


def test_replicas_must_fit_the_slices():
    devices = sliced_devices.make(6, num_slices=2)
    with pytest.raises(ValueError, match="replica=3 must be a multiple of 2, the number of slices"):
        sharding.make_mesh(_section(replica=3), devices)


def test_replicas_are_the_slices_unless_told_otherwise():
    devices = sliced_devices.make(8, num_slices=2)
    assert dict(sharding.make_mesh(_section(), devices).shape) == dict(replica=2, fsdp=4, tensor=1)
    mesh = sharding.make_mesh(_section(replica=4), devices)
    assert dict(mesh.shape) == dict(replica=4, fsdp=2, tensor=1)
    # Chips of one row are of one slice.
    assert all(len({device.slice_index for device in row}) == 1 for row in mesh.devices[..., 0])


def test_the_shape_rule():
    mesh = sharding.make_mesh(_section())
    shapes = {
        "kernel": (3, 64, 128),
        "square": (64, 64),
        "odd": (5, 7, 64),
        "bias": (64,),
        "prime": (67, 61),
        "scalar": (),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    found = {
        name: _spec(value) for name, value in sharding.state_shardings(tree, mesh, 2000).items()
    }
    assert found == {
        "kernel": (None, None, "fsdp"),
        "square": (None, "fsdp"),
        "odd": (None, None, "fsdp"),
        "bias": (),
        "prime": (),
        "scalar": (),
    }
    one = sharding.make_mesh(_section(), jax.devices()[:1])
    assert all(
        value.is_fully_replicated for value in sharding.state_shardings(tree, one, 1).values()
    )


def test_boxes_add_the_tensor_axis_and_keep_layers_whole():
    mesh = sharding.make_mesh(_section(tensor=2))
    box = lambda shape, *names: nn.LogicallyPartitioned(
        jax.ShapeDtypeStruct(shape, jnp.float32), names
    )
    tree = {
        "into": box((64, 32, 48), "layers", "embed", "hidden"),
        "out_of": box((64, 48, 32), "layers", "hidden", "embed"),
        "odd": box((64, 48, 30), "layers", "hidden", "embed"),
        "scale": box((64, 32), "layers", "embed"),
        "plain": jax.ShapeDtypeStruct((32, 48), jnp.float32),
    }
    found = sharding.state_shardings(tree, mesh, 2049)
    assert jax.tree.map(_spec, found) == {
        "into": (None, "fsdp", "tensor"),
        "out_of": (None, "tensor", "fsdp"),
        "odd": (None, "tensor", None),
        "scale": (),
        "plain": (),
    }
    assert jax.tree.structure(found) == jax.tree.structure(sharding.unbox(tree))
    # Where no axis is left for tensor, fsdp may have it.
    whole = sharding.make_mesh(_section())
    assert _spec(sharding.state_shardings(tree["into"], whole, 2049)) == (None, None, "fsdp")
    for names, message in (
        (("layers", "width", "hidden"), "logical axis must be one of"),
        (("layers", "heads", "hidden"), "both map to"),
    ):
        with pytest.raises(ValueError, match=message):
            sharding.state_shardings(box((64, 32, 48), *names), mesh, 2049)
    with pytest.raises(ValueError, match="size 31 of the logical axis 'hidden'"):
        sharding.state_shardings(box((4, 31), "embed", "hidden"), mesh, 1)


def test_batches_are_split_over_replicas_and_fsdp():
    mesh = sharding.make_mesh(_section(replica=2, tensor=2))
    batch = {
        "waveform": np.arange(32, dtype=np.float32).reshape(8, 4),
        "mask": np.ones((8, 4), bool),
    }
    placed = sharding.host_to_global(batch, mesh)
    np.testing.assert_array_equal(placed["waveform"], batch["waveform"])
    assert placed["waveform"].addressable_shards[0].data.shape == (2, 4)
    assert placed["mask"].dtype == bool
    with pytest.raises(
        ValueError,
        match=r"batch_size=6 \(here\) must be a multiple of 4, the number of data "
        r"shards on mesh \{replica: 2, fsdp: 2, tensor: 2\}",
    ):
        sharding.check_batch(6, mesh, "here")


def test_use_sets_mesh_and_rules_together():
    mesh = sharding.make_mesh(_section())
    step = lambda x: nn.with_logical_constraint(x * 2, ("batch", None))
    with sharding.use(mesh):
        lowered = jax.jit(step).lower(jnp.ones((8, 4))).as_text()
        assert sharding.constrain(jnp.ones((8, 4)), "batch", None).sharding.spec[0] == (
            "replica",
            "fsdp",
        )
    assert lowered.count("sharding_constraint") == 1
    assert jax.jit(step).lower(jnp.ones((8, 4))).as_text().count("sharding_constraint") == 0
    assert jax.sharding.get_abstract_mesh().empty


@pytest.mark.parametrize(
    "rules, message",
    [
        (
            (("batch", "data"),),
            "the sharding rule of 'batch' must name axes of the mesh .*, got 'data'",
        ),
        (
            (("batch", "fsdp"), ("batch", None)),
            "logical axis 'batch' must have one sharding rule, got 2",
        ),
    ],
)
def test_rules_that_jax_would_let_pass(rules, message):
    with pytest.raises(ValueError, match=message):
        with sharding.use(sharding.make_mesh(_section()), rules):
            pass


@pytest.mark.parametrize(
    "names, shape, message",
    [
        (("batsh", None), (8, 4), "logical axis must be one of .*, got 'batsh'"),
        (("heads", "hidden"), (8, 8), "'heads' and 'hidden' .* both map to the mesh axis 'tensor'"),
        (("batch", None), (6, 4), "size 6 of the logical axis 'batch' must be a multiple of 4"),
    ],
)
def test_names_that_jax_would_let_pass(names, shape, message):
    mesh = sharding.make_mesh(_section(tensor=2))
    with pytest.raises(ValueError, match=message):
        sharding.logical_sharding(names, shape, mesh)
    with sharding.use(mesh), pytest.raises(ValueError, match=message):
        jax.jit(lambda x: sharding.constrain(x, *names)).lower(jnp.ones(shape))


def test_gather_makes_parameters_whole_inside_a_step_and_keeps_gradients():
    mesh = sharding.make_mesh(_section())
    weights = jnp.arange(64.0).reshape(8, 8)
    assert sharding.gather({"w": weights})["w"] is weights  # no mesh: nothing happens
    where = sharding.state_shardings({"w": weights}, mesh, 1)
    placed = jax.device_put({"w": weights}, where)
    loss = lambda p: jnp.sum(jnp.sin(sharding.gather(p)["w"]))
    with sharding.use(mesh):
        compiled = (
            jax.jit(jax.grad(loss), in_shardings=(where,), out_shardings=where)
            .lower(placed)
            .compile()
        )
        grads = compiled(placed)
    assert grads["w"].sharding == where["w"]
    np.testing.assert_allclose(grads["w"], np.cos(weights), rtol=1e-6)
    with sharding.use(mesh):
        text = (
            jax.jit(lambda p: sharding.gather(p)["w"] * 2, in_shardings=(where,))
            .lower(placed)
            .compile()
            .as_text()
        )
    assert "all-gather" in text


def test_abstract_carries_shapes_and_shardings():
    mesh = sharding.make_mesh(_section())
    tree = {"w": jnp.ones((8, 4))}
    shardings = sharding.state_shardings(tree, mesh, 1)
    leaf = sharding.abstract(tree, shardings)["w"]
    assert (leaf.shape, leaf.dtype, leaf.sharding) == ((8, 4), jnp.float32, shardings["w"])
