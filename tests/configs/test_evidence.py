# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What configs/README.md says that models do is what results files say."""

import dataclasses
import re

import pytest

from configs import evidence
from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results

_TRANSCRIPTS = results.Transcripts(
    shards="/home/somebody/set", num_examples=7, characters=0.25, words=0.5, examples=()
)
_PAGE = "Before.\n\n<!-- evidence: heard -->\n{}<!-- until here -->\n\nAfter.\n"


def test_the_tables_are_those_of_the_results():
    text = evidence.README.read_text(encoding="utf-8")
    assert evidence.replaced(text) == text, "run python -m configs.evidence"


def test_what_is_kept_is_shown_and_is_of_no_machine():
    kept = {path.stem for path in evidence.FOLDER.glob("*.json")}
    assert kept == set(evidence.names(evidence.README.read_text(encoding="utf-8")))
    for path in evidence.FOLDER.glob("*.json"):
        assert not re.search(r'"/\w+/|[A-Z]:\\', path.read_text(encoding="utf-8")), path


def test_a_result_is_kept_without_places_and_its_table_stands_between_the_marks(tmp_path):
    results.write(tmp_path / "transcripts.json", _TRANSCRIPTS)
    evidence.keep("heard", tmp_path / "transcripts.json", tmp_path)
    assert results.read(tmp_path / "heard.json") == dataclasses.replace(_TRANSCRIPTS, shards="")
    made = evidence.replaced(_PAGE.format("old\n"), tmp_path)
    assert "| 0.250 | 0.500 |" in made and "7 held-out sentences" in made and "old" not in made
    assert made.startswith("Before.") and made.endswith("After.\n")
    assert evidence.replaced(made, tmp_path) == made
    assert [*evidence.names(made)] == ["heard"]


def _probe(*tests: str) -> probe_results.Probe:
    tested = probe_results.Tested(num_examples=2, num_unseen=0, majority=0.5)
    label = probe_results.ProbedLabel(tests=dict.fromkeys(tests, tested))
    said = dict(exclude=(), only=(), pooling="mean", num_seeds=1)
    place = "/home/somebody"
    return probe_results.Probe(workdir=place, shards=place, labels={"digit": label}, **said)


def test_no_place_within_a_result_is_kept(tmp_path):
    """Those of a classifier's recordings, and of the sets that probes were tested on."""
    generation = results.Generation(
        num_examples=1,
        classifier=results.ClassifierSource(shards="/home/somebody/set", label="digit"),
        sampler={},
        max_seconds=1.0,
        rows=(),
        texts={},
        sounds=(),
    )
    for name, one in (("made", generation), ("probed", _probe("/home/a/x/test", "/home/a/y/test"))):
        results.write(tmp_path / "found.json", one)
        evidence.keep(name, tmp_path / "found.json", tmp_path)
        assert "/home" not in (tmp_path / f"{name}.json").read_text(encoding="utf-8")
    kept = results.read(tmp_path / "probed.json")
    assert [*kept.labels["digit"].tests] == ["x/test", "y/test"]
    results.write(tmp_path / "found.json", _probe("/home/a/x/test", "/home/b/x/test"))
    with pytest.raises(ValueError, match="must differ in the last two names"):
        evidence.keep("probed", tmp_path / "found.json", tmp_path)


def test_arms_and_what_they_write_down_are_a_table_with_their_spread(tmp_path):
    spread = probe_results.Spread(mean=0.5, std=0.125, values=(0.375, 0.625))
    row = probe_results.ArmAccuracy(name="both:mean", title="both, mean", linear=spread)
    tested = probe_results.Tested(num_examples=20, num_unseen=0, majority=0.5, rows=(row,))
    errors = probe_results.ArmErrors(name="both", title="both", characters=spread, words=spread)
    ablation = probe_results.Ablation(
        num_steps=7,
        seeds=(0, 1),
        arms={"both": (), "other": ("language_model.folder=/home/somebody/text/model", "a.b=1")},
        test_shards={"unknown": "/home/somebody/set"},
        transcripts={"read": probe_results.TranscribedSet(num_examples=3, rows=(errors,))},
        shards="/home/somebody/set",
        labels={"digit": probe_results.ProbedLabel(tests={"unknown": tested})},
        **dict(exclude=(), only=(), pooling="mean", num_seeds=1),
    )
    results.write(tmp_path / "found.json", ablation)
    evidence.keep("compared", tmp_path / "found.json", tmp_path)
    assert "/home" not in (tmp_path / "compared.json").read_text(encoding="utf-8")
    page = evidence.replaced(_PAGE.replace("heard", "compared").format(""), tmp_path)
    assert (
        "7 steps with 2 seeds each" in page and "other: `language_model.folder=text/model`" in page
    )
    assert "| digit | 20 of unknown | both, mean | 0.5 ± 0.12 |" in page
    assert "| 3 sentences of read | character error rate |" in page
    assert "| both | 0.5 ± 0.12 | 0.5 ± 0.12 |" in page


def test_a_comparison_is_a_table_of_each_group_with_a_column_for_each_arm(tmp_path):
    spread = probe_results.Spread(mean=0.5, std=0.125, values=(0.375, 0.625))
    arms = {"f3": (), "neither": ("bottleneck.normalize=False",), "losatok": ()}
    heard = dict(losatok=dict(recipe="semantic.py:tiny", semantic_encoder="its own"))
    comparison = comparison_results.Comparison(
        recipes={"autoencoder": "autoencoder.py:tiny"},
        changes={"autoencoder": ("data.train=/home/somebody/a/train",)},
        num_steps={"autoencoder": 7},
        seeds=(0, 1),
        heldout="a" * 64,
        num_examples=3,
        measures={
            "a/mel": comparison_results.Measure(group="a", title="mel", unit="dB", better="lower"),
            "b/rms": comparison_results.Measure(group="b", title="rms"),
        },
        arms=tuple(
            comparison_results.Arm(
                name=name,
                changes=changes,
                figures={"a/mel": spread} | ({"b/rms": spread} if name == "f3" else {}),
                **heard.get(name, {}),
            )
            for name, changes in arms.items()
        ),
        references={"PCA": {"a/mel": 0.25}},
    )
    results.write(tmp_path / "found.json", comparison)
    evidence.keep("heard", tmp_path / "found.json", tmp_path)
    page = evidence.replaced(_PAGE.format(""), tmp_path)
    assert "- autoencoder, `autoencoder.py:tiny`: 7 steps, `data.train=a/train`" in page
    assert "- f3: the recipe\n- neither: `bottleneck.normalize=False`" in page
    assert "- losatok: `semantic.py:tiny`; it hears through its own" in page
    assert "| a | f3 | neither | losatok | PCA |" in page
    both = "0.5 ± 0.12"
    assert f"| mel, dB (lower is better) | {both} | {both} | {both} | 0.25 |" in page
    assert f"| b | f3 | neither | losatok |\n| --- | --- | --- | --- |\n| rms | {both} |" in page


def test_a_mark_of_nothing_and_a_result_without_a_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match="asks for heard.json"):
        evidence.replaced(_PAGE.format(""), tmp_path)
    cost = results.Cost(topology="v5e:1x1", fits=True, figures={})
    results.write(tmp_path / "cost.json", cost)
    with pytest.raises(
        ValueError, match="must be of evaluate, probe, ablation or compare, got Cost"
    ):
        evidence.keep("cost", tmp_path / "cost.json", tmp_path)
