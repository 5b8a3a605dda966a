# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a comparison of autoencoders found; written and read by `results`, as all others."""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

from f3tok_jax.runs import probe_results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """What a figure says; measures of one group are columns of one table."""

    group: str
    title: str
    unit: str = ""
    better: str = ""  # "higher", "lower", or "" where it is neither


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One kind of autoencoder: what it changes of the recipe, and its figures over the seeds."""

    name: str
    recipe: str = ""  # file and preset, where it is not that of the comparison
    changes: tuple[str, ...] = ()
    semantic_encoder: str = (
        ""  # whose weights those are through which it hears, in words; "" for none
    )
    figures: Mapping[str, probe_results.Spread]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Autoencoders of equal data, steps and seeds, and what was trained on each."""

    FORMAT: ClassVar[str] = "f3tok comparison 1"
    recipes: Mapping[str, str]  # stage -> file and preset
    changes: Mapping[str, tuple[str, ...]]  # stage -> of its recipe, for all arms
    num_steps: Mapping[str, int]  # stage -> of each run
    seeds: tuple[int, ...]  # of which all chains are finished
    heldout: str  # fingerprint of the set whose sound is scored
    num_examples: int  # of it, at most
    measures: Mapping[str, Measure]
    arms: tuple[Arm, ...]
    # What no model made of the same sound, by its title: its figures, of the latents' size of the first arm.
    references: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    @property
    def groups(self) -> Mapping[str, Mapping[str, Measure]]:
        """The measures of each group, by name."""
        found: dict[str, dict[str, Measure]] = {}
        for name, measure in self.measures.items():
            found.setdefault(measure.group, {})[name] = measure
        return found

    def references_of(self, measures: Mapping[str, Measure]) -> Mapping[str, Mapping[str, float]]:
        """Those that have any of some measures."""
        return {
            title: figures
            for title, figures in self.references.items()
            if not measures.keys().isdisjoint(figures)
        }
