# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The lineage of runs: what is read, how often, and which ancestors are refused."""

import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys

import ml_collections
import pytest

from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import lineage
from tests.support import tiny_models
from tests.support import tiny_runs

_ROOT = pathlib.Path(__file__).parents[3]
_STAGES = ("autoencoder", "representation", "generation")


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> dict[str, str]:
    """Stage -> folder of a run that builds on the ones before it."""
    return tiny_runs.write_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def moved(chain, tmp_path) -> dict[str, str]:
    """A copy of the chain, to be spoiled."""
    root = pathlib.Path(chain["autoencoder"]).parent
    shutil.copytree(root, tmp_path / "chain")
    for stage in _STAGES:
        path = tmp_path / "chain" / stage / "config.json"
        path.write_text(path.read_text().replace(str(root), str(tmp_path / "chain")))
    return {stage: str(tmp_path / "chain" / stage) for stage in _STAGES}


@pytest.fixture(scope="module")
def opened():
    """Counts the files that are opened for reading, by path, between `clear` and a look."""
    found, is_counting = collections.Counter(), [True]

    def count(event, arguments):
        if event == "open" and is_counting[0] and isinstance(arguments[0], str):
            found[arguments[0]] += 1

    sys.addaudithook(count)  # which cannot be removed
    yield found
    is_counting[0] = False


def test_a_run_knows_what_it_is_of(chain):
    run = lineage.Lineage.read(chain["generation"])
    autoencoder = run.ancestor("autoencoder")
    assert (run.stage, run.step, list(run.parents)) == ("generation", 3, ["representation"])
    assert autoencoder is run.parents["representation"].parents["autoencoder"]
    assert run.ancestor("generation") is None and not autoencoder.parents
    assert run.sound == autoencoder.sound == lineage.Sound(16_000, 640, 8)
    assert run.sound.latent_rate == 25
    assert run.language_model_folder == run.parents["representation"].config.language_model.folder
    now = run.frozen_fingerprints(pretrained_language_model.fingerprint)
    assert now == run.trained_on and set(now) == {"autoencoder", "representation", "language_model"}
    run.check(pretrained_language_model.fingerprint)


def test_fingerprints_are_those_of_the_loaded_weights(chain):
    run = lineage.Lineage.read(chain["representation"])
    _, params, autoencoder = pretrained_autoencoder.load(run.parents["autoencoder"])
    assert autoencoder.fingerprint == fingerprint.autoencoder_fingerprint(params)
    encoder = pretrained_representation.make_encoder(run)
    projector = pretrained_representation.make_projector(run.config, 16)
    abstract = pretrained_representation.abstract_params(encoder, projector)
    params, run = pretrained_representation.load(run, abstract)
    assert run.fingerprint == fingerprint.digest({"params": params})


def test_a_generator_is_loaded_with_each_file_of_its_runs_read_once(chain, opened):
    opened.clear()
    run = lineage.Lineage.read(chain["generation"])
    run.check(pretrained_language_model.fingerprint)
    _, _, run = pretrained_generation.load(run)
    pretrained_autoencoder.load(run.ancestor("autoencoder"))
    for stage in _STAGES:
        assert opened[f"{chain[stage]}/config.json"] == 1
        metadata = f"{os.path.realpath(chain[stage])}/checkpoints/3/meta/metadata"
        assert opened[metadata] == 1
    assert sum(opened[f"{chain[stage]}/frozen.json"] for stage in _STAGES) == 2


def test_an_autoencoder_with_other_weights_is_refused(moved):
    before = lineage.Lineage.read(moved["autoencoder"]).fingerprint
    shutil.rmtree(moved["autoencoder"])
    tiny_models.write_run(moved["autoencoder"], seed=1)
    now = lineage.Lineage.read(moved["autoencoder"]).fingerprint
    for stage in ("representation", "generation"):
        with pytest.raises(
            ValueError, match=f"{stage} was trained on autoencoder {before}, got {now}: "
        ):
            lineage.Lineage.read(moved[stage]).check()


def test_other_modules_and_another_language_model_are_refused(moved, tmp_path):
    representation = lineage.Lineage.read(moved["representation"])
    before, config = representation.fingerprint, representation.config
    with config.unlocked():
        config.seed = 1
    shutil.rmtree(moved["representation"])
    tiny_runs.write(config, moved["representation"])
    run = lineage.Lineage.read(moved["generation"])
    with pytest.raises(ValueError, match=f"was trained on representation {before}, got "):
        run.check()
    # Found through its parent, though it is not the run's own.
    other = lineage.Lineage.read(moved["representation"])
    other.check(pretrained_language_model.fingerprint)
    with pytest.raises(ValueError, match="was trained on language model [0-9a-f]{16}, got 5eed: "):
        other.check(lambda folder: "5eed")


def test_what_was_changed_below_a_parent_is_refused_there(moved):
    path = pathlib.Path(moved["representation"]) / "frozen.json"
    content = json.loads(path.read_text())
    content["fingerprints"]["autoencoder"] = "5eed"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="representation was trained on autoencoder 5eed, got "):
        lineage.Lineage.read(moved["generation"]).check()


def test_what_is_no_run_is_refused(chain, tmp_path):
    with pytest.raises(ValueError, match="must be the work folder of a run"):
        lineage.Lineage.read(str(tmp_path))
    with pytest.raises(ValueError, match="must be a run of the generation stage, got stage 'auto"):
        lineage.Lineage.read(chain["autoencoder"], stage="generation")
    with pytest.raises(ValueError, match=r"must hold a checkpoint of step 4, got steps \[3\]"):
        lineage.Lineage.read(chain["autoencoder"], 4)
    config_lib.save(tiny_models.config(), str(tmp_path))
    with pytest.raises(ValueError, match=r"must hold a checkpoint, got steps \[\]"):
        lineage.Lineage.read(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "null", "{}", '{"fingerprints": [1]}'])
def test_what_a_run_was_trained_on_is_read_or_refused(moved, text):
    path = pathlib.Path(moved["representation"]) / "frozen.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="frozen.json must be the JSON with fingerprints and meas"):
        lineage.Lineage.read(moved["representation"]).check()
    path.unlink()
    with pytest.raises(ValueError, match="must say in frozen.json which autoencoder it was train"):
        lineage.Lineage.read(moved["representation"]).check()


@pytest.mark.parametrize("text", ["{", "[]", "3", "{}", '{"model_type": "qwen3"}', '{"stage": 3}'])
def test_a_config_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json must be the JSON that train wrote, got anot"):
        lineage.Lineage.read(str(tmp_path))


def test_the_newest_whole_checkpoint_is_loaded_unless_one_is_asked_for(moved):
    folder = moved["autoencoder"]
    tiny_models.add_damaged_step(folder)
    run, said = lineage.Lineage.read(folder), []
    assert run.step == 5
    _, _, loaded = pretrained_autoencoder.load(run, say=said.append)
    assert loaded.step == 3 and "step 5 is refused" in said[0]
    with pytest.raises(checkpoint.CheckpointError):
        pretrained_autoencoder.load(lineage.Lineage.read(folder, 5), say=said.append)
    (pathlib.Path(folder) / "checkpoints" / "5" / "meta" / "metadata").write_text("{")
    assert lineage.Lineage.read(folder).step == 3


def test_parents_are_not_read_before_they_are_asked_for(moved):
    shutil.rmtree(moved["representation"])
    run = lineage.Lineage.read(moved["generation"])
    assert set(run.trained_on) == {"autoencoder", "language_model", "representation"}
    with pytest.raises(ValueError, match="must be the work folder of a run"):
        run.sound


def test_a_config_without_runs_has_the_sound_that_it_states():
    for stage in ("representation", "generation"):
        config = config_lib.read(f"{_ROOT}/configs/{stage}.py:base")
        run = lineage.Lineage(config=config)
        assert run.sound == lineage.Sound(24_000, 960, 64) and not run.parents
    language_model = config_lib.read(f"{_ROOT}/configs/language_model.py:tiny")
    with pytest.raises(ValueError, match="the language_model stage has no latents"):
        lineage.Lineage(config=language_model).sound


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


def test_a_folder_with_recipes_of_its_own_changes_nothing(chain, tmp_path):
    """The user's configs/ is imported first where a program starts in the folder that has it."""
    package = tmp_path / "configs"
    package.mkdir()
    for name in ("__init__", "autoencoder"):
        (package / f"{name}.py").write_text("")
    lines = (
        "from f3tok_jax.pretrained import generation",
        "from f3tok_jax.runs import config, lineage",
        f"run = lineage.Lineage.read({chain['generation']!r})",
        "run.check()",
        "generation.load(run)",
        f"recipe = config.read({str(_ROOT / 'configs' / 'generation.py:tiny')!r})",
        "import configs",
        f"assert configs.__file__.startswith({str(tmp_path)!r})",
        "print(recipe.stage, run.step)",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(_ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["generation", "3"], done.stderr
