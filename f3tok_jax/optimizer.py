# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The optimizer of one player and its learning-rate schedule."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

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

    Weight decay is spared from leaves of rank 0 and 1: biases and gains have a scale of their own.

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
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        ),
    )
