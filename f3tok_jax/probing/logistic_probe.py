# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Multinomial logistic regression taken to its end, its L2 strength chosen on other groups.

Features are standardised by what is learnt from. What is minimised, the mean cross-entropy and half
of the strength times the squared weights without the biases, is convex: there is one answer and no
seed. Strengths are compared on whole groups that a fit has not seen: chosen on other clips of the
same groups, such as speakers, they are the best for recognising these.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any, ClassVar, NamedTuple
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from f3tok_jax.probing import classifiers

_MAX_FOLDS = 5  # parts of whole groups, each of which is predicted from the others
_LEAST_STD = 1e-6  # of a feature's scale; what varies less is a constant with rounding errors


class Unconverged(ValueError):
    """A fit that ended before its gradient was as small as it must be."""


class _Fit(NamedTuple):
    """Standardisation [d], weights [d, classes], biases; largest gradient of any; iterations."""

    mean: np.ndarray
    std: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    gradient: float
    num_iterations: int

    def answers(self, features: np.ndarray) -> np.ndarray:
        """[m] int32 of features [m, d]."""
        logits = (features - self.mean) / self.std @ self.kernel + self.bias
        return logits.argmax(axis=1).astype(np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How it is fitted. A classifiers.Recipe.

    Attributes:
        strengths: of L2 among which is chosen, the strongest first.
        gradient_tolerance: below which every element of the gradient must come.
        max_iterations: of L-BFGS; a fit that takes more is refused.
    """

    name: ClassVar[str] = "logistic"
    strengths: Sequence[float] = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    gradient_tolerance: float = 1e-5
    max_iterations: int = 10_000

    def predict(
        self, learnt: classifiers.Learnt, test: np.ndarray, *, seeds: Sequence[int]
    ) -> classifiers.Predicted:
        """See classifiers.Recipe; there is one answer, whatever the seeds.

        Raises:
            Unconverged: where a fit ended too early.
        """
        learnt.check_test(test)
        strength, validated = choose(learnt, recipe=self)
        fit = self._fits(learnt, learnt.classes, strength)
        said = {
            "l2": strength,
            "validation_accuracy": validated,
            "gradient": fit.gradient,
            "num_iterations": fit.num_iterations,
        }
        return classifiers.Predicted(fit.answers(test)[None], said)

    def predict_shuffled(
        self,
        learnt: classifiers.Learnt,
        test: np.ndarray,
        *,
        seeds: Sequence[int],
        fit: Mapping[str, Any],
    ) -> np.ndarray:
        """See classifiers.Recipe; with the strength that `fit` had."""
        orders = (learnt.shuffled(seed) for seed in seeds)
        return np.stack([self._fits(learnt, one, fit["l2"]).answers(test) for one in orders])

    def _fits(self, learnt: classifiers.Learnt, classes: np.ndarray, strength: float) -> _Fit:
        """The one fit of all examples."""
        everything = np.ones(len(classes), bool)
        (fit,) = _path(learnt, classes, everything, [strength], recipe=self)
        return fit


def choose(learnt: classifiers.Learnt, *, recipe: Recipe = Recipe()) -> tuple[float, float]:
    """The strength that predicts whole groups best from the others, and how well it does.

    Args:
        learnt: features, classes and groups.
        recipe: with the strengths.

    Returns:
        A strength, of equals the strongest, and its share of right answers over all groups.

    Raises:
        ValueError: where there is one group, or no group has a class that others have, too.
        Unconverged: where a fit ended too early.
    """
    right, total = np.zeros(len(recipe.strengths)), 0
    for fold in _folds(learnt.groups):
        common = np.isin(learnt.classes[fold], learnt.classes[~fold])
        if not common.any():
            continue
        total += int(fold.sum())
        fits = _path(learnt, learnt.classes, ~fold, recipe.strengths, recipe=recipe)
        for index, fit in enumerate(fits):
            right[index] += np.sum(fit.answers(learnt.features[fold]) == learnt.classes[fold])
    if not total:
        names = sorted(set(learnt.groups.tolist()))
        raise ValueError(
            "the strength of a probe's L2 is chosen on groups that share classes with others, got "
            f"{len(names)} that do not, such as {names[0]!r}: name by --group another label, or "
            "'source', whose values do, or take --recipe=xares"
        )
    best = int(right.argmax())  # the first of equals
    return float(recipe.strengths[best]), float(right[best] / total)


def _folds(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Which examples, [n] bool, are in each of some parts of whole groups of about equal sizes."""
    names, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    count = min(len(names), _MAX_FOLDS)
    if count < 2:
        return
    # By a hash: in the order of their names every fifth source may be of one class.
    order = sorted(
        range(len(names)), key=lambda i: (-counts[i], zlib.crc32(str(names[i]).encode()), names[i])
    )
    sizes, fold_of = np.zeros(count, int), np.zeros(len(names), int)
    for index in order:
        fold_of[index] = sizes.argmin()
        sizes[fold_of[index]] += counts[index]
    for fold in range(count):
        yield fold_of[places] == fold


def _path(
    learnt: classifiers.Learnt,
    classes: np.ndarray,
    chosen: np.ndarray,
    strengths: Sequence[float],
    *,
    recipe: Recipe,
) -> list[_Fit]:
    """The fits of the examples `chosen`, [n] bool, for each strength, each begun at the one before."""
    width, num_classes = learnt.features.shape[1], learnt.num_classes
    some = learnt.features[chosen].astype(np.float64)
    mean, std = some.mean(0), some.std(0)
    std[std < _LEAST_STD * np.maximum(1.0, np.abs(mean))] = 1.0
    arrays = (learnt.features - mean) / std, np.eye(num_classes)[classes], chosen / chosen.sum()
    # All folds have one shape, and groups that are left out in turn mostly, and so one program.
    rows = _round_up(len(classes)) - len(classes)
    arrays = [np.pad(one, ((0, rows), (0, 0))[: one.ndim]) for one in arrays]
    limits = recipe.gradient_tolerance, recipe.max_iterations
    fits, table = [], np.zeros((width + 1, num_classes))
    with jax.enable_x64(True), jax.default_device(_cpu()):
        arrays = jax.device_put(arrays)
        for strength in strengths:
            found = jax.device_get(_minimise(table, *arrays, strength, *limits))
            table, gradient, count = found[0], float(found[1]), int(found[2])
            if not gradient <= recipe.gradient_tolerance:  # nor where it is not a number
                raise Unconverged(
                    f"a logistic regression must be taken to a gradient of at most "
                    f"{recipe.gradient_tolerance:g}, got one of {gradient:.2g} after {count} "
                    f"iterations with {int(chosen.sum())} examples of {width} features and an L2 "
                    f"strength of {strength:g}: scale features that are extreme, or take "
                    "--recipe=xares"
                )
            fits.append(_Fit(mean, std, table[:-1], table[-1], gradient, count))
    return fits


def _round_up(count: int) -> int:
    """To one of eight sizes between powers of two."""
    step = max(1, 2 ** (count.bit_length() - 4))
    return -(-count // step) * step


@jax.jit
def _minimise(
    table: jax.Array,
    features: jax.Array,
    answers: jax.Array,
    weights: jax.Array,
    strength: jax.Array,
    tolerance: jax.Array,
    max_iterations: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """L-BFGS from weights and biases [d + 1, classes] on, float64.

    `answers` are [n, classes] in {0, 1}, `weights` [n] of sum 1. Compiled whole: driven from outside,
    step by step, it takes a hundred times as long.

    Returns:
        The table, the largest element of the gradient there, and how many steps were taken.
    """

    def loss(table):
        log_p = jax.nn.log_softmax(features @ table[:-1] + table[-1:])
        # A product: the gradient of a choice is a scatter, which is slow on a CPU.
        fit = jnp.sum(weights * jnp.sum(answers * log_p, axis=1))
        return 0.5 * strength * jnp.sum(table[:-1] ** 2) - fit

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def goes_on(carry):
        _, state, count = carry
        largest = jnp.max(jnp.abs(optax.tree.get(state, "grad")))
        return (count == 0) | ((count < max_iterations) & (largest > tolerance))

    def step(carry):
        table, state, count = carry
        value, grad = value_and_grad(table, state=state)
        updates, state = optimizer.update(grad, state, table, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(table, updates), state, count + 1

    begin = table, optimizer.init(table), 0
    table, _, count = jax.lax.while_loop(goes_on, step, begin)
    return table, jnp.max(jnp.abs(jax.grad(loss)(table))), count


def _cpu() -> jax.Device:
    """Where float64 is exact; raises ValueError where JAX was told not to have it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise ValueError(
            f"a logistic regression is fitted on the CPU, got none from JAX ({error}): add cpu to "
            "JAX_PLATFORMS, as in tpu,cpu"
        ) from error
