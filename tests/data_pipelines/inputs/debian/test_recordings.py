# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Builds from Debian's packages: texts, labels and licences of each family, sides, refusals."""

import json
import shutil
import sys

import pytest

from data_pipelines.inputs.debian import recordings
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from tests.support import builds
from tests.support import debs
from tests.support import sounds

_NEEDS_DPKG = pytest.mark.skipif(
    not shutil.which("dpkg-deb"), reason="no dpkg-deb, which unpacks packages"
)
_RU = "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
_GAME = "usr/share/games/fillets-ng"
_STAMPS = "usr/share/tuxpaint/stamps"
_PROMPTS = "usr/share/asterisk/sounds"


def _ogg(place, seconds=1.0):
    return debs.sound("ogg", seconds, hertz=150.0 + 17.0 * place)


def _dialog(name, font, words):
    return f'dialogId("{name}", "{font}", "English.")\ndialogStr("{words}")\n'


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One small package of each family, laid out as the real ones."""
    repository = debs.repository(tmp_path, monkeypatch)
    repository.add(
        "festvox-ru",
        {
            f"{_RU}/etc/txt.done.data": '( ru_1 "Дв+а." )\n( ru_2 "Три." )\n'.encode(),
            f"{_RU}/wav/ru_1.wav": debs.sound("wav", hertz=310.0),
            f"{_RU}/wav/ru_2.wav": debs.sound("wav", hertz=320.0),
            f"{_RU}/lab/ru_1.lab": b"",
        },
    )
    cs = {f"city/cs/{name}.ogg": _ogg(at) for at, name in enumerate(("a-m-x", "a-v-x", "a-hs-x"))}
    repository.add("fillets-ng-data-cs", {f"{_GAME}/sound/{name}": cs[name] for name in cs})
    lua = _dialog("a-m-x", "font_small", "Malá.") + _dialog("a-v-x", "font_big", "Velká.")
    lua += _dialog("a-hs-x", "font_statue", "Občané.") + _dialog("gone", "font_big", "Nic.")
    repository.add(
        "fillets-ng-data",
        {
            f"{_GAME}/script/city/dialogs_cs.lua": lua.encode(),
            f"{_GAME}/music/menu.ogg": _ogg(11),
            f"{_GAME}/sound/share/sp-dead.ogg": _ogg(12),
            f"{_GAME}/sound/elk/en/deu-l-los.ogg": _ogg(13),
        },
    )
    cow = "A cow.\nfr.utf8=Une vache.\nbg.utf8=Крава.\n"
    repository.add(
        "tuxpaint-stamps-default",
        {
            f"{_STAMPS}/animals/cow.txt": cow.encode(),
            f"{_STAMPS}/animals/cow.ogg": _ogg(21),
            f"{_STAMPS}/animals/cow_desc_fr.ogg": _ogg(22),
            f"{_STAMPS}/animals/cow_desc_bg.ogg": _ogg(23),
            f"{_STAMPS}/animals/cow_desc_el.ogg": _ogg(24),
            f"{_STAMPS}/animals/cow.png": b"PNG",
        },
    )
    repository.add(
        "asterisk-core-sounds-it-wav",
        {
            f"{_PROMPTS}/it_IT_m_Carlo/digits/1.wav": debs.sound("wav", hertz=710.0, rate=8_000),
            f"{_PROMPTS}/it_IT_m_Carlo/beep.wav": debs.sound("wav", hertz=720.0, rate=8_000),
            f"{_PROMPTS}/it_IT_m_Carlo/is.wav": b"",
        },
    )
    return repository


def _flags(tmp_path, names, *more, output="out"):
    given = ("--source=debian", f"--input={names}", f"--data_dir={tmp_path / 'cache'}")
    return [*given, f"--output={tmp_path / output}", "--num_workers=1", *more]


def _records(folder):
    shard_set = sources.ShardSet(folder)
    records = map(shard_set.__getitem__, range(len(shard_set)))
    return {record.source.rpartition("/")[2]: record for record in records}


@_NEEDS_DPKG
def test_each_family_has_its_texts_labels_and_licences(repository, tmp_path, capsys):
    code, said, _ = builds.run(_flags(tmp_path, "speech,effects,fillets-ng-data"), capsys)
    assert code == 1  # The sets have more packages than this repository.
    names = "festvox-ru,fillets-ng-data-cs,tuxpaint-stamps-default,asterisk-core-sounds-it-wav"
    code, said, _ = builds.run(_flags(tmp_path, names), capsys)
    assert code == 0
    assert "festvox-ru 1.0-1: BSD-like, weights trained on it: may be shipped with its" in said
    assert "tuxpaint-stamps-default 1.0-1: GPL-2.0-or-later, weights trained on it: for me" in said
    found = {
        name: (record.texts[0].content if record.texts else "", record.labels)
        for name, record in _records(tmp_path / "out").items()
    }
    gpl, speech = {"licence": "GPL-2.0-only"}, {"kind": "speech"}
    ru = {"package": "festvox-ru", "language": "ru", "speaker": "msu_ru_nsh", "licence": "BSD-like"}
    cs = {"package": "fillets-ng-data-cs", "language": "cs", **gpl, **speech}
    tux = {"package": "tuxpaint-stamps-default", "licence": "GPL-2.0-or-later"}
    it = {"package": "asterisk-core-sounds-it-wav", "licence": "CC-BY-3.0"}
    assert found == {
        "ru_1.wav": ("Два.", ru | speech),
        "ru_2.wav": ("Три.", ru | speech),
        "a-m-x.ogg": ("Malá.", cs | {"role": "small", "speaker": "fillets-cs-small"}),
        "a-v-x.ogg": ("Velká.", cs | {"role": "big", "speaker": "fillets-cs-big"}),
        "a-hs-x.ogg": ("Občané.", cs | {"role": "statue"}),
        "cow.ogg": ("A cow.", tux | {"kind": "effect"}),
        "cow_desc_fr.ogg": ("Une vache.", tux | {"language": "fr"} | speech),
        "cow_desc_bg.ogg": (
            "Крава.",
            tux | {"language": "bg", "speaker": "Krasimir Petkov"} | speech,
        ),
        "cow_desc_el.ogg": ("", tux | {"language": "el", "speaker": "Kiriaki Serafeim"} | speech),
        "1.wav": ("", it | {"language": "it", "speaker": "Carlo"} | speech),
        "beep.wav": ("", it | {"kind": "effect"}),
    }
    content = manifest.read(tmp_path / "out")
    assert content.refused == {"empty": 1}
    assert content.rows == {
        "matched": 8,
        "without sound": 1,
        "sounds without row": 1,
    }
    assert content.licences["asterisk-core-sounds-it-wav"] == {
        "version": "1.0-1",
        "licence": "CC-BY-3.0",
        "weights": "may be shipped naming its authors",
        "credit": "Carlo Flora (carloflora.com), Silvia Petrin; Digium",
        "notice": "usr/share/doc/asterisk-core-sounds-it-wav/copyright",
    }
    assert content.licences["fillets-ng-data-cs"]["weights"] == "for measuring only"
    assert set(content.licences) == set(names.split(",")) == set(content.hours["package"])


@_NEEDS_DPKG
def test_prompts_of_16_khz_are_decoded_whole(repository, tmp_path, capsys):
    prompt = debs.g722(0.3 * sounds.tone(1.0, rate=16_000, hertz=5_000.0))
    files = {
        f"{_PROMPTS}/it_IT_m_Carlo/digits/1.g722": prompt,
        f"{_PROMPTS}/it_IT_m_Carlo/beep.g722": prompt[: len(prompt) // 2],
        f"{_PROMPTS}/it_IT_m_Carlo/is.g722": b"",
        f"{_PROMPTS}/it_IT_m_Carlo/silence/1.g722": prompt,
    }
    repository.add("asterisk-core-sounds-it-g722", files)
    flags = _flags(tmp_path, "asterisk-core-sounds-it-g722", "--sample_rate=16000")
    assert builds.run(flags, capsys)[0] == 0
    found = _records(tmp_path / "out")
    assert {name: len(one.waveform) for name, one in found.items()} == {
        "1.g722": 16_000,
        "beep.g722": 8_000,
    }
    labels = found["1.g722"].labels
    assert labels["speaker"] == "Carlo" and labels["package"].endswith("-it-g722")
    assert found["1.g722"].levels["bandwidth"] > 4_500
    content = manifest.read(tmp_path / "out")
    assert content.refused == {"empty": 1}
    assert content.skipped["sound that is not described"] == 1


@_NEEDS_DPKG
def test_without_a_decoder_nothing_is_fetched(repository, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "G722", None)
    code, _, error = builds.run(_flags(tmp_path, "shippable"), capsys)
    assert code == 1 and error.count("\n") == 1 and not repository.asked
    assert ": asterisk-core-sounds-en-g722: raw G.722 needs a decoder (package G722)" in error
    assert "None" not in error
    assert "pip install -e '.[recordings]'" in error
    assert builds.run(_flags(tmp_path, "asterisk-core-sounds-it-wav"), capsys)[0] == 0


@_NEEDS_DPKG
def test_a_second_build_needs_no_network_and_gives_the_same_bytes(repository, tmp_path, capsys):
    names = "festvox-ru,tuxpaint-stamps-default"
    assert builds.run(_flags(tmp_path, names), capsys)[0] == 0
    asked = repository.asked
    assert asked == ["festvox-ru", "tuxpaint-stamps-default"]
    for tool in ("apt-get", "dpkg-deb"):
        (tmp_path / "tools" / tool).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "tools" / tool).chmod(0o755)
    (tmp_path / "cache").rename(tmp_path / "moved")
    flags = _flags(tmp_path, names, f"--data_dir={tmp_path / 'moved'}", output="again")
    assert builds.run(flags, capsys)[0] == 0
    first, second = (builds.files(tmp_path / name) for name in ("out", "again"))
    assert first == second and any(name.endswith("manifest.json") for name in first)


@_NEEDS_DPKG
def test_a_set_takes_its_kind_and_a_package_s_kind_alone(repository, tmp_path, capsys):
    assert builds.run(_flags(tmp_path, "fillets-ng-data/music"), capsys)[0] == 0
    assert set(_records(tmp_path / "out")) == {"menu.ogg"}
    skipped = manifest.read(tmp_path / "out").skipped
    assert skipped["effect, not asked for"] == skipped["sound that is not described"] == 1


@_NEEDS_DPKG
def test_speech_text_is_what_has_a_text(repository, tmp_path, monkeypatch):
    known = ("tuxpaint-stamps-default",)
    monkeypatch.setattr(recordings, "_packages", lambda names: list(known))
    source = recordings.choose(["speech_text"], data_dir=str(tmp_path / "cache"), say=print)
    found = source.listed()
    assert [item.key.rpartition("_")[2] for item in found.items] == ["bg.ogg", "fr.ogg"]
    assert found.skipped["speech without text, not asked for"] == 1
    assert found.skipped["effect, not asked for"] == 1


@_NEEDS_DPKG
@pytest.mark.parametrize("label", ["speaker", "package", "language"])
def test_whole_values_are_held_out(label, repository, tmp_path, capsys):
    names = "festvox-ru,fillets-ng-data-cs,tuxpaint-stamps-default,asterisk-core-sounds-it-wav"
    flags = _flags(tmp_path, names, "--holdout=0.3", f"--holdout_by={label}")
    assert builds.run(flags, capsys)[0] == 0
    sides = [_records(tmp_path / "out" / part).values() for part in ("train", "test")]
    train, test = ({one.labels[label] for one in side if label in one.labels} for side in sides)
    assert train and test and not train & test
    if label == "speaker":
        # Who speaks for the statue is not told: it may be either of the two who are known.
        actors = {"fillets-cs-small", "fillets-cs-big"}
        assert actors <= train or actors <= test
        of_roles = [{one.labels.get("role") for one in side} for side in sides]
        assert {"statue", "small", "big"} <= of_roles[actors <= test]


@_NEEDS_DPKG
def test_music_alone_has_no_speakers_to_hold_out(repository, tmp_path, capsys):
    flags = _flags(tmp_path, "fillets-ng-data", "--holdout=0.5", "--holdout_by=speaker")
    code, _, error = builds.run(flags, capsys)
    assert code == 1 and "needs a label 'speaker' of every sound, 2 of 2 have none" in error


@_NEEDS_DPKG
def test_texts_that_cannot_be_of_their_sounds_are_counted_and_not_used(
    repository, tmp_path, capsys
):
    copied = _ogg(1)
    repository.add(
        "tuxpaint-stamps-default",
        {
            f"{_STAMPS}/a/{name}_desc_el.ogg": sound
            for name, sound in {
                "long": _ogg(2, 0.2),
                "b": copied,
                "c": copied,
                "d": _ogg(3),
            }.items()
        }
        | {
            f"{_STAMPS}/a/{name}.txt": f"X.\nel.utf8={words}\n".encode()
            for name, words in {"long": "α" * 50, "b": "βου", "c": "γου", "d": "δου"}.items()
        },
    )
    code, said, _ = builds.run(_flags(tmp_path, "tuxpaint-stamps-default"), capsys)
    assert code == 0
    texts = {name: bool(record.texts) for name, record in _records(tmp_path / "out").items()}
    assert texts == {f"{name}_desc_el.ogg": name == "d" for name in ("long", "b", "c", "d")}
    assert manifest.read(tmp_path / "out").rows == {"matched": 1, "doubtful": 3}
    assert "not used, other words for a copy of the same sound: 2, such as of" in said
    assert "over 22 a second: 1, such as of usr/share/tuxpaint/stamps/a/long_desc_el.ogg" in said


@_NEEDS_DPKG
@pytest.mark.parametrize(
    "files, message",
    [
        ({f"{_RU}/sound/ru_1.wav": b"x"}, "must have sounds at the paths that are known"),
        ({f"{_RU}/wav/ru_1.wav": debs.sound("wav")}, "must have utterances of festvox-ru"),
    ],
)
def test_a_package_that_is_laid_out_otherwise_is_refused(
    files, message, repository, tmp_path, capsys
):
    repository.add("festvox-ru", files, version="9.0")
    code, _, error = builds.run(_flags(tmp_path, "festvox-ru"), capsys)
    assert code == 1 and error.count("\n") == 1
    assert message in error and "got none in its version 9.0" in error


@_NEEDS_DPKG
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--input="], "--source=debian needs --input: sets (speech,"),
        (["--input=no-such-package"], "--input must name sets (speech,"),
        (["--input=klettres-data"], "E: Unable to locate package klettres-data"),
        (["--split=test"], "--split is not for --source=debian"),
        (["--text_kind=caption"], "--text_kind is not for --source=debian"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(flags, message, repository, tmp_path, capsys):
    code, _, error = builds.run(_flags(tmp_path, "festvox-ru", *flags), capsys)
    assert code == 1 and error.count("\n") == 1 and message in error


@pytest.mark.slow
def test_a_real_package_comes_whole_by_the_real_apt(tmp_path, capsys):
    """python -m pytest -m slow tests/data_pipelines/inputs/debian/test_recordings.py"""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("no apt-get and dpkg-deb")
    code, said, error = builds.run(_flags(tmp_path, "sonic-pi-samples"), capsys)
    if code and "sonic-pi-samples must come whole from apt" in error:
        pytest.skip(f"apt gives no package here: {error.strip()}")
    assert code == 0, error
    content = manifest.read(tmp_path / "out")
    assert content.num_used > 100 and set(content.hours["kind"]) == {"effect", "music"}
    assert content.licences["sonic-pi-samples"]["licence"] == "CC0-1.0"
    assert json.loads((tmp_path / "cache/sonic-pi-samples/package.json").read_text())["version"]
