# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An exported autoencoder in ONNX is the one in JAX: whole, padded, in a stream, and without both."""

import copy
import functools
import json

import jax
import numpy as np
import pytest

from f3tok_jax import export
from f3tok_jax.exporting import parts
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
from tests.support import exported_forms
from tests.support import narrow_autoencoders
from tests.support import tiny_models

for _package in ("torch", "transformers", "onnx", "onnxscript"):
    pytest.importorskip(_package, reason="ONNX is made by the packages of the onnx extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX is run by onnxruntime")

from f3tok_jax.exporting import onnx_folder  # noqa: E402


@pytest.fixture(scope="module", params=narrow_autoencoders.PARAMETERS)
def made(request, tmp_path_factory):
    """An autoencoder, its variables, and the folder with it in PyTorch and ONNX."""
    autoencoder, variables = narrow_autoencoders.built(request.param)
    root = tmp_path_factory.mktemp("model")
    config = parts.describe(autoencoder) | {"parts": ["encoder", "decoder"]}
    (root / "config.json").write_text(json.dumps(config))
    tensors = torch_weights.tensors(variables["params"])
    weight_files.write(root / "model.safetensors", tensors)
    onnx_folder.write(root, autoencoder, "of the latents")
    return autoencoder, variables, root / "onnx"


def _run(folder, name, **inputs):
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    return session.run(None, inputs)


@pytest.mark.parametrize("rows, hops, odd", [(1, 0, 1), (3, 5, 333)])
def test_whole_sounds_are_those_of_jax(made, rows, hops, odd):
    autoencoder, variables, folder = made
    waveform = exported_forms.sound(rows, hops * autoencoder.samples_per_latent + odd)
    waveform[-1, 1000:] = 0.0  # Silence, digital.
    apply = jax.jit(autoencoder.apply, static_argnames="method")
    expected = apply(variables, waveform, method="waveform_to_latents")
    mask = np.ones(waveform.shape, bool)
    latents, mask = _run(folder, "encode", waveform=waveform, waveform_mask=mask)
    np.testing.assert_allclose(latents, expected, atol=exported_forms.LATENT_ATOL)
    assert mask.shape == latents.shape[:2] and mask.all()
    sound, mask = _run(folder, "decode", latents=latents, latents_mask=mask)
    expected = apply(variables, expected, method="latents_to_waveform")
    exported_forms.check_sound(sound, np.asarray(expected))
    assert mask.shape == sound.shape and mask.all()


def test_every_row_of_a_padded_batch_is_what_it_is_alone(made):
    autoencoder, _, folder = made
    hop = autoencoder.samples_per_latent
    lengths = np.array([1, hop, 3 * hop + 7, 6 * hop - 1])
    waveform = exported_forms.sound(
        len(lengths), lengths.max()
    )  # What is behind a row's end is noise, too.
    latents, valid, sounds, audible = _both(folder, waveform, lengths)
    assert valid.sum(1).tolist() == [-(-n // hop) for n in lengths]
    for row, n in enumerate(lengths):
        alone = _both(folder, waveform[row : row + 1, :n], lengths[row : row + 1])
        np.testing.assert_allclose(
            latents[row, valid[row]], alone[0][0], atol=exported_forms.LATENT_ATOL
        )
        exported_forms.check_sound(sounds[row, audible[row]], alone[2][0])


def _both(folder, waveform, lengths):
    """Latents, their mask, the sound that is made of them, and its mask."""
    mask = np.arange(waveform.shape[1])[None] < lengths[:, None]
    latents, valid = _run(folder, "encode", waveform=waveform, waveform_mask=mask)
    return latents, valid, *_run(folder, "decode", latents=latents, latents_mask=valid)


@pytest.mark.slow  # Every export is held to PyTorch, which is tested without.
def test_a_model_with_a_level_hears_all_sounds_at_it(tmp_path):
    def run(name, arrays):
        session = onnxruntime.InferenceSession(tmp_path / f"onnx/{name}.onnx")
        named = dict(zip([one.name for one in session.get_inputs()], arrays, strict=True))
        assert name == "encode" or "audio_scales" in named
        return session.run(None, named)

    exported_forms.check_level(tmp_path, onnx_folder, run)


@pytest.mark.parametrize("rows, chunk", [(1, 1), (3, 1), (2, 2), (1, 5)])
def test_a_stream_is_the_whole(made, rows, chunk):
    autoencoder, _, folder = made

    def whole(waveform):
        latents, _, sound, _ = _both(folder, waveform, np.full(rows, waveform.shape[1]))
        return latents, sound

    stream = functools.partial(_stream, folder)
    exported_forms.check_stream(autoencoder, rows, chunk, stream=stream, whole=whole)


def _stream(folder, name, chunks):
    step = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    given, *caches = step.get_inputs()
    shapes = {one.name: one.shape for one in caches}
    cache = {
        name: np.zeros((len(chunks[0]), *shape[1:]), np.float32) for name, shape in shapes.items()
    }
    for chunk in chunks:
        found, *after = step.run(None, {given.name: chunk} | cache)
        cache = dict(zip(shapes, after, strict=True))
        yield found


def test_a_file_says_its_geometry_and_its_free_axes(made):
    autoencoder, _, folder = made
    latent_dim = autoencoder.latent_dim
    waveform = {"waveform": ["b", "n"], "waveform_mask": ["b", "n"]}
    latents = {"latents": ["b", "t", latent_dim], "latents_mask": ["b", "t"]}
    steps = {"waveform": ["b", "n"]}, {"latents": ["b", "k", latent_dim]}
    for name, takes, gives in (
        ("encode", waveform, latents),
        ("decode", latents, waveform),
        ("encode_step", *steps),
        ("decode_step", *reversed(steps)),
    ):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        found = {one.name: one.shape for one in session.get_inputs()}
        given = {one.name: one.shape for one in session.get_outputs()}
        caches = {name: shape[1:] for name, shape in found.items() if name.startswith("cache.")}
        assert {name: found[name] for name in found.keys() - caches} == takes
        after = {f"next.{name.partition('.')[2]}": ["b", *shape] for name, shape in caches.items()}
        assert given == gives | after
        said = session.get_modelmeta().custom_metadata_map
        assert {
            f"cache.{name}": shape for name, shape in json.loads(said["caches"]).items()
        } == caches
        assert int(said["sample_rate"]) == autoencoder.sample_rate
        assert int(said["samples_per_latent"]) == autoencoder.samples_per_latent
        assert int(said["encoder_lookahead"]) == autoencoder.encoder_lookahead
        assert int(said["decoder_lookahead"]) == autoencoder.decoder_lookahead
        assert int(said["latent_dim"]) == latent_dim
        assert said["latents_fingerprint"] == "of the latents"


_ALONE = """
import os, sys
import numpy as np
sys.modules.update(dict.fromkeys(("torch", "transformers", "jax", "flax", "f3tok_jax")))
os.chdir(sys.argv[1])
np.random.randn = lambda *shape: np.load("sound.npy")[None] / 0.1
{program}
np.savez("found.npz", latents=latents, sound=sound, latent=latent)
"""


def test_a_run_is_used_as_the_readme_says_where_there_is_no_torch_and_no_jax(tmp_path):
    exported_forms.check_readme(tmp_path, "onnx", _ALONE)


def test_a_file_that_gives_other_numbers_is_no_export(tmp_path, monkeypatch, capsys):
    tiny_models.write_run(str(tmp_path / "run"))
    monkeypatch.setattr(onnx_folder, "_traced", _traced_of_other_weights(onnx_folder._traced))
    arguments = [f"--workdir={tmp_path}/run", f"--output={tmp_path}/model", "--onnx"]
    assert export.main(arguments) == 1
    said = capsys.readouterr().err
    assert "encode.onnx must give what the module in PyTorch does, got another latents" in said
    assert said.count("\n") == 1 and not (tmp_path / "model").exists()


def _traced_of_other_weights(traced):
    def change(function):
        other = copy.deepcopy(function)
        other.model.encoder.dense_pair.output.bias[0] += 0.01
        return traced(other)

    return change
