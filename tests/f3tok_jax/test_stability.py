# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The stability of labels: what must hold of any autoencoder, the table, and what is refused."""

import json
import pathlib

import numpy as np
import pytest

from data_pipelines.reading import sources
from f3tok_jax import stability
from f3tok_jax.inference import codec
from f3tok_jax.probing import arms as arms_lib
from f3tok_jax.probing import disturbances
from f3tok_jax.probing import hearing
from f3tok_jax.probing import stability as stability_lib
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib
from tests.support import sounds
from tests.support import tiny_models

_RECIPE = str(pathlib.Path(__file__).parents[2] / "configs" / "representation.py") + ":tiny"
_SMALL = tiny_models.overrides(
    model=tiny_models.SHAPE,
    rq=dict(codebook_size=8, num_codebooks=2, directions=3, mel_bands=20),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("stability")
    for seed in (0, 1):
        tiny_models.write_run(root / f"autoencoder_{seed}", seed=seed)
    shards = sounds.labelled_set(root / "sound", num_files=30)  # enough to whiten
    return {"shards": str(shards), "autoencoder": str(root / "autoencoder_")}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """In place of the autoencoder, which takes long to compile: frames of magnitudes."""

    def encode(self, waveforms, **options):
        padded = [np.pad(w, (0, -len(w) % 640)).reshape(-1, 640) for w in waveforms]
        return [np.abs(np.fft.rfft(w))[:, 4:12].astype(np.float32) for w in padded]

    monkeypatch.setattr(codec.Codec, "encode", encode)


def _arguments(folders, tmp_path, *more: str) -> list[str]:
    return [
        *(f"--config={_RECIPE}", *_SMALL, "--workdir", folders["autoencoder"] + "0"),
        *(f"--shards={folders['shards']}", f"--test_shards={folders['shards']}"),
        *("--seeds=0,1", "--batch_size=3", f"--output={tmp_path / 'stability.json'}", *more),
    ]


def _measure(folders, tmp_path, **kinds):
    options = stability_lib.Options(
        arms=arms_lib.named(["targets"]), seeds=(0, 1), batch_size=3, disturbances=kinds
    )
    workdirs = [folders["autoencoder"] + seed for seed in "01"]
    shards = folders["shards"]
    return stability_lib.measure(
        *(workdirs, _RECIPE, _SMALL, shards, shards, tmp_path / "stability.json"),
        options=options,
        say=lambda line: None,
    )


@pytest.mark.slow
def test_labels_follow_the_sound_and_nothing_else(folders, tmp_path):
    def noise(decibels):
        return lambda *heard: disturbances.noise(*heard, decibels=decibels)

    results = _measure(
        folders,
        tmp_path,
        nothing=disturbances.nothing,
        unmoved=lambda *heard: disturbances.shift(*heard, seconds=0.0),
        unchanged=lambda *heard: disturbances.gain(*heard, decibels=0.0),
        faint=noise(-90.0),
        loud=noise(-10.0),
    )
    assert [row.name for row in results.rows] == [arm.name for arm in arms_lib.named(["targets"])]
    for row in results.rows:
        for name in ("nothing", "unmoved", "unchanged"):
            assert row.kept[name].mean == 1.0 and row.kept[name].std == 0.0
        assert 0.0 <= row.kept["loud"].mean < row.kept["faint"].mean <= 1.0
        assert np.shape(row.kept["faint"].values) == (2, 2)  # autoencoders, codebooks
        assert 1 / 8 <= row.by_chance.mean < 1.0 and 1 / 8 < row.in_use.mean <= 1.0
        drawn = np.array(row.by_chance.values)
        assert (drawn[:, 0] != drawn[:, 1]).any()  # other codebooks
    assert results.autoencoders[0] != results.autoencoders[1]


def test_every_disturbance_leaves_as_many_samples_of_the_same_recording():
    rate, wave = 16_000, np.random.default_rng(0).standard_normal(800).astype(np.float32)
    clean = disturbances.nothing(wave, rate, 0)
    np.testing.assert_array_equal(clean, wave[32:])
    heard = {name: one(wave, rate, 0) for name, one in disturbances.ALL.items()}
    for sound in heard.values():
        assert sound.shape == clean.shape and sound.dtype == np.float32
    np.testing.assert_array_equal(heard["0.5 ms"], wave[24:-8])
    np.testing.assert_array_equal(heard["2 ms"], wave[:-32])
    np.testing.assert_allclose(heard["-6 dB"] / clean, 0.5, atol=2e-3)
    added = heard["noise -50"] - clean
    assert 20 * np.log10(np.sqrt(np.mean(added**2))) == pytest.approx(-50.0, abs=0.3)
    others = disturbances.ALL["noise -50"](wave, rate, 1) - clean
    assert abs(np.corrcoef(added, others)[0, 1]) < 0.2


def test_the_program_writes_a_table(folders, tmp_path, capsys):
    more = ("--arms=whitened,log_mel_whitened", "--arm=few: rq.normalization=leading")
    arguments = _arguments(folders, tmp_path, *more, "--num_sounds=0")
    arguments += ["--config.supervision.weight=0.0"]
    assert stability.main(arguments) == 0
    path = tmp_path / "stability.json"
    written = json.loads(path.read_text())
    assert written["format"] == probe_results.Stability.FORMAT
    results = results_lib.read(path)
    assert [row.name for row in results.rows] == ["whitened", "log_mel_whitened", "few"]
    assert results.codebook_size == 8 and results.seeds == (0, 1)
    said = capsys.readouterr().out
    table = said[said.index("% of labels kept") :].splitlines()
    assert table[1].split()[0] == "whitened" and "1 autoencoders and 2 draws" in table[4]
    for name in disturbances.ALL:
        assert name in table[0]


def test_recipes_of_other_stages_and_other_sets_are_refused(folders, tmp_path, capsys, monkeypatch):
    arguments = [one for one in _arguments(folders, tmp_path) if not one.startswith("--config")]
    recipe = _RECIPE.replace("representation.py", "autoencoder.py")
    assert stability.main([*arguments, f"--config={recipe}"]) == 1
    assert "must be a recipe of the representation stage, got" in capsys.readouterr().err
    read = dict(sample_rate=16_000, num_sounds=0)
    with pytest.raises(ValueError, match="has no sound of at least 1000000000 samples"):
        hearing.read_sounds(folders["shards"], shortest=10**9, **read)
    latents = sources.LatentSet.__new__(sources.LatentSet)
    monkeypatch.setattr(sources, "open_source", lambda folder, sample_rate: latents)
    with pytest.raises(ValueError, match="must hold sound, got latents"):
        hearing.read_sounds("latents", shortest=1, **read)


@pytest.mark.parametrize(
    "change, message",
    [
        ("--seeds=1,1", "--seeds must be different numbers, got [1, 1]"),
        ("--arms=whitend", "--arms must be of full, "),
        ("--arms=without RQ-MTP", "one of them above 0"),
        ("--config.rq.directions=99", "config.rq.directions must be at most 8"),
        ("--config.rq.normalisation=leading", "did you mean --config.rq.normalization?"),
        ("--num_sounds=-1", "--num_sounds 0, got 6 arms, 3 and -1"),
        ("--test_shards=/nowhere", "/nowhere is not a finished shard set"),
        ("--workdir=/nowhere", "/nowhere must be the work folder of a run"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, message, folders, tmp_path, capsys):
    arguments = _arguments(folders, tmp_path, change)
    assert stability.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("f3tok_jax.stability: ") and error.count("\n") == 1
    assert message in error
