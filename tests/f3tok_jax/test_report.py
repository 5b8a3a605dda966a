# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page about runs, from folders written here: what it says, and that it loads nothing."""

import base64
import json
import pathlib
import re

import numpy as np
import pytest
import soundfile

from f3tok_jax import report
from f3tok_jax.reporting import curves
from f3tok_jax.runs import results
from tests.support import html_page
from tests.support import reported_runs

_DATA = r"data:([a-z/+]+);base64,([A-Za-z0-9+/=]*)"


@pytest.fixture
def page(tmp_path) -> html_page.Page:
    runs = [
        reported_runs.write_autoencoder(tmp_path / "a" / "run"),
        reported_runs.write_autoencoder(tmp_path / "b" / "run", level=0.25),
    ]
    assert report.main(["--runs", *runs, f"--output={tmp_path / 'out' / 'report.html'}"]) == 0
    return html_page.Page((tmp_path / "out" / "report.html").read_text())


def test_page_loads_nothing(page, tmp_path):
    html_page.check_passive(page)
    text = (tmp_path / "out" / "report.html").read_text()
    without_data = re.sub(_DATA, "", text)
    assert not re.search(r"https?://|url\([^#]|@import", without_data)
    drawings = [base64.b64decode(data) for kind, data in re.findall(_DATA, text) if "svg" in kind]
    assert drawings and not any(re.search(rb"script|href=\"[^#]|@import", one) for one in drawings)
    assert str(tmp_path) not in text


def test_page_has_its_parts(page):
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    parts = ["listen", "runs", "map", "curves", "results", "latents", "words", "config"]
    assert ids == parts  # sounds first, what was configured last
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    assert targets - {"shades-light", "shades-dark"} == {*ids}
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "audio")


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


def test_only_what_differs_within_a_stage_is_laid_open(tmp_path):
    runs = [
        reported_runs.write_autoencoder(tmp_path / "a"),
        reported_runs.write_autoencoder(tmp_path / "b", level=0.25),
        reported_runs.write_representation(tmp_path / "c", 0.8),
    ]
    assert report.main(["--runs", *runs, f"--output={tmp_path / 'report.html'}"]) == 0
    said = "".join(html_page.Page((tmp_path / "report.html").read_text()).said)
    start = said.index("What differs between the runs of autoencoder")
    end = said.index("Every value of a, b")
    assert said[start:end].endswith("keyabbottleneck.gamma0.00.25")
    assert said.count("What differs") == 1 and said.index("Every value of c") > end


def test_how_a_map_is_made_is_said_where_there_is_none(page):
    assert "No run here has left a map of its latents: python -m f3tok_jax.probe" in "".join(
        page.said
    )


def test_sounds_are_inside(page):
    sounds = [attributes["src"] for tag, attributes in page.tags if tag == "audio"]
    # Held-out: the original and two references once, three strengths of each run. Training: an
    # original and two steps of each run.
    assert len(sounds) == 3 + 2 * 3 + 2 * 3
    assert all(sound.startswith("data:audio/wav;base64,") for sound in sounds)


def test_published_judges_have_a_table_each(page):
    said = "".join(page.said)
    assert "ear, a published judge" in said and "earmold 1.2.3 (MIT), 4 examples" in said
    assert "What the ear says of likeness." in said
    assert "4.875" in said and "3.625" in said and "0.812" in said
    assert "judge nose: no nosemold: pip install nosemold" in said
    assert "model, ear liking: 1 of 4: too quiet" in said


def test_what_is_missing_is_said(page):
    said = "".join(page.said)
    assert "not installed: pip install -e '.[eval]'" in said
    assert "1 of 4: too short" in said
    assert "1 lines of metrics.jsonl are damaged" in said and "not finite" in said


def test_text_from_files_is_escaped(page):
    said = "".join(page.said)
    assert "<script>alert(1)</script>" in said and "digit <7>" in said
    html_page.check_passive(page)


def test_generated_sound_is_shown_with_its_text(tmp_path):
    folder = pathlib.Path(reported_runs.write_autoencoder(tmp_path / "run"))
    files = json.loads((folder / "results.json").read_text())["listen"][0]["files"]
    generation = {
        "format": "f3tok generation 1",
        "num_examples": 8,
        "max_seconds": 2.0,
        "judge": {"shards": "DIR", "label": "digit"},
        "sampler": {"guidance": 2.0, "num_steps": 10},
        "rows": [
            {"name": "recording", "title": "recording", "judge_accuracy": 0.975},
            {
                "name": "generated_0",
                "title": "generated, guidance 3.0",
                "judge_accuracy": 0.625,
                "never_stopped": 0.125,
            },
        ],
        "texts": {"a": "seven <three>"},
        "listen": [
            {"key": "a", "files": {"original": files["original"], "generated_0": files["pca"]}}
        ],
    }
    (folder / "results_generation.json").write_text(json.dumps(generation))
    output = tmp_path / "report.html"
    assert report.main(["--runs", str(folder), f"--output={output}"]) == 0
    text = output.read_text()
    for part in (
        "generated, guidance 3.0",
        "62.5%",
        "12.5%",
        "guidance 2.0",
        "The classifier tells the digit; it has learned from recordings alone. The",
        "“seven &lt;three&gt;”",
        "never stopped",
    ):
        assert part in text, part
    assert re.search(
        "Spectrogram of [^:]*, generated, guidance 3.0: 0.2 seconds, up to 8.0 kHz", text
    )


def test_a_language_model_shows_its_perplexity(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"stage": "language_model"}')
    found = results.LanguageModel(step=3, num_records=1234, loss=1.5, perplexity=4.4817)
    results.write(folder / "results.json", found)
    assert "context_loss" not in (folder / "results.json").read_text()
    assert report.main(["--runs", str(folder), f"--output={tmp_path / 'report.html'}"]) == 0
    said = "".join(html_page.Page((tmp_path / "report.html").read_text()).said)
    assert "run1,2341.5004.48" in said and "perplexity" in said


def test_a_run_that_only_has_curves_is_enough(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
    assert report.main(["--runs", str(folder), f"--output={tmp_path / 'report.html'}"]) == 0
    page = html_page.Page((tmp_path / "report.html").read_text())
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == ["runs", "curves"]
    assert "python -m f3tok_jax.evaluate" in "".join(page.said)


def test_sounds_outside_the_run_are_not_read(tmp_path):
    folder = pathlib.Path(reported_runs.write_autoencoder(tmp_path / "run"))
    soundfile.write(tmp_path / "secret.wav", np.zeros(100), 16_000)
    content = json.loads((folder / "results.json").read_text())
    content["listen"][0]["files"] = {"original": "../secret.wav"}
    (folder / "results.json").write_text(json.dumps(content))
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


def _poisoned(value, text: str, key: str = ""):
    """The same with `text` in place of every string but the format."""
    if isinstance(value, dict):
        return {name: _poisoned(one, text, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_poisoned(one, text, key) for one in value]
    return text if isinstance(value, str) and key != "format" else value


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'><svg/onload=alert(1)>",
        "</style></title><iframe src=javascript:alert(1)>",
        "{{ 7 * 7 }}{% raw %}{{ self }}",
        "$\\frac{",
    ],
)
def test_poisoned_texts_names_and_keys_stay_text(tmp_path, text):
    folder = pathlib.Path(reported_runs.write_autoencoder(tmp_path / text.replace("/", "_")))
    content = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(_poisoned(content, text)))
    config = {"stage": text, "preset": [text], text: {text: text}, "num_steps": text}
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write("\n" + json.dumps({"step": 3, f"train/{text}": 1.0, text: 2.0}) + "\n")
    output = tmp_path / "report.html"
    assert report.main(["--runs", str(folder), f"--output={output}"]) == 0
    page = html_page.Page(output.read_text())
    allowed = set(
        "html head meta title style body main h1 h2 h3 h4 p nav ul li a div table thead tbody tr th "
        "td small span i section figure figcaption img audio details summary dl dt dd code header "
        "article button label input output kbd svg filter fecomponenttransfer script".split()
    ) | {f"fefunc{channel}" for channel in "rgb"}
    assert {tag for tag, _ in page.tags} <= allowed
    html_page.check_passive(page)
    assert "".join(page.said).count(text) >= 5


@pytest.mark.parametrize("file", ["config.json", "metrics.jsonl", "results.json"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"[]", b"{", b"\xff\xfe", b"null", b'{"step": Infinity, "train/a": 1}', b"[" * 100_000),
        *(b'{"a":' * 900 + b"1" + b"}" * 900, b'{"step": 1e400, "a": 1%s}' % (b"0" * 400)),
        b'{"stage": {"a": 1}, "model": {"sample_rate": "16"}, "num_steps": 1e999, "step": 1}',
    ],
)
def test_damaged_files_are_a_note(tmp_path, file, content):
    folder = pathlib.Path(reported_runs.write_autoencoder(tmp_path / "run"))
    (folder / file).write_bytes(content)
    output = tmp_path / "report.html"
    assert report.main(["--runs", str(folder), f"--output={output}"]) == 0
    if file != "config.json":
        assert f"{file}" in "".join(html_page.Page(output.read_text()).said)


def test_many_quantities_and_long_values_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "_MAX_CHARTS", 5)
    folder = tmp_path / "run"
    folder.mkdir()
    names = [f"train/{index}" for index in range(15)]
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **dict.fromkeys(names, 1.0)}))
    (folder / "config.json").write_text(json.dumps({"stage": "autoencoder", "a": "b" * 1_000_000}))
    output = tmp_path / "report.html"
    assert report.main(["--runs", str(folder), f"--output={output}"]) == 0
    page = html_page.Page(output.read_text())
    assert "10 more quantities are not drawn" in "".join(page.said)
    assert len("".join(page.said)) < 20_000


def test_text_that_is_no_unicode_is_shown_escaped(tmp_path):
    folder = pathlib.Path(reported_runs.write_autoencoder(tmp_path / "run"))
    (folder / "config.json").write_text('{"stage": "autoencoder", "preset": "a\\ud800b"}')
    assert report.main(["--runs", str(folder), f"--output={tmp_path / 'report.html'}"]) == 0
    assert "a\\ud800b" in (tmp_path / "report.html").read_text()


def test_the_same_runs_make_the_same_page(tmp_path):
    folder = reported_runs.write_autoencoder(tmp_path / "run")
    pages = []
    for name in ("a.html", "b.html"):
        assert report.main(["--runs", str(folder), f"--output={tmp_path / name}"]) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
