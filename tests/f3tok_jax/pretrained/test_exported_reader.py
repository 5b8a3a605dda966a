# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An exported folder answers what its run answers, word for word, or says that it cannot."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
import soundfile

from f3tok_jax import cli
from f3tok_jax import export
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.pretrained import exported
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported_config
from f3tok_jax.serving import answers as served
from tests.support import tiny_runs

_TRAINED_ON = ("--config.representation.train=encoder", "--config.language_model.train=low_rank")
# What a chain is of -> of the generation run's config, of the language model.
_CHAINS = {
    "frozen": ((), {}),
    "with a head": ((), dict(is_tied=False)),
    "trained on": (_TRAINED_ON, dict(is_tied=False)),
    "in bfloat16": (("--config.language_model.compute_dtype=bfloat16",), {}),
}
_OWN = {"frozen": (), "with a head": ("answer_head",)}  # beside the projector, of generation
_OWN["trained on"] = ("answer_language_model", "answer_head")
_OWN["in bfloat16"] = ("answer_language_model",)
_SLOW = ("with a head", "frozen", "in bfloat16")  # of whose rules those of the others are most


def _answering(folder: pathlib.Path) -> set[str]:
    """The parts that only answers need."""
    parts = json.loads((folder / "config.json").read_text())["parts"]
    return {one for one in parts if one in exported_config.ANSWERS}


def _sounds() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [0.3 * rng.normal(size=count).astype(np.float32) for count in (9_000, 2_500, 700)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """A representation run's export; its run lies beside it."""
    root = tmp_path_factory.mktemp("model")
    runs = tiny_runs.write_chain(root, scale=0.5, is_tied=False)
    given = [f"--workdir={runs['representation']}", f"--output={root}/model"]
    assert export.main(given) == 0
    return root / "model"


@pytest.fixture
def copy(model, tmp_path) -> pathlib.Path:
    """The same, to be changed."""
    return shutil.copytree(model, tmp_path / "model")


@pytest.mark.parametrize(
    "kind",
    ["trained on", *(pytest.param(name, marks=pytest.mark.slow) for name in _SLOW)],
)
def test_answers_of_a_generator_are_those_of_its_run(kind, tmp_path, capsys):
    more, language_model = _CHAINS[kind]
    run = tiny_runs.write_chain(tmp_path, *more, scale=0.5, **language_model)["generation"]
    assert export.main([f"--workdir={run}", f"--output={tmp_path}/model"]) == 0
    assert "for answers alone (--without=answers)" in capsys.readouterr().out
    assert _answering(tmp_path / "model") == {"answer_projector", *_OWN[kind]}
    found = [
        tokenizer_lib.F3Tokenizer.from_pretrained(str(one)) for one in (run, tmp_path / "model")
    ]
    latents = found[0].encode(_sounds())
    wanted = found[0].transcribe(latents)
    assert len({*wanted}) > 1 and all(wanted)  # It hears a difference, and so would a test.
    assert found[1].transcribe(latents) == wanted


def test_of_any_task_the_export_says_what_the_run_says(model, tmp_path, capsys):
    assert _answering(model) == {*exported_config.ANSWERS}
    runs = model.parent / "representation", model
    soundfile.write(tmp_path / "a.wav", _sounds()[0], 16_000, subtype="FLOAT")
    texts = []
    for one in runs:
        given = ["transcribe", str(tmp_path / "a.wav"), f"--model={one}", "--task=instrument"]
        assert cli.main(given) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[0].strip()
    given = [f"--model={model}", "transcribe", str(tmp_path / "a.wav"), "--task=colour"]
    assert cli.main(given) == 1
    assert (
        "task must be one of caption, event, instrument, language, transcription"
        in capsys.readouterr().err
    )
    # A page of it asks what the run was asked in training.
    opened = (tokenizer_lib.F3Tokenizer.from_pretrained(str(one)) for one in runs)
    questions = [served.Answers(one, served.Limits()).questions for one in opened]
    assert questions[0] == questions[1] != []


def test_of_one_that_is_left_out_and_of_one_of_before_everything_else_is_used(
    model, tmp_path, capsys
):
    run, without = model.parent / "representation", tmp_path / "without"
    given = [f"--workdir={run}", f"--output={without}", "--without=answers"]
    assert export.main(given) == 0
    assert "for answers" not in capsys.readouterr().out
    assert not (without / "tokenizer.json").exists()
    old = shutil.copytree(without, tmp_path / "old")
    _change_config(old, format="f3tok export 1")
    sound = _sounds()[0]
    whole = tokenizer_lib.F3Tokenizer.from_pretrained(str(model))
    for folder in (without, old):
        assert _size(folder) < 0.7 * _size(model)
        found = tokenizer_lib.F3Tokenizer.from_pretrained(str(folder))
        assert found.fingerprint == whole.fingerprint
        expected = whole.represent(sound).values
        np.testing.assert_array_equal(found.represent(sound).values, expected)
        assert served.Answers(found, served.Limits()).questions == []
        soundfile.write(tmp_path / "a.wav", sound, 16_000)
        assert cli.main([f"--model={folder}", "transcribe", str(tmp_path / "a.wav")]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "is an exported folder without what answers" in said
        assert "give the run of the representation stage that it was exported from" in said


def test_a_language_model_that_is_gone_is_missed_by_what_answers_alone(model, tmp_path, capsys):
    run = model.parent / "representation"
    folder = config_lib.load(str(run)).language_model.folder
    shutil.move(folder, tmp_path / "away")
    try:
        run = f"--workdir={run}"
        assert export.main([run, f"--output={tmp_path}/whole"]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "--without=answers" in said
        assert export.main([run, f"--output={tmp_path}/less", "--without=answers"]) == 0
    finally:
        shutil.move(tmp_path / "away", folder)


def test_a_run_that_was_not_supervised_answers_nothing_and_is_exported(model, tmp_path):
    config = config_lib.load(str(model.parent / "representation"))
    config.supervision.weight = 0.0
    config.language_model.folder = ""
    tiny_runs.write(config, str(tmp_path / "run"))
    given = [f"--workdir={tmp_path}/run", f"--output={tmp_path}/model"]
    assert export.main(given) == 0
    found = tokenizer_lib.F3Tokenizer.from_pretrained(str(tmp_path / "model"))
    assert found.represent(_sounds()[0]).values.size
    with pytest.raises(ValueError, match="runs without supervision are: give the run"):
        found.transcribe(_sounds()[0])


def _change_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _size(folder) -> int:
    return (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["answer_projector.gain", "answer_head.weight"])
def test_a_part_of_it_that_is_damaged_is_named_and_nothing_else_minds(copy, name):
    tensors = safetensors_numpy.load_file(copy / "model.safetensors")
    del tensors[name]
    safetensors_numpy.save_file(tensors, copy / "model.safetensors")
    found = tokenizer_lib.F3Tokenizer.from_pretrained(str(copy))
    assert found.represent(_sounds()[0]).values.size
    with pytest.raises(ValueError, match=f"it lacks {name}"):
        found.transcribe(_sounds()[0])


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("parts",), ["encoder", "decoder", "representation_encoder", "answer_projector"]),
        (("parts",), ["encoder", "decoder", "answer_projector", "answer_language_model"]),
        (("answers",), None),
        (("answers", "patch"), 0),
        (("answers", "embedding_rms"), -1.0),
        (("answers", "has_own_language_model"), False),
        (("answers", "language_model"), "x"),
        (("answers", "max_tokens"), 10**9),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_in_one_sentence(copy, keys, value, capsys):
    written = json.loads((copy / "config.json").read_text())
    section = written if len(keys) == 1 else written[keys[0]]
    section[keys[-1]] = value
    (copy / "config.json").write_text(json.dumps(written))
    assert cli.main([f"--model={copy}", "info"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    with pytest.raises(ValueError, match="all that answers|must say the answers|all its parts"):
        exported.read(str(copy))
