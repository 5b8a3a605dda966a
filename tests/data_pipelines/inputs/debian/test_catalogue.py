# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of packages: their parts, sets, licences and what these allow."""

import re

import pytest

from data_pipelines.inputs.debian import catalogue
from data_pipelines.inputs.debian import recordings

_STAMPS = "usr/share/tuxpaint/stamps"
_VOICES = "usr/share/games/hedgewars/Data/Sounds"
_GAME = "usr/share/games/fillets-ng"


@pytest.mark.parametrize(
    "package, path, kind, language, speaker, licence",
    [
        ("tuxpaint-stamps-default", f"{_STAMPS}/a/cow.ogg", "effect", None, None, "GPL-2"),
        ("tuxpaint-stamps-default", f"{_STAMPS}/a/cow_desc.ogg", "speech", "en", None, "GPL-2"),
        (
            *("tuxpaint-stamps-default", f"{_STAMPS}/a/cow_desc_bg.ogg"),
            *("speech", "bg", "Krasimir Petkov", "GPL-2"),
        ),
        ("tuxpaint-stamps-default", f"{_STAMPS}/a/b_desc_pt_BR.wav", "speech", "pt", None, "GPL-2"),
        ("tuxpaint-stamps-default", f"{_STAMPS}/symbols/math/9.ogg", "speech", "en", None, "GPL-2"),
        (
            *("tuxpaint-stamps-default", f"{_STAMPS}/symbols/math/9_zh_tw.ogg"),
            *("speech", "zh", None, "GPL-2"),
        ),
        (
            *("tuxpaint-stamps-default", f"{_STAMPS}/symbols/math/9_en_GB.ogg"),
            *("speech", "en", "John Arundel", "GPL-2"),
        ),
        ("hedgewars-data", f"{_VOICES}/voices/Default_uk/Fire.ogg", "speech", "uk", None, "GFDL"),
        ("hedgewars-data", f"{_VOICES}/voices/Pirate/Fire.ogg", "speech", "en", None, "GFDL"),
        ("hedgewars-data", f"{_VOICES}/Droplet1.ogg", "effect", None, None, "CC-BY-SA-3"),
        ("hedgewars-data", f"{_VOICES}/gun.ogg", "effect", None, None, "GFDL"),
        ("fillets-ng-data", f"{_GAME}/sound/linux/en/key1.ogg", "effect", None, None, "GPL-2"),
        (
            *("asterisk-core-sounds-es-wav", "usr/share/asterisk/sounds/es_MX_f_Allison/is.wav"),
            *("speech", "es", "Allison", "CC-BY-SA-3"),
        ),
        (
            *("asterisk-core-sounds-ru-wav", "usr/share/asterisk/sounds/ru_RU_f_X/beep.wav"),
            *("effect", None, None, "CC-BY-3"),
        ),
        (
            *("asterisk-core-sounds-fr-g722", "usr/share/asterisk/sounds/fr_CA_f_June/is.g722"),
            *("speech", "fr", "June", "CC-BY-SA-3"),
        ),
        (
            *("asterisk-core-sounds-ru-g722", "usr/share/asterisk/sounds/ru_RU_f_X/beep.g722"),
            *("effect", None, None, "CC-BY-3"),
        ),
        ("gcin-voice", "usr/share/gcin-voice/ogg/ㄩ/5.ogg", "speech", "zh", "Chu Lo", "CC-BY-3"),
        ("gcin-voice", "usr/share/gcin-voice/ogg/ㄩ/3.ogg", "speech", "zh", None, "GPL-3"),
        ("sonic-pi-samples", "usr/share/sonic-pi/samples/loop_x.flac", "music", None, None, "CC0"),
    ],
)
def test_a_sound_is_of_its_part(package, path, kind, language, speaker, licence):
    part, labels = catalogue.packages()[package].part(path)
    assert (part.kind, labels["kind"]) == (kind, kind)
    assert (labels.get("language"), labels.get("speaker")) == (language, speaker)
    assert labels["licence"].startswith(licence)


@pytest.mark.parametrize(
    "package, path",
    [
        ("tuxpaint-stamps-default", f"{_STAMPS}/seasonal/hanukkah/dreydl-nun.ogg"),
        ("tuxpaint-stamps-default", f"{_STAMPS}/a/cow_desc_da.ogg.ogg"),
        ("tuxpaint-stamps-default", f"{_STAMPS}/a/cow.png"),
        ("asterisk-core-sounds-en-wav", "usr/share/asterisk/sounds/en_US_f_Allison/silence/1.wav"),
        ("fillets-ng-data", f"{_GAME}/sound/elk/en/deu-l-los.ogg"),
        ("sonic-pi-samples", "usr/share/sonic-pi/buffers/rand-stream.wav"),
    ],
)
def test_of_what_nothing_is_known_is_of_none(package, path):
    assert catalogue.packages()[package].part(path) is None


def test_every_part_is_whole():
    for package in catalogue.packages().values():
        assert package.what and package.credit and package.parts
        for part in package.parts:
            re.compile(part.path)
            assert part.kind in catalogue.KINDS
            assert part.texts in ("", *recordings._TEXTS)
            assert part.texts_of in ("", *catalogue.packages())
        assert package.decoder in ("", *recordings._DECODERS)
        assert package.same_as in ("", *catalogue.packages())


def test_packages_of_the_same_sounds_differ_in_nothing_else():
    packages = catalogue.packages()
    same = [package for package in packages.values() if package.same_as]
    assert len(same) == 6
    for package in same:
        other = packages[package.same_as]
        assert (package.parts, package.credit) == (other.parts, other.credit)
        assert (package.decoder, other.decoder, other.same_as) == ("", "g722", "")


@pytest.mark.parametrize(
    "licence, is_for_measuring",
    [("CC0-1.0", False), ("CC-BY-3.0", False), ("CC-BY-SA-3.0", False), ("BSD-like", False)]
    + [("GPL-2.0-only", True), ("GFDL-1.3-only", True), ("CC-BY-NC-4.0", True), ("", True)],
)
def test_what_a_licence_allows(licence, is_for_measuring):
    assert catalogue.is_for_measuring(licence) == is_for_measuring
    assert ("same licence" in catalogue.weights(licence)) == licence.startswith("CC-BY-SA")


def _packages(*names):
    return set(recordings._packages(names))


def test_sets_are_of_packages():
    narrow = {name for name, package in catalogue.packages().items() if package.same_as}
    assert _packages("all") == set(catalogue.packages()) - narrow
    assert _packages("shippable") > {catalogue.packages()[name].same_as for name in narrow}
    assert _packages(*narrow) == narrow
    texts = {"festvox-ru", "fillets-ng-data-cs", "fillets-ng-data-nl", "tuxpaint-stamps-default"}
    assert _packages("speech_text") == texts | {"pocketsphinx-testdata"}
    assert {"hedgewars-data", "fillets-ng-data", "sonic-pi-samples"} < _packages("music")
    assert not _packages("shippable") & {"tuxpaint-stamps-default", "fillets-ng-data-cs"}
    assert _packages("hedgewars-data/music", "festvox-ru") == {"hedgewars-data", "festvox-ru"}
    music = catalogue.choices(["hedgewars-data/music"])[0]
    parts = catalogue.packages()["hedgewars-data"].parts
    assert {part.kind for part in parts if music.takes("hedgewars-data", part)} == {"music"}


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "--source=debian needs --input: sets .speech, "),
        (["speach"], "--input must name sets .speech, .*festvox-ru.*, got 'speach'"),
        (["festvox-ru/music"], "--input must name festvox-ru/ and speech, got 'festvox-ru/music'"),
        (["festvox-ru/"], "got 'festvox-ru/'"),
    ],
)
def test_names_of_nothing_are_refused_with_those_that_are_known(names, message):
    with pytest.raises(ValueError, match=message):
        catalogue.choices(names)


@pytest.mark.parametrize("beside", ["shippable", "asterisk-core-sounds-ru-g722"])
def test_the_same_sounds_are_not_taken_twice(beside):
    with pytest.raises(ValueError, match="-ru-wav beside asterisk-core-sounds-ru-g722.*leave one"):
        _packages("asterisk-core-sounds-ru-wav", beside)
