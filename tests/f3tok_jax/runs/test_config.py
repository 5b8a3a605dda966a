# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Configuration: every shipped preset is valid, every mistake one sentence with its key."""

import json
import pathlib

import pytest

from configs import autoencoder as recipe
from configs import diffusion_transformer
from configs import generation
from configs import language_model
from configs import representation
from configs import semantic_autoencoder
from configs import semantic_bottleneck
from configs import semantic_encoder
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import validation
from tests.support import seals

_RECIPE = str(pathlib.Path(__file__).parents[3] / "configs" / "autoencoder.py")

_LATER = (language_model, representation, generation, diffusion_transformer)
_LATER_PRESETS = [
    (module.__name__.split(".")[-1], preset)
    for module in (*_LATER, semantic_encoder, semantic_bottleneck, semantic_autoencoder)
    for preset in module.PRESETS
]


def _read(*overrides: str, preset: str = "tiny"):
    return config_lib.read(
        f"{_RECIPE}:{preset}", [f"--config.{override}" for override in overrides]
    )


@pytest.mark.parametrize("preset", recipe.PRESETS)
def test_every_preset_is_valid_and_survives_its_file(preset, tmp_path):
    config = _read(preset=preset)
    validation.validate(config, registry.of(config.stage))
    config_lib.save(config, str(tmp_path))
    loaded = config_lib.load(str(tmp_path))
    assert loaded == config and config_lib.hash_of(loaded) == config_lib.hash_of(config)
    assert isinstance(loaded.model.strides, tuple) and isinstance(loaded.model.strides[0], tuple)
    derived = registry.of(config.stage).derived(config)
    assert derived["latent_rate_hz"] == 25 and derived["bins_left"] == 5
    config_lib.check_same_run(config, str(tmp_path))


@pytest.mark.parametrize("stage, preset", _LATER_PRESETS)
def test_every_preset_of_the_later_stages_is_valid_and_survives_its_file(stage, preset, tmp_path):
    recipe_path = pathlib.Path(_RECIPE).with_name(f"{stage}.py")
    config = config_lib.read(f"{recipe_path}:{preset}")
    validation.validate(config, registry.of(config.stage))
    config_lib.save(config, str(tmp_path))
    assert config_lib.load(str(tmp_path)) == config
    config_lib.check_same_run(config, str(tmp_path))


def test_derived_values_of_the_base_preset():
    derived = registry.of("autoencoder").derived(_read(preset="base"))
    assert derived["num_bins"] == 240 and derived["samples_per_latent"] == 960
    assert derived["values_per_second"] == 25 * 64
    assert derived["crop_seconds"] == pytest.approx(1.28)
    assert derived["seconds_per_batch"] == pytest.approx(128 * 1.28)


def test_a_summary_has_what_differs_from_the_recipe_and_what_follows():
    config = _read("model.latent_dim=48", "num_steps=5")
    said = config_lib.summary(config, _read(), registry.of("autoencoder").derived(config))
    first, *changes, last = said.splitlines()
    assert first.startswith("autoencoder:tiny, 2 of ") and "--print_config" in first
    assert sorted(changes) == ["model.latent_dim = 48", "num_steps = 5"]
    assert last.startswith("derived: latent_rate_hz 25, ")


def test_overrides_of_every_kind():
    config = _read(
        "model.latent_dim=48",
        "bottleneck.perturb=False",
        "bottleneck.gamma=1",
        "data.train=a=0.7,b=0.3",
        "model.encoder_channels=(8, 8, 8, 16)",
        "losses.weights.mel=2.5",
    )
    assert (
        config.model.latent_dim == 48
        and config.bottleneck.perturb is False
        and config.bottleneck.gamma == 1.0
    )
    assert config.data.train == "a=0.7,b=0.3" and config.losses.weights.mel == 2.5
    assert config.model.encoder_channels == (8, 8, 8, 16)


@pytest.mark.reliability("R30")
@pytest.mark.parametrize(
    "override, message",
    [
        ("model.laten_dim=3", "did you mean --config.model.latent_dim?"),
        ("latent_dim=3", "did you mean --config.model.latent_dim?"),
        (
            "optimizer.learning_rate=1",
            "did you mean --config.optimizer.discriminator.learning_rate?",
        ),
        ("model=3", "is a section of"),
        ("model.latent_dim=wide", "invalid literal for int"),
        ("data.batch_size=2.5", "invalid literal for int"),
        ("bottleneck.perturb=perhaps", "perhaps"),
    ],
)
def test_wrong_keys_and_types(override, message):
    with pytest.raises(ValueError) as error:
        _read(override)
    text = str(error.value)
    assert message in text and "--config." + override.split("=")[0] in text and "\n" not in text


@pytest.mark.parametrize(
    "argument, message",
    [
        ("nowhere.py:tiny", "there is no file 'nowhere.py'"),
        (_RECIPE + ":huge", "preset must be one of"),
    ],
)
def test_wrong_recipes(argument, message):
    with pytest.raises(ValueError, match=message) as error:
        config_lib.read(argument)
    assert "\n" not in str(error.value)


@pytest.mark.reliability("R30")
@pytest.mark.parametrize(
    "overrides, message",
    [
        (["num_steps=0"], "config.num_steps must be at least 1, got 0"),
        (
            ["optimizer.accumulate=3"],
            "batch_size=16 .* must be a multiple of config.optimizer.accumulate=3",
        ),
        (["optimizer.ema_decay=1.0"], r"ema_decay must be in \[0, 1\), got 1.0"),
        (
            ["model.fold=7"],
            "fold=7 times 4, the frequency strides of .* must divide the 160 frequency bins",
        ),
        (
            ["model.strides=((1, 3), (1, 2), (2, 1), (2, 1))"],
            "times 6, the frequency strides of .* must divide the 160 frequency bins",
        ),
        (
            ["model.strides=((2, 1), (2, 1))"],
            r"encoder_channels must have one width per stage .* 2, got \(32, 64, 64, 96\)",
        ),
        (
            ["model.strides=((1, 2), (1, 0), (2, 1), (2, 1))"],
            "strides must be .* pairs of at least 1",
        ),
        (["model.hop_length=100"], "hop_length=100 must be 10 ms"),
        (["model.sample_rate=24000"], "hop_length=160 must be 10 ms"),
        (["model.decoder_lookahead=2"], r"decoder_lookahead must be one of \(0, 1\), got 2"),
        (["model.upsampling=bilinear"], "upsampling must be one of"),
        (["model.compute_dtype=float16"], "compute_dtype must be one of"),
        (["losses.spectrum_hz=0.0"], "spectrum_hz=0.0 .* must be above 0: .*weights.spectrum=0"),
        (["losses.mel_bands=(10, 20)"], "mel_bands must have one number per window .* 5, got 2"),
        (
            ["losses.adversarial_crop=100000"],
            "adversarial_crop=100000 .* must be at most the 10240 samples",
        ),
        (["data.crop_frames=0"], "crop_frames must be at least 1, got 0"),
    ],
)
def test_values_that_do_not_go_together(overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        validation.validate(_read(*overrides), registry.of("autoencoder"))
    assert "configs/autoencoder.py:tiny" in str(error.value)


def test_a_folder_of_another_config_is_refused_by_key(tmp_path):
    config_lib.save(_read(), str(tmp_path))
    config_lib.check_same_run(
        _read("num_steps=5", "loop.log_every=3", "checkpoint.keep_last=9"), str(tmp_path)
    )
    with pytest.raises(ValueError) as error:
        config_lib.check_same_run(
            _read("model.latent_dim=48", "num_steps=5", "seed=2"), str(tmp_path)
        )
    text = str(error.value)
    assert (
        "model.latent_dim is 32 there and 48 here" in text and "seed is 0 there and 2 here" in text
    )
    assert "num_steps" not in text


def test_a_run_of_before_the_recipe_had_an_option_of_the_compiler_goes_on(tmp_path):
    before = _read()
    with before.unlocked():
        del before.compiler.cpu
    config_lib.save(before, str(tmp_path))
    config_lib.check_same_run(_read("compiler.tpu=a=1"), str(tmp_path))


def test_a_resumed_run_may_find_its_frozen_models_elsewhere(tmp_path):
    recipe = str(pathlib.Path(_RECIPE).with_name("generation.py")) + ":tiny"
    config_lib.save(config_lib.read(recipe), str(tmp_path))
    moved = ["representation.workdir=/elsewhere", "representation.step=7"]
    config_lib.check_same_run(
        config_lib.read(recipe, [f"--config.{change}" for change in moved]), str(tmp_path)
    )
    for change in ("init_from.workdir=/elsewhere", "language_model.rank=3"):
        with pytest.raises(ValueError, match=change.split("=")[0]):
            config_lib.check_same_run(
                config_lib.read(recipe, [f"--config.{change}"]), str(tmp_path)
            )


def test_folders_that_are_no_runs_and_damaged_files(tmp_path):
    assert not config_lib.exists(str(tmp_path))
    with pytest.raises(ValueError, match="must be the work folder of a run"):
        config_lib.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model": ')
    with pytest.raises(ValueError, match="damaged"):
        config_lib.load(str(tmp_path))


def test_a_recipe_that_is_no_python_is_refused_with_its_line(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("\ndef get_config(:\n")
    with pytest.raises(ValueError, match=r"cannot be made from .*invalid syntax .*line 2"):
        config_lib.read(str(recipe))


def test_a_recipe_that_imports_what_is_not_there_is_refused(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("from configs import nothing_of_ours\n")
    with pytest.raises(ValueError, match="cannot be made from .*nothing_of_ours"):
        config_lib.read(str(recipe))


@pytest.mark.reliability("R07")
def test_no_flipped_bit_in_its_file_changes_a_config(tmp_path):
    """One in the seal's name makes a key of it, which the checkpoints' own config refuses."""
    config_lib.save(_read(), str(tmp_path))
    kept = json.loads(config_lib.to_json(_read()))

    def load():
        config = config_lib.load(str(tmp_path))
        config_lib.check_kept(config, kept, str(tmp_path))
        return config

    assert seals.count_refusals(tmp_path / "config.json", load, stride=11) > 0.7


def test_a_config_of_an_earlier_version_has_no_seal_and_is_held_to_the_checkpoints(tmp_path):
    (tmp_path / "config.json").write_text(config_lib.to_json(_read()))
    assert config_lib.load(str(tmp_path)) == _read()
    kept = json.loads(config_lib.to_json(_read()))
    config_lib.check_kept(_read("num_steps=7", "loop.log_every=3"), kept, "runs/a")
    with pytest.raises(ValueError, match="runs/a must have in config.json .*: seed is 0 there and"):
        config_lib.check_kept(_read("seed=7"), kept, "runs/a")


def test_a_config_that_was_changed_by_hand_is_refused_and_says_how_it_is_done(tmp_path):
    config_lib.save(_read(), str(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="config.json must be as train wrote it, .* by its flags"):
        config_lib.load(str(tmp_path))


@pytest.mark.parametrize(
    "workdir, sentence",
    [
        ("runs/a", "^runs/a/config.json must have .* no tuple; copy it from where the run was"),
        ("", "^the config must have .* no tuple; change what --config and its flags give$"),
    ],
)
def test_values_of_which_no_model_can_be_made_are_refused_by_whose_they_are(workdir, sentence):
    with pytest.raises(ValueError, match=sentence), config_lib.values_of(workdir):
        raise TypeError("strides is no tuple\nand more")
