# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the licences of sound ask of weights that were trained on it."""

import types

from f3tok_jax.exporting import licences as licences_lib

_SHARED = {
    "prompts": {
        "version": "1.6",
        "licence": "CC-BY-SA-3.0",
        "weights": "may be shipped under the same licence, naming its authors",
        "credit": "A. Smith",
    }
}
_FREE = {"reader": {"licence": "BSD-like", "weights": "may be shipped with its notice"}}
_GAME = {"game": {"licence": "GPL-2.0-only", "weights": "for measuring only"}}


def _of(*sets: dict, source: str = "debian") -> licences_lib.Licences:
    manifest = lambda licences: types.SimpleNamespace(
        licences=licences, settings={"source": source}, fingerprint="0123456789abcdef01"
    )
    return licences_lib.Licences.of([manifest(licences) for licences in sets])


def test_what_is_to_be_shared_alike_is_the_licence_of_the_weights():
    assert _of(_SHARED, _FREE).weights == "CC-BY-SA-3.0"
    assert _of(_FREE).weights == ""
    other = {"other": {"licence": "CC-BY-SA-4.0, CC0-1.0", "weights": "..."}}
    assert _of(_SHARED, other).weights == ""
    assert _of(other).weights == "CC-BY-SA-4.0"


def test_no_licence_follows_where_any_sound_is_unknown_or_for_measuring():
    unknown = _of(_SHARED, {})
    assert unknown.weights == "" and unknown.unknown == ("0123456789abcdef",)
    assert "of the sets 0123456789abcdef" in next(unknown.said())
    bound = _of(_SHARED, _GAME)
    assert bound.weights == ""
    assert "for measuring and must not be passed on" in next(bound.said())
    assert "game" in next(bound.said())


def test_another_choice_out_of_a_source_does_not_hide_the_licences_of_the_first():
    part = {"game": _SHARED["prompts"] | {"version": "1"}}
    for sets in ((_GAME, part), (part, _GAME), (_GAME, part, part)):
        found = _of(*sets)
        assert found.weights == "" and "must not be passed on" in next(found.said())
        assert [*found.to_be_named()].count("game 1, CC-BY-SA-3.0: A. Smith") == 1
        assert "game, GPL-2.0-only" in found.to_be_named()


def test_sound_that_was_computed_is_of_nobody():
    assert _of({}, source="embedded").unknown == ()


def test_every_source_has_a_line():
    lines = [*_of(_SHARED, _FREE).to_be_named()]
    assert lines == ["prompts 1.6, CC-BY-SA-3.0: A. Smith", "reader, BSD-like"]
