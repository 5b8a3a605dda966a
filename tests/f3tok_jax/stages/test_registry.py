# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The list of stages: each has a recipe, and says of itself what others must know."""

import importlib.util
import pathlib
import re

import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import registry

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize("name", registry.STAGES)
def test_a_stage_has_a_recipe_and_words(name):
    config = config_lib.read(str(_ROOT / "configs" / f"{name}.py"))
    definition = registry.of(config.stage)
    assert definition.name == name == config.stage
    words = registry.words_of(name)
    assert words.title and words.introduction and words.curves
    assert set(words.together) <= set(words.curves)
    assert bool(words.program) == bool(words.results)
    if definition.evaluation:
        assert importlib.util.find_spec(f"f3tok_jax.evaluation.{definition.evaluation}")


def test_an_unknown_stage_is_refused_and_yet_has_words():
    with pytest.raises(ValueError, match="config.stage must be one of .*'autoencoder'.* got 'ear'"):
        registry.of("ear")
    for name in (None, "ear", ["a", "list"]):
        assert registry.words_of(name).title


@pytest.mark.parametrize("folder", ["training", "cost", "reporting"])
def test_what_serves_every_stage_names_none(folder):
    """Where a stage is told from others by its name, a new one would have to be added too."""
    for path in (_ROOT / "f3tok_jax" / folder).glob("*.py"):
        found = re.findall(r"\bstage\b\S* (?:==|!=|in) .*", path.read_text(encoding="utf-8"))
        assert not [line for line in found if '"' in line], path
