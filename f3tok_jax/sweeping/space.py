# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a sweep is: a recipe, ways to change it, seeds, and the metric that ranks them.

    space.Sweep(
        recipe="../autoencoder.py:tiny",
        arms=space.grid({"bottleneck.gamma": (0.0, 0.5), "model.latent_dim": (16, 32)}),
        metric="eval/mel",
    )

Arms are named by what they change, so that the same sweep always has the same folders.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import math
import random
import re
from typing import Any

_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]*")  # a name that is a part of a path, and of a command
_DIGITS = 3  # of what is drawn: a name says the whole value
_MAX_DRAWS = 1000  # for each arm that is wanted

# Key or name of several keys -> values; or label -> what each of several keys becomes.
Axes = Mapping[str, Sequence[Any] | Mapping[str, Mapping[str, Any]]]
Distribution = Callable[[random.Random], Any]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train: its name, and what it changes of the config, as "key=value"."""

    name: str
    changes: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Its name as a part of a path."""
        if _PLAIN.fullmatch(self.name):
            return self.name
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    def arguments(self, seed: int) -> list[str]:
        """What f3tok_jax.train is given beside the recipe."""
        return [f"--config.{change}" for change in (*self.changes, f"seed={seed}")]


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving: of the runs that come to a rung, one in `factor` goes on.

    Attributes:
        first_step: of the first rung; each later one is at `factor` times as many steps, and the
            last below half of a run's.
        factor: at least 2.
    """

    first_step: int
    factor: int = 3

    def __post_init__(self):
        if self.first_step < 1 or self.factor < 2:
            raise ValueError(
                f"first_step must be at least 1 and factor 2, got {self.first_step} and "
                f"{self.factor}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep, as its file gives it.

    Attributes:
        recipe: file, as seen from the sweep's own folder, and preset.
        arms: at least one, of different names.
        seeds: with each of which every arm is trained.
        metric: of metrics.jsonl, by which runs are ranked.
        goal: what is better of it, "minimize" or "maximize".
        overrides: "key=value" for all arms.
        halving: by which the worse runs are stopped early; None for not at all.
    """

    recipe: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0,)
    metric: str
    goal: str = "minimize"
    overrides: tuple[str, ...] = ()
    halving: Halving | None = None

    def __post_init__(self):
        if not self.arms:
            raise ValueError("a sweep must have arms, got none")
        if self.goal not in ("minimize", "maximize"):
            raise ValueError(f"goal must be 'minimize' or 'maximize', got {self.goal!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, got {list(self.seeds)}")


def grid(
    axes: Axes, *, skip: Callable[[Mapping[str, Any]], bool] = lambda values: False
) -> tuple[Arm, ...]:
    """An arm for each combination of values, the last axis changing fastest.

    Args:
        axes: key -> values, or a name -> label -> key -> value where keys change together.
        skip: key -> value of a combination -> whether it is left out.
    """
    steps = [list(_steps(name, values)) for name, values in axes.items()]
    return _arms(itertools.product(*steps), axes, skip)


def draw(
    num: int,
    distributions: Mapping[str, Distribution],
    *,
    seed: int = 0,
    skip: Callable[[Mapping[str, Any]], bool] = lambda values: False,
) -> tuple[Arm, ...]:
    """So many arms drawn at random; with a larger `num` the first ones stay what they were.

    Args:
        num: of the arms.
        distributions: key -> how its value is drawn.
        seed: of the draw.
        skip: as of `grid`; another is drawn in its place, and in that of one that was drawn before.
    """
    found: dict[Arm, None] = {}
    for index in range(num * _MAX_DRAWS):
        if len(found) == num:
            return tuple(found)
        # Seeded by text: the same numbers in every version of Python.
        source = random.Random(f"{seed}:{index}")
        drawn = {key: distribution(source) for key, distribution in distributions.items()}
        steps = [(name, _label(value), {name: value}) for name, value in drawn.items()]
        found |= dict.fromkeys(_arms([steps], distributions, skip))
    raise ValueError(
        f"num must be of arms that can be drawn, got {num}: {len(found)} different ones were found "
        f"in {num * _MAX_DRAWS} draws"
    )


def uniform(low: float, high: float) -> Distribution:
    """A number in [low, high], to three digits."""
    return lambda source: _rounded(low + (high - low) * source.random())


def log_uniform(low: float, high: float) -> Distribution:
    """A positive number in [low, high] whose logarithm is uniform, to three digits."""
    if not 0.0 < low <= high:
        raise ValueError(f"log_uniform must have 0 < low <= high, got {low} and {high}")
    return lambda source: _rounded(low * math.exp(math.log(high / low) * source.random()))


def choice(*values: Any) -> Distribution:
    """One of some values, each as likely."""
    return lambda source: values[int(len(values) * source.random())]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _steps(
    name: str, values: Sequence[Any] | Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(axis, label, key -> value) for each value of an axis."""
    if isinstance(values, Mapping):
        yield from ((name, label, changes) for label, changes in values.items())
    else:
        yield from ((name, _label(value), {name: value}) for value in values)


def _arms(
    combinations: Any, names: Sequence[str], skip: Callable[[Mapping[str, Any]], bool]
) -> tuple[Arm, ...]:
    """The arms of combinations of steps, named by the steps' axes and labels."""
    short, arms = _short(list(names)), []
    for steps in combinations:
        values = {key: value for _, _, changes in steps for key, value in changes.items()}
        if not skip(values):
            name = "_".join(f"{short[axis]}-{label}" for axis, label, _ in steps)
            arms.append(Arm(name, tuple(f"{key}={value}" for key, value in values.items())))
    return tuple(arms)


def _short(names: Sequence[str]) -> dict[str, str]:
    """Each dotted name -> as few of its last parts as tell it from the others."""
    found = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            tail = parts[-depth:]
            if sum(other.split(".")[-depth:] == tail for other in names) == 1:
                break
        found[name] = "_".join(tail)
    return found


def _label(value: Any) -> str:
    """A value as a part of a name."""
    if isinstance(value, (tuple, list)):
        return "x".join(map(_label, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return re.sub(r"[^a-z0-9._-]+", "_", str(value).lower()) or "none"
