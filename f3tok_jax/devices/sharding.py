# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Meshes, and where every array of the program lives on them.

Mesh axes, outermost first:
    replica  across slices, over the data-centre network
    fsdp     chips of a slice: batches and large parameters are split over it
    tensor   chips of a slice: logical axes that a rule sends there
Batches are split over (replica, fsdp), so that their product is the number of data shards.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import functools
import math
from typing import Any

import flax.linen as nn
import jax
from jax.experimental import mesh_utils
import numpy as np

from f3tok_jax.devices import slices

MESH_AXES = ("replica", "fsdp", "tensor")
BATCH_AXES = ("replica", "fsdp")

LAYERS = "layers"  # the logical axis over which a scan runs

# Logical axis -> mesh axes. Modules name the left side only.
RULES = (
    ("batch", BATCH_AXES),
    ("time", None),
    (LAYERS, None),
    ("embed", None),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("hidden", "tensor"),
    ("vocabulary", "tensor"),
)


def make_mesh(
    section: Mapping[str, Any], devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """Returns the mesh of config.mesh over `devices`.

    Args:
        section: sizes of replica, fsdp and tensor; one of them may be -1, "all that are left", and
            replica 1 stands for the number of slices.
        devices: default all devices of all processes; compile_check gives those of a topology.

    Raises:
        ValueError: where the sizes do not multiply out to the number of devices, or `replica` does
            not fit the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    num_slices = slices.count(devices)
    shape = tuple(mesh_shape(section, len(devices), num_slices).values())
    if num_slices > 1:
        # The slices are the outermost part of the replica axis.
        grid = mesh_utils.create_hybrid_device_mesh(
            (shape[0] // num_slices, *shape[1:]), (num_slices, 1, 1), devices=devices
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices=devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(
        grid, MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    )


def mesh_shape(section: Mapping[str, Any], num_devices: int, num_slices: int = 1) -> dict[str, int]:
    """Returns the size of each of MESH_AXES for so many devices, of all slices; raises as `make_mesh`."""
    sizes = [section[axis] for axis in MESH_AXES]
    if sizes[0] == 1:
        sizes[0] = num_slices
    shape = _fill(tuple(sizes), num_devices)
    if shape[0] % num_slices:
        raise ValueError(
            f"config.mesh.replica={shape[0]} must be a multiple of {num_slices}, the number of "
            "slices: chips of different slices talk over the data-centre network; set "
            f"config.mesh.replica to {num_slices}"
        )
    return dict(zip(MESH_AXES, shape))


def _fill(sizes: tuple[int, ...], num_devices: int) -> tuple[int, ...]:
    """Replaces the one -1 by what is left and checks the product."""
    described = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes))
    if sum(size == -1 for size in sizes) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(
            f"config.mesh sizes must be at least 1, and at most one of them -1, got {described}"
        )
    known = math.prod(size for size in sizes if size != -1)
    filled = tuple(num_devices // known if size == -1 else size for size in sizes)
    if math.prod(filled) != num_devices or 0 in filled:
        raise ValueError(
            f"config.mesh {described} must multiply out to {num_devices} devices; "
            "change the sizes, or leave one at -1"
        )
    return filled


def describe(mesh: jax.sharding.Mesh) -> str:
    """Returns the mesh as text, such as {replica: 1, fsdp: 8, tensor: 1}."""
    return _describe(mesh.shape)


def _describe(sizes: Mapping[str, int]) -> str:
    return "{" + ", ".join(f"{axis}: {size}" for axis, size in sizes.items()) + "}"


def num_data_shards(mesh: jax.sharding.Mesh) -> int:
    """Returns into how many parts a batch is split on `mesh`."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh, rules: Sequence[tuple[str, Any]] = RULES) -> Iterator[None]:
    """Sets the mesh and the logical rules together: one without the other silently does nothing.

    Args:
        mesh: of the program.
        rules: logical axis -> mesh axis, several mesh axes or None.

    Raises:
        ValueError: for a rule that names no axis of the mesh, or a logical axis with two rules.
    """
    names = [name for name, _ in rules]
    for name, target in rules:
        count = names.count(name)
        if count > 1:
            raise ValueError(f"logical axis {name!r} must have one sharding rule, got {count}")
        for axis in _as_tuple(target):
            if axis not in mesh.shape:
                raise ValueError(
                    f"the sharding rule of {name!r} must name axes of the mesh "
                    f"{describe(mesh)}, got {axis!r}"
                )
    with jax.set_mesh(mesh), nn.logical_axis_rules(tuple(rules)):
        yield


def _as_tuple(target: Any) -> tuple[str, ...]:
    if target is None:
        return ()
    return (target,) if isinstance(target, str) else tuple(target)


def logical_sharding(
    names: Sequence[str | None],
    shape: Sequence[int],
    mesh: jax.sharding.Mesh,
    rules: Sequence[tuple[str, Any]] = RULES,
) -> jax.sharding.NamedSharding:
    """Returns the sharding of an array whose axes carry logical names.

    Args:
        names: one logical name, or None, per axis.
        shape: of the array.
        mesh: of the program.
        rules: as in `use`.

    Raises:
        ValueError: for an unknown name, two axes on one mesh axis, or a size that does not divide;
            JAX and Flax let the first two pass and replicate.
    """
    table = dict(rules)
    taken: dict[str, str] = {}
    spec = []
    for name, size in zip(names, shape, strict=True):
        if name is not None and name not in table:
            raise ValueError(
                f"logical axis must be one of {sorted(table)}, got {name!r} in {tuple(names)}"
            )
        axes = _as_tuple(table[name]) if name is not None else ()
        for axis in axes:
            if axis in taken:
                raise ValueError(
                    f"logical axes {taken[axis]!r} and {name!r} of {tuple(names)} both map to "
                    f"the mesh axis {axis!r}; change the rule of one of them"
                )
            taken[axis] = name
        parts = _num_parts(mesh, axes)
        if size % parts:
            raise ValueError(
                f"size {size} of the logical axis {name!r} must be a multiple of {parts}, its "
                f"shards on mesh {describe(mesh)}"
            )
        spec.append(axes if len(axes) > 1 else axes[0] if axes else None)
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))


def constrain(array: jax.Array, *names: str | None) -> jax.Array:
    """Constrains an array inside a step by its axes' logical names; identity without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return array
    rules = nn.get_logical_axis_rules() or RULES
    spec = logical_sharding(names, array.shape, mesh, rules).spec
    return jax.lax.with_sharding_constraint(array, spec)


def divides(shape: Sequence[int], names: Sequence[str | None]) -> bool:
    """Whether the mesh in use, if any, splits an array with such logical axes into equal parts."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or not any(
        size % _num_parts(mesh, axes)
        for size, axes in zip(shape, nn.logical_to_mesh_axes(names), strict=True)
    )


def on_each_device(
    function: Callable[..., jax.Array],
    inputs: Sequence[Sequence[str | None]],
    output: Sequence[str | None],
) -> Callable[..., jax.Array]:
    """Returns `function`, run by each device on its own part: for what the partitioner cannot split.

    Args:
        function: of arrays; itself where no mesh is in use.
        inputs: logical names of the axes of each.
        output: of the result's.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function
    return jax.shard_map(
        function,
        in_specs=tuple(nn.logical_to_mesh_axes(names) for names in inputs),
        out_specs=nn.logical_to_mesh_axes(output),
        check_vma=False,
    )


def by_example(function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """Returns `function` of (whole, batch), run by each data shard on the examples it holds.

    What it does with an example is the same program on every mesh.

    Args:
        function: of arrays that every device holds whole, and of a batch; all that it gives has an
            axis of examples in front.
        mesh: of the program.
    """
    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(BATCH_AXES)
    return jax.shard_map(
        function, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False
    )


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def state_shardings(abstract_state: Any, mesh: jax.sharding.Mesh, min_shard_size: int) -> Any:
    """Returns a sharding per leaf by names and shape alone: optimizer state follows its parameters.

    Axes that carry logical names (flax.linen boxes) go where their rules send them. Then a leaf of
    at least `min_shard_size` elements is split over fsdp too, on the largest of its other axes that
    divides (the last of equals), layers of a scan excepted.

    Args:
        abstract_state: tree of arrays or jax.ShapeDtypeStruct, boxed or not.
        mesh: of the program.
        min_shard_size: elements.

    Returns:
        A tree like `unbox(abstract_state)`.

    Raises:
        ValueError: as `logical_sharding`.
    """
    rules = nn.get_logical_axis_rules() or RULES
    fsdp = mesh.shape["fsdp"]

    def shard(leaf: Any) -> jax.sharding.NamedSharding:
        names = leaf.names if _is_box(leaf) else ()
        leaf = unbox(leaf)
        names = names or (None,) * len(leaf.shape)
        spec = [
            axes if _num_parts(mesh, axes) > 1 else None
            for axes in logical_sharding(names, leaf.shape, mesh, rules).spec
        ]
        free = (axis for axis in range(len(spec)) if spec[axis] is None and names[axis] != LAYERS)
        sizes = ((leaf.shape[axis], axis) for axis in free)
        candidates = [(size, axis) for size, axis in sizes if size and size % fsdp == 0]
        if fsdp > 1 and math.prod(leaf.shape) >= min_shard_size and candidates:
            spec[max(candidates)[1]] = "fsdp"
        if not any(spec):
            return replicated(mesh)
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

    return jax.tree.map(shard, abstract_state, is_leaf=_is_box)


def unbox(tree: Any) -> Any:
    """Returns `tree` without the boxes that hold its logical names; arrays stay where they are."""
    return jax.tree.map(lambda leaf: leaf.value if _is_box(leaf) else leaf, tree, is_leaf=_is_box)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.Partitioned)


def _num_parts(mesh: jax.sharding.Mesh, axes: Any) -> int:
    return math.prod(mesh.shape[axis] for axis in _as_tuple(axes))


def abstract(tree: Any, shardings: Any) -> Any:
    """Returns `tree` as jax.ShapeDtypeStruct leaves that carry their shardings."""
    make = lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
    return jax.tree.map(make, tree, shardings)


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """Returns the sharding of every array of a batch: the first axis over all data shards."""
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(BATCH_AXES))


def check_batch(batch_size: int, mesh: jax.sharding.Mesh, source: str) -> None:
    """Refuses a global batch that does not divide over the mesh and its processes.

    Args:
        batch_size: examples over the whole mesh.
        mesh: of the program.
        source: where the batch size came from, for the message.
    """
    check_rows(batch_size, mesh.shape, source)
    # A host reads rows of its own: no other host may hold a part of the same rows.
    shards = (shard for row in mesh.devices for shard in row)
    if any(len({chip.process_index for chip in shard}) > 1 for shard in shards):
        raise ValueError(
            f"config.mesh.tensor={mesh.shape['tensor']} must leave the chips of a data shard on one "
            f"host, got mesh {describe(mesh)}; lower config.mesh.tensor"
        )


def check_rows(batch_size: int, sizes: Mapping[str, int], source: str) -> None:
    """Refuses a global batch that does not divide over a mesh of such sizes, as `check_batch`."""
    shards = math.prod(sizes[axis] for axis in BATCH_AXES)
    if batch_size % shards:
        raise ValueError(
            f"batch_size={batch_size} ({source}) must be a multiple of {shards}, the number of "
            f"data shards on mesh {_describe(sizes)}"
        )


def host_to_global(
    batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
    """Returns the global batch of which this process holds the given slice.

    Args:
        batch: name -> [batch / processes, ...], this process's examples, in the global order.
        mesh: of the program.
    """
    place = functools.partial(jax.make_array_from_process_local_data, batch_sharding(mesh))
    return {name: place(array) for name, array in batch.items()}


def gather(tree: Any) -> Any:
    """Gathers sharded parameters whole inside a step, once, before they are used.

    A convolution whose kernel is split over fsdp would otherwise be computed in pieces with a
    collective each. The gradient leaves as a reduce-scatter. Identity without a mesh.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    whole = jax.sharding.PartitionSpec()
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, whole), tree)
