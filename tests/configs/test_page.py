# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""configs/VALUES.md says what the recipes say, and no value goes without a word and a source."""

import importlib.util
import pathlib
import re
import types

import pytest

from configs import comments
from configs import generation
from configs import page
from configs import representation
from configs import sources

_RECIPE = '''\
"""A recipe."""
import ml_collections
from configs import sections
PRESETS = ("base", "large", "wide")
def get_config(preset):
    config = _base()
    if preset == "large":
        _make_large(config)
    if preset == "wide":
        config.model.width = 128  # the lanes of a TPU [measured]
    return config
def _base():
    config = ml_collections.ConfigDict()
    config.stage = "language_model"
    # Two parts to a comment,
    # of which this is the first [F3: Eq. 7].
    config.num_steps = 10
    config.model = ml_collections.ConfigDict(dict(
        width=64,  # values [DAC]
        {line}
    ))
    players = {{"a": dict(rate=0.1) | {{"rate": 0.2}}}}  # of nothing
    config.optimizer = ml_collections.ConfigDict(dict(
        **players,  # of each [chosen]
    ))
    names = ("kernel", "bias")
    config.decays = ml_collections.ConfigDict(dict.fromkeys(names, True))  # whether [measured]
    config.start = {{name: dict(step=1) for name in names}}  # when [DAC]
    config.init_from = sections.init_from()
    return config
def _make_large(config):
    """Sizes of a pod [chosen]."""
    for name in ("width", "depth"):
        config.model[name] = 2 * config.model[name]
'''


def _recipe(folder: pathlib.Path, line: str) -> types.ModuleType:
    path = folder / "made.py"
    path.write_text(_RECIPE.format(line=line), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("made", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("counted", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_page_is_what_the_recipes_say(counted, monkeypatch):
    said = page.PATH.read_text(encoding="utf-8")
    if not counted:  # every preset is traced for it; test_shardings.py has the shapes of arrays
        monkeypatch.setattr(sources, "_parameters", lambda config, definition: "")
        said = re.sub(r"(?m)^(\| parameters that are trained \|).*", _without_cells, said)
    assert said == page.make(), "the recipes have changed: run `python -m configs.page`"


def _without_cells(row: re.Match) -> str:
    cells = row[0].count("|") - 2
    return row[1] + "  |" * cells


def test_the_recipe_within_a_recipe_is_the_other_one():
    for preset in generation.PRESETS:
        within = generation.get_config(preset).representation.recipe
        assert within == representation.get_config(preset)


def test_a_value_is_told_with_its_meaning_and_its_source(tmp_path):
    recipe = _recipe(tmp_path, "depth=2,  # layers, more [Qwen3]")
    notes = comments.read(recipe, "base")
    (steps,) = notes.of(("num_steps",))
    assert steps.text == "Two parts to a comment, of which this is the first"
    assert steps.source == "F3: Eq. 7" and steps.place.endswith("made.py:17")
    assert [note.source for note in notes.of(("model", "width"))] == ["DAC"]
    assert [note.source for note in notes.of(("optimizer", "a", "rate"))] == ["chosen"] * 2
    assert notes.of(("init_from", "workdir"))[0].place.startswith("configs/sections.py:")
    assert notes.of(("decays", "bias"))[0].text == "whether"
    assert [note.source for note in notes.of(("start", "kernel", "step"))] == ["DAC"]
    assert not notes.of(("decay", "bias"))
    # A preset's value has its own source, or that of all that its function sets.
    first, second = comments.read(recipe, "large").of(("model", "depth"))
    assert first.source == "Qwen3" and (second.source, second.is_own) == ("chosen", False)
    first, second = comments.read(recipe, "wide").of(("model", "width"))
    assert first.source == "DAC" and (second.source, second.is_own) == ("measured", True)


@pytest.mark.parametrize(
    "line",
    ["depth=2,", "depth=2,  # layers", "depth=2,  # [F3]", "depth=2,  # layers [of a friend]"],
)
def test_a_value_without_meaning_or_source_is_refused(tmp_path, line):
    with pytest.raises(ValueError) as refused:
        page.make({_recipe(tmp_path, line): ("base", "large", "wide")})
    said = str(refused.value)
    assert "model.depth (" in said and "made.py:" in said and "num_steps" not in said
    assert "\n" not in said and all(name in said for name in sources.ALL)


def test_what_cannot_be_followed_is_refused_with_its_place(tmp_path):
    recipe = _recipe(tmp_path, "depth=2,  # layers [F3]")
    path = pathlib.Path(recipe.__file__)
    text = path.read_text(encoding="utf-8").replace('("width", "depth")', "config.model")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"made\.py:\d+ loops over what is no tuple of keys"):
        comments.read(recipe, "large")
