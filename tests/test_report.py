# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page about runs, from folders written here: what it says, and that it loads nothing."""

import html.parser
import json
import pathlib
import re

import numpy as np
import pytest
import soundfile

from f3tok_jax import metrics
from f3tok_jax import report
from f3tok_jax import run_history

_ROWS = ("model", "model_alpha_0.5", "model_alpha_1", "pca", "mel_griffin_lim")
_VOID = {"meta", "img"}
_CURVES = ("rq_loss/k1", "rq_loss/k2", "rq_accuracy/k1", "answer_loss", "answer_accuracy")


class _Page(html.parser.HTMLParser):
    """Collects tags, addresses and text, and fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.addresses, self.said, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "data", "action")
        ]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def _results(folder: pathlib.Path, level: float, *, fingerprint: str = "f") -> dict:
    def cell(value, undefined=None):
        return {
            "mean": value,
            "standard_error": 0.01,
            "count": 4 if not undefined else 3,
            "undefined": undefined or {},
        }

    rows = []
    for index, name in enumerate(_ROWS):
        shift = level if name.startswith("model") else 0.0
        rows.append(
            {
                "name": name,
                "title": name.replace("_", " "),
                "description": f"What {name} is.",
                "metrics": {
                    "mel_distance": cell(1.0 + index + shift),
                    "stoi": cell(
                        0.9 - 0.1 * index - shift, {"too short": 1} if index == 0 else None
                    ),
                },
            }
        )
    columns = {name: metrics.METRICS[name] for name in ("mel_distance", "stoi", "pesq")}
    files = {}
    (folder / "listen" / "results").mkdir(parents=True)
    for name in ("original", *_ROWS):
        path = folder / "listen" / "results" / f"0000_{name}.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=4000), 16_000)
        files[name] = str(path.relative_to(folder))
    return {
        "format": "f3tok evaluation 1",
        "step": 40,
        "num_examples": 4,
        "seconds": 2.0,
        "unreadable": [],
        "shards": {"path": "DIR/test", "fingerprint": fingerprint, "sample_rate": 16_000},
        "missing": {"pesq": "not installed: pip install 'f3tok_jax[eval]'"},
        "metrics": {
            name: {
                "title": m.title,
                "unit": m.unit,
                "higher_is_better": m.higher_is_better,
                "explanation": m.explanation,
            }
            for name, m in columns.items()
        },
        "rows": rows,
        "listen": [{"key": "digit <7>", "files": files}],
        "latents": {
            "rate": 25.0,
            "dim": 2,
            "num_frames": 50,
            "channel_mean": [0.1, -0.1],
            "channel_rms": [1.0, 0.9],
            "rms": 0.95,
            "effective_rank": 1.7,
        },
    }


def _write_run(folder: pathlib.Path, *, level: float = 0.0) -> str:
    folder.mkdir(parents=True)
    config = {
        "stage": "autoencoder",
        "preset": "tiny",
        "num_steps": 40,
        "bottleneck": {"gamma": level},
        "model": {"sample_rate": 16_000, "note": "<script>alert(1)</script>"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = []
    for step in range(2, 41, 2):
        lines.append(
            {
                "step": step,
                "train/mel": 9.0 - 0.1 * step + level,
                "time/seconds": 0.3 * step,
                "time/audio_seconds_per_second": 20.0,
                "train/name": "text",
                "train/broken": float("nan"),
            }
        )
    lines.append({"step": 40, "eval/mel": 5.0})
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4'
    )
    (folder / "results.json").write_text(json.dumps(_results(folder, level)))
    for step in (20, 40):
        (folder / "samples" / f"{step:08d}").mkdir(parents=True)
        for name in ("reference", "reconstruction"):
            soundfile.write(
                folder / "samples" / f"{step:08d}" / f"0_{name}.wav", np.zeros(800), 16_000
            )
    return str(folder)


def _probes(representations: float, **changes) -> dict:
    """What probe writes, of a label and two sets."""

    def row(accuracy):
        return {
            "linear": {"mean": accuracy, "std": 0.0125, "values": [accuracy]},
            "neighbours": accuracy - 0.01,
        }

    test = {
        "num_examples": 1234,
        "num_unseen": 7,
        "majority": 0.111,
        "features": {
            "log_mel": row(0.631),
            "latents": row(0.772),
            "representations": row(representations),
        },
    }
    return {
        "format": "f3tok probe 1",
        "exclude": ["speaker=<ada>"],
        "only": [],
        "pooling": "mean_std",
        "num_seeds": 5,
        "labels": {"digit": {"classes": ["0"], "tests": {"/data/set/test": test, "heldout": test}}},
    } | changes


def _ablation() -> dict:
    """What ablation writes, of a label and a set."""
    accuracies = {"latents": 0.77, "full": 0.874, "without RQ-MTP": 0.862}
    rows = [
        {
            "name": name,
            "title": name,
            "linear": {"mean": accuracy, "std": 0.02, "values": [[accuracy]]},
            "neighbours": {"mean": accuracy - 0.1, "std": 0.03, "values": [[accuracy]]},
        }
        for name, accuracy in accuracies.items()
    ]
    test = {"num_examples": 99, "num_unseen": 0, "majority": 0.1, "rows": rows}
    return {
        "format": "f3tok ablation 1",
        "num_steps": 4000,
        "seeds": [0, 1],
        "arms": {"full": [], "without RQ-MTP": ["rq.weight=0.0"]},
        "exclude": [],
        "only": ["speaker=ada"],
        "pooling": "mean",
        "num_seeds": 5,
        "labels": {"digit": {"classes": ["0"], "tests": {"test": test}}},
        "transcripts": {"test": {"num_examples": 20, "rows": [_errors("full", 0.25)]}},
    }


def _errors(name: str, rate: float) -> dict:
    values = {"std": 0.01, "values": [rate]}
    return {"name": name, "characters": {"mean": rate, **values}, "words": {"mean": 0.5, **values}}


def _write_representation_run(folder: pathlib.Path, accuracy: float, **files) -> str:
    folder.mkdir(parents=True)
    config = {"stage": "representation", "preset": "tiny", "num_steps": 40, "rq": {"weight": 1.0}}
    (folder / "config.json").write_text(json.dumps(config))
    names = [*_CURVES, *(f"code_perplexity/{index}" for index in range(4))]
    lines = []
    for step in (20, 40):
        values = {f"train/{name}": 3.0 - step / 20 for name in names}
        lines.append({"step": step, **values, "time/seconds": 0.5 * step})
    lines.append({"step": 40, **{f"eval/{name}": 0.5 for name in names}})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    for name, content in {"probe": _probes(accuracy), **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder)


@pytest.fixture
def page(tmp_path) -> _Page:
    runs = [_write_run(tmp_path / "a" / "run"), _write_run(tmp_path / "b" / "run", level=0.25)]
    assert report.main(["--runs", *runs, f"--output={tmp_path / 'out' / 'report.html'}"]) == 0
    return _Page((tmp_path / "out" / "report.html").read_text())


def test_page_loads_nothing(page, tmp_path):
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    text = (tmp_path / "out" / "report.html").read_text()
    without_data = re.sub(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]*", "", text)
    assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe", without_data)
    assert str(tmp_path) not in text


def test_page_has_its_parts(page):
    ids = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert ids == {"results", "listen", "curves", "latents", "config", "words"}
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert targets == ids
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(
        attributes.get("aria-label") for tag, attributes in page.tags if tag in ("svg", "audio")
    )


def test_runs_are_named_by_what_differs_and_stand_side_by_side(page):
    said = "".join(page.said)
    assert "a/run" in said and "b/run" in said
    # Both runs' models at three strengths of noise, and each reference once.
    heads = [
        i
        for i, (tag, attributes) in enumerate(page.tags)
        if tag == "th" and attributes.get("scope") == "row"
    ]
    assert len(heads) >= 2 * 3 + 2
    assert said.count("What pca is.") == 1
    assert "bottleneck.gamma" in said and "0.25" in said


def test_sounds_are_inside(page):
    sounds = [attributes["src"] for tag, attributes in page.tags if tag == "audio"]
    # Held-out: the original and two references once, three strengths of each run. Training: an
    # original and two steps of each run.
    assert len(sounds) == 3 + 2 * 3 + 2 * 3
    assert all(sound.startswith("data:audio/wav;base64,") for sound in sounds)


def test_what_is_missing_is_said(page):
    said = "".join(page.said)
    assert "not installed: pip install 'f3tok_jax[eval]'" in said
    assert "1 of 4: too short" in said
    assert "1 lines of metrics.jsonl are damaged" in said and "not finite" in said


def test_text_from_files_is_escaped(page):
    said = "".join(page.said)
    assert "<script>alert(1)</script>" in said and "digit <7>" in said
    assert not any(tag == "script" for tag, _ in page.tags)


def test_a_run_that_only_has_curves_is_enough(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
    assert report.main(["--runs", str(folder), f"--output={tmp_path / 'report.html'}"]) == 0
    page = _Page((tmp_path / "report.html").read_text())
    assert {attributes["id"] for tag, attributes in page.tags if tag == "section"} == {"curves"}
    assert "python -m f3tok_jax.evaluate" in "".join(page.said)


def test_sounds_outside_the_run_are_not_read(tmp_path):
    folder = pathlib.Path(_write_run(tmp_path / "run"))
    soundfile.write(tmp_path / "secret.wav", np.zeros(100), 16_000)
    results = json.loads((folder / "results.json").read_text())
    results["listen"][0]["files"] = {"original": "../secret.wav"}
    (folder / "results.json").write_text(json.dumps(results))
    assert report.main(["--runs", str(folder), f"--output={tmp_path / 'report.html'}"]) == 0
    assert "leads out of" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "content, message",
    [("", "config.json, metrics.jsonl or results*.json"), (None, "is not a folder")],
)
def test_what_is_not_a_run_is_said_in_one_sentence(tmp_path, capsys, content, message):
    folder = tmp_path / "folder"
    if content is not None:
        folder.mkdir()
    assert report.main(["--runs", str(folder), f"--output={tmp_path / 'report.html'}"]) == 1
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not (tmp_path / "report.html").exists()


def test_a_repeated_step_counts_the_second_time(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "train/mel": 3.0}\n{"step": 2, "train/mel": 9.0}\n'
        '{"step": 2, "train/mel": 2.0}\n'
    )
    curve = run_history.read(tmp_path, name="run").curves["train/mel"]
    assert curve == run_history.Curve((1.0, 2.0), (3.0, 2.0))


def _write_page(tmp_path, runs, *more) -> _Page:
    output = tmp_path / "report.html"
    assert report.main(["--runs", *runs, *more, f"--output={output}"]) == 0
    return _Page(output.read_text())


def test_representation_runs_show_their_curves_and_probes(tmp_path):
    runs = [_write_representation_run(tmp_path / name, a) for name, a in (("a", 0.861), ("b", 0.9))]
    page = _write_page(tmp_path, runs)
    said = "".join(page.said)
    assert {dict(a)["id"] for tag, a in page.tags if tag == "section"} == {
        *("probes", "curves", "config", "words")
    }
    assert "Representation encoder: a, b" in said and "Audio autoencoder" not in said
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
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


def test_probes_on_other_data_have_a_table_of_their_own(tmp_path):
    runs = [
        _write_representation_run(tmp_path / "a", 0.8),
        _write_representation_run(tmp_path / "b", 0.9, probe=_probes(0.9, exclude=[])),
    ]
    said = "".join(_write_page(tmp_path, runs).said)
    assert said.count("raw latents0.772") == 2


@pytest.mark.parametrize("is_named", [False, True])
def test_an_ablation_is_one_table_with_its_arms(tmp_path, is_named):
    run = _write_representation_run(tmp_path / "a", 0.8)
    path = tmp_path / ("elsewhere" if is_named else "a") / "ablation.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_ablation()))
    said = "".join(_write_page(tmp_path, [run], "--tables", str(path)).said)
    assert said.count("Ablation: ") == 1
    assert "full0.874± 0.020neighbours 0.774+0.104 to raw latents0.250± 0.0100.500" in said
    assert "wrong characterstest: 20" in said
    assert "without RQ-MTPrq.weight=0.0" in said and "fullboth losses" in said
    assert "2 seeds of the training and 5 seeds of the linear probe" in said
    assert "trained for 4,000 steps" in said and "Tested alone: speaker=ada." in said


def test_the_folder_of_an_ablation_stands_for_a_run(tmp_path):
    run = _write_representation_run(tmp_path / "runs" / "full_0", 0.8)
    (tmp_path / "runs" / "ablation.json").write_text(json.dumps(_ablation()))
    said = "".join(_write_page(tmp_path, [run, str(tmp_path / "runs")]).said)
    assert "Ablation: runs ablation.json" in said and "No metrics.jsonl" not in said


def test_a_run_without_probes_says_how_to_get_them(tmp_path):
    run = _write_representation_run(tmp_path / "a", 0.8)
    (tmp_path / "a" / "probe.json").unlink()
    said = "".join(_write_page(tmp_path, [run]).said)
    assert "No probe*.json: run python -m f3tok_jax.probe with --output inside" in said


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "its format must be 'f3tok probe 1' or 'f3tok ablation 1'"),
        (_probes(float("nan")), "it is damaged: ValueError, nan is no finite number"),
        (_probes(0.5, labels={"digit": 3}), "it is damaged: TypeError"),
    ],
)
def test_a_damaged_table_is_said(tmp_path, capsys, content, message):
    run = _write_representation_run(tmp_path / "a", 0.8, probe_damaged=content)
    said = "".join(_write_page(tmp_path, [run]).said)
    assert f"probe_damaged.json is no table of probes: {message}" in said
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
    run = _write_representation_run(tmp_path / "a", 0.8, transcripts=content, transcripts_bad={})
    said = "".join(_write_page(tmp_path, [run]).said)
    assert "Of 30 sentences, 12.5 % of the characters and 50.0 % of the words were wrong." in said
    assert "one <two>one too" in said
    assert "transcripts_bad.json is no file of transcripts: its format must be" in said
