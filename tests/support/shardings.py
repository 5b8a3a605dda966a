# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where every array of a config lives on slices that need not exist, as text to be reviewed."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import math
import re
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.extend.core
import ml_collections

from f3tok_jax.devices import sharding
from f3tok_jax.devices import slices
from f3tok_jax.stages import registry
from f3tok_jax.training import programs
from tests.support import sliced_devices

_HEAD = """\
# {name}: where every array lives. Rewritten by REWRITE_GOLDEN=1 pytest tests/configs/test_shardings.py
# An axis is whole (-), or split over axes of the mesh: r(eplica), f(sdp), t(ensor), rf for both.
"""
_LETTERS = {"replica": "r", "fsdp": "f", "tensor": "t"}
_WRAPPED = re.compile(r"\b(?:jvp|vmap|checkpoint|jit)\(([^()]*)\)")
_SHOWN = 3  # of the largest arrays that every chip holds whole


def text(config: ml_collections.ConfigDict, targets: Sequence[slices.Slice]) -> str:
    """Returns parameters, batch and activations of a config on slices, the first in full.

    Nothing is compiled and no weight is made: devices are stand-ins, the step is only traced.
    """
    meshes = {str(target): _mesh(config, target) for target in targets}
    first = next(iter(meshes.values()))
    with _use(first):
        stage = registry.of(config.stage).make(config)
        boxed = jax.eval_shape(lambda: stage.init_state(jax.random.key(0)))
    parts = [_HEAD.format(name=f"{config.stage}:{config.preset}")]
    parts += [f"{name}: {sharding.describe(mesh)}\n" for name, mesh in meshes.items()]
    for title, tree in (("state", boxed), ("frozen", stage.abstract_frozen)):
        parts += _section(title, _leaves(tree, meshes, config.mesh.min_shard_size))
    places = {name: sharding.batch_sharding(mesh) for name, mesh in meshes.items()}
    batch = [(f"['{name}']", leaf, places) for name, leaf in stage.batch_spec.items()]
    parts += _section("batch", batch)
    with _use(first), _named_constraints():
        arguments = sharding.unbox(boxed), sharding.unbox(stage.abstract_frozen)
        step = jax.make_jaxpr(stage.train_step)(*arguments, dict(stage.batch_spec))
    found = list(_constraints(step.jaxpr))
    parts.append(f"\nwhat the forward pass pins, on {next(iter(meshes))}\n")
    lines = [
        (f"{where}  {_shown(aval, spec)}", times) for where, aval, spec, times in found if where
    ]
    counts = {line: sum(n for other, n in lines if other == line) for line, _ in lines}
    parts += [f"  {line}{f'  x{n}' if n > 1 else ''}\n" for line, n in counts.items()]
    gathered = [_size(aval) for where, aval, _, _ in found if not where]  # by sharding.gather
    parts.append(f"  weights gathered whole: {len(gathered)}, {sum(gathered) / 1e6:.2f} MB\n")
    return "".join(parts)


def _mesh(config: ml_collections.ConfigDict, target: slices.Slice) -> jax.sharding.AbstractMesh:
    count = target.num_chips * target.chip.devices
    devices = sliced_devices.make(count, num_slices=target.num_slices)
    return programs.make_mesh(config, devices).abstract_mesh


@contextlib.contextmanager
def _use(mesh: jax.sharding.AbstractMesh) -> Iterator[None]:
    """sharding.use for a mesh without devices."""
    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
        yield


def _named_constraints():
    """Has every constraint bear its logical names in the name of its operation."""
    constrain = nn.with_logical_constraint

    def named(x, names, *arguments, **options):
        with jax.named_scope(f"[{' '.join(name or '-' for name in names)}]"):
            return constrain(x, names, *arguments, **options)

    return mock.patch.object(nn, "with_logical_constraint", named)


def _leaves(
    tree: Any, meshes: Mapping[str, jax.sharding.AbstractMesh], min_shard_size: int
) -> list[tuple[str, Any, Mapping[str, Any]]]:
    """Path, shape and, by mesh, sharding of every leaf."""
    flat = jax.tree_util.tree_leaves_with_path(sharding.unbox(tree))
    found = {}
    for name, mesh in meshes.items():
        with _use(mesh):
            found[name] = jax.tree.leaves(sharding.state_shardings(tree, mesh, min_shard_size))
    return [
        (jax.tree_util.keystr(path), leaf, {name: found[name][index] for name in meshes})
        for index, (path, leaf) in enumerate(flat)
    ]


def _section(title: str, leaves: Sequence[tuple[str, Any, Mapping[str, Any]]]) -> list[str]:
    """A line per array; those of one parameter, its moments and averages say the same once."""
    lines: dict[tuple[str, str], set[str]] = {}
    for path, leaf, places in leaves:
        owner, name = _split(path)
        shown = dict.fromkeys(_shown(leaf, place.spec) for place in places.values())
        lines.setdefault((name, " | ".join(shown)), set()).add(owner)
    width = max((len(name) for name, _ in lines), default=0)
    owners = [", ".join(sorted(each)) for each in lines.values()]
    usual = max(owners, key=owners.count, default="")
    text = [f"\n{title}{f', where it says nothing else in {usual}' if usual else ''}\n"]
    for ((name, what), _), each in sorted(zip(lines.items(), owners)):
        where = "" if each == usual else f"  in {each}"
        text.append(f"  {name:{width}}  {what}{where}\n")
    whole = [(_size(leaf), path) for path, leaf, places in leaves if not any(_first(places).spec)]
    largest = [f"{path} {size / 1e6:.2f}" for size, path in sorted(whole, reverse=True)[:_SHOWN]]
    total = f"{sum(size for size, _ in whole) / 1e6:.2f} MB"
    return [*text, f"  whole on every chip: {total}; the largest: {', '.join(largest) or 'none'}\n"]


def _first(places: Mapping[str, Any]) -> Any:
    return next(iter(places.values()))


def _split(path: str) -> tuple[str, str]:
    """Of a leaf's path what owns it, such as the moments of a player, and the parameter's name."""
    names = re.findall(r"\['([^']*)'\]", path)
    owner = re.sub(r"\['[^']*'\]", "", path).strip(".")
    return owner, "/".join(names) or path


def _size(leaf: Any) -> int:
    """Bytes."""
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _spec(spec: jax.sharding.PartitionSpec, rank: int) -> str:
    axes = [*spec, *[None] * (rank - len(spec))]
    names = [(axis,) if isinstance(axis, str) else axis or () for axis in axes]
    return ",".join("".join(_LETTERS[name] for name in each) or "-" for each in names) or "-"


def _constraints(
    jaxpr: Any, path: str = "", times: int = 1
) -> Iterator[tuple[str, Any, jax.sharding.PartitionSpec, int]]:
    """Where, shape, sharding and number of every constraint, and of what each device has its part of.

    Not those of the backward pass, which are the same.
    """
    for equation in jaxpr.eqns:
        where = f"{path}/{equation.source_info.name_stack}"
        if "transpose(" in where or "rematted" in where:
            continue
        params, name = equation.params, equation.primitive.name
        if name == "sharding_constraint":
            yield _place(where), equation.invars[0].aval, params["sharding"].spec, times
        if name == "shard_map" and len(equation.invars) > 1:  # one alone is a pinned layout
            for operand, spec in zip(equation.invars, params["in_specs"], strict=True):
                if operand.aval.ndim > 3:
                    yield f"{_place(where)}/each its own", operand.aval, spec, times
        runs = times * params["length"] if name == "scan" else times
        for inner in jax.extend.core.jaxprs_in_params(params):
            yield from _constraints(inner, where, runs)


def _place(name_stack: str) -> str:
    """Scopes and modules of an operation, without what transformed it."""
    while _WRAPPED.search(name_stack):
        name_stack = _WRAPPED.sub(r"\1", name_stack)
    return "/".join(filter(None, name_stack.split("/")))


def _shown(leaf: Any, spec: jax.sharding.PartitionSpec) -> str:
    shape = "x".join(map(str, leaf.shape)) or "scalar"
    return f"{leaf.dtype} {shape}  {_spec(spec, leaf.ndim)}"
