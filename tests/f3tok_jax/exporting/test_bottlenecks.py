# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Autoencoders of every kind of bottleneck, exported: the same latents, the same noise, the way back."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from f3tok_jax.exporting import stablehlo_folder
from f3tok_jax.exporting import torch_folder
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import exported
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import lineage
from f3tok_jax.training import initialization
from tests.support import tiny_models
from tests.support import torch_models

_KINDS = ("kl_vae", "sigma_vae", "soft_norm")


def _built(kind):
    """An autoencoder of a kind with random weights."""
    config = tiny_models.config(strides=((4, 4),))
    config.bottleneck.kind = kind
    config.bottleneck.kl_vae.logvar_clip = 0.5
    autoencoder = pretrained_autoencoder.make(config)
    abstract = pretrained_autoencoder.abstract_params(autoencoder)
    return autoencoder, {"params": tiny_models.random_weights(abstract)}


def _sound(*shape):
    return 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", _KINDS)
def test_latents_and_sound_in_pytorch_are_those_of_jax(kind):
    autoencoder, variables = _built(kind)
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    waveform = _sound(2, 5 * autoencoder.samples_per_latent + 33)
    apply = tiny_models.compiled(autoencoder)
    latents = apply(variables, waveform, method="waveform_to_latents")
    assert latents.shape == (2, 6, 8)
    encoded = model.encode(torch.from_numpy(waveform))
    torch_models.check_close(encoded.latents, latents)
    sound = apply(variables, latents, method="latents_to_waveform")
    torch_models.check_close(model.decode(encoded.latents).audio[:, 0].numpy(), sound)
    if kind != "kl_vae":
        assert encoded.latent_deviations is None
        return
    said = apply(variables, waveform, method="_encoded")[..., 8:]
    assert (np.abs(said) > 0.5).any() and (np.abs(said) < 0.5).any()
    torch_models.check_close(encoded.latent_deviations, np.exp(0.5 * np.clip(said, -0.5, 0.5)))


@pytest.mark.parametrize("kind", _KINDS)
def test_a_decoder_that_is_trained_on_in_pytorch_hears_the_noise_of_its_kind(kind):
    autoencoder, variables = _built(kind)
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    from f3tok_jax.exporting.torch_model import bottleneck_f3_tokenizer as in_torch

    rng = np.random.default_rng(0)
    latents = rng.normal(1.0, [0.5, 1, 1, 1, 2, 2, 2, 0], (3000, 40, 8)).astype(np.float32)
    mask = np.arange(40)[None] < rng.integers(20, 41, (3000, 1))
    deviations = rng.uniform(0.1, 3.0, latents.shape).astype(np.float32)
    encoded = np.concatenate([latents, 2 * np.log(deviations)], axis=-1)
    torch.manual_seed(0)
    given = [torch.from_numpy(array) for array in (latents, mask)]
    allowed = torch.from_numpy(np.clip(deviations, np.exp(-0.25), np.exp(0.25)))
    found = in_torch.noisy(*given, allowed, model.config).numpy() - latents
    heard = autoencoder.bottleneck.noisy(latents, jax.random.key(0), encoded=encoded, mask=mask)
    expected = np.asarray(heard) - latents
    # Of 90,000 draws a channel; where a scale is an example's, of 3,000, known to 1.3 %.
    rms = [np.sqrt(np.mean(np.square(one[mask]), axis=0)) for one in (found, expected)]
    np.testing.assert_allclose(*rms, rtol=0.07 if kind == "sigma_vae" else 0.03, atol=1e-6)
    each = [one.std(axis=(1, 2)) for one in (found, expected)]
    spread = [one.std() / one.mean() for one in each]
    assert spread[0] == pytest.approx(spread[1], abs=0.1)
    assert (spread[0] > 0.5) == (kind == "sigma_vae")  # one scale per example
    if kind == "soft_norm":
        assert rms[0][7] < 1e-5 and rms[0][4] == pytest.approx(0.02, rel=0.05)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Kind -> a run and what it was exported to."""
    root = tmp_path_factory.mktemp("runs")
    for kind in ("f3", *_KINDS):
        tiny_models.write_run(root / kind, bottleneck=kind, strides=((4, 4),))
        torch_folder.write(lineage.Lineage.read(str(root / kind)), root / f"{kind}_exported")
    return root


@pytest.mark.parametrize("kind", _KINDS)
def test_an_exported_folder_is_the_run_that_it_was(folders, kind):
    run = lineage.Lineage.read(str(folders / kind))
    back = exported.read(str(folders / f"{kind}_exported"))
    for name in ("fingerprint", "latents_fingerprint", "encoder_fingerprint", "sound"):
        assert getattr(run, name) == getattr(back, name), name
    assert not run.normalizes_latents and not back.normalizes_latents
    modules = [pretrained_autoencoder.of_run(one).bottleneck for one in (run, back)]
    assert type(modules[0]) is type(modules[1]) is bottleneck_kinds.KINDS[kind]
    assert not any(modules[1].loss_weights.values())  # nothing is asked of latents in use
    models = [str(folders / name) for name in (kind, f"{kind}_exported")]
    latents = [
        tokenizer_lib.F3Tokenizer.from_pretrained(one).encode(_sound(3000)).values for one in models
    ]
    np.testing.assert_array_equal(*latents)
    card = (folders / f"{kind}_exported" / "README.md").read_text()
    assert "| latents of mean 0 and rms 1 | no |" in card and "| bottleneck |" in card


def test_f3_says_nothing_more_than_before(folders):
    written = json.loads((folders / "f3_exported" / "config.json").read_text())
    assert "bottleneck" not in written and written["normalize"] is True
    assert "| bottleneck |" not in (folders / "f3_exported" / "README.md").read_text()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"bottleneck": {"kind": "vq"}}, "must say the bottleneck of the model"),
        ({"bottleneck": "kl_vae"}, "must say the bottleneck of the model"),
        ({"bottleneck": {"kind": "soft_norm"}}, "must say the bottleneck.noise_ratio"),
        ({"bottleneck": {"kind": "soft_norm", "noise_ratio": -1.0}}, "bottleneck.noise_ratio"),
        ({"normalize": True}, "must say the normalize of the model"),
        (
            {"bottleneck": {"kind": "sigma_vae", "noise_std": 1.0}},
            "it has tensors beyond it, encoder.aff",
        ),
    ],
)
def test_a_folder_that_says_another_bottleneck_is_refused_in_a_sentence(
    folders, tmp_path, change, words
):
    folder = shutil.copytree(folders / "soft_norm_exported", tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words) as refused:
        exported.read(str(folder))
    assert "\n" not in str(refused.value)


def test_another_bottleneck_makes_other_latents_of_the_same_weights(folders, tmp_path):
    folder = shutil.copytree(folders / "sigma_vae_exported", tmp_path / "model")
    path = folder / "config.json"
    written = json.loads(path.read_text())
    before = exported.read(str(folder)).latents_fingerprint
    del written["bottleneck"]  # without norm or noise: the same latents, and another claim
    path.write_text(json.dumps(written))
    assert exported.read(str(folder)).latents_fingerprint != before


def test_a_run_begins_with_the_weights_of_its_own_kind_alone(folders):
    config = tiny_models.config(strides=((4, 4),))
    config.bottleneck.kind = "sigma_vae"
    config.bottleneck.sigma_vae.noise_std = 0.3  # of training: whoever begins may change it
    config.model.upsampling = "auto"
    source = exported.read(str(folders / "sigma_vae_exported"))
    assert initialization.check(source, config, {}) == source.fingerprint
    other = exported.read(str(folders / "f3_exported"))
    with pytest.raises(ValueError, match="config.bottleneck.kind must be 'f3', as there, got 'sig"):
        initialization.check(other, config, {})
    # Of a version that knew one kind alone.
    before = other.config.copy_and_resolve_references()
    with before.unlocked():
        del before.bottleneck["kind"]
    with pytest.raises(ValueError, match="config.bottleneck.kind must be 'f3', as there, got 'sig"):
        initialization.check(dataclasses.replace(other, config=before), config, {})


@pytest.mark.slow  # minutes of tracing: python -m pytest --slow tests/f3tok_jax/exporting/test_bottlenecks.py
@pytest.mark.parametrize("kind", _KINDS)
def test_stablehlo_and_onnx_give_the_same_latents(kind, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX is run by onnxruntime")
    pytest.importorskip("onnxscript", reason="ONNX is made by the packages of the onnx extra")
    from f3tok_jax.exporting import onnx_folder
    from f3tok_jax.exporting import parts

    autoencoder, variables = _built(kind)
    weight_files.write(tmp_path / "model.safetensors", torch_weights.tensors(variables["params"]))
    config = parts.describe(autoencoder) | {"parts": ["encoder", "decoder"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    stablehlo_folder.write(tmp_path, autoencoder, "of the latents")
    onnx_folder.write(tmp_path, autoencoder, "of the latents")
    waveform = _sound(2, 3 * autoencoder.samples_per_latent + 5)
    mask = np.ones(waveform.shape, bool)
    apply = tiny_models.compiled(autoencoder)
    expected = apply(variables, waveform, method="waveform_to_latents")
    torch_models.check_close(stablehlo_folder.load(tmp_path, "encode")(waveform, mask)[0], expected)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "encode.onnx")
    torch_models.check_close(
        session.run(None, {"waveform": waveform, "waveform_mask": mask})[0], expected
    )
