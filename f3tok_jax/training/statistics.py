# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a stage takes from its data before the first step, measured by all devices together.

Every data shard hears one example at a time, by the same program on every mesh, and the host adds
what each example gave in the order of the examples, in float64: so the numbers are the same, to the
last bit, on any number of devices and processes.
"""

from collections.abc import Callable, Mapping
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.devices import sharding
from f3tok_jax.training import stage as stage_lib

_INDEX = "index"  # which example a row is, whatever the order of the devices
_SAY_EVERY = 20.0  # seconds


@dataclasses.dataclass(frozen=True)
class Heard:
    """Who hears how far it has come: the console, and who keeps the time."""

    say: Callable[[str], None] = lambda message: None
    enter: Callable[[str], None] = lambda kind: None


def batch_spec(
    wanted: stage_lib.Statistics, mesh: jax.sharding.Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of what the program takes at a time: an example per data shard."""
    rows = sharding.num_data_shards(mesh)
    spec = {
        name: jax.ShapeDtypeStruct((rows, *array.shape), array.dtype)
        for name, array in wanted.example.items()
    }
    return spec | {_INDEX: jax.ShapeDtypeStruct((rows,), jnp.int32)}


def program(wanted: stage_lib.Statistics, mesh: jax.sharding.Mesh) -> Any:
    """(frozen, batch of `batch_spec`) -> index of each example and its sums, in every process."""

    def one(frozen: Any, batch: stage_lib.Batch) -> Any:
        index = batch[_INDEX]
        heard = {name: array for name, array in batch.items() if name != _INDEX}
        return index, jax.tree.map(lambda total: total[None], wanted.sums(frozen, heard))

    return jax.jit(sharding.by_example(one, mesh), out_shardings=sharding.replicated(mesh))


def measure(
    wanted: stage_lib.Statistics,
    compiled: Callable[..., Any],
    frozen: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    heard: Heard,
) -> Mapping[str, Any]:
    """Hears the examples, each process its share of them; all processes get the same numbers.

    Args:
        wanted: what is measured.
        compiled: `program`.
        frozen: the arrays that it reads.
        mesh: that it was compiled for.
        heard: who hears how far it has come.

    Raises:
        ValueError: where the examples do not suffice.
    """
    rows = sharding.num_data_shards(mesh)
    hosts = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    data = wanted.open_data(batch_size=rows, **hosts)
    count = min(wanted.num_examples, data.num_records)
    own = rows // jax.process_count()
    started = said = time.monotonic()
    total: list[Any] = []
    for step, batch in data.iterate(0, -(-count // rows)):
        first = step * rows + own * jax.process_index()
        batch = batch | {_INDEX: np.arange(first, first + own, dtype=np.int32)}
        # Read one by one: on CPU, independent collectives in flight can deadlock.
        index, sums = jax.device_get(compiled(frozen, sharding.host_to_global(batch, mesh)))
        heard.enter("statistics")
        for row in np.argsort(index):
            if index[row] < count:  # The last batch may begin the data again.
                one = [np.asarray(array[row], np.float64) for array in sums]
                total = [np.add(*pair) for pair in zip(total, one)] if total else one
        if time.monotonic() - said > _SAY_EVERY:
            said = time.monotonic()
            heard.say(f"statistics: heard {min((step + 1) * rows, count)} of {count} examples")
    heard.say(f"statistics of {count} examples, taken in {time.monotonic() - started:.1f} s")
    return wanted.finish(total)
