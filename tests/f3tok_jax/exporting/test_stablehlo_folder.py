# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An exported autoencoder in StableHLO: JAX alone gives the same numbers, of any lengths."""

import functools
import json

from jax import export as jax_export
import numpy as np
import pytest

from f3tok_jax import export
from f3tok_jax.exporting import stablehlo_folder
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
from tests.support import exported_forms
from tests.support import narrow_autoencoders
from tests.support import tiny_models


@pytest.fixture(scope="module", params=narrow_autoencoders.PARAMETERS)
def made(request, tmp_path_factory):
    """An autoencoder, its variables, and the functions of the folder that is made of it."""
    autoencoder, variables = narrow_autoencoders.built(request.param)
    root = tmp_path_factory.mktemp("model")
    weight_files.write(root / "model.safetensors", torch_weights.tensors(variables["params"]))
    stablehlo_folder.write(root, autoencoder, "of the latents")
    return autoencoder, variables, root


def _exported(root, name):
    return jax_export.deserialize(bytearray((root / f"stablehlo/{name}.stablehlo").read_bytes()))


@pytest.mark.parametrize(
    "rows, hops, odd", [pytest.param(1, 0, 1, marks=pytest.mark.slow), (3, 5, 333)]
)
def test_whole_sounds_of_any_length_are_those_of_the_module(made, rows, hops, odd):
    autoencoder, variables, root = made
    encode, decode = (stablehlo_folder.load(root, name) for name in ("encode", "decode"))
    waveform = exported_forms.sound(rows, hops * autoencoder.samples_per_latent + odd)
    apply = tiny_models.compiled(autoencoder)
    expected = apply(variables, waveform, method="waveform_to_latents")
    latents, mask = encode(waveform, np.ones(waveform.shape, bool))
    np.testing.assert_allclose(latents, expected, atol=exported_forms.LATENT_ATOL)
    assert mask.shape == latents.shape[:2] and mask.all()
    sound, mask = decode(latents, mask)
    expected = apply(variables, expected, method="latents_to_waveform")
    exported_forms.check_sound(sound, np.asarray(expected))
    assert mask.shape == sound.shape and mask.all()


def test_every_row_of_a_padded_batch_is_what_it_is_alone(made):
    autoencoder, _, root = made
    hop = autoencoder.samples_per_latent
    encode, decode = (stablehlo_folder.load(root, name) for name in ("encode", "decode"))
    lengths = np.array([hop, 3 * hop + 7])
    waveform = exported_forms.sound(
        len(lengths), lengths.max()
    )  # What is behind a row's end is noise, too.
    latents, valid = encode(waveform, np.arange(lengths.max())[None] < lengths[:, None])
    sounds, audible = decode(latents, valid)
    assert valid.sum(1).tolist() == [-(-n // hop) for n in lengths]
    n = lengths[0]
    alone, mask = encode(waveform[:1, :n], np.ones((1, n), bool))
    np.testing.assert_allclose(latents[0, valid[0]], alone[0], atol=exported_forms.LATENT_ATOL)
    exported_forms.check_sound(sounds[0, audible[0]], np.asarray(decode(alone, mask)[0][0]))


def test_a_model_with_a_level_hears_all_sounds_at_it(tmp_path):
    def run(name, arrays):
        return list(map(np.asarray, stablehlo_folder.load(tmp_path, name)(*arrays)))

    exported_forms.check_level(tmp_path, stablehlo_folder, run)


@pytest.mark.parametrize("rows, chunk", [(3, 1), pytest.param(1, 5, marks=pytest.mark.slow)])
def test_a_stream_is_the_whole(made, rows, chunk):
    autoencoder, variables, root = made
    apply = tiny_models.compiled(autoencoder)

    def whole(waveform):
        latents = apply(variables, waveform, method="waveform_to_latents")
        return latents, np.asarray(apply(variables, latents, method="latents_to_waveform"))

    stream = functools.partial(_stream, root)
    exported_forms.check_stream(autoencoder, rows, chunk, stream=stream, whole=whole)


def _stream(root, name, chunks):
    step = stablehlo_folder.load(root, name)
    described = json.loads((root / "stablehlo/functions.json").read_text())["functions"]
    shapes = described[name]["caches"]
    caches = [np.zeros((len(chunks[0]), *shape), np.float32) for shape in shapes]
    for chunk in chunks:
        found, caches = step(chunk, caches)
        yield found


def test_every_function_is_for_every_platform_and_holds_no_weights(made):
    autoencoder, _, root = made
    described = json.loads((root / "stablehlo/functions.json").read_text())
    assert described["latents_fingerprint"] == "of the latents"
    assert described["samples_per_latent"] == autoencoder.samples_per_latent
    for name in described["functions"]:
        exported = _exported(root, name)
        assert exported.platforms == ("cpu", "cuda", "tpu")
        text = exported.mlir_module()
        assert (
            "fft" not in text
        )  # A product on each of them; the FFT of a CPU is a call to a library.
        # The decoder's transposed convolutions, which a CPU has in another form.
        assert ("lhs_dilat" in text) == name.startswith("decode")


_ALONE = """
import os, sys
sys.modules.update(dict.fromkeys(("flax", "sequence_layers", "f3tok_jax", "torch")))
os.chdir(sys.argv[1])
import jax, numpy as np
jax.random.normal = lambda *_: np.load("sound.npy")[None] / 0.1
{program}
np.savez("found.npz", latents=latents, sound=sound, latent=latent)
"""


def test_a_run_is_used_as_the_readme_says_by_jax_alone(tmp_path):
    exported_forms.check_readme(tmp_path, "stablehlo", _ALONE)


def test_a_file_that_gives_other_numbers_is_no_export(tmp_path, monkeypatch, capsys):
    tiny_models.write_run(str(tmp_path / "run"))
    decode = stablehlo_folder._Model.decode
    calls = []

    def other(*arguments):  # The first call is the export's.
        sound, mask = decode(*arguments)
        calls.append(sound)
        return sound + 0.01 * (len(calls) == 1), mask

    monkeypatch.setattr(stablehlo_folder._Model, "decode", other)
    arguments = [f"--workdir={tmp_path}/run", f"--output={tmp_path}/model", "--stablehlo"]
    assert export.main(arguments) == 1
    said = capsys.readouterr().err
    assert "decode.stablehlo must give what the autoencoder does" in said
    assert said.count("\n") == 1 and not (tmp_path / "model").exists()
