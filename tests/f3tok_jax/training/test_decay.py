# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What decays, of every leaf of every preset; tests/golden/decays.txt is to be read.

REWRITE_GOLDEN=1 python -m pytest tests/f3tok_jax/training/test_decay.py
"""

import importlib
import os
import pathlib
import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import pytest

from configs import sections
from f3tok_jax.devices import sharding
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.stages import registry
from f3tok_jax.training import decay

_GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "decays.txt"
_TITLE = (
    "# Every leaf that is trained, of every preset of every recipe; * for the number of a layer."
)
_DEPTHS = ("num_layers", "num_hidden_layers")
_OF_PLAYERS = {  # what makes every player learn
    "autoencoder": [{"optimizer.discriminator.start": 0.5}],
    "semantic_autoencoder": [{"optimizer.discriminator.start": 0.5}],
    "representation": [{"data.latents": True}, {"data.latents": True, "rq.head": "bottleneck"}],
    "generation": [
        {"data.latents": True, "language_model.train": kind} for kind in ("all", "low_rank")
    ]
    + [{"data.latents": True, "representation.train": "encoder", "language_model.train": "all"}],
    "language_model": [{}],
    "diffusion_transformer": [{"data.latents": True}],
    "semantic_encoder": [{}],
    "semantic_bottleneck": [{}],
}


def _rules(name: str, preset: str, changes: dict) -> set[str]:
    """A line for each leaf of a preset."""
    recipe = importlib.import_module(f"configs.{name}")
    config = recipe.get_config(preset)
    config.update_from_flattened_dict({**_shallow(config), **changes})
    made = registry.of(config.stage).make(config)
    state = sharding.unbox(jax.eval_shape(made.init_state, jax.random.key(0)))
    lines = set()
    for player, params in state.params.items():
        rules = decay.mask(params, config.decays, player)
        for path, rule in zip(fingerprint.paths(rules), jax.tree.leaves(rules), strict=True):
            kind = "decays" if rule else "stays "
            lines.add(f"{kind} {name}: {player}/" + re.sub(r"\d+", "*", path))
    return lines


def _shallow(config: ml_collections.ConfigDict) -> dict[str, int]:
    """Two layers in the place of many, whose leaves have the same names."""
    flat = config_lib.flatten(config)
    return {key: 2 for key, value in flat.items() if key.endswith(_DEPTHS) and value > 2}


def test_every_leaf_of_every_preset_is_decided():
    lines = set()
    for name, variants in _OF_PLAYERS.items():
        for preset in importlib.import_module(f"configs.{name}").PRESETS:
            for changes in variants:
                lines |= _rules(name, preset, changes)
    found = "\n".join([_TITLE, *sorted(lines, key=lambda line: line[7:])]) + "\n"
    if os.environ.get("REWRITE_GOLDEN"):
        _GOLDEN.write_text(found)
    assert found == _GOLDEN.read_text()
    spared = ("bias", "scale", "norm", "gain", "boundaries", "roles")
    spared += ("positions", "frequency_position", "mask_token")
    for line in found.splitlines()[1:]:
        assert line.startswith("decays") != line.endswith(spared), line


def test_a_leaf_that_nobody_thought_of_is_refused_with_its_path():
    tree = {"block": {"kernel": jnp.ones(2), "strange": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match=r"none for 'strange' \(head/block/strange\); add it to"):
        decay.mask(tree, sections.decays(), "head")


def test_a_rule_is_for_all_layers_and_for_leaves_in_boxes():
    names = ("conv_0_kernel", "conv_12_kernel", "conv_1_bias", "scale", "kernel")
    tree = {name: nn.LogicallyPartitioned(jnp.ones((3, 2)), ("layers", None)) for name in names}
    found = jax.tree.leaves(decay.mask(tree, sections.decays(), "one"))
    assert dict(zip(sorted(names), found)) == {
        name: name.endswith("kernel") for name in sorted(names)
    }
