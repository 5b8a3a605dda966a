# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""LoSATok and DashengTokenizer, exported: the same latents and sound in PyTorch, and the way back."""

import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from f3tok_jax import export
from f3tok_jax.exporting import torch_folder
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.models import bottleneck
from f3tok_jax.models import semantic_coder
from f3tok_jax.models import semantic_encoder
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import exported
from f3tok_jax.pretrained import semantic_encoder as pretrained_semantic_encoder
from f3tok_jax.runs import lineage
from f3tok_jax.training import initialization
from tests.support import tiny_models
from tests.support import tiny_runs
from tests.support import tiny_semantic
from tests.support import torch_models

_NORM = bottleneck.F3(normalize=True, perturb=False, gamma=1.0, epsilon=1e-5)
# Streams that are added narrow, of latents twice as often as features; and wide.
_GEOMETRIES = {
    "losatok": dict(fusion="latents", patch_frames=2),
    "dasheng_tokenizer": dict(fusion="features", latent_dim=8, bottleneck=_NORM),
}


@functools.cache
def _built(name: str) -> tuple[semantic_coder.SemanticCoder, dict]:
    """A coder of random weights; its semantic encoder hears 6 patches of 64 samples at a time."""
    encoder = semantic_encoder.SemanticEncoder(
        num_layers=2,
        width=8,
        num_heads=2,
        sample_rate=1600,
        frame_length=64,
        hop_length=16,
        num_mels=8,
        max_patches=6,
    )
    model = tiny_models.semantic_autoencoder(**_GEOMETRIES[name], feature_dim=8, level_db=-20.0)
    coder = semantic_coder.SemanticCoder(encoder=encoder, autoencoder=model)
    params = tiny_models.random_weights(pretrained_autoencoder.abstract_params(coder))
    bands = np.linspace(0.5, 1.5, 8, dtype=np.float32)
    measured = {"mean": -20.0 * bands, "variance": 200.0 * bands}
    params[semantic_coder.ENCODER] |= {semantic_encoder.STATISTICS: measured}
    return coder, {"params": params}


@pytest.mark.parametrize("name", _GEOMETRIES)
def test_latents_and_sound_in_pytorch_are_those_of_jax_whatever_they_are_padded_with(name):
    coder, variables = _built(name)
    torch, model = torch_models.autoencoder_in_torch(coder, variables)
    hop, lengths = coder.samples_per_latent, np.array([1, 64, 300, 1001, 500])
    waveform = np.random.default_rng(0).normal(size=(5, 1001)).astype(np.float32)
    waveform *= np.float32([[0.1], [0.5], [0.001], [0.1], [0.0]])
    mask = np.arange(1001)[None] < lengths[:, None]
    waveform[~mask] = np.nan  # What is behind an end is never looked at.
    gains = coder.gains(waveform, mask)
    apply = functools.partial(jax.jit, static_argnames="method")(coder.apply)
    options = dict(mask=mask, method="waveform_to_latents")
    latents = np.asarray(apply(variables, gains * waveform, **options))
    frames = np.asarray(coder.frame_mask(mask))
    options = dict(mask=frames, method="latents_to_waveform")
    sound = apply(variables, latents, **options) / gains
    assert frames.sum(1).tolist() == [-(-n // hop) for n in lengths]

    given = [torch.from_numpy(array) for array in (waveform, mask)]
    encoded = model.encode(*given)
    np.testing.assert_array_equal(encoded.padding_mask, frames)
    torch_models.check_close(encoded.latents.numpy()[frames], latents[frames])
    assert (encoded.latent_deviations is None) == (name == "dasheng_tokenizer")
    scales = encoded.audio_scales
    np.testing.assert_allclose(scales[:, None], 1 / gains, rtol=1e-5)
    decoded = model.decode(encoded.latents, encoded.padding_mask, audio_scales=scales)
    np.testing.assert_array_equal(decoded.padding_mask, np.repeat(frames, hop, axis=1))
    for row, n in enumerate(lengths):
        torch_models.check_close(decoded.audio[row, 0, :n].numpy(), sound[row, :n])
        alone = model.encode(given[0][row : row + 1, :n])
        torch_models.check_close(alone.latents[0].numpy(), latents[row, frames[row]])
    nothing = model.encode(torch.zeros(1, 0))
    assert nothing.latents.shape[:2] == (1, 0)
    assert model.decode(nothing.latents).audio.shape == (1, 1, 0)
    for stream in (dict(use_cache=True), dict(padding_cache={})):
        for method, heard in ((model.encode, given[0][3:4]), (model.decode, encoded.latents)):
            with pytest.raises(ValueError, match="cannot stream, got use_cache or a padding_cache"):
                method(heard, **stream)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> pathlib.Path:
    """Runs, LoSATok on two others and DashengTokenizer on published weights, and their exports."""
    root = tmp_path_factory.mktemp("runs")
    encoder = tiny_semantic.write_encoder(root / "semantic_encoder")
    tiny_semantic.write_bottleneck(root / "semantic_bottleneck", encoder)
    weights = tiny_semantic.write_weights(root / "weights", tiny_semantic.tensors())
    named = {
        "losatok": tiny_semantic.named("losatok", root),
        "dasheng_tokenizer": (
            f"semantic_encoder.folder={weights}",
            "model.feature_dim=8",
            "model.latent_dim=8",
        ),
    }
    for kind in tiny_semantic.KINDS:
        tiny_runs.write(tiny_semantic.read(kind, *named[kind]), str(root / kind))
        arguments = [f"--workdir={root / kind}", f"--output={root / kind}_exported"]
        assert export.main(arguments) == 0
    return root


@pytest.mark.parametrize("kind", tiny_semantic.KINDS)
def test_an_exported_folder_is_the_run_that_it_was_with_all_that_it_hears_through(folders, kind):
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    places = folders / kind, folders / f"{kind}_exported"
    run, back = lineage.Lineage.read(str(places[0])), exported.read(str(places[1]))
    for name in ("fingerprint", "latents_fingerprint", "sound", "level_db"):
        assert getattr(run, name) == getattr(back, name), name
    origins = [pretrained_semantic_encoder.origin_of_heard(one) for one in (run, back)]
    assert origins[0] == origins[1]
    alone = places[1].rename(folders / "moved")  # it needs nothing beside itself
    try:
        loaded = [pretrained_autoencoder.load(one) for one in (run, exported.read(str(alone)))]
        jax.tree.map(np.testing.assert_array_equal, *(params for _, params, _ in loaded))
        waveform = 0.1 * np.random.default_rng(0).normal(size=3000).astype(np.float32)
        latents = tokenizer_lib.F3Tokenizer.from_pretrained(str(alone)).encode(waveform)
        model = transformers.AutoModel.from_pretrained(alone, trust_remote_code=True)
    finally:
        alone.rename(places[1])
    with torch.no_grad():
        encoded = model.encode(torch.from_numpy(waveform)[None])
    torch_models.check_close(encoded.latents[0].numpy(), latents.values)
    assert latents.fingerprint == run.latents_fingerprint


def test_the_page_says_whose_method_it_is_and_who_trained_its_semantic_encoder(folders):
    cards = {
        kind: (folders / f"{kind}_exported" / "README.md").read_text()
        for kind in tiny_semantic.KINDS
    }
    assert "# LoSATok: audio autoencoder, 16 kHz" in cards["losatok"]
    # Of the bottleneck, too.
    assert cards["losatok"].count("`, trained by this project, 3 steps") == 2
    for stage in ("semantic_encoder", "semantic_bottleneck", "autoencoder"):
        assert f"The {stage}:" in cards["losatok"]
    other = cards["dasheng_tokenizer"]
    assert "Made after DashengTokenizer ([arXiv 2602.23765]" in other
    assert "`, published weights, weights" in other and "trained by this project" not in other
    assert not any(str(folders) in card for card in cards.values())


def test_weights_that_were_trained_on_make_latents_of_their_own_if_they_hear(folders, tmp_path):
    source = folders / "losatok_exported"
    before = exported.read(str(source)).latents_fingerprint
    tensors = safetensors_numpy.load_file(source / "model.safetensors")

    def changed(name):
        folder = shutil.copytree(source, tmp_path / name.replace(".", "_"))
        more = {**tensors, name: tensors[name] + 1.0}
        safetensors_numpy.save_file(more, folder / "model.safetensors", {"format": "pt"})
        return exported.read(str(folder)).latents_fingerprint

    assert changed("decoder.blocks.0.gain") == before
    # What its run did not train decides, too.
    frozen = "semantic_encoder.statistics.mean", "semantic_bottleneck.down.hidden.bias"
    others = [changed(f"encoder.{name}") for name in frozen]
    assert len({before, *others}) == 3


def test_a_run_begins_with_the_weights_of_a_folder(folders):
    source = exported.read(str(folders / "losatok_exported"))
    config = lineage.Lineage.read(str(folders / "losatok")).config
    assert initialization.check(source, config, {}) == source.fingerprint
    abstract = pretrained_autoencoder.abstract_trained(pretrained_autoencoder.of_run(source))
    found, _ = source.restore({"generator": abstract})
    run, _ = lineage.Lineage.read(str(folders / "losatok")).restore({"generator": abstract})
    jax.tree.map(np.testing.assert_array_equal, found, run)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"fusion": "both"}, r"fusion must be one of"),
        ({"decoder_blocks": 300}, "must say the semantic_autoencoder.decoder_blocks of the model"),
        ({"semantic_encoder": {}}, "semantic_autoencoder.semantic_encoder.num_layers"),
        ({"feature_dim": 32}, "feature_dim must be 16, the width of the semantic encoder"),
        ({"decoder_width": 13}, "must have the shape"),
    ],
)
def test_a_folder_that_is_described_as_another_is_refused_in_a_sentence(
    folders, tmp_path, change, words
):
    folder = shutil.copytree(folders / "losatok_exported", tmp_path / "model")
    written = json.loads((folder / "config.json").read_text())
    written["semantic_autoencoder"] |= change
    (folder / "config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=words) as refused:
        exported.read(str(folder))
    assert "\n" not in str(refused.value)


def test_what_there_is_no_export_of_is_said_in_a_sentence(folders, tmp_path, capsys):
    for stage in ("semantic_encoder", "semantic_bottleneck"):
        arguments = [f"--workdir={folders / stage}", f"--output={tmp_path / 'model'}"]
        assert export.main(arguments) == 1
        said = capsys.readouterr().err
        assert "is exported within the autoencoder that is trained on it" in said
        assert said.count("\n") == 1
    run = lineage.Lineage.read(str(folders / "losatok"))
    with pytest.raises(
        ValueError, match="must be of an autoencoder that streams, got .* leave them"
    ):
        torch_folder.write(run, tmp_path / "model", also=[print])
    assert not (tmp_path / "model").exists()
