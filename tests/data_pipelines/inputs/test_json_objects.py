# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Objects and the lines on which they begin, or the line on which they are none."""

import pytest

from data_pipelines.inputs import json_objects


@pytest.mark.parametrize(
    "text, found",
    [
        ('{"a": 1}\n\n{"a": "x\u2028y"}\r\n', [(1, {"a": 1}), (3, {"a": "x\u2028y"})]),
        ('\n[\n {"a":\n  1},\n {"a": 2}\n]\n', [(3, {"a": 1}), (5, {"a": 2})]),
        ('[{"a": 1}, {"a": 2}]', [(1, {"a": 1}), (1, {"a": 2})]),
    ],
)
def test_objects_know_their_lines(text, found):
    assert list(json_objects.parse("a.json", text)) == found


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1}\n{"a": }\n', "a.json, line 2, must be one JSON object, got: Expecting value"),
        ('{"a": 1}\n[1]\n', "line 2, must be one JSON object, got list"),
        ('{"a": 1} {"a": 2}\n', "line 1, must be one JSON object, got more behind it"),
        ('{"a": 1, "a": 2}\n', "line 1, .*the name 'a' twice in one object"),
        ('[{"a": 1},\n {"a":\n }]', "line 3, must be one JSON object"),
        ('[{"a": 1}\n {"a": 2}]', "line 1, must end an object with , or the array with ]"),
        ('[{"a": 1},\n {"a": 2}] x', "line 2, .*got more behind it"),
        ('[{"a": 1},\n {"a": 2}\n', "line 3, .*got the end of the file"),
        ("[]", "line 1, must be one JSON object"),
        ('{"a": ' * 100_000, "line 1, must be one JSON object"),
    ],
)
def test_what_is_wrong_is_refused_by_line(text, message):
    with pytest.raises(ValueError, match=message):
        list(json_objects.parse("a.json", text))
