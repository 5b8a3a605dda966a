# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a language needs for sentences to be composed in it: its word lists and templates.

Slots take phrases that fit wherever the template puts them: places carry their preposition, things
are feminine or masculine with their own article, and no template makes anything else agree.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Grammar:
    """The word lists and templates of one language; each entry of `sentences` is one template."""

    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]
    numbers: tuple[str, ...]
    names: tuple[str, ...]
    sentences: tuple[str, ...]
