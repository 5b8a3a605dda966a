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

import pytest

from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import language_model_folder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import pins
from f3tok_jax.runs import sound as sound_lib
from f3tok_jax.stages import registry
from tests.support import seals
from tests.support import tiny_models
from tests.support import tiny_runs

_ROOT = pathlib.Path(__file__).parents[3]
_STAGES = ("autoencoder", "representation", "generation")


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
    assert run.sound == autoencoder.sound == sound_lib.Sound(16_000, 640, 8)
    assert run.sound.latent_rate == 25
    assert run.language_model_folder == run.parents["representation"].config.language_model.folder
    now = run.frozen_fingerprints(language_model=True)
    assert now == run.trained_on and set(now) == {"autoencoder", "representation", "language_model"}
    run.check(language_model=True)


def test_fingerprints_are_those_of_the_loaded_weights(chain):
    run = lineage.Lineage.read(chain["representation"])
    _, params, autoencoder = pretrained_autoencoder.load(run.parents["autoencoder"])
    assert autoencoder.fingerprint == fingerprint.autoencoder_fingerprint(params)
    encoder = pretrained_representation.make_encoder(run)
    projector = pretrained_representation.make_projector(run.config, 16)
    abstract = pretrained_representation.abstract_params(encoder, projector)
    params, run = pretrained_representation.load(run, abstract)
    assert run.fingerprint == fingerprint.digest({"params": params})


def test_runs_tell_the_level_at_which_they_hear_and_their_latents_carry_it(tmp_path):
    found = {}
    for name, level_db in (("old", None), ("none", 0.0), ("quiet", -30.0), ("loud", -20.0)):
        tiny_models.write_run(tmp_path / name, level_db=level_db)
        found[name] = lineage.Lineage.read(str(tmp_path / name))
        assert found[name].level_db == (level_db or 0.0)
        loaded, _, _ = pretrained_autoencoder.load(found[name])
        assert loaded.level_db == (level_db or 0.0)
    prints = {name: run.latents_fingerprint for name, run in found.items()}
    # What was without a level stays as it is; the weights of all are the same.
    assert len({run.fingerprint for run in found.values()}) == 1
    assert prints["old"] == prints["none"] == found["old"].fingerprint
    assert len({prints[name] for name in ("none", "quiet", "loud")}) == 3


def test_a_generator_is_loaded_with_each_file_of_its_runs_read_once(chain, opened):
    opened.clear()
    run = lineage.Lineage.read(chain["generation"])
    run.check(language_model=True)
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
            ValueError, match=f" was trained on autoencoder {before}, got {now} at step 3 in "
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
    other.check(language_model=True)
    tiny_models.write_language_model(pathlib.Path(other.language_model_folder).parent, seed=1)
    message = (
        r"was trained on language model config:\w+ .*, got .* weights:\w+, weights differing in"
    )
    with pytest.raises(ValueError, match=message):
        lineage.Lineage.read(moved["representation"]).check(language_model=True)


def test_what_was_changed_below_a_parent_is_refused_there(moved):
    path = pathlib.Path(moved["representation"]) / "frozen.json"
    content = json.loads(path.read_text())
    content["fingerprints"]["autoencoder"] = "5eed"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="frozen.json must have the seal that it was written with"):
        lineage.Lineage.read(moved["generation"]).check()
    seals.change(path, fingerprints=content["fingerprints"])
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


@pytest.mark.reliability("R07")
def test_other_small_files_than_those_of_the_checkpoints_are_refused_in_use(moved):
    run = pathlib.Path(moved["representation"])
    config, frozen = run / "config.json", run / "frozen.json"
    model = json.loads(config.read_text())["model"]
    seals.change(config, model=model | {"window": 7, "depth": 3})
    with pytest.raises(ValueError, match="representation must have in config.json what its check"):
        lineage.Lineage.read(str(run))
    seals.change(config, model=3)
    with pytest.raises(ValueError, match="model is absent there and 3 here"):
        lineage.Lineage.read(str(run))
    seals.change(config, model=model, num_steps=99, loop={})  # which a resumed run may have changed
    prints = json.loads(frozen.read_text())["fingerprints"]
    metadata = run / "checkpoints" / "3" / "meta" / "metadata"
    seals.change(metadata, files={run_folder.FROZEN: "5eed"})
    with pytest.raises(ValueError, match="frozen.json must be what the run's checkpoints were mad"):
        lineage.Lineage.read(str(run)).check()
    seals.change(metadata, files=run_folder.digests(str(run)))
    lineage.Lineage.read(str(run)).check()
    seals.change(frozen, fingerprints=prints | {"other": "5eed"})
    with pytest.raises(ValueError, match="frozen.json must be what the run's checkpoints were mad"):
        lineage.Lineage.read(str(run)).check()
    frozen.unlink()
    with pytest.raises(ValueError, match="must have frozen.json, which says what .*, got none"):
        lineage.Lineage.read(str(run)).check()


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
    with pytest.raises(
        ValueError, match="was trained on representation .*, got no run in .*--map="
    ):
        run.sound


@pytest.mark.reliability("R13")
def test_a_run_keeps_to_the_step_that_it_was_trained_on(moved):
    before = tiny_runs.read_whole(moved["generation"])
    config = config_lib.load(moved["autoencoder"])
    stage = registry.of("autoencoder").make(config)
    tiny_models.write_checkpoint(moved["autoencoder"], config, stage, step=28, seed=1)
    after = tiny_runs.read_whole(moved["generation"])
    for name in ("representation", "autoencoder"):
        one, other = before.ancestor(name), after.ancestor(name)
        assert (one.step, one.fingerprint) == (other.step, other.fingerprint)
    _, _, loaded = pretrained_autoencoder.load(after.ancestor("autoencoder"))
    assert loaded.step == 3
    # One that begins takes what it is told, or the newest.
    config = config_lib.load(moved["representation"])
    assert lineage.Lineage(config=config).parents["autoencoder"].step == 28
    after.pin_ancestors(moved["generation"])
    assert pins.of(moved["autoencoder"]) == pins.of(moved["representation"]) == {3}
    shutil.rmtree(pathlib.Path(moved["autoencoder"]) / "checkpoints" / "3")
    message = f"was trained on autoencoder {one.fingerprint}, got [0-9a-f]{{16}} at step 28 in "
    with pytest.raises(ValueError, match=message):
        tiny_runs.read_whole(moved["generation"])


def test_a_parent_that_cannot_be_written_is_said_and_used(moved):
    said = []
    (pathlib.Path(moved["autoencoder"]) / "pins").write_text("")
    tiny_runs.read_whole(moved["generation"]).pin_ancestors("x", said.append)
    (line,) = said
    assert f"{moved['autoencoder']} cannot be told to keep its step 3" in line
    assert pins.of(moved["representation"]) == {3}


def test_whoever_reads_the_language_model_is_told_that_it_is_another(moved):
    """Encoding reads no byte of it."""
    folder = pathlib.Path(lineage.Lineage.read(moved["representation"]).language_model_folder)
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(10_000)
        file.write(b"\1" * 5_000)
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(moved["generation"])
    assert tokenizer.codec.step == tokenizer.representer.step == 3
    for part in ("transcriber", "text_to_sound"):
        with pytest.raises(
            ValueError, match="was trained on language model .*, weights differing in"
        ):
            getattr(tokenizer, part)


def test_a_run_of_a_language_model_keeps_to_its_tokenizer(tmp_path, tokenizer_of):
    workdir, path = str(tmp_path / "run"), tmp_path / "tokenizer.json"
    tokenizer_of(5).save(str(path))
    recipe = f"{_ROOT}/configs/language_model.py:tiny"
    config = config_lib.read(recipe, [f"--config.tokenizer={path}"])
    config_lib.save(config, workdir)
    stage = registry.of("language_model").make(config)
    assert set(stage.frozen_fingerprints) == {"tokenizer"}
    run_folder.settle_frozen(workdir, stage.frozen_fingerprints, dict)
    lineage.Lineage(config=config).keep_places(workdir)
    begun = lambda: lineage.Lineage(workdir=workdir, config=config)
    assert begun().tokenizer == str(path)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match="run was trained on tokenizer .*, got .* in .*--map="):
        begun().tokenizer


def test_another_tokenizer_is_refused_by_its_name(moved):
    run = lineage.Lineage.read(moved["representation"])
    path = pathlib.Path(run.language_model_folder) / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    for stage in ("representation", "generation"):
        with pytest.raises(
            ValueError, match=r"was trained on language model .*, tokenizer.json diff"
        ):
            tiny_runs.read_whole(moved[stage])


def test_a_language_model_of_before_is_held_to_what_was_kept_of_it(moved):
    folder = lineage.Lineage.read(moved["representation"]).language_model_folder
    for stage in ("representation", "generation"):
        path = pathlib.Path(moved[stage]) / "frozen.json"
        prints = json.loads(path.read_text())["fingerprints"]
        prints["language_model"] = language_model_folder.fingerprint(folder, "5eed")
        seals.change(path, fingerprints=prints)
    run = tiny_runs.read_whole(moved["generation"])
    assert len(run.trained_on["language_model"]) == 16
    tiny_models.write_language_model(pathlib.Path(folder).parent, seed=1)
    with pytest.raises(ValueError, match=r"was trained on language model \w{16}, got \w{16} in "):
        tiny_runs.read_whole(moved["generation"])


def test_a_config_without_runs_has_the_sound_that_it_states():
    for stage in ("representation", "generation"):
        config = config_lib.read(f"{_ROOT}/configs/{stage}.py:base")
        run = lineage.Lineage(config=config)
        assert run.sound == sound_lib.Sound(24_000, 960, 64) and not run.parents
    language_model = config_lib.read(f"{_ROOT}/configs/language_model.py:tiny")
    with pytest.raises(ValueError, match="the language_model stage has no latents"):
        lineage.Lineage(config=language_model).sound


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
