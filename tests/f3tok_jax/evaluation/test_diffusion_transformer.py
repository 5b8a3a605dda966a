# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A diffusion transformer in use: sounds as long as was asked for, and the table of generators."""

import numpy as np
import pytest

from f3tok_jax import evaluate
from f3tok_jax import export
from f3tok_jax.evaluation import diffusion_transformer as evaluation
from f3tok_jax.inference import diffusion_transformer
from f3tok_jax.inference import generate
from f3tok_jax.inference import tokenizer
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.runs import results
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> dict[str, str]:
    """Runs of random weights on one autoencoder, and held-out sound."""
    root = tmp_path_factory.mktemp("chain")
    folders = tiny_runs.write_chain(root)
    run = tiny_runs.write_diffusion_transformer(folders, str(root / "diffusion_transformer"))
    shards = sounds.labelled_set(root / "sound", num_files=6)
    return folders | {"diffusion_transformer": run, "shards": str(shards)}


@pytest.fixture(scope="module")
def generator(chain) -> diffusion_transformer.TextToWholeSound:
    run = lineage.Lineage.read(chain["diffusion_transformer"])
    return diffusion_transformer.TextToWholeSound.load(run)


def _requests(*texts: str) -> list[generate.Request]:
    return [generate.Request(text=text, task="transcription") for text in texts]


def test_sounds_are_as_long_as_asked_and_decided_by_text_and_seed(generator):
    found = generator.generate(_requests("one", "two", "two"), [5, 9, 9], batch_size=2, seed=3)
    assert [row.shape for row in found] == [(5, 8), (9, 8), (9, 8)]
    again = generator.generate(_requests("one", "two"), [5, 9], batch_size=2, seed=3)
    for one, other in zip(found, again):
        np.testing.assert_array_equal(one, other)
    assert np.abs(found[1] - found[2]).max() > 0.01  # other noise
    said = generator.generate(_requests("one", "six"), [5, 9], batch_size=2, seed=3)[1]
    assert np.abs(found[1] - said).max() > 1e-4
    # Without guidance the text of the other branch is left out.
    free = dict(batch_size=2, seed=3, sampler=dict(guidance=0.0))
    silent = [
        generator.generate(_requests("one", text), [5, 9], **free)[1] for text in ("two", "six")
    ]
    np.testing.assert_array_equal(*silent)


@pytest.mark.parametrize(
    "requests, lengths, words",
    [
        (_requests("one"), [0], "needs a length of at least 1 latent, got .0."),
        (_requests("one"), [3, 4], "each of 1 texts, at least one, needs a length"),
        (_requests("\u00e9" * 99), [3], "tokens"),
        (
            [generate.Request(text="one", task="transcription", prompt=np.zeros((2, 8)))],
            [3],
            "continues nothing: give texts without prompts",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(generator, requests, lengths, words):
    with pytest.raises(ValueError, match=words):
        generator.generate(requests, lengths)


def test_it_is_measured_by_the_table_of_generators(chain, tmp_path, capsys):
    arguments = [
        f"--workdir={chain['diffusion_transformer']}",
        f"--shards={chain['shards']}",
        f"--output={tmp_path / 'results.json'}",
        "--judges=none",
    ]
    more = ["--num_examples=2", "--text_sensitivity", "--listen=1"]
    assert evaluate.main([*arguments, *more, f"--representation={chain['representation']}"]) == 0
    assert "2 examples, each as long as the recording of its text" in capsys.readouterr().out
    found = results.read(tmp_path / "results.json")
    assert isinstance(found, results.Generation) and found.gives_lengths
    assert [row.name for row in found.rows] == ["recording", "reconstruction", "generated_0"]
    made = found.rows[-1]
    assert made.frechet_distance > 0 and made.text_sensitivity > 0 and made.latents
    assert made.never_stopped is made.seconds is made.duration_error is None
    assert found.rows[0].frechet_distance == pytest.approx(0.0, abs=1e-3)
    assert {*found.sounds[0].files} == {"original", "reconstruction", "generated_0"}
    assert evaluate.main([*arguments, "--zero_shot"]) == 1
    said = capsys.readouterr().err
    assert "--zero_shot cannot be given" in said and "the diffusion_transformer stage" in said


def test_representations_of_other_latents_are_refused(chain, tmp_path):
    tiny_models.write_run(tmp_path / "autoencoder", seed=1)
    config = config_lib.load(chain["representation"])
    config.autoencoder.workdir = str(tmp_path / "autoencoder")
    tiny_runs.write(config, str(tmp_path / "representation"))
    with pytest.raises(
        ValueError, match="must name a run on the latents .* on the same autoencoder"
    ):
        evaluation.evaluate(
            chain["diffusion_transformer"],
            chain["shards"],
            tmp_path / "results.json",
            representation=str(tmp_path / "representation"),
        )


def test_it_is_no_tokenizer_and_has_no_export(chain, tmp_path, capsys):
    with pytest.raises(ValueError, match="must be a run of .* got stage 'diffusion_transformer'"):
        tokenizer.F3Tokenizer.from_pretrained(chain["diffusion_transformer"])
    workdir = chain["diffusion_transformer"]
    assert export.main([f"--workdir={workdir}", f"--output={tmp_path / 'exported'}"]) == 1
    said = capsys.readouterr().err
    assert "of which there are exports, got stage 'diffusion_transformer'" in said
    assert said.count("\n") == 1 and not (tmp_path / "exported").exists()
    assert export.main([f"--workdir={workdir}", f"--output={tmp_path / 'copied'}", "--bundle"]) == 0
    assert (tmp_path / "copied" / "diffusion_transformer" / "config.json").is_file()
