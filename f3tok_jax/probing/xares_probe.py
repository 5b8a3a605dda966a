# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""X-ARES's linear probe, LayerNorm and a linear layer under Adam, held to being trained to its end.

Source: the protocol of X-ARES (github.com/jimbozhang/xares, Apache-2.0) for clips. It keeps the best
checkpoint by a validation set; here the last one counts, so that nothing is chosen by looking. Its
ten epochs leave features that are learnt slowly far from what they know, so a training whose own
curve is still falling is refused. Attentive pooling, a learned query, is ours.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from f3tok_jax.devices import compilation
from f3tok_jax.probing import classifiers

_LAYER_NORM_EPSILON = 1e-5  # PyTorch's, which X-ARES uses
# A training is at its end where its second half brought less than this share of all that the loss
# fell: on statistics of log-mel spectra of spoken digits 20 % at 10 epochs, 6 % at 160, 4 % at 320,
# whose answers are those of a fit that is taken to its end. Where nothing is left to learn the
# decay of the rate alone brings 1 to 4 %, the most of it where features tell nothing.
_LATE_SHARE = 0.05
_KNOWN = 0.99  # or where it knows that share of what it learns from: the loss falls for ever then
_MAX_DOUBLINGS = 10  # of the epochs, in search of how many suffice


class Undertrained(ValueError):
    """A probe whose training curve is still falling; `needed` epochs suffice, None where too many."""

    def __init__(self, curve: "Curve", needed: int | None, *, of: str = "one feature"):
        enough = f"--num_epochs={needed}, which suffices" if needed else "--recipe=logistic"
        super().__init__(
            f"a probe must be trained to its end, got that of {of}, of {curve.num_epochs} epochs, "
            f"whose second half still brought {100 * curve.late_share:.0f} % of the fall of the loss "
            f"and which knows {100 * curve.known:.0f} % of what it learnt from: give {enough}"
        )
        self.curve, self.needed = curve, needed


class Curve(NamedTuple):
    """Of a training, the worst of all seeds."""

    num_epochs: int
    late_share: float  # of the fall of the loss, that the second half brought
    known: float  # share of right answers for what was learnt from

    @property
    def is_at_its_end(self) -> bool:
        """Whether more epochs would teach little more."""
        return self.late_share < _LATE_SHARE or self.known >= _KNOWN


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How it is trained; the defaults are X-ARES's. A classifiers.Recipe.

    Attributes:
        learning_rate: of Adam, at the start of a cosine.
        final_fraction: of it, at the end.
        batch_size: examples.
        num_epochs: times that every example is seen.
    """

    name: ClassVar[str] = "xares"
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

    def predict(
        self, learnt: classifiers.Learnt, test: np.ndarray, *, seeds: Sequence[int]
    ) -> classifiers.Predicted:
        """See classifiers.Recipe; seeds are of initial weights and order, all trained at once.

        Raises:
            Undertrained: where the curve of a seed is still falling.
        """
        learnt.check_test(test)
        classes = np.tile(learnt.classes, (len(seeds), 1))
        answers, curve = _train(self, learnt, classes, test, seeds)
        if not curve.is_at_its_end:
            raise Undertrained(curve, _epochs_needed(self, learnt, classes, seeds))
        return classifiers.Predicted(answers, dict(zip(Curve._fields, curve)))

    def predict_shuffled(
        self,
        learnt: classifiers.Learnt,
        test: np.ndarray,
        *,
        seeds: Sequence[int],
        fit: Mapping[str, Any],
    ) -> np.ndarray:
        """See classifiers.Recipe; as many epochs as `fit` had, whatever they come to."""
        classes = np.stack([learnt.shuffled(seed) for seed in seeds])
        return _train(self, learnt, classes, test, seeds)[0]


def _epochs_needed(
    recipe: Recipe, learnt: classifiers.Learnt, classes: np.ndarray, seeds: Sequence[int]
) -> int | None:
    for doubling in range(1, _MAX_DOUBLINGS + 1):
        longer = dataclasses.replace(recipe, num_epochs=recipe.num_epochs * 2**doubling)
        if _train(longer, learnt, classes, learnt.features[:1], seeds)[1].is_at_its_end:
            return longer.num_epochs
    return None


def _train(
    recipe: Recipe,
    learnt: classifiers.Learnt,
    classes: np.ndarray,
    test: np.ndarray,
    seeds: Sequence[int],
) -> tuple[np.ndarray, Curve]:
    """Answers [seeds, m] int32 of probes that learn `classes` [seeds, n], and their worst curve."""
    shape = learnt.features.shape[1:]
    starts = [initial_params(seed, shape, learnt.num_classes) for seed in seeds]
    params = {name: np.stack([start[name] for start in starts]) for name in starts[0]}
    orders = [batches(seed, len(classes[0]), recipe=recipe) for seed in seeds]
    indices, weights = (np.stack(arrays) for arrays in zip(*orders))
    fit = jax.vmap(functools.partial(_fit, recipe=recipe), in_axes=(0, 0, 0, None, 0, None))
    arrays = (params, indices, weights, learnt.features, classes.astype(np.int32), test)
    answers, known, losses = map(np.asarray, compilation.run_once(fit, *arrays))
    losses = losses.reshape(len(seeds), recipe.num_epochs, -1).mean(-1)
    late = max(_late_share(curve) for curve in losses)
    return answers, Curve(recipe.num_epochs, late, float(known.min()))


def _late_share(losses: np.ndarray) -> float:
    """Of the fall of a curve, [epochs], how much came in its second half; means over a tenth of it."""
    if len(losses) < 2:
        return 1.0
    span = max(1, len(losses) // 10)
    middle = losses[(len(losses) - span) // 2 :][:span].mean()
    fall = losses[0] - losses[-span:].mean()
    return float((middle - losses[-span:].mean()) / fall) if fall > 0 else 1.0


def _fit(params, indices, weights, train, labels, test, *, recipe: Recipe) -> tuple:
    """Of one seed: answers [m] int32, share of right ones for `train`, loss [steps]."""
    schedule = optax.cosine_decay_schedule(
        recipe.learning_rate, len(indices), alpha=recipe.final_fraction
    )
    optimizer = optax.adam(schedule)

    def loss(params, inputs, targets, weight):
        log_p = jax.nn.log_softmax(_logits(params, inputs))
        # A product: the gradient of a choice is a scatter, which is slow on a CPU.
        chosen = jnp.sum(jax.nn.one_hot(targets, log_p.shape[-1]) * log_p, axis=-1)
        return -jnp.sum(weight * chosen) / jnp.sum(weight)

    def step(carry, batch):
        params, state = carry
        index, weight = batch
        value, grads = jax.value_and_grad(loss)(params, train[index], labels[index], weight)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), value

    begin = params, optimizer.init(params)
    (params, _), losses = jax.lax.scan(step, begin, (indices, weights))
    known = jnp.mean(jnp.argmax(_logits(params, train), axis=-1) == labels)
    return jnp.argmax(_logits(params, test), axis=-1).astype(jnp.int32), known, losses


def initial_params(seed: int, shape: Sequence[int], num_classes: int) -> dict[str, np.ndarray]:
    """Of a linear probe of features of a shape, float32, as PyTorch initialises both layers.

    Args:
        seed: of what is drawn.
        shape: [d], or [parts, d] of attentive pooling, whose query begins as a plain mean.
        num_classes: of the answers.
    """
    draw, width = np.random.default_rng([seed, 0]), shape[-1]
    bound = width**-0.5
    params = {
        "scale": np.ones(width),
        "shift": np.zeros(width),
        "kernel": draw.uniform(-bound, bound, (width, num_classes)),
        "bias": draw.uniform(-bound, bound, num_classes),
    }
    if len(shape) == 2:
        params["query"] = np.zeros(width)
    return {name: value.astype(np.float32) for name, value in params.items()}


def batches(seed: int, num_examples: int, *, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """The examples of every step: a new order each epoch, whose last batch may be smaller.

    Returns:
        Indices [steps, batch_size] int32, and weights of 1, or 0 where a batch has no more.
    """
    # On the host: XLA takes longer to compile a permutation than all the rest.
    draw = np.random.default_rng([seed, 1])
    size, missing = recipe.batch_size, -num_examples % recipe.batch_size
    orders = [draw.permutation(num_examples) for _ in range(recipe.num_epochs)]
    indices = np.pad(np.stack(orders), ((0, 0), (0, missing))).astype(np.int32)
    weights = np.pad(np.ones(num_examples, np.float32), (0, missing))
    weights = np.broadcast_to(weights, indices.shape)
    return indices.reshape(-1, size), weights.reshape(-1, size)


def _logits(params: dict[str, jax.Array], features: jax.Array) -> jax.Array:
    if "query" in params:
        scores = jnp.sum(_normed(features) * params["query"][None, None], axis=-1, keepdims=True)
        features = jnp.sum(jax.nn.softmax(scores, axis=1) * features, axis=1)
    normed = _normed(features) * params["scale"][None] + params["shift"][None]
    return normed @ params["kernel"] + params["bias"][None]


def _normed(features: jax.Array) -> jax.Array:
    mean = jnp.mean(features, axis=-1, keepdims=True)
    variance = jnp.var(features, axis=-1, keepdims=True)
    return (features - mean) * jax.lax.rsqrt(variance + _LAYER_NORM_EPSILON)
