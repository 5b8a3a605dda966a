# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who learns from which step on, and how fast: the players of a run and their modules.

A player is a tree of parameters with one gradient norm that is clipped; its modules, the names at the
top of that tree, may begin at different steps. What has not begun has no update, no decay and no
moments. A module warms up from its own first step, and then follows the curve of its player: one that
joins late begins at the rate that the others have by then.
"""

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from f3tok_jax.training import decay

SCHEDULES = ("exponential", "cosine", "constant")
NEVER = -1  # as a start; of a module, its warm-up: that of its player
WHOLE = "all"  # the one module of a player that has no table of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """What begins together.

    Attributes:
        start: step, counted from 0, that is its first; None for never in this run.
        schedule: updates that it has taken -> learning rate.
        transformation: AdamW, of its clipped gradient.
    """

    start: int | None
    schedule: optax.Schedule
    transformation: optax.GradientTransformation

    def learns(self, step: jax.Array) -> jax.Array | bool:
        """Whether the update of `step` moves it; a constant where no step decides."""
        return False if self.start is None else _begun(self.start, step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """One player's rules.

    Attributes:
        name: of the player.
        start: step, counted from 0, before which nothing of it moves.
        clip_norm: of the gradient of all that has begun.
        modules: by the names at the top of its tree, or under WHOLE.
    """

    name: str
    start: int
    clip_norm: float
    modules: Mapping[str, Module]

    def plays(self, step: jax.Array) -> jax.Array | bool:
        """Whether it has begun by `step`; a constant where no step decides."""
        return _begun(self.start, step)

    def parts(self, tree: Any) -> dict[str, Any]:
        """A tree of the player's parameters by module.

        Raises:
            ValueError: where it has another module than the table.
        """
        if WHOLE in self.modules:
            return {WHOLE: tree}
        if unknown := sorted(set(tree) - set(self.modules)):
            raise ValueError(
                f"config.optimizer.{self.name}.modules must name every module of the player, got "
                f"{sorted(self.modules)} without {', '.join(unknown)}: add it to the recipe"
            )
        return dict(tree)

    def whole(self, parts: Mapping[str, Any]) -> Any:
        """The tree that `parts` took apart."""
        return parts[WHOLE] if WHOLE in self.modules else dict(parts)

    def label(self, module: str) -> str:
        """What a metric of a module is called by."""
        return self.name if module == WHOLE else module

    def learning(self, tree: Any, step: jax.Array) -> dict[str, Any]:
        """The gradient of what may ever learn, by module, zero where it does not yet."""
        found = {}
        for name, part in self.parts(tree).items():
            learns = self.modules[name].learns(step)
            if learns is True:
                found[name] = part
            elif learns is not False:
                zeros = lambda leaf, on=learns: jnp.where(on, leaf, jnp.zeros_like(leaf))
                found[name] = jax.tree.map(zeros, part)
        return found

    def init(self, params: Any) -> dict[str, Any]:
        """State of the optimizer, by each module that ever learns."""
        return {
            name: self.modules[name].transformation.init(part)
            for name, part in self.parts(params).items()
            if self.modules[name].start is not None
        }


def make_players(
    config: ml_collections.ConfigDict,
    names: Iterable[str],
    *,
    without: Collection[str] = (),
    frozen: Collection[str] = (),
) -> dict[str, Player]:
    """Returns the players of a run by name.

    Args:
        config: of the run: config.optimizer has a section for each, config.decays what decays.
        names: of those that learn.
        without: modules of the config that this run does not have.
        frozen: modules whose start is never, whatever the config says.

    Raises:
        ValueError: for values that no optimizer can have.
    """
    return {name: _make_player(name, config, without, frozen) for name in names}


def _begun(start: int, step: jax.Array) -> jax.Array | bool:
    return step >= start if start else True


def first_step(start: float, num_steps: int, key: str) -> int | None:
    """Returns the step at which a start lies; None for one that the run never reaches.

    Args:
        start: of the config: a share of the run below 1, else a step; NEVER.
        num_steps: of the run.
        key: of the config, for the message.

    Raises:
        ValueError: for a value that is neither.
    """
    if start == NEVER:
        return None
    if start < 0 or (start >= 1 and start != int(start)):
        raise ValueError(
            f"config.{key} must be a share of the run below 1, a whole step, or {NEVER} for never, "
            f"got {start}"
        )
    step = round(start * num_steps) if start < 1 else int(start)
    return step if step < num_steps else None


def start_of(config: ml_collections.ConfigDict, player: str, module: str = "") -> int | None:
    """Returns the step, counted from 0, that is the first of a player, or of a module of it."""
    key = f"optimizer.{player}"
    first = functools.partial(first_step, num_steps=config.num_steps)
    begins = first(config.optimizer[player].start, key=f"{key}.start")
    if begins is None or not module:
        return begins
    row = config.optimizer[player].modules[module]
    own = first(row.start, key=f"{key}.modules.{module}.start")
    return None if own is None else max(begins, own)


def last_start(players: Mapping[str, Player]) -> int:
    """Returns the step at which all that learns in a run does."""
    starts = [module.start for one in players.values() for module in one.modules.values()]
    return max((start for start in starts if start is not None), default=0)


def _make_player(
    name: str,
    config: ml_collections.ConfigDict,
    without: Collection[str],
    frozen: Collection[str],
) -> Player:
    section, start = config.optimizer[name], start_of(config, name)
    for key in ("learning_rate", "clip_norm"):
        if not section[key] > 0:
            raise ValueError(
                f"optimizer {key} must be greater than 0, got {section[key]}; "
                f"change config.optimizer.{name}.{key}"
            )
    own = [module for module in section.modules if module not in without]
    starts = {module: start_of(config, name, module) for module in own} or {WHOLE: start}
    starts |= dict.fromkeys(set(frozen) & set(starts))
    if start is None or all(one is None for one in starts.values()):
        raise ValueError(
            f"config.optimizer.{name}.start={section.start} must lie in the {config.num_steps} "
            "steps of the run, and so must that of one of its modules: nothing would be learnt"
        )
    modules = {}
    for module, first in starts.items():
        key, warmup = f"optimizer.{name}", section.warmup_steps
        if module != WHOLE and section.modules[module].warmup_steps != NEVER:
            key, warmup = f"{key}.modules.{module}", section.modules[module].warmup_steps
        late = 0 if first is None else first - start
        schedule = make_schedule(
            section, config.num_steps - start, late=late, warmup_steps=warmup, key=key
        )
        modules[module] = Module(
            start=first, schedule=schedule, transformation=_adamw(section, schedule, config, name)
        )
    return Player(name=name, start=start, clip_norm=section.clip_norm, modules=modules)


def _adamw(
    section: Mapping[str, Any],
    schedule: optax.Schedule,
    config: ml_collections.ConfigDict,
    player: str,
) -> optax.GradientTransformation:
    return optax.adamw(
        schedule,
        b1=section["b1"],
        b2=section["b2"],
        weight_decay=section["weight_decay"],
        mask=functools.partial(decay.mask, table=config.decays, player=player),
    )


def make_schedule(
    section: Mapping[str, Any],
    num_steps: int,
    *,
    late: int = 0,
    warmup_steps: int | None = None,
    key: str = "optimizer.*",
) -> optax.Schedule:
    """Returns updates taken -> learning rate: linear warm-up from 0, times the named decay.

    Args:
        section: learning_rate, warmup_steps, schedule, decay, final_fraction of the config.
        num_steps: from the player's start to the end of the run, where the cosine ends.
        late: steps by which the module begins after its player; the decay is the player's.
        warmup_steps: of the module, from its start; None for the player's.
        key: of the config, for messages.

    Raises:
        ValueError: for a schedule that does not exist, or a warm-up as long as the cosine's run.
    """
    peak, before = section["learning_rate"], section["warmup_steps"]
    warmup_steps, name = before if warmup_steps is None else warmup_steps, section["schedule"]
    if name not in SCHEDULES:
        raise ValueError(
            f"optimizer schedule must be one of {SCHEDULES}, got {name!r}; change "
            "config.optimizer.*.schedule"
        )
    if name == "cosine" and max(before, late + warmup_steps - 1) >= num_steps:
        begun = f" from a start {late} steps later" if late else ""
        raise ValueError(
            f"optimizer warmup_steps={warmup_steps}{begun} must be smaller than "
            f"num_steps={num_steps} for the cosine schedule; change one of them in the config "
            f"(config.{key}.warmup_steps)"
        )
    if name == "exponential":
        body = optax.exponential_decay(peak, transition_steps=1, decay_rate=section["decay"])
    elif name == "cosine":
        body = optax.cosine_decay_schedule(
            peak, decay_steps=num_steps - before, alpha=section["final_fraction"]
        )
    else:
        body = optax.constant_schedule(peak)

    def schedule(count: jax.Array | int) -> jax.Array:
        # Update 0 already learns: its rate is a warmup_steps-th.
        warmth = jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))
        return warmth * body(jnp.maximum(count + late - before, 0))

    return schedule
