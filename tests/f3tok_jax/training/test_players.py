# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What learns when, in the recipes that are shipped."""

import numpy as np
import pytest

from configs import autoencoder
from configs import representation
from f3tok_jax.training import players as players_lib


@pytest.mark.parametrize(
    "recipe, preset, player, module, share",
    [
        (representation, "base", "encoder", "projector", 0.25),
        (representation, "large", "encoder", "projector", 0.25),
        (autoencoder, "base", "discriminator", players_lib.WHOLE, 0.025),
        (autoencoder, "large", "discriminator", players_lib.WHOLE, 0.025),
    ],
)
def test_who_joins_late_warms_up_from_there(recipe, preset, player, module, share):
    config = recipe.get_config(preset)
    made = players_lib.make_players(config, [player])
    rule, section = made[player].modules[module], config.optimizer[player]
    assert rule.start == share * config.num_steps == players_lib.last_start(made)
    assert not rule.learns(rule.start - 1) and rule.learns(rule.start)
    rates = np.array([rule.schedule(count) for count in (0, section.warmup_steps)])
    # The curve itself falls meanwhile.
    assert rates[0] < 1.05 * rates[1] / section.warmup_steps
    assert 0.8 * section.learning_rate < rates[1] <= section.learning_rate


def test_the_small_autoencoder_has_no_discriminators_unless_they_are_given_a_start():
    config = autoencoder.get_config("tiny")
    assert players_lib.start_of(config, "discriminator") is None
    config.optimizer.discriminator.start = 0.5
    assert players_lib.start_of(config, "discriminator") == 600
    config.optimizer.discriminator.start = config.num_steps
    assert players_lib.start_of(config, "discriminator") is None
    with pytest.raises(ValueError, match="start=1200.0 must lie in the 1200 steps of the run"):
        players_lib.make_players(config, ["discriminator"])
