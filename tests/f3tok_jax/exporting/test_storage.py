# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Weights in half the size are near, are whose they say they are, and come back as float32."""

import functools
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from f3tok_jax import export
from f3tok_jax.exporting import forms
from f3tok_jax.exporting import storage
from f3tok_jax.exporting import torch_folder
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.pretrained import exported
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.stages import autoencoder as autoencoder_stage
from tests.support import tiny_models
from tests.support import tiny_runs

_HALVES = ("float16", "bfloat16")
# A weight is off by at most half a unit of its last place: 2^-11 of itself in float16, 2^-8 in bfloat16.
# So is, about, what a layer says, and what sixteen layers say one after the other by the root of that.
_OFF = {dtype: 4 * float(ml_dtypes.finfo(dtype).eps) / 2 for dtype in _HALVES}


def _rms(array) -> float:
    return float(np.sqrt(np.mean(np.square(array))))


def _sound() -> np.ndarray:
    return 0.1 * np.random.default_rng(0).normal(size=8_000).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """A run of random weights, and its export in each dtype by its name."""
    root = tmp_path_factory.mktemp("root")
    tiny_models.write_run(root / "run")
    for dtype in storage.DTYPES:
        given = [f"--workdir={root}/run", f"--output={root}/{dtype}", f"--dtype={dtype}"]
        assert export.main(given) == 0
    return root


@pytest.mark.parametrize("dtype", _HALVES)
def test_latents_and_sound_are_near_those_of_the_run(root, dtype):
    found = tokenizer_lib.F3Tokenizer.from_pretrained(str(root / dtype))
    run = tokenizer_lib.F3Tokenizer.from_pretrained(str(root / "run"))
    latents = [one.encode(_sound()) for one in (run, found)]
    assert 0 < _rms(latents[0].values - latents[1].values) < _OFF[dtype]  # of rms 1
    sounds = [one.decode(given) for one, given in zip((run, found), latents)]
    # Latents that are off are decoded by weights that are off: by twice as much, at most.
    assert _rms(sounds[0] - sounds[1]) < 2 * _OFF[dtype] * _rms(sounds[0])
    sizes = [(root / name / "model.safetensors").stat().st_size for name in (dtype, "float32")]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("dtype", _HALVES)
def test_latents_say_whose_they_are_and_others_are_refused(root, dtype):
    names = ("run", "float32", dtype)
    run, whole, half = (
        tokenizer_lib.F3Tokenizer.from_pretrained(str(root / name)) for name in names
    )
    assert run.fingerprint == whole.fingerprint != half.fingerprint
    written = exported.read(str(root / dtype)).written
    assert written["latents_fingerprint"] == half.fingerprint
    card = (root / dtype / "README.md").read_text(encoding="utf-8")
    assert f"`{half.fingerprint}`" in card and f"those of the run rounded to {dtype}" in card
    assert "rounded" not in (root / "float32" / "README.md").read_text(encoding="utf-8")
    latents = half.encode(_sound())
    assert latents.fingerprint == half.fingerprint
    assert half.decode(latents).shape == (8_000,)
    for one, given in ((run, latents), (half, run.encode(_sound()))):
        with pytest.raises(ValueError, match="these latents were made by weights"):
            one.decode(given)
    with pytest.raises(ValueError, match="must be of the latents"):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(root / "run"), decoder=str(root / dtype))


def test_a_decoder_that_learns_on_keeps_the_latents_of_the_rounded_encoder(root, tmp_path):
    folder = shutil.copytree(root / "float16", tmp_path / "model")
    tensors = safetensors_numpy.load_file(folder / "model.safetensors")
    moved = {
        name: array.astype(np.float32) + 0.01 * name.startswith("decoder.")
        for name, array in tensors.items()
    }
    safetensors_numpy.save_file(moved, folder / "model.safetensors")
    before, after = (exported.read(str(one)) for one in (root / "float16", folder))
    assert before.fingerprint != after.fingerprint
    assert before.latents_fingerprint == after.latents_fingerprint


def _write_run(folder: pathlib.Path, change) -> None:
    """A run of random weights, `change` of every one of them."""
    settings = tiny_models.config()
    config_lib.save(settings, str(folder))
    change = functools.partial(jax.tree.map, change)
    stage = autoencoder_stage.make_stage(settings)
    tiny_models.write_checkpoint(folder, settings, stage, change=change)


def test_an_encoder_that_rounding_leaves_as_it_is_makes_the_latents_of_the_run(tmp_path):
    _write_run(tmp_path / "run", lambda leaf: leaf.astype(np.float16).astype(leaf.dtype))
    run = lineage.Lineage.read(str(tmp_path / "run"))
    torch_folder.write(run, tmp_path / "model", dtype="float16")
    assert exported.read(str(tmp_path / "model")).latents_fingerprint == run.latents_fingerprint


def test_what_float16_does_not_hold_is_refused_in_one_sentence(tmp_path, capsys):
    _write_run(tmp_path / "run", lambda leaf: 4e5 * leaf)
    given = [f"--workdir={tmp_path}/run", f"--output={tmp_path}/model"]
    assert export.main([*given, "--dtype=float16"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--dtype=float16 must hold every weight, up to 65504" in said
    assert " in encoder." in said or " in decoder." in said
    assert not (tmp_path / "model").exists()
    assert export.main([*given, "--dtype=bfloat16"]) == 0


def test_a_language_model_in_bfloat16_stays_as_it_is_and_becomes_what_is_asked_for():
    array = np.asarray([1.0, 3e38], ml_dtypes.bfloat16)
    assert storage.stored({"a": array}, "float32")["a"] is array
    assert storage.stored({"a": array[:1]}, "float16")["a"].dtype == np.float16
    with pytest.raises(ValueError, match="got 3.00406e\\+38 in a: give --dtype=float32"):
        storage.stored({"a": array}, "float16")


def test_pytorch_computes_in_float32_what_jax_does_and_saves_what_is_the_same_model(root, tmp_path):
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    model = transformers.AutoModel.from_pretrained(str(root / "float16"), trust_remote_code=True)
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    ours = tokenizer_lib.F3Tokenizer.from_pretrained(str(root / "float16"))
    with torch.no_grad():
        found = model.encode(torch.from_numpy(_sound())[None]).latents[0].numpy()
    np.testing.assert_allclose(found, ours.encode(_sound()).values, atol=1e-4)
    model.save_pretrained(tmp_path / "again")
    again = exported.read(str(tmp_path / "again"))
    assert again.latents_fingerprint == ours.fingerprint


@pytest.mark.slow
def test_all_that_a_generator_does_is_done_in_float16_too(tmp_path):
    run = tiny_runs.write_chain(tmp_path, scale=0.5, is_tied=False)["generation"]
    given = [f"--workdir={run}", f"--output={tmp_path}/model", "--dtype=float16"]
    assert export.main(given) == 0
    tensors = safetensors_numpy.load_file(tmp_path / "model" / "model.safetensors")
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float16)}
    before, after = (
        tokenizer_lib.F3Tokenizer.from_pretrained(str(one)) for one in (run, tmp_path / "model")
    )
    heard = [one.represent(_sound()).values for one in (before, after)]
    # Of rms about 1; latents that are off, and two layers more.
    assert 0 < _rms(heard[0] - heard[1]) < 2 * _OFF["float16"] * _rms(heard[0])
    assert after.transcribe(_sound())
    said = after.generate("ab", max_seconds=0.4)
    assert said.size and np.isfinite(said).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
def test_other_forms_are_of_the_rounded_weights(form, root, tmp_path):
    """Each is run beside the model before it is given away."""
    for package in forms._PACKAGES[form]:
        pytest.importorskip(package, reason=f"--{form} needs it")
    given = [f"--workdir={root}/run", f"--output={tmp_path}/model", "--dtype=float16"]
    assert export.main([*given, f"--{form}"]) == 0
    assert len(list((tmp_path / "model" / form).iterdir())) > len(forms.FUNCTIONS)
