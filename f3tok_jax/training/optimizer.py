# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The optimizer of a player, its learning-rate schedule, and the step that all players take."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state

SCHEDULES = ("exponential", "cosine", "constant")


def make_schedule(section: Mapping[str, Any], num_steps: int) -> optax.Schedule:
    """Returns step -> learning rate: linear warm-up from 0, then the named decay.

    Args:
        section: learning_rate, warmup_steps, schedule, decay, final_fraction of the config.
        num_steps: length of the run, where the cosine ends.

    Raises:
        ValueError: for a schedule that does not exist, or a warm-up as long as the cosine's run.
    """
    peak, warmup_steps = section["learning_rate"], section["warmup_steps"]
    name = section["schedule"]
    if name not in SCHEDULES:
        raise ValueError(
            f"optimizer schedule must be one of {SCHEDULES}, got {name!r}; change "
            "config.optimizer.*.schedule"
        )
    if name == "cosine" and warmup_steps >= num_steps:
        raise ValueError(
            f"optimizer warmup_steps={warmup_steps} must be smaller than num_steps={num_steps} "
            "for the cosine schedule; change one of them in the config"
        )
    if name == "exponential":
        body = optax.exponential_decay(peak, transition_steps=1, decay_rate=section["decay"])
    elif name == "cosine":
        body = optax.cosine_decay_schedule(
            peak, decay_steps=num_steps - warmup_steps, alpha=section["final_fraction"]
        )
    else:
        body = optax.constant_schedule(peak)
    if warmup_steps == 0:
        return body
    # Step 0 already learns: its rate is peak / warmup_steps.
    warmup = optax.linear_schedule(peak / warmup_steps, peak, max(warmup_steps - 1, 1))
    return optax.join_schedules([warmup, body], [warmup_steps])


def make_optimizer(section: Mapping[str, Any], num_steps: int) -> optax.GradientTransformation:
    """Returns global-norm clipping followed by AdamW on a schedule.

    Weight decay is spared from biases and gains, which have a scale of their own: leaves of rank 0
    and 1, and those named bias or scale, which a scan over layers stacks to rank 2.

    Args:
        section: one player's section of config.optimizer.
        num_steps: length of the run.

    Raises:
        ValueError: for values that no optimizer can have.
    """
    for name in ("learning_rate", "clip_norm"):
        if not section[name] > 0:
            raise ValueError(
                f"optimizer {name} must be greater than 0, got {section[name]}; "
                f"change config.optimizer.*.{name}"
            )
    return optax.chain(
        optax.clip_by_global_norm(section["clip_norm"]),
        optax.adamw(
            make_schedule(section, num_steps),
            b1=section["b1"],
            b2=section["b2"],
            weight_decay=section["weight_decay"],
            mask=lambda params: jax.tree.map_with_path(_decays, params),
        ),
    )


def _decays(path: Sequence[Any], leaf: jax.Array) -> bool:
    # The path of a leaf in a box ends in the box.
    names = {entry.key for entry in path[-2:] if isinstance(entry, jax.tree_util.DictKey)}
    return leaf.ndim > 1 and not names & {"bias", "scale"}


def init_state(
    params: Mapping[str, Any],
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    averaged: Sequence[str] | None = None,
) -> train_state.TrainState:
    """Returns the state before the first step.

    Args:
        params: by player.
        optimizers: by player.
        averaged: the players whose weights are averaged; None for all.
    """
    return train_state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers.items()},
        ema_params={name: params[name] for name in (params if averaged is None else averaged)},
    )


def finish_step(
    state: train_state.TrainState,
    grads: Mapping[str, Any],
    metrics: Mapping[str, tuple[jax.Array, jax.Array]],
    *,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema_decay: float,
    plays: Mapping[str, jax.Array] | None = None,
    norm_name: str = "gradient_norm",
) -> tuple[train_state.TrainState, dict[str, tuple[jax.Array, jax.Array]]]:
    """Lets every player take its step, if all gradients are finite, and names the metrics.

    Args:
        state: params, opt_state and ema_params by player; some players have no average.
        grads: by player.
        metrics: of the losses.
        optimizers: by player.
        ema_decay: per step, once the run is long enough to remember so much.
        plays: boolean scalars of players that may not take part yet; who does not keeps all.
        norm_name: metric of the norm of the gradient, with "{player}" where there are several.

    Returns:
        The next state, and train/ metrics with the norms and whether the step was skipped.
    """
    norms = {name: optax.tree.norm(grad) for name, grad in grads.items()}
    finite = jnp.isfinite(sum(norms.values()))
    moves = {name: finite & (plays or {}).get(name, True) for name in optimizers}
    one = jnp.float32(1.0)
    metrics = {
        **metrics,
        **{norm_name.format(player=name): (norm, one) for name, norm in norms.items()},
        "nonfinite": (jnp.float32(~finite), one),
    }
    state = _advance(state, grads, moves, optimizers=optimizers, ema_decay=ema_decay)
    return state, {f"train/{name}": value for name, value in metrics.items()}


def watched_norm(player: str, norm_name: str = "gradient_norm") -> stage.Watched:
    """The norm of a player's gradient, as `finish_step` names it, which may spike."""
    return stage.Watched(
        metric=f"train/{norm_name.format(player=player)}",
        # Of single batches it varies far more than a loss does.
        factor=5.0,
        lever=f"lower config.optimizer.{player}.clip_norm or its learning_rate",
    )


def _advance(
    state: train_state.TrainState,
    grads: Mapping[str, Any],
    moves: Mapping[str, jax.Array],
    *,
    optimizers: Mapping[str, optax.GradientTransformation],
    ema_decay: float,
) -> train_state.TrainState:
    """The next state, in which every player that `moves` has taken its step."""
    with jax.named_scope("optimizer"):
        params, opt_state, ema = {}, {}, {}
        # Early on the average is short, or it would remember the random start.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        for name, tx in optimizers.items():
            old = state.params[name], state.opt_state[name]
            updates, new_opt_state = tx.update(grads[name], old[1], old[0])
            new = optax.apply_updates(old[0], updates), new_opt_state
            params[name], opt_state[name] = train_state.select_finite(moves[name], new, old)
            if name in state.ema_params:
                average = state.ema_params[name]
                moved = train_state.update_ema(average, params[name], decay=decay)
                ema[name] = train_state.select_finite(moves[name], moved, average)
        return train_state.TrainState(state.step + 1, params, opt_state, ema)
