# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The way back: an exported folder is the run that it was, unless somebody trained it on."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
import soundfile

from f3tok_jax import cli
from f3tok_jax.exporting import torch_folder
from f3tok_jax.inference import model_folder
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import exported
from f3tok_jax.runs import lineage
from tests.support import tiny_models
from tests.support import tiny_runs

_WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run of random weights."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    tiny_models.write_run(folder)
    return folder


@pytest.fixture(scope="module")
def model(run) -> pathlib.Path:
    """The same, exported."""
    torch_folder.write(lineage.Lineage.read(str(run)), run.parent / "model")
    return run.parent / "model"


@pytest.fixture
def copy(model, tmp_path) -> pathlib.Path:
    """The exported folder, to be changed."""
    return shutil.copytree(model, tmp_path / "model")


def _change(folder, change) -> None:
    """Gives the tensors of a folder other names or values: `change` of all of them."""
    tensors = safetensors_numpy.load_file(folder / _WEIGHTS)
    safetensors_numpy.save_file(change(tensors), folder / _WEIGHTS)


def _change_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _without(wanted):
    return lambda tensors: {name: one for name, one in tensors.items() if name != wanted}


def _noise(count: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).normal(size=count).astype(np.float32)


def _moved(*begins):
    """Moves all tensors whose names begin so."""
    return lambda tensors: {
        name: array + np.float32(0.01) if name.startswith(begins) else array
        for name, array in tensors.items()
    }


def test_weights_come_back_bit_for_bit_with_all_their_fingerprints(run, model):
    before, after = lineage.Lineage.read(str(run)), exported.read(str(model))
    loaded = [pretrained_autoencoder.load(one)[:2] for one in (before, after)]
    jax.tree.map(np.testing.assert_array_equal, *(params for _, params in loaded))
    modules = [module.clone(upsampling="auto") for module, _ in loaded]
    bottlenecks = [(one.bottleneck.normalize, one.bottleneck.epsilon) for one in modules]
    assert bottlenecks[0] == bottlenecks[1]
    assert modules[0] == modules[1].clone(bottleneck=modules[0].bottleneck)
    for name in ("stage", "step", "sound", "fingerprint", "latents_fingerprint"):
        assert getattr(before, name) == getattr(after, name), name
    assert before.encoder_fingerprint == after.encoder_fingerprint
    assert after.bound(before.fingerprint) is after


def test_what_nobody_changed_is_known_without_jax(model):
    program = (
        "import sys; from f3tok_jax import cli\n"
        f"code = cli.main(['info', '--model={model}'])\n"
        "sys.exit(code or 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (model / "fingerprints.json").rename(model / "put_aside")
    try:
        assert model_folder.describe(exported.read(str(model))) == said
    finally:
        (model / "put_aside").rename(model / "fingerprints.json")


def test_one_of_several_processes_finds_the_same_fingerprint(copy, monkeypatch):
    alone = exported.read(str(copy)).fingerprint
    (copy / "fingerprints.json").unlink()  # The weights themselves are to be read.
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # Each of them reads all of it.
    assert exported.read(str(copy)).fingerprint == alone


def test_what_the_run_codes_the_export_codes_too_and_back(run, model):
    tokenizers = [tokenizer_lib.F3Tokenizer.from_pretrained(str(one)) for one in (run, model)]
    sound = _noise(5_000)
    latents = [one.encode(sound, sample_rate=44_100, resample=True) for one in tokenizers]
    np.testing.assert_array_equal(*(one.values for one in latents))
    sounds = [one.decode(other) for one, other in zip(tokenizers, reversed(latents))]
    np.testing.assert_array_equal(*sounds)
    blocks = [sound[None, :1_000], sound[None, 1_000:]]
    streamed = [np.concatenate(list(one.encode_stream(blocks)), 1) for one in tokenizers]
    np.testing.assert_array_equal(*streamed)
    with pytest.raises(ValueError, match="is an exported folder, which holds one state, of step 3"):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(model), 2)


def test_every_verb_of_the_autoencoder_takes_it(run, model, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", _noise(4_000), 16_000)
    given = [f"--model={model}"]
    assert cli.main([*given, "encode", str(tmp_path / "a.wav"), str(tmp_path / "a.npz")]) == 0
    for name in (run, model):
        target = str(tmp_path / f"{name.name}.wav")
        assert cli.main([f"--model={name}", "decode", str(tmp_path / "a.npz"), target]) == 0
    heard = [soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("run", "model")]
    np.testing.assert_array_equal(*heard)
    capsys.readouterr()
    assert cli.main([*given, "info"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["stage"], said["step"]) == ("autoencoder", 3)
    assert said["fingerprint"] == lineage.Lineage.read(str(run)).latents_fingerprint
    assert cli.main([*given, "represent", str(tmp_path / "a.wav"), str(tmp_path / "b.npz")]) == 1
    said = capsys.readouterr().err
    assert "must be a run of the representation or generation stage, got stage 'autoenc" in said
    assert not (tmp_path / "b.npz").exists()


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Stage -> a run of random weights, each on the one before; "exported": what the last became."""
    root = tmp_path_factory.mktemp("chain")
    folders = tiny_runs.write_chain(root)
    torch_folder.write(lineage.Lineage.read(folders["generation"]), root / "exported")
    return {name: pathlib.Path(folder) for name, folder in folders.items()} | {
        "exported": root / "exported"
    }


def test_representations_of_the_run_come_from_its_export_too(chain, tmp_path):
    before, after = (str(chain[name]) for name in ("generation", "exported"))
    tokenizers = [tokenizer_lib.F3Tokenizer.from_pretrained(one) for one in (before, after)]
    assert [one.run.stage for one in tokenizers] == ["generation", "generation"]
    assert tokenizers[0].fingerprint == tokenizers[1].fingerprint
    latents = [one.encode(_noise(5_000)) for one in tokenizers]
    found = [one.represent(other) for one, other in zip(tokenizers, reversed(latents))]
    np.testing.assert_array_equal(*(one.values for one in found))
    with pytest.raises(ValueError, match="be a run of the autoencoder stage, got stage 'gener"):
        tokenizer_lib.F3Tokenizer.from_pretrained(before, decoder=after)
    with pytest.raises(ValueError, match="a model in Hugging Face's format: give the run itself"):
        lineage.Lineage.read(after)  # as programs do that take runs alone
    # A folder of fewer parts is of an earlier stage.
    torch_folder.write(lineage.Lineage.read(str(chain["representation"])), tmp_path / "model")
    fewer = tokenizer_lib.F3Tokenizer.from_pretrained(str(tmp_path / "model"))
    assert fewer.run.stage == "representation"
    np.testing.assert_array_equal(fewer.represent(latents[0]).values, found[0].values)
    # Latents of another scale are divided by it.
    written = json.loads((tmp_path / "model" / "config.json").read_text())["representation"]
    changes = dict(normalize=False, representation=written | {"latent_rms": 2.0})
    _change_config(tmp_path / "model", **changes)
    assert exported.open_run(str(tmp_path / "model")).latent_rms == 2.0


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("parts",), [[1]]),
        (("parts",), 5),
        (("parts",), ["encoder", "decoder", "projector", "flow_head", "language_model"]),
        (("step",), True),
        (("epsilon",), float("nan")),
        (("gamma",), float("inf")),
        (("latent_dim",), 2**40),
        (("representation",), "x"),
        (("representation", "num_layers"), 10**8),
        (("representation", "window"), 10**9),
        (("representation", "latent_rms"), 0),
        (("representation", "rope_theta"), 0),
        (("generation", "embedding_rms"), "x"),
        (("generation", "flow_head", "history"), 10**7),
        (("generation", "flow_head", "row"), 10**12),
        (("generation", "sampling", "num_steps"), 10**9),
        (("generation", "max_tokens"), None),
    ],
)
def test_a_value_that_cannot_be_meant_is_named_before_memory_is_taken(
    chain, keys, value, tmp_path, capsys
):
    folder = shutil.copytree(chain["exported"], tmp_path / "model")
    written = json.loads((folder / "config.json").read_text())
    section = written
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    (folder / "config.json").write_text(json.dumps(written))
    assert cli.main([f"--model={folder}", "info"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ".".join(keys) in said


def test_a_text_becomes_a_file_of_sound(chain, tmp_path):
    model, target = f"--model={chain['exported']}", tmp_path / "b.wav"
    assert cli.main([model, "generate", "--text=ab", f"--output={target}"]) == 0
    assert soundfile.info(target).frames > 0


@pytest.mark.parametrize("name", ["language_model.norm.weight", "flow_head.roles"])
def test_a_part_of_the_generator_that_is_damaged_is_named(chain, name, tmp_path):
    folder = shutil.copytree(chain["exported"], tmp_path / "model")
    _change(folder, _without(name))
    with pytest.raises(ValueError, match=f"it lacks {name}"):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(folder)).generate("ab")


def test_a_damaged_part_that_is_not_asked_for_does_not_matter(chain, tmp_path):
    folder = shutil.copytree(chain["exported"], tmp_path / "model")
    _change(folder, _without("representation_encoder.input.bias"))
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(str(folder))
    latents = tokenizer.encode(_noise(1_000))
    with pytest.raises(ValueError, match="it lacks representation_encoder.input.bias"):
        tokenizer.represent(latents)


def test_a_decoder_that_was_trained_on_decodes_the_latents_of_before(run, copy):
    _change(copy, _moved("decoder."))
    before, after = lineage.Lineage.read(str(run)), exported.read(str(copy))
    assert after.fingerprint != before.fingerprint
    assert after.latents_fingerprint == before.latents_fingerprint
    sound = np.zeros(1_000, np.float32)
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(str(run), decoder=str(copy))
    latents = tokenizer.encode(sound)
    alone = tokenizer_lib.F3Tokenizer.from_pretrained(str(copy))
    np.testing.assert_array_equal(tokenizer.decode(latents), alone.decode(latents))


def test_an_encoder_that_was_trained_on_makes_latents_of_its_own(run, copy):
    before = lineage.Lineage.read(str(run)).latents_fingerprint
    found = {before}
    _change(copy, _moved("encoder.stem.bias"))
    found.add(exported.read(str(copy)).latents_fingerprint)
    _change(copy, lambda tensors: {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors.items()})
    _change_config(copy, dtype="bfloat16")
    found.add(exported.read(str(copy)).latents_fingerprint)
    assert len(found) == 3
    with pytest.raises(ValueError, match="must be of the latents"):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(run), decoder=str(copy))


def test_the_same_encoder_in_another_geometry_makes_other_latents(model, copy):
    _change_config(copy, compression=0.4)
    changed = exported.read(str(copy))
    assert changed.fingerprint == exported.read(str(model)).fingerprint
    assert changed.latents_fingerprint != exported.read(str(model)).latents_fingerprint
    assert changed.latents_fingerprint != changed.fingerprint


def test_a_model_with_a_level_hears_at_it_wherever_it_is(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "model"
    tiny_models.write_run(run, level_db=-20.0)
    torch_folder.write(lineage.Lineage.read(str(run)), folder)
    tokenizers = [tokenizer_lib.F3Tokenizer.from_pretrained(str(one)) for one in (run, folder)]
    assert [one.run.level_db for one in tokenizers] == [-20.0, -20.0]
    sounds = [_noise(5_000), 0.01 * _noise(3_000)]
    latents = [one.encode(sounds) for one in tokenizers]
    np.testing.assert_array_equal(*(one.values for one in latents))
    assert latents[0].gains == latents[1].gains != (1.0, 1.0)
    decoded = [one.decode(other) for one, other in zip(tokenizers, reversed(latents))]
    np.testing.assert_array_equal(*decoded)
    # Of the same weights at another level are other latents, as its config.json may be changed to.
    before = exported.read(str(folder)).latents_fingerprint
    found = {before}
    for level_db in (-25.0, 0.0):
        _change_config(folder, level_db=level_db)
        found.add(exported.read(str(folder)).latents_fingerprint)
    assert len(found) == 3


@pytest.mark.parametrize("version", [1, 2])
def test_folders_of_before_levels_hear_sound_as_it_comes(run, copy, version):
    written = json.loads((copy / "config.json").read_text())
    del written["level_db"]
    (copy / "config.json").write_text(json.dumps(written | dict(format=f"f3tok export {version}")))
    found = exported.read(str(copy))
    assert found.level_db == 0.0
    assert found.latents_fingerprint == lineage.Lineage.read(str(run)).latents_fingerprint
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(str(copy))
    assert tokenizer.encode(_noise(1_000)).gains == (1.0,)
    _change_config(copy, format="f3tok export 3")
    with pytest.raises(ValueError, match="must say the level_db of the model as it was exported"):
        exported.read(str(copy))


def _not_finite(tensors):
    tensors["encoder.stem.bias"][1] = np.nan
    return tensors


_WRONG = {
    "is not whole": "must be a whole safetensors file",
    "lacks a tensor": "config.json, which they are not: it lacks decoder.output.bias",
    "has another": "it has tensors beyond it, flow_head.output.bias",
    "has another shape": "encoder.stem.bias in .* must have the shape .8,. of its config.json",
    "is not finite": "encoder.stem.bias in .* must hold finite numbers, got NaN",
    "is of another format": "be of the format 'f3tok export 3', or of one before, got 'f3tok export 9'",
    "has no fingerprint": "must say the encoder_fingerprint of the model as it was exported, got None",
    "is a language model": "folder that f3tok_jax.export wrote, got a model of the type 'qwen3'",
    "has no weights": "got no model.safetensors there",
    "has no encoder": "be of a model with encoder and decoder, and .* got the parts .'decoder'.",
    "has impossible strides": "must have values of which a model can be made",
}


def _spoil(folder: pathlib.Path, how: str) -> None:
    weights = folder / _WEIGHTS
    if how == "is not whole":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "has no weights":
        weights.unlink()
    elif how == "is a language model":
        _change_config(folder, model_type="qwen3")
    elif how == "is of another format":
        _change_config(folder, format="f3tok export 9")
    elif how == "has no fingerprint":
        _change_config(folder, encoder_fingerprint=None)
    elif how == "has no encoder":
        _change_config(folder, parts=["decoder"])
    elif how == "has impossible strides":
        _change_config(folder, strides=["ab", 3])
    else:
        changes = {
            "lacks a tensor": _without("decoder.output.bias"),
            "has another": lambda tensors: tensors | {"flow_head.output.bias": np.zeros(3)},
            "has another shape": lambda tensors: tensors | {"encoder.stem.bias": np.zeros(9)},
            "is not finite": _not_finite,
        }
        _change(folder, changes[how])


@pytest.mark.parametrize("how", _WRONG)
def test_a_folder_that_is_none_is_refused_in_one_sentence(copy, how, tmp_path, capsys):
    _spoil(copy, how)
    soundfile.write(tmp_path / "a.wav", np.zeros(1_000), 16_000)
    target = tmp_path / "a.npz"
    assert cli.main([f"--model={copy}", "encode", str(tmp_path / "a.wav"), str(target)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    with pytest.raises(ValueError, match=_WRONG[how]):
        exported.read(str(copy))
    assert not target.exists()


def test_values_of_other_kinds_are_refused_and_raise_nothing_else(chain, tmp_path):
    folder = shutil.copytree(chain["exported"], tmp_path / "model")
    written, refused = json.loads((folder / "config.json").read_text()), 0
    for name in written:
        for value in (None, "x", -1, 10**30, [1], {"a": 1}):
            (folder / "config.json").write_text(json.dumps(written | {name: value}))
            try:
                exported.open_run(str(folder))
            except ValueError as error:
                refused += "\n" not in str(error)
    assert refused > 3 * len(written)  # What decides nothing here may be anything.


def test_transformers_may_have_saved_it_in_parts_and_in_bfloat16(run, model, tmp_path):
    pytest.importorskip(
        "torch", reason="the way back from PyTorch needs torch, of the parity extra"
    )
    transformers = pytest.importorskip("transformers", reason="and transformers")
    opened = transformers.AutoModel.from_pretrained(str(model), trust_remote_code=True)
    opened.save_pretrained(tmp_path / "parts", max_shard_size="40KB")
    assert (tmp_path / "parts" / "model.safetensors.index.json").is_file()
    before, after = lineage.Lineage.read(str(run)), exported.read(str(tmp_path / "parts"))
    assert after.fingerprint == before.fingerprint
    assert after.latents_fingerprint == before.latents_fingerprint
    opened.bfloat16().save_pretrained(tmp_path / "half")
    half = exported.read(str(tmp_path / "half"))
    assert half.latents_fingerprint not in (half.fingerprint, before.latents_fingerprint)
    sound = _noise(5_000)
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(str(tmp_path / "half"))
    assert tokenizer.decode(tokenizer.encode(sound)).shape == sound.shape
