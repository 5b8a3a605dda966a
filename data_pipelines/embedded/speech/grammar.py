# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a language needs for sentences and numbers to be composed in it, read from languages/."""

import dataclasses
import functools
import pathlib
import tomllib

LANGUAGES = ("de", "en", "es", "fr", "it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grammar:
    """The word lists and templates of one language.

    Slots take phrases that fit wherever the template puts them: places carry their preposition,
    things are feminine or masculine with their own article, and no template makes anything else
    agree.

    Attributes:
        first_names: for {first} and {friend}.
        last_names: for {last}.
        things: for {thing}, in the accusative.
        places: for {place}.
        times: for {time}.
        numbers: templates with {number}.
        names: templates with {first}, {last} and {friend}.
        sentences: templates with any of the slots.
        units: numerals from 0 on that are not composed of others.
        tens: numerals of 20, 30, ...
        hundreds: of 100, 200, ..., in languages that do not compose them.
    """

    first_names: list[str]
    last_names: list[str]
    things: list[str]
    places: list[str]
    times: list[str]
    numbers: list[str]
    names: list[str]
    sentences: list[str]
    units: list[str]
    tens: list[str]
    hundreds: list[str] | None = None


@functools.cache
def read(language: str) -> Grammar:
    """Returns the grammar of one of LANGUAGES."""
    path = pathlib.Path(__file__).parent / "languages" / f"{language}.toml"
    return Grammar(**tomllib.loads(path.read_text(encoding="utf-8")))
