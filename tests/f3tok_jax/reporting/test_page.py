# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page about representation runs: curves, probes, ablations and transcripts."""

import json

import pytest

from f3tok_jax import report
from f3tok_jax.runs import ledger
from tests.support import html_page
from tests.support import reported_runs


def _write_page(tmp_path, runs, *more) -> html_page.Page:
    output = tmp_path / "report.html"
    assert report.main(["--runs", *runs, *more, f"--output={output}"]) == 0
    return html_page.Page(output.read_text())


def test_representation_runs_show_their_curves_and_probes(tmp_path):
    runs = [
        reported_runs.write_representation(tmp_path / name, a)
        for name, a in (("a", 0.861), ("b", 0.9))
    ]
    page = _write_page(tmp_path, runs)
    said = "".join(page.said)
    assert [dict(a)["id"] for tag, a in page.tags if tag == "section"] == [
        *("runs", "map", "curves", "probes", "words", "config")
    ]
    assert "Representation encoder: a, b" in said and "Audio autoencoder" not in said
    labels = [a["alt"].split("; ")[0] for tag, a in page.tags if a.get("class") == "chart"]
    # First what is optimized, and one chart for all codebooks.
    assert labels[:5] == [
        *("rq loss: k1", "rq loss: k2", "rq accuracy: k1", "answer loss", "answer accuracy")
    ]
    assert labels.count("code perplexity") == 1 and "a line per codebook" in said
    # References once, representations of each run, with what they gain.
    assert said.count("raw latents0.772± 0.013neighbours 0.762") == 1
    assert "representationsa0.861± 0.013neighbours 0.851+0.089 to raw latents" in said
    assert "representationsb0.900± 0.013neighbours 0.890+0.128 to raw latents" in said
    assert "always the commonest0.111" in said and "digittest: 1,234, 7 of unseen classes" in said
    assert "5 seeds of the linear probe" in said and "by mean_std" in said
    assert "Kept out of what probes learn: speaker=<ada>." in said
    best = [i for i, (tag, a) in enumerate(page.tags) if tag == "td" and a.get("class") == "best"]
    assert len(best) == 2
    assert "No results" not in said and "/data/set" not in said


def test_probes_of_several_poolings_stand_beside_chance_and_shuffled_labels(tmp_path):
    def row(accuracy):
        linear = {"mean": accuracy, "std": 0.1, "values": [[accuracy - 0.1], [accuracy + 0.1]]}
        shuffled = {"mean": 0.105, "std": 0.02, "values": [0.1]}
        return {"linear": linear, "neighbours": None, "shuffled": shuffled}

    found = reported_runs.probes(0.9, leave_out="speaker", pooling="mean,thirds")
    found["recipe"] = {"name": "logistic"}
    test = {"num_examples": 500, "num_unseen": 0, "majority": 0.111, "chance": 0.1}
    test["features"] = {
        f"{name}:{how}": row(accuracy + shift)
        for name, accuracy in (("mfcc", 0.5), ("latents", 0.6), ("representations", 0.7))
        for how, shift in (("mean", 0.0), ("thirds", 0.05))
    }
    test["groups"] = {"ada": test | {"num_examples": 250}}
    label = {"classes": list("0123456789"), "alike": "speaker", "tests": {"test": test}}
    found["labels"] = {"digit": label}
    run = reported_runs.write_representation(tmp_path / "a", 0.9, probe=found)
    said = "".join(_write_page(tmp_path, [run]).said)
    assert "digittest: 500; 10 classes, chance 0.100" in said
    assert "labels shuffled0.105± 0.020" in said and "MFCC statistics, thirds0.550± 0.100" in said
    # Raw latents of the same pooling are what is gained over.
    assert "representations, thirds0.750± 0.100+0.100 to raw latents" in said
    assert "raw latents, thirds0.650± 0.100representations" in said
    assert "Mean and spread over each speaker left out of what is learnt." in said
    assert "logistic regression taken to its end" in said and "(speaker)" in said
    assert "pooled over time by mean, thirds." in said


def test_what_a_run_has_cost_stands_beside_its_steps(tmp_path):
    runs = [reported_runs.write_representation(tmp_path / name, 0.8) for name in ("a", "b")]
    mark = ledger.Mark(20, {"step": 800.0})
    for start, first, saved in ((1e9, 0, (mark,)), (1e9 + 3600.0, 20, ())):
        book = ledger.Book(runs[0])
        seconds = {"start": 600.0, "step": 1200.0}
        options = dict(last=first + 30, saved=saved, chips=4, price=1.5)
        book.write(ledger.Session(start=start, seconds=seconds, first=first, **options))
        book.close()
    said = "".join(_write_page(tmp_path, runs).said)
    # 5400 s with half an hour between the two; 2000 of 3600 s are steps that stay.
    assert "90.0 min" in said and "55.6%2 starts" in said and "6.7 min4.00$6.00" in said
    with open(tmp_path / "a" / ledger.NAME, "a") as file:
        file.write('{"start": "<b>"}\n')
    said = "".join(_write_page(tmp_path, runs).said)
    assert f"1 lines of {ledger.NAME} are damaged" in said and "90.0 min" in said


def test_probes_on_other_data_have_a_table_of_their_own(tmp_path):
    runs = [
        reported_runs.write_representation(tmp_path / "a", 0.8),
        reported_runs.write_representation(
            tmp_path / "b", 0.9, probe=reported_runs.probes(0.9, exclude=[])
        ),
    ]
    said = "".join(_write_page(tmp_path, runs).said)
    assert said.count("raw latents0.772") == 2


@pytest.mark.parametrize("is_named", [False, True])
def test_an_ablation_is_one_table_with_its_arms(tmp_path, is_named):
    run = reported_runs.write_representation(tmp_path / "a", 0.8)
    path = tmp_path / ("elsewhere" if is_named else "a") / "ablation.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(reported_runs.ablation()))
    said = "".join(_write_page(tmp_path, [run], "--tables", str(path)).said)
    assert said.count("Ablation: ") == 1
    assert "full0.874± 0.020neighbours 0.774+0.104 to raw latents0.250± 0.0100.500" in said
    assert "wrong characterstest: 20" in said
    assert "without RQ-MTPrq.weight=0.0" in said and "fullboth losses" in said
    assert "2 seeds of the training and 5 seeds of the linear probe" in said
    assert "trained for 4,000 steps" in said and "Tested alone: speaker=ada." in said


def test_the_folder_of_an_ablation_stands_for_a_run(tmp_path):
    run = reported_runs.write_representation(tmp_path / "runs" / "full_0", 0.8)
    (tmp_path / "runs" / "ablation.json").write_text(json.dumps(reported_runs.ablation()))
    said = "".join(_write_page(tmp_path, [run, str(tmp_path / "runs")]).said)
    assert "Ablation: runs ablation.json" in said and "No metrics.jsonl" not in said


def test_a_run_without_probes_says_how_to_get_them(tmp_path):
    run = reported_runs.write_representation(tmp_path / "a", 0.8)
    (tmp_path / "a" / "probe.json").unlink()
    said = "".join(_write_page(tmp_path, [run]).said)
    assert "No probe*.json: run python -m f3tok_jax.probe with --output inside" in said


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, 'has no results: its "format" must be one of f3tok evaluation 1'),
        (
            reported_runs.probes(float("nan")),
            "is damaged: labels.digit.tests./data/set/test.features.representations.linear.mean "
            "must be a finite number, got nan",
        ),
        (
            reported_runs.probes(0.5, labels={"digit": 3}),
            "is damaged: labels.digit must be an object, got 3",
        ),
        (
            reported_runs.probes(0.5, format="f3tok probe 2"),
            "is 'f3tok probe 2', this version reads",
        ),
    ],
)
def test_a_damaged_table_is_said(tmp_path, capsys, content, message):
    run = reported_runs.write_representation(tmp_path / "a", 0.8, probe_damaged=content)
    said = "".join(_write_page(tmp_path, [run]).said)
    assert f"probe_damaged.json {message}" in said
    assert "representations0.800" in said
    table = tmp_path / "other.json"
    table.write_text(json.dumps(content))
    assert report.main(["--runs", run, "--tables", str(table), f"--output={tmp_path}/b.html"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_transcripts_are_shown_with_their_rates(tmp_path):
    examples = [{"key": "a", "reference": "one <two>", "hypothesis": "one too"}]
    content = {
        "format": "f3tok transcripts 1",
        "num_examples": 30,
        "characters": 0.125,
        "words": 0.5,
        "examples": examples,
    }
    run = reported_runs.write_representation(
        tmp_path / "a", 0.8, transcripts=content, transcripts_bad={}
    )
    said = "".join(_write_page(tmp_path, [run]).said)
    assert "Of 30 sentences, 12.5 % of the characters and 50.0 % of the words were wrong." in said
    assert "one <two>one too" in said
    assert 'transcripts_bad.json has no results: its "format" must be' in said


def test_what_was_heard_is_a_mean_over_the_whole_log(tmp_path):
    runs = [
        reported_runs.write_representation(tmp_path / name, 0.8) for name in ("counted", "before")
    ]
    shares = {
        "data/sound_cut": (0.0, 0.25),
        "data/text_none": (0.5, 0.5),
        "data/answers_kept": (1.0, 0.98),
        "data/padding/frames": (0.2, 0.3),
        "train/lost/positions": (0.0, 0.002),
        "train/filled": (0.5, 0.75),
        "data/replaced": (0.0, 3.0),  # no share
    }
    with open(tmp_path / "counted" / "metrics.jsonl", "a") as file:
        for index, step in enumerate((20, 40)):
            values = {name: pair[index] for name, pair in shares.items()}
            file.write(json.dumps({"step": step, **values}) + "\n")
    said = "".join(_write_page(tmp_path, runs).said)
    start = said.index("What was heard", said.index("How much of its data") - 20)
    table = said[start : said.index("What the words mean", start)]
    rows = [
        "countedbefore",
        "of the sound, cut off behind the crop12.5 %",
        "of the records, without a text50.0 %",
        "of the tokens of answers, taught99.0 %",
        "of the room of rows, empty (frames)25.0 %",
        "of what rows were given, dropped on the device (positions)0.1 %",
        "of the batches, sound or text; the rest is padding62.5 %",
    ]
    places = [table.index(row) for row in rows]
    assert places == sorted(places) and table.count(" %") == len(rows) - 1


def test_a_run_from_before_has_no_table_of_what_was_heard(tmp_path):
    run = reported_runs.write_representation(tmp_path / "a", 0.8)
    assert "What was heard" not in "".join(_write_page(tmp_path, [run]).said)
