# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The state before the first step, and the step that all players take."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from f3tok_jax.training import players as players_lib
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state

Players = Mapping[str, players_lib.Player]


def init_state(
    params: Mapping[str, Any],
    optimizers: Players,
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
        opt_state={name: player.init(params[name]) for name, player in optimizers.items()},
        ema_params={name: params[name] for name in (params if averaged is None else averaged)},
    )


def finish_step(
    state: train_state.TrainState,
    grads: Mapping[str, Any],
    metrics: Mapping[str, tuple[jax.Array, jax.Array]],
    *,
    optimizers: Players,
    ema_decay: float,
    norm_name: str = "gradient_norm",
) -> tuple[train_state.TrainState, dict[str, tuple[jax.Array, jax.Array]]]:
    """Lets every player take its step, if all gradients are finite, and names the metrics.

    Args:
        state: params, opt_state and ema_params by player; some players have no average.
        grads: by player.
        metrics: of the losses.
        optimizers: by player.
        ema_decay: per step, once the run is long enough to remember so much.
        norm_name: metric of the norm of the gradient, with "{player}" where there are several.

    Returns:
        The next state, and train/ metrics with the norms and whether the step was skipped.
    """
    learning = {
        name: player.learning(grads[name], state.step) for name, player in optimizers.items()
    }
    norms = {name: optax.tree.norm(parts) for name, parts in learning.items()}
    finite = jnp.isfinite(sum(norms.values()))
    metrics = {
        **metrics,
        **{norm_name.format(player=name): (norm, jnp.float32(1.0)) for name, norm in norms.items()},
        "nonfinite": (jnp.float32(~finite), jnp.float32(1.0)),
        **_by_module(state, learning, optimizers),
    }
    clipped = {
        name: _clipped(parts, norms[name], optimizers[name].clip_norm)
        for name, parts in learning.items()
    }
    state = _advance(state, clipped, finite, optimizers=optimizers, ema_decay=ema_decay)
    return state, {f"train/{name}": value for name, value in metrics.items()}


def _by_module(
    state: train_state.TrainState, learning: Mapping[str, Any], optimizers: Players
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Learning rate of each module, and the norm of its gradient; no weight before it learns."""
    metrics = {}
    for name, player in optimizers.items():
        for module, part in learning[name].items():
            rule, label = player.modules[module], player.label(module)
            weight = jnp.float32(rule.learns(state.step))
            (_, taken), *_ = optax.tree.get_all_with_path(state.opt_state[name][module], "count")
            metrics[f"learning_rate/{label}"] = (weight * rule.schedule(taken), weight)
            if len(player.modules) > 1:
                metrics[f"gradient_norm/{label}"] = (weight * optax.tree.norm(part), weight)
    return metrics


def _clipped(grads: Any, norm: jax.Array, clip_norm: float) -> Any:
    """Gradients of a norm of at most `clip_norm` together, as optax.clip_by_global_norm does."""
    return jax.tree.map(
        lambda grad: jnp.where(norm < clip_norm, grad, grad / norm * clip_norm), grads
    )


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
    finite: jax.Array,
    *,
    optimizers: Players,
    ema_decay: float,
) -> train_state.TrainState:
    """The next state, in which every module that has begun has taken its step.

    Args:
        state: before.
        grads: by player and module, clipped; modules that never learn are left out.
        finite: whether anything moves.
        optimizers: by player.
        ema_decay: as in `finish_step`.
    """
    with jax.named_scope("optimizer"):
        params, opt_state, ema = {}, {}, {}
        for name, player in optimizers.items():
            parts, states = player.parts(state.params[name]), dict(state.opt_state[name])
            averages = player.parts(state.ema_params[name]) if name in state.ema_params else {}
            for module, grad in grads[name].items():
                rule = player.modules[module]
                moves, old = finite & rule.learns(state.step), (parts[module], states[module])
                updates, after = rule.transformation.update(grad, old[1], old[0])
                new = optax.apply_updates(old[0], updates), after
                parts[module], states[module] = train_state.select_finite(moves, new, old)
                if averages:
                    # Early on the average is short, or it would remember the random start.
                    age = state.step - rule.start
                    decay = jnp.minimum(ema_decay, (1.0 + age) / (10.0 + age))
                    moved = train_state.update_ema(averages[module], parts[module], decay=decay)
                    averages[module] = train_state.select_finite(moves, moved, averages[module])
            params[name], opt_state[name] = player.whole(parts), states
            if averages:
                ema[name] = player.whole(averages)
        return train_state.TrainState(state.step + 1, params, opt_state, ema)
