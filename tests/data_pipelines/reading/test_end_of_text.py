# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The end of a text: the usual token, or what the files beside a tokenizer say."""

import json

import pytest

from data_pipelines.reading import end_of_text
from data_pipelines.reading import tasks


@pytest.fixture
def folder(tmp_path, tokenizer_of):
    """Of a tokenizer with the tokens t0 to t8 and </s>, which is 9."""
    tokenizer = tokenizer_of(9)
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def _find(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    found = [
        end_of_text.find(path, tasks.read_tokenizer(path)[0])
        for path in (folder, folder / "tokenizer.json")
    ]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    "files,token",
    [
        (dict(), None),
        (dict(config={"eos_token_id": 9}), 9),
        (dict(config={"eos_token_id": [77, 0, 9]}), 0),
        (dict(generation_config={"eos_token_id": 9}, config={"eos_token_id": 3}), 9),
        (dict(tokenizer_config={"eos_token": "</s>"}, config={"eos_token_id": 3}), 9),
        (dict(tokenizer_config={"eos_token": {"content": "</s>", "lstrip": False}}), 9),
        (dict(tokenizer_config={"eos_token": "<eos>"}, config={"eos_token_id": 3}), 3),
        (dict(tokenizer_config={"eos_token": None}, config={"eos_token_id": None}), None),
        (dict(config={"eos_token_id": 10}), None),
        (dict(config={"eos_token_id": -1}), None),
        (dict(config={"eos_token_id": True}), None),
        (dict(config={"eos_token_id": 2**70}), None),
    ],
)
def test_it_is_what_the_files_beside_say(folder, files, token):
    assert _find(folder, **files) == token


def test_the_usual_token_needs_no_file(folder, tokenizer_of):
    tokenizer = tokenizer_of(5)
    tokenizer.add_special_tokens([end_of_text.USUAL, "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert _find(folder, tokenizer_config={"eos_token": "</s>"}) == 5


def test_a_damaged_file_is_named(folder):
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match="generation_config.json must be a JSON object"):
        _find(folder)


def test_tasks_end_with_it_or_say_what_to_write(folder):
    message = "has no token '<|endoftext|>', .* eos_token_id into config.json"
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        tasks.TextTasks(folder, {"voice": 1.0}, 60)
    _find(folder, config={"eos_token_id": 9})
    text = tasks.TextTasks(folder, {"voice": 1.0}, 60)
    assert text.end_of_text == 9 and text.tokens("voice", "t3", key="k")[0][-2:] == [3, 9]
