# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Configs of runs that no training wrote: of what cannot be, of something else, of another version."""

import json
import pathlib

import ml_collections
import pytest

from f3tok_jax.inference import generate
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import lineage
from tests.support import seals

_STAGES = ("autoencoder", "representation", "generation")


def _forge(run: str, section: str, key: str, value) -> None:
    """Gives a run another value in its config, and its checkpoint the same."""
    path = pathlib.Path(run) / "config.json"
    config = json.loads(path.read_text())
    config[section][key] = value
    seals.change(path, **{section: config[section]})
    config.pop("seal")
    seals.change(path.parent / "checkpoints" / "3" / "meta" / "metadata", config=config)


@pytest.mark.parametrize(
    "key, value",
    [
        ("hop_length", 0),
        ("hop_length", None),
        ("sample_rate", -1),
        ("strides", 0.5),
        ("strides", [3]),
        ("strides", [["a", "b"]]),
        ("strides", [[2**62, 1], [2**62, 1]]),
        ("latent_dim", 5e30),
        ("latent_dim", 2**70),
        ("fold", []),
        ("encoder_channels", True),
        ("decoder_channels", {"a": 1}),
        ("compression", "all"),
        ("compute_dtype", 3),
    ],
)
def test_values_of_which_no_model_can_be_made_are_refused_in_a_sentence(moved, key, value):
    _forge(moved["autoencoder"], "model", key, value)
    with pytest.raises(ValueError) as error:
        run = lineage.Lineage.read(moved["autoencoder"])
        assert run.sound.sample_rate > 0
        pretrained_autoencoder.load(run, say=print)
    assert "config.json" in str(error.value) or key in str(error.value)


@pytest.mark.parametrize("stage", ["representation", "generation"])
@pytest.mark.parametrize("key", ["width", "num_heads", "remat"])
@pytest.mark.parametrize("value", [None, "x", -1, 2**70])
def test_so_are_those_of_later_stages(moved, stage, key, value):
    _forge(moved[stage], "model", key, value)
    load = {
        "representation": pretrained_representation.load_encoder,
        "generation": pretrained_generation.load,
    }
    with pytest.raises(ValueError, match="config|must be"):
        load[stage](lineage.Lineage.read(moved[stage]))


@pytest.mark.parametrize("key, value", [("tasks", []), ("tasks", 3), ("max_tokens", None)])
def test_so_are_those_of_what_a_generator_is_asked(moved, key, value):
    _forge(moved["generation"], "text", key, value)
    with pytest.raises(ValueError, match="config.json must have values of which a model"):
        generate.TextToSound.load(lineage.Lineage.read(moved["generation"]), codec=None)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        "{}",
        "[" * 50_000,
        '{"model_type": "qwen3"}',
        '{"stage": 3}',
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json must be the JSON that train wrote, got anot"):
        lineage.Lineage.read(str(tmp_path))


@pytest.mark.parametrize("stage", _STAGES)
def test_a_run_of_another_version_is_refused(stage, chain):
    run = lineage.Lineage.read(chain[stage])
    config = ml_collections.ConfigDict(run.config.to_dict())
    config.model.compute_type = config.model.compute_dtype
    del config.model.compute_dtype
    other = lineage.Lineage(workdir=run.workdir, config=config)
    load = {
        "autoencoder": pretrained_autoencoder.of_run,
        "representation": pretrained_representation.make_encoder,
        "generation": pretrained_generation.Model,
    }[stage]
    message = "got a config.json without model.compute_dtype, with model.compute_type; train it"
    with pytest.raises(ValueError, match=message):
        load(other)
