# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who judges, what is said of the others, and what becomes of verdicts."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from f3tok_jax.evaluation import examples
from f3tok_jax.evaluation.judges import judge
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.runs import results
from tests.support import judges


def _example(level: float, text: str = "") -> examples.Example:
    waveform = np.full(160, level, np.float32)
    labels = {"language": "de"}
    return examples.Example(key=str(level), waveform=waveform, labels=labels, transcript=text)


@pytest.fixture(autouse=True)
def _judges(monkeypatch):
    monkeypatch.setattr(
        panel, "JUDGES", {kind.name: kind for kind in (judges.Loudness, judges.Absent)}
    )


def _panel(choice=panel.Choice(), said=None, **options) -> panel.Panel:
    recordings = options.pop(
        "recordings", [_example(0.5, "a b c"), _example(0.25, "d"), _example(0.1)]
    )
    said = [] if said is None else said
    return panel.Panel(choice, recordings, sample_rate=judge.RATE, say=said.append, **options)


def test_rows_are_compared_with_recordings_and_recordings_with_nothing():
    said = []
    jury = _panel(said=said)
    for index, level in enumerate((0.4, 0.25, 0.3)):
        jury.write(index, "model", np.full(160, level))
        jury.write(index, "generated", np.full(200, 0.2), is_of_recording=False)
    judged = jury.close({"model": "the model", "never": "never", "generated": "made"})
    assert [row.title for row in judged.rows] == ["recording", "the model", "made"]
    recording, model, made = ({n: s.mean for n, s in row.metrics.items()} for row in judged.rows)
    assert "loudness/distance" not in recording and "loudness/distance" not in made
    assert model["loudness/distance"] == pytest.approx((0.1 + 0.0 + 0.2) / 3)
    # Three words weigh three times as much as one; the last recording has no text.
    assert recording["loudness/words"] == pytest.approx((3 * 0.5 + 0.25) / 4)
    assert judged.rows[0].metrics["loudness/words"].undefined == {"no text in de": 1}
    assert judged.judges["loudness"].version == np.__version__
    assert judged.absent == {"absent": "no no-such-package: pip install it"}
    assert said == [
        f"3 of 3 examples are judged by loudness {np.__version__}",
        "absent judges: absent (no no-such-package: pip install it)",
    ]


def test_tables_say_who_judged_and_which_sounds_have_no_value():
    jury = _panel()
    jury.write(0, "model", np.full(160, 0.4))
    text = "\n".join(panel.format_tables(jury.close({"model": "the model"})))
    assert f"loudness: numpy {np.__version__}, 3 examples" in text
    assert "distance dB (lower)" in text and "absent judges: absent (" in text
    assert "words has no value for up to 1 of 3 examples: no text in de" in text


def test_silence_has_no_value_and_neither_has_what_is_compared_with_it():
    jury = _panel(recordings=[_example(0.0, "a"), _example(0.5, "b")])
    for index, level in enumerate((0.5, 0.0)):
        jury.write(index, "model", np.full(160, level))
    recording, model = (row.metrics for row in jury.close({"model": "m"}).rows)
    assert recording["loudness/peak"].undefined == {"the sound is silent": 1}
    assert model["loudness/peak"].count == 1
    assert model["loudness/distance"].undefined == {
        "what it is compared with: the sound is silent": 1,
        "the sound is silent": 1,
    }


def test_voices_are_compared_with_prompts_whatever_is_said(monkeypatch):
    monkeypatch.setattr(
        panel, "JUDGES", {kind.name: kind for kind in (judges.Loudness, judges.Voice)}
    )
    prompts = [np.full(80, level) for level in (0.45, 0.25, 0.1)]
    jury = _panel(voices=prompts)
    jury.write(0, "made", np.full(160, 0.2), is_of_recording=False)
    jury.write(0, "again", np.full(160, 0.4))
    rows = jury.close({"made": "m", "again": "a"}).rows
    recording, made, again = ({n: s.mean for n, s in row.metrics.items()} for row in rows)
    assert recording["voice/distance"] == pytest.approx(0.05 / 3)
    assert made["voice/distance"] == pytest.approx(0.25)
    assert again["voice/distance"] == pytest.approx(0.05)
    assert again["loudness/distance"] == pytest.approx(0.1) and "loudness/distance" not in made


def test_no_more_than_so_many_examples_are_heard():
    jury = _panel(panel.Choice(num_examples=1))
    for index in range(3):
        jury.write(index, "model", np.full(160, 0.3))
    judged = jury.close({"model": "m"})
    assert judged.num_examples == 1
    assert [row.metrics["loudness/peak"].count for row in judged.rows] == [1, 1]


@pytest.mark.parametrize(
    "choice, message",
    [
        (dict(names=["loudest"]), "must be all, none or some of loudness, absent, got 'loudest'"),
        (dict(names=["none", "loudness"]), "must be all, none or some of"),
        (
            dict(names=["all"]),
            "must be judges that are installed, got absent with no no-such-package",
        ),
        (dict(names=["loudness", "absent"]), "got absent with no no-such-package: pip install it"),
        (dict(num_examples=0), "--judge_examples must be at least 1, got 0"),
        (dict(names=["none"], recogniser="/nowhere"), "--recogniser must"),
    ],
)
def test_what_cannot_judge_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        _panel(panel.Choice(**choice))


def test_nobody_judges_if_nobody_shall():
    said = []
    jury = _panel(panel.Choice(names=["none"]), said=said)
    jury.write(0, "model", np.full(160, 0.3))
    assert jury.close({"model": "m"}) is None and not said


def test_verdicts_are_written_and_read(tmp_path):
    jury = _panel()
    jury.write(0, "model", np.full(160, 0.4))
    judged = jury.close({"model": "m"})
    generation = results.Generation(
        num_examples=3,
        classifier=results.ClassifierSource(shards="", label=""),
        sampler={},
        max_seconds=1.0,
        rows=(),
        texts={},
        judged=judged,
        sounds=(),
    )
    results.write(tmp_path / "results.json", generation)
    assert results.read(tmp_path / "results.json").judged == judged


def test_every_judge_is_told_with_its_package_and_licence(monkeypatch):
    monkeypatch.undo()
    told = (pathlib.Path(__file__).parents[4] / "configs" / "README.md").read_text()
    for name, kind in panel.JUDGES.items():
        head = rf"^\| `{name}` \| {kind.package.name} [\d.]+ \| {kind.package.licence} \|"
        assert re.search(head, told, re.MULTILINE), name


def test_no_package_is_imported_to_see_whether_it_is_there():
    code = (
        "import sys; from f3tok_jax.evaluation.judges import panel;"
        "[kind.package.missing() for kind in panel.JUDGES.values()];"
        "print({*sys.modules} & {'torch', 'onnxruntime', 'librosa', 'numba', 'pocketsphinx',"
        "'speechmos', 'distillmos', 'resemblyzer', 'silero_vad', 'torchcrepe', 'transformers'})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


@pytest.mark.parametrize("name", list(panel.JUDGES))
def test_every_judge_that_is_here_hears_a_recording(name, shared_data, monkeypatch):
    monkeypatch.undo()
    kind = panel.JUDGES[name]
    if reason := kind.package.missing():
        pytest.skip(reason)
    sound, rate = soundfile.read(shared_data / "read_speech" / "LJ001-0008.flac", dtype="float32")
    hearer = kind()
    rng = np.random.default_rng(0)
    text = "has never been surpassed."
    same, spoilt = (
        hearer(one, rate, reference=sound, text=text)
        for one in (sound, sound + 0.3 * rng.normal(size=len(sound)))
    )
    assert set(same.values) == set(hearer.figures) and not same.undefined
    if hearer.comparing:
        alone = hearer(sound, rate, text=text).values.keys()
        assert alone == hearer.figures.keys() - hearer.comparing
    for figure, value in same.values.items():
        worse, is_higher = spoilt.values.get(figure), hearer.figures[figure].higher_is_better
        assert figure in spoilt.undefined or (worse < value if is_higher else worse > value), figure
