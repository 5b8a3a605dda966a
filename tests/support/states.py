# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Small states of two players, and runs that have saved them."""

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.devices import sharding
from f3tok_jax.runs import checkpoint
from f3tok_jax.training import state as train_state


def _init(key):
    normal = lambda stream, *shape: jax.random.normal(train_state.step_key(key, 0, stream), shape)
    params = {
        "generator": {"kernel": normal("kernel", 64, 128), "bias": normal("bias", 6)},
        "discriminator": {"kernel": normal("other", 16, 24)},
    }
    return train_state.TrainState(
        step=jnp.int32(7),
        params=params,
        opt_state={"mean": params},
        ema_params={"generator": params["generator"]},
    )


def abstract(num_devices: int = 1):
    """What a state is like on so many devices."""
    mesh = sharding.make_mesh(dict(replica=1, fsdp=-1, tensor=1), jax.devices()[:num_devices])
    shapes = jax.eval_shape(_init, jax.random.key(0))
    return sharding.abstract(shapes, sharding.state_shardings(shapes, mesh, 256))


def state(seed: int = 0, num_devices: int = 1):
    """A state that is drawn from a seed."""
    return jax.tree.map(
        lambda leaf, like: jax.device_put(leaf, like.sharding),
        _init(jax.random.key(seed)),
        abstract(num_devices),
    )


def open_run(workdir, said=None, **kwargs) -> checkpoint.Checkpointer:
    """The checkpoints of a run folder; what is said of them joins the list `said`."""
    kwargs = (
        dict(
            config_json="{}",
            data_fingerprint="data",
            best_metric="eval/mel",
            say=(said if said is not None else []).append,
        )
        | kwargs
    )
    return checkpoint.Checkpointer(str(workdir), **kwargs)


def save(workdir, steps=(1, 2)) -> None:
    """Saves checkpoints in a run folder; the state of step n is that of seed n."""
    checkpointer = open_run(workdir)
    for step in steps:
        assert checkpointer.save(step, state(step))
    checkpointer.close()


def assert_equal(found, expected) -> None:
    """Of two trees, every bit."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
