# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is said in Fish Fillets, and by whom: dialogs in Lua, each with the name of its sound.

    dialogId("vit-m-hlava", "font_small", "Welcome.")     script/city/dialogs_cs.lua
    dialogStr("Vítejte.")                                 of sound/city/cs/vit-m-hlava.ogg

The font tells the role. Each of the two leads is one actor; they speak most of it, and "m" or "v"
in the name of a sound is always one of them. Who plays the others is not told.
"""

import collections
from collections.abc import Iterator, Sequence
import os
import pathlib
import re

from data_pipelines.inputs import tables
from data_pipelines.inputs import text_files
from data_pipelines.records import sound as sound_records

_GAME = "usr/share/games/fillets-ng"
_STRING = r'"((?:[^"\\]|\\.)*)"'
_CALL = re.compile(
    rf"^\s*(?:dialogId\(\s*{_STRING}\s*,\s*{_STRING}\s*,\s*{_STRING}\s*\)|"
    rf"dialogStr\(\s*{_STRING}\s*\))",
    re.MULTILINE,
)
_SOUND = re.compile(
    rf"{_GAME}/sound/(?P<level>[^/]+)/(?:[^/]+/)?(?P<language>\w+)/(?P<name>[^/]+)\.ogg"
)
_LEADS = ("small", "big")
_OF_LEAD = {"m": "small", "v": "big"}  # malá, velká


def rows(root: str, sounds: Sequence[str]) -> list[tables.Row]:
    """Returns a row for each dialog of the sounds' language, and for sounds whose names tell a lead.

    Args:
        root: folder of the package with the dialogs.
        sounds: paths of sounds in theirs.
    """
    places, languages = collections.defaultdict(list), set()
    for path in sounds:
        found = _SOUND.fullmatch(path)
        if found:
            places[found["level"], found["name"]].append(os.path.splitext(path)[0])
            languages.add(found["language"])
    said, known = [], set()
    for language in sorted(languages):
        for path in sorted(pathlib.Path(root, _GAME, "script").glob(f"*/*dialogs_{language}.lua")):
            level = path.parent.name
            # A dialog that is said again later in a level is another try at the same one.
            for name, (line, role, words) in dict(_dialogs(str(path))).items():
                texts = (sound_records.Text(words, sound_records.TRANSCRIPT),) if words else ()
                default = [f"{_GAME}/sound/{level}/{language}/{name}"]
                for place in places.get((level, name), default):
                    known.add(place)
                    labels = _labels(role, name, language)
                    said.append(tables.Row(str(path), line, place, texts, labels))
    for (_, name), paths in sorted(places.items()):
        for place in sorted(set(paths) - known):
            labels = _labels("", name, os.path.basename(os.path.dirname(place)))
            if labels:
                said.append(tables.Row(place, 1, place, (), labels))
    return said


def _dialogs(path: str) -> Iterator[tuple[str, tuple[int, str, str]]]:
    """Yields name -> (line, role, words) of a file, in its order."""
    text, begun = text_files.read(path), None
    for call in _CALL.finditer(text):
        name, font, _, words = call.groups()
        if words is None:
            begun = name, text.count("\n", 0, call.start(1)) + 1, font.removeprefix("font_")
        elif begun:
            name, line, role = begun
            yield name, (line, role, _spoken(words))
            begun = None


def _spoken(words: str) -> str:
    """What is said of a Lua string: "%1" stands for what another sound says."""
    words = re.sub(r"\\(.)", lambda escape: " " if escape[1] in "nt" else escape[1], words)
    return " ".join(re.sub(r"%\d", "", words).split())


def _labels(role: str, name: str, language: str) -> dict[str, str]:
    marks = [_OF_LEAD[part] for part in re.split(r"[-_]", name) if part in _OF_LEAD]
    role = role or (marks[0] if len(marks) == 1 else "")
    labels = {"role": role} if role else {}
    return labels | ({"speaker": f"fillets-{language}-{role}"} if role in _LEADS else {})
