# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Two counts of the same program, by code that has nothing in common, say the same.

tests/golden/hlo has what the TPU's compiler made of the step below for v5e:2x2, at full effort, with
weights fetched ahead and gathered meanwhile, and at the lowest; `REWRITE_GOLDEN=1` makes both anew.
"""

import gzip
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import pytest

from f3tok_jax import compile_check
from f3tok_jax.cost import hlo_cost
from f3tok_jax.devices import slices
from f3tok_jax.stages import registry
from tests.support import independent_count

_GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "hlo"
_CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
_WITHIN = 0.03
_EFFORTS = {"full_effort": 0.0, "no_effort": -1.0}


def _step(weights, batch):
    """Three layers, a table looked up, a convolution with a stride, and an update."""

    def layer(hidden, weights):
        into, out = (one.astype(jnp.bfloat16) for one in weights)
        return hidden + jnp.tanh(hidden @ into) @ out, None

    def loss(weights):
        into, out, table, kernel = weights
        hidden, _ = jax.lax.scan(jax.checkpoint(layer), batch[0].astype(jnp.bfloat16), (into, out))
        hidden += jnp.take(table, batch[1], axis=0).astype(jnp.bfloat16)
        hidden = jax.lax.conv_general_dilated(
            hidden.reshape(-1, 64, hidden.shape[-1]),
            kernel.astype(jnp.bfloat16),
            (2,),
            [(1, 1)],
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return jnp.mean(jnp.square(hidden.astype(jnp.float32)))

    return jax.tree.map(lambda x, g: x - 0.1 * g, weights, jax.grad(loss)(weights))


def _compile(effort: float) -> str:
    devices = slices.devices(slices.parse("v5e:2x2"))
    mesh = jax.make_mesh((4,), ("fsdp",), devices=devices, axis_types=(AxisType.Auto,))

    def array(shape, *axes, dtype=jnp.float32):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    weights = (
        array((3, 768, 2048), None, "fsdp"),
        array((3, 2048, 768), None, None, "fsdp"),
        array((8192, 768)),
        array((3, 768, 256), None, "fsdp"),
    )
    batch = array((4096, 768), "fsdp"), array((4096,), "fsdp", dtype=jnp.int32)
    jax.config.update("jax_exec_time_optimization_effort", effort)
    try:
        with jax.set_mesh(mesh):
            return jax.jit(_step, donate_argnums=0).lower(weights, batch).compile().as_text()
    finally:
        jax.config.update("jax_exec_time_optimization_effort", 0.0)


def _shortened(text: str) -> str:
    """Without what nobody counts: files and lines, and most of the compiler's configuration."""
    head, body = text.split("\n", 1)[0], text[text.index("\n%") :]
    kept = r'"(?:estimated_cycles":"\d+"|known_trip_count":\{"n":"\d+"\})'

    def configured(found):
        return f", backend_config={{{','.join(re.findall(kept, found.group(0)))}}}"

    body = re.sub(r", backend_config=\{.*", configured, body)
    return head + "\n" + re.sub(r" stack_frame_id=\d+", "", body)


def _compare(text: str, scopes: tuple[str, ...] = (), schedules=None) -> None:
    program = hlo_cost.parse(text, scopes, schedules)
    costs = program.costs().values()
    expected = independent_count.count(text)
    flops = sum(cost.flops for cost in costs) - program.kernels().flops
    assert flops == pytest.approx(expected["flops"], rel=_WITHIN)
    assert sum(cost.bytes for cost in costs) == pytest.approx(expected["bytes"], rel=_WITHIN)
    said = sum(found.times * found.num_bytes for found in program.collectives())
    assert said == pytest.approx(expected["collective_bytes"], rel=_WITHIN)
    assert min(expected.values()) > 0


@pytest.mark.parametrize("name", list(_EFFORTS))
def test_a_small_step_is_counted_the_same(request, name):
    path = _GOLDEN / f"{name}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        request.getfixturevalue("tpu_compiler")
        path.write_text(_shortened(_compile(_EFFORTS[name])), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    _compare(text)
    # Three layers of 1,024 positions per device: two products forward, the first of them again, and
    # two gradients of each.
    products = 2 * 1024 * 768 * 2048 * 3 * (2 + 1 + 4)
    convolution = 2 * 16 * (32 * 3 - 1) * 768 * 256 * 3
    assert independent_count.count(text)["flops"] == products + convolution
    assert ("S(1)" in text and "AsyncCollectiveStart" in text) == (name == "full_effort")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["autoencoder", "representation", "generation"])
def test_a_shipped_step_is_counted_the_same(tpu_compiler, tmp_path, stage):
    """One to three minutes of CPU each."""
    path = tmp_path / "kept.gz"
    command = [f"--config={_CONFIGS / stage}.py:base", "--topology=v5e:4x4", "--effort=-1"]
    if stage != "autoencoder":
        command.append("--config.data.latents=True")
    assert compile_check.main([*command, f"--kept={path}"]) == compile_check.EXIT_FITS
    kept = json.loads(gzip.decompress(path.read_bytes()))
    _compare(kept["text"], registry.of(stage).scopes, kept["schedules"])
