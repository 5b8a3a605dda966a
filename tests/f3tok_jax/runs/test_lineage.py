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

from f3tok_jax.inference import generate
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
from f3tok_jax.runs import places as places_lib
from f3tok_jax.stages import registry
from tests.support import seals
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
        seals.replace(path, str(root), str(tmp_path / "chain"))
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


def _check(folder: str, **options) -> lineage.Lineage:
    run = lineage.Lineage.read(folder, **options)
    run.check(language_model=True)
    return run


@pytest.mark.reliability("R13")
def test_a_run_keeps_to_the_step_that_it_was_trained_on(moved):
    before = _check(moved["generation"])
    config = config_lib.load(moved["autoencoder"])
    stage = registry.of("autoencoder").make(config)
    tiny_models.write_checkpoint(moved["autoencoder"], config, stage, step=28, seed=1)
    after = _check(moved["generation"])
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
        _check(moved["generation"])


def test_a_parent_that_cannot_be_written_is_said_and_used(moved):
    said = []
    (pathlib.Path(moved["autoencoder"]) / "pins").write_text("")
    _check(moved["generation"]).pin_ancestors("x", said.append)
    (line,) = said
    assert f"{moved['autoencoder']} cannot be told to keep its step 3" in line
    assert pins.of(moved["representation"]) == {3}


@pytest.fixture
def elsewhere(moved, tmp_path) -> pathlib.Path:
    """What the chain's folder was renamed to, while every config names the old one; nothing tells
    where its runs lay as seen from each other."""
    for stage in ("representation", "generation"):
        (tmp_path / "chain" / stage / "places.json").unlink()
    return (tmp_path / "chain").rename(tmp_path / "elsewhere")


def test_runs_that_moved_together_find_each_other(elsewhere, tmp_path):
    # By their names alone.
    assert lineage.Lineage.read(f"{elsewhere}/generation").sound.latent_dim == 8
    with pytest.raises(ValueError, match="trained on language model .*, got nothing in .*--map="):
        _check(f"{elsewhere}/generation")
    (elsewhere / "text").rename(tmp_path / "chain")
    (tmp_path / "chain" / "model").rename(tmp_path / "model")
    run = lineage.Lineage.read(f"{elsewhere}/representation", places=_places(path=[tmp_path]))
    # By what was written down when they began, or began again.
    run.keep_places(f"{elsewhere}/representation")
    shutil.copytree(elsewhere, tmp_path / "a" / "b")
    shutil.copytree(tmp_path / "model", tmp_path / "a" / "model")
    shutil.rmtree(elsewhere)
    shutil.rmtree(tmp_path / "model")
    found = _check(f"{tmp_path}/a/b/generation")
    assert found.language_model_folder == f"{tmp_path}/a/model"
    # What travels with a run comes first.
    (tmp_path / "a").rename(tmp_path / "c")
    shutil.copytree(tmp_path / "c" / "b", tmp_path / "chain", dirs_exist_ok=True)
    found = _check(f"{tmp_path}/c/b/representation")
    assert found.parents["autoencoder"].workdir == f"{tmp_path}/c/b/autoencoder"


def _places(moved=None, path=()):
    return places_lib.Places(moved or {}, tuple(map(str, path)))


def test_runs_that_went_apart_are_found_by_mapping_or_search_path(elsewhere, tmp_path, monkeypatch):
    for name in ("autoencoder", "representation", "text"):
        (tmp_path / f"of_{name}").mkdir()
        (elsewhere / name).rename(tmp_path / f"of_{name}" / "v1")
    # Another, in which nothing fits.
    tiny_models.write_run(tmp_path / "of_autoencoder" / "v0", seed=2)
    old = {name: f"{tmp_path}/chain/{name}" for name in ("autoencoder", "representation", "text")}
    new = {name: f"{tmp_path}/of_{name}/v1" for name in old}
    moved = {old[name]: new[name] for name in old}
    generation = f"{elsewhere}/generation"
    run = _check(generation, places=_places(moved))
    assert run.ancestor("autoencoder").workdir == new["autoencoder"]
    assert run.at(run.step).language_model_folder == f"{new['text']}/model"
    path = [tmp_path / f"of_{name}" for name in ("autoencoder", "representation")]
    path.append(tmp_path / "of_text" / "v1")
    monkeypatch.setenv("F3TOK_PATH", ":".join(map(str, path)))
    assert _check(generation).ancestor("autoencoder").workdir == new["autoencoder"]
    monkeypatch.delenv("F3TOK_PATH")
    # Never by its name alone.
    wrong = moved | {old["autoencoder"]: f"{tmp_path}/of_autoencoder/v0"}
    with pytest.raises(ValueError) as refused:
        _check(generation, places=_places(wrong, [tmp_path / "of_text"]))
    said = str(refused.value)
    assert f"at step 3 in {tmp_path}/of_autoencoder/v0; no run in {old['autoencoder']}; " in said
    assert f"no run in {tmp_path}/of_text/autoencoder" in said
    assert f"--map={old['autoencoder']}=PLACE" in said and "$F3TOK_PATH" in said


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
            _check(moved[stage])


def test_a_language_model_of_before_is_held_to_what_was_kept_of_it(moved):
    folder = lineage.Lineage.read(moved["representation"]).language_model_folder
    for stage in ("representation", "generation"):
        path = pathlib.Path(moved[stage]) / "frozen.json"
        prints = json.loads(path.read_text())["fingerprints"]
        prints["language_model"] = language_model_folder.fingerprint(folder, "5eed")
        seals.change(path, fingerprints=prints)
    run = _check(moved["generation"])
    assert len(run.trained_on["language_model"]) == 16
    tiny_models.write_language_model(pathlib.Path(folder).parent, seed=1)
    with pytest.raises(ValueError, match=r"was trained on language model \w{16}, got \w{16} in "):
        _check(moved["generation"])


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
