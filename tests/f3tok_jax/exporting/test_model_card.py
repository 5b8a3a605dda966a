# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page of an exported model says what the run, its data and its results say, and no more."""

import dataclasses
import json
import pathlib
import shutil

import jax
import pytest

from data_pipelines.records import manifest as manifest_lib
from f3tok_jax import export
from f3tok_jax.exporting import markdown
from f3tok_jax.runs import lineage
from f3tok_jax.runs import results
from f3tok_jax.training import session
from tests.support import metrics
from tests.support import run_checks
from tests.support import seals
from tests.support import sounds
from tests.support import tiny_models
from tests.support import tiny_runs

_EVIL = '](x) <img src=x onerror="a()"> | `rm` **b** $x$ @you #1\n\n---\n# Heading www.a.b'


def _evaluation(fingerprint: str, step: int = 3) -> results.Reconstruction:
    metric = results.Metric(title="mel", unit="nepers", explanation="", higher_is_better=False)
    score = results.Score(mean=1.2345, standard_error=0.056, count=4, undefined={})
    row = dict(name="model", description="", metrics={"mel": score})
    source = results.JudgeSource(package=_EVIL, version="1.2", licence="MIT")
    liking = dataclasses.replace(metric, title="liking", higher_is_better=True)
    heard = dict(metrics={"ear/liking": dataclasses.replace(score, mean=4.321)}, description="")
    moments = dict(rate=25.0, dim=8, num_frames=1, channel_mean=(0.0,) * 8, channel_rms=(1.0,) * 8)
    return results.Reconstruction(
        step=step,
        shards=results.ShardSet(path="", fingerprint=fingerprint, sample_rate=16_000),
        num_examples=4,
        seconds=7.5,
        unreadable=(),
        latents=results.LatentStatistics(rms=1.0, effective_rank=8.0, **moments),
        missing={},
        metrics={"mel": metric},
        rows=(results.ScoredRow(title=_EVIL, **row),),
        judged=results.Judged(
            num_examples=2,
            judges={"ear": source},
            absent={},
            metrics={"ear/liking": liking},
            rows=(results.ScoredRow(name="recording", title=_EVIL, **heard),),
        ),
        sounds=(),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """A run of three steps on eleven tones, with results beside it, and its data."""
    root = tmp_path_factory.mktemp("root")
    _train(root / "run", sounds.labelled_set(root / "sound", num_files=11))
    results.write(root / "run" / "results.json", _evaluation("fingerprint of the set"))
    results.write(root / "run" / "results_before.json", _evaluation("another", step=2))
    return root


def _train(folder: pathlib.Path, shards: pathlib.Path, *, init_from: str = "") -> None:
    config = tiny_models.config(strides=((4, 4),))
    config.num_steps = 3
    config.optimizer.discriminator.start = 10**6  # without them: less to compile
    config.losses.update(dict(mel_windows=(256,), mel_bands=(20,)))
    config.data.update(dict(train=str(shards), heldout=str(shards)))
    config.init_from.workdir = init_from
    config.loop.update(dict(log_every=1, eval_every=3, eval_batches=1, sample_every=1000))
    assert run_checks.train(config, str(folder), devices=jax.devices()[:1]) == session.EXIT_DONE


def _card(run: pathlib.Path, folder: pathlib.Path, *more: str) -> str:
    assert export.main([f"--workdir={run}", f"--output={folder}", *more]) == 0
    return (folder / "README.md").read_text()


def _front_matter(card: str) -> dict:
    yaml = pytest.importorskip("yaml", reason="front matter is read by PyYAML")
    _, text, _ = card.split("---\n", 2)
    return yaml.safe_load(text)


def test_it_has_the_numbers_of_the_run(root, tmp_path):
    card, run = _card(root / "run", tmp_path / "model"), lineage.Lineage.read(str(root / "run"))
    heard = manifest_lib.read(root / "sound" / "shards")
    fields = _front_matter(card)
    assert fields["library_name"] == "transformers" and fields["sampling_rate"] == 16_000
    assert fields["pipeline_tag"] == "feature-extraction" and "license" not in fields
    assert "language" not in fields and "Which languages it has heard is unknown" in card
    for fingerprint in (run.fingerprint, run.latents_fingerprint, heard.fingerprint[:16]):
        assert f"`{fingerprint}`" in card
    # Eight pieces of two latents each, without their padding.
    filled = sum(line["train/filled"] for line in metrics.read(root / "run") if "train/mel" in line)
    assert f"3 of 3 steps, {8 * 2 / 25 * filled:.3g} s of sound" in card
    assert f"sound/shards, weight 1: {markdown.duration(heard.seconds)} at 16000 Hz" in card
    assert "11 of 11 recordings that were offered, 0 refused; from: folder" in card
    assert "digit (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), speaker (2 values)" in card
    assert "ada" not in card and "licences: unknown" in card and str(root) not in card
    environment = json.loads((root / "run" / "logs" / "environment.json").read_text())
    assert f"{environment['devices']} x {environment['device']}, with jax {jax.__version__}" in card
    assert "git" not in environment or environment["git"]["commit"] in card
    assert "| 1.23 ± 0.056 |" in card and "4 held-out sounds, 7.5 s" in card
    assert "| 4.32 ± 0.056 |" in card and "1.2, 2 of these sounds" in card
    assert "of step 2 and not of the exported 3" in card
    last = [line["eval/mel"] for line in metrics.read(root / "run") if "eval/mel" in line][-1]
    assert f"| eval/mel | {last:.4g} | 3 |" in card
    assert "| latents | 8 values at 25 Hz |" in card


def test_paths_are_not_told_whole():
    assert markdown.place("/home/somebody/data/my|shards/test") == "my\\|shards/test"


def test_what_data_says_stays_text(root, tmp_path):
    shards = root / "sound" / "shards"
    content = json.loads((shards / "manifest.json").read_text())
    labels = content["labels"] | {"place": [_EVIL], "language": ["de\nlicense: mit", "en"]}
    changed = shutil.copytree(root, tmp_path / "root")
    seals.change(changed / "sound" / "shards" / "manifest.json", labels=labels)
    options = f"--map={root / 'sound'}={changed / 'sound'}"
    arguments = [f"--workdir={root / 'run'}", f"--output={tmp_path / 'model'}", options]
    assert export.main(arguments) == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.count("\n---\n") == 1 and "\n# Heading" not in card
    fields = _front_matter(card)
    assert "license" not in fields and "language" not in fields  # one of them is none
    for special in ("<img", "](x)", "*b", "`rm", "$x", "@you", "| "):
        (line,) = (line for line in card.splitlines() if line.startswith("- sound/shards"))
        assert line.count(special) == line.count(f"\\{special}") > 0, special
    assert "Heading" in card and "de license\\: mit" in card
    markdown_it = pytest.importorskip("markdown_it", reason="a parser of Markdown")
    page = markdown_it.MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    assert "&lt;img src=x onerror=" in page and "<img" not in page and "<strong>" not in page
    assert page.count("<h1>") == 1
    # A row of the table has as many cells as its head.
    assert page.count("<td>") >= 2 and "<td>1.23 ± 0.056</td>" in page


def test_what_is_not_known_is_said_to_be(root, tmp_path):
    changed = shutil.copytree(root, tmp_path / "root")
    shutil.rmtree(changed / "run" / "logs")
    for name in ("results.json", "results_before.json", "metrics.jsonl"):
        (changed / "run" / name).unlink()
    # Other data at its place is not what was heard, whatever it is called.
    other = sounds.labelled_set(tmp_path / "other", num_files=9)
    place = f"{root / 'sound' / 'shards'}"
    for folder, why in (
        (other, "other data lies now where its own was"),
        (tmp_path / "nowhere", "its data is not where it was when this page was written"),
    ):
        target = tmp_path / f"model_{folder.name}"
        arguments = [
            f"--workdir={changed / 'run'}",
            f"--output={target}",
            f"--map={place}={folder}",
        ]
        assert export.main(arguments) == 0
        card = (target / "README.md").read_text()
        assert f"sources, speakers and licences: unknown; {why}" in card
        assert "speaker (" not in card and "recordings that were offered" not in card
        assert "last started on unknown devices" in card
        assert "None were measured beside the run" in card


def test_what_weights_heard_before_a_run_began_with_them_counts_too(root, tmp_path):
    shards = sounds.labelled_set(tmp_path / "sound", num_files=12)
    licences = {"prompts": {"licence": "CC-BY-SA-3.0", "weights": "may be shipped"}}
    seals.change(shards / "manifest.json", licences=licences)
    before = shutil.copytree(root / "run", tmp_path / "before")
    _train(tmp_path / "run", shards, init_from=str(before))
    card = _card(tmp_path / "run", tmp_path / "model")
    (line,) = (line for line in card.splitlines() if "on which those weights were trained" in line)
    assert "11 of 11 recordings" in line and "licences: unknown" in line
    assert "license" not in _front_matter(card) and "licence of the weights: unknown" in card
    shutil.rmtree(before)
    card = _card(tmp_path / "run", tmp_path / "lost")
    assert "what those weights were trained on: unknown" in card
    assert "license" not in _front_matter(card)


def test_who_trains_on_from_an_exported_folder_keeps_its_licences(root, tmp_path):
    shards = sounds.labelled_set(tmp_path / "sound", num_files=12)
    licences = {"prompts": {"licence": "CC-BY-SA-3.0", "weights": "may be shipped"}}
    seals.change(shards / "manifest.json", licences=licences)
    _train(tmp_path / "first", shards)
    assert "licence of the weights: CC-BY-SA-3.0" in _card(
        tmp_path / "first", tmp_path / "exported", "--dtype=float16"
    )
    shutil.rmtree(tmp_path / "first")
    said = (tmp_path / "exported" / "heard_sets.json").read_text()
    assert str(tmp_path) not in said
    _train(tmp_path / "second", shards, init_from=str(tmp_path / "exported"))
    card = _card(tmp_path / "second", tmp_path / "again")
    assert "those weights were trained on nothing else" in card
    assert "licence of the weights: CC-BY-SA-3.0" in card
    # On other sound: both are named, and what the exported folder says counts.
    _train(tmp_path / "third", root / "sound" / "shards", init_from=str(tmp_path / "exported"))
    card = _card(tmp_path / "third", tmp_path / "of_both")
    (line,) = (line for line in card.splitlines() if "on which those weights were trained" in line)
    assert "12 of 12 recordings" in line and "licences: CC-BY-SA-3.0" in line
    # Of other weights than those that were exported it says nothing.
    told = tmp_path / "exported" / "heard_sets.json"
    told.write_text(said.replace('"weights": "', '"weights": "f'))
    card = _card(tmp_path / "second", tmp_path / "once_more")
    assert "what those weights were trained on: unknown" in card
    assert "licence of the weights: unknown" in card


def test_every_run_of_a_chain_is_on_the_page(tmp_path):
    folders = tiny_runs.write_chain(tmp_path)
    # As evaluate --stage=autoencoder may have written it.
    place = pathlib.Path(folders["generation"], "results.json")
    results.write(place, _evaluation("fingerprint of the set", step=2))
    card = _card(folders["generation"], tmp_path / "model")
    assert "of the autoencoder, of step 2 and not of the exported 3" in card
    assert _front_matter(card)["pipeline_tag"] == "text-to-audio"
    for stage in folders:
        assert f"\nThe {stage}:\n" in card
        run = lineage.Lineage.read(folders[stage])
        assert f"3 of {run.config.num_steps} steps" in card
        assert run.fingerprint in card
    assert "model.answer(" in card and "f3tok transcribe speech.wav --task=" in card
    assert "in at most 32 tokens with the question" in card
    assert "model.generate(" in card and "it has learnt the tasks transcription" in card
    assert "tokenizer\\:" not in card  # digits of a fingerprint are code
    assert "at most 4.8 min of sound" in card  # it has measured nothing


def test_a_model_that_is_lost_is_named_without_paths(tmp_path):
    folders = tiny_runs.write_chain(tmp_path)
    shutil.move(tmp_path / "text", tmp_path / "elsewhere")
    # What answers cannot be written, and all else is.
    card = _card(folders["representation"], tmp_path / "model", "--without=answers")
    assert "f3tok transcribe" not in card and "model.answer" not in card
    assert "unknown; a model that it was trained on is not where it was" in card
    assert str(tmp_path) not in card
