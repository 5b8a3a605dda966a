# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What features know, measured by simple classifiers on features pooled over time.

Source: the protocol of X-ARES (github.com/jimbozhang/xares, Apache-2.0) for clips: LayerNorm and a
linear layer, or nearest neighbours. It keeps the best checkpoint by a validation set; here the last
one counts, so that nothing is chosen by looking.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from f3tok_jax.devices import compilation

POOLINGS = ("mean", "mean_std", "thirds")

_LAYER_NORM_EPSILON = 1e-5  # PyTorch's, which X-ARES uses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a linear probe is trained; the defaults are X-ARES's.

    Attributes:
        learning_rate: of Adam, at the start of a cosine.
        final_fraction: of it, at the end.
        batch_size: examples.
        num_epochs: times that every example is seen.
    """

    learning_rate: float = 1e-3
    final_fraction: float = 0.1
    batch_size: int = 32
    num_epochs: int = 10

    def __post_init__(self):
        if self.learning_rate <= 0 or self.batch_size < 1 or self.num_epochs < 1:
            raise ValueError(
                f"a linear probe needs a learning_rate above 0 and at least one example per batch "
                f"and epoch, got {self}"
            )


def pool(features: np.ndarray, how: str) -> np.ndarray:
    """Makes one vector of valid frames.

    Args:
        features: [t, d] float32, at least one frame.
        how: "mean" over time; "mean_std", the standard deviations behind the means; or "thirds",
            the means of the beginning, the middle and the end.

    Returns:
        [d], [2 * d] or [3 * d] float32.
    """
    if how not in POOLINGS:
        raise ValueError(f"pooling must be one of {POOLINGS}, got {how!r}")
    if how == "mean":
        return features.mean(0)
    if how == "mean_std":
        return np.concatenate([features.mean(0), features.std(0)])
    # Every third has at least one frame; of a number that three does not divide they share some.
    edges = np.linspace(0, len(features), 4)
    starts, ends = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    return np.concatenate([features[a:b].mean(0) for a, b in zip(starts, ends)])


def linear_probe(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    *,
    num_classes: int,
    seeds: Sequence[int],
    training: Training = Training(),
) -> np.ndarray:
    """Trains LayerNorm and a linear layer, for all seeds at once, and predicts.

    Args:
        train: [n, d] float32 features.
        labels: [n] int, below `num_classes`.
        test: [m, d] float32.
        num_classes: of the labels.
        seeds: of initial weights and order.
        training: how they are trained.

    Returns:
        [seeds, m] int32, predicted classes.
    """
    check_examples(train, labels, test)
    starts = [initial_params(seed, train.shape[1], num_classes) for seed in seeds]
    params = {name: np.stack([start[name] for start in starts]) for name in starts[0]}
    orders = [batches(seed, len(train), training=training) for seed in seeds]
    indices, weights = (np.stack(arrays) for arrays in zip(*orders))
    fit = jax.vmap(
        functools.partial(_fit_and_predict, training=training), in_axes=(0, 0, 0, None, None, None)
    )
    labels = labels.astype(np.int32)
    return np.asarray(compilation.run_once(fit, params, indices, weights, train, labels, test))


def nearest_neighbours(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    *,
    num_classes: int,
    num_neighbours: int = 10,
    temperature: float = 0.07,
) -> np.ndarray:
    """Lets the most similar training examples vote, by the softmax of their cosines.

    Args:
        train: [n, d] float32 features.
        labels: [n] int, below `num_classes`.
        test: [m, d] float32.
        num_classes: of the labels.
        num_neighbours: that vote; all of them where there are fewer.
        temperature: of the softmax.

    Returns:
        [m] int32, predicted classes.
    """
    check_examples(train, labels, test)
    memory = _unit(train)
    count = min(num_neighbours, len(memory))
    predictions = []
    for start in range(0, len(test), 1024):  # bounds the memory
        cosines = _unit(test[start : start + 1024]) @ memory.T
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        similarity = np.take_along_axis(cosines, nearest, axis=1) / temperature
        weights = np.exp(similarity - similarity.max(axis=1, keepdims=True))
        votes = np.zeros((len(cosines), num_classes))
        np.add.at(votes, (np.arange(len(cosines))[:, None], labels[nearest]), weights)
        predictions.append(votes.argmax(axis=1))
    return np.concatenate(predictions).astype(np.int32)


def check_examples(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> None:
    """Raises ValueError unless the arrays of a probe fit together and are finite."""
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise ValueError(
            f"a probe needs features [n, d] and [m, d], got {list(train.shape)} and "
            f"{list(test.shape)}"
        )
    if len(labels) != len(train) or not len(train) or not len(test):
        raise ValueError(
            f"a probe needs a label for each of at least one example and something to test, got "
            f"{len(labels)} labels, {len(train)} examples and {len(test)} to test"
        )
    if not np.isfinite(train).all() or not np.isfinite(test).all():
        raise ValueError("features of a probe must be finite")


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _fit_and_predict(
    params, indices, weights, train, labels, test, *, training: Training
) -> jax.Array:
    """One seed: [m] int32."""
    schedule = optax.cosine_decay_schedule(
        training.learning_rate, len(indices), alpha=training.final_fraction
    )
    optimizer = optax.adam(schedule)

    def loss(params, inputs, targets, weight):
        log_p = jax.nn.log_softmax(_logits(params, inputs))
        chosen = jnp.take_along_axis(log_p, targets[:, None], axis=1)[:, 0]
        return -jnp.sum(weight * chosen) / jnp.sum(weight)

    def step(carry, batch):
        params, state = carry
        index, weight = batch
        grads = jax.grad(loss)(params, train[index], labels[index], weight)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), (indices, weights))
    return jnp.argmax(_logits(params, test), axis=-1).astype(jnp.int32)


def initial_params(seed: int, width: int, num_classes: int) -> dict[str, np.ndarray]:
    """Of a linear probe, float32, as PyTorch initialises both layers."""
    draw = np.random.default_rng([seed, 0])
    bound = width**-0.5
    params = {
        "scale": np.ones(width),
        "shift": np.zeros(width),
        "kernel": draw.uniform(-bound, bound, (width, num_classes)),
        "bias": draw.uniform(-bound, bound, num_classes),
    }
    return {name: value.astype(np.float32) for name, value in params.items()}


def batches(seed: int, num_examples: int, *, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """The examples of every step: a new order each epoch, whose last batch may be smaller.

    Returns:
        Indices [steps, batch_size] int32, and weights of 1, or 0 where a batch has no more.
    """
    # On the host: XLA takes longer to compile a permutation than all the rest.
    draw = np.random.default_rng([seed, 1])
    size, missing = training.batch_size, -num_examples % training.batch_size
    orders = [draw.permutation(num_examples) for _ in range(training.num_epochs)]
    indices = np.pad(np.stack(orders), ((0, 0), (0, missing))).astype(np.int32)
    weights = np.pad(np.ones(num_examples, np.float32), (0, missing))
    weights = np.broadcast_to(weights, indices.shape)
    return indices.reshape(-1, size), weights.reshape(-1, size)


def _logits(params: dict[str, jax.Array], features: jax.Array) -> jax.Array:
    mean = jnp.mean(features, axis=-1, keepdims=True)
    variance = jnp.var(features, axis=-1, keepdims=True)
    normed = (features - mean) * jax.lax.rsqrt(variance + _LAYER_NORM_EPSILON)
    normed = normed * params["scale"][None] + params["shift"][None]
    return normed @ params["kernel"] + params["bias"][None]
