# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers in words, in each language, against forms written out by hand."""

import pytest

from data_pipelines.embedded.speech import grammar
from data_pipelines.embedded.speech import numerals

_EXPECTED = {
    "en": {
        0: "zero",
        13: "thirteen",
        21: "twenty one",
        342: "three hundred forty two",
        1005: "one thousand five",
        9999: "nine thousand nine hundred ninety nine",
    },
    "de": {
        1: "eins",
        21: "einundzwanzig",
        30: "dreißig",
        101: "einhunderteins",
        216: "zweihundertsechzehn",
        1999: "eintausendneunhundertneunundneunzig",
    },
    "es": {
        16: "dieciséis",
        22: "veintidós",
        31: "treinta y uno",
        100: "cien",
        101: "ciento uno",
        555: "quinientos cincuenta y cinco",
        1000: "mil",
        2023: "dos mil veintitrés",
    },
    "fr": {
        17: "dix-sept",
        21: "vingt et un",
        71: "soixante et onze",
        80: "quatre-vingts",
        81: "quatre-vingt-un",
        99: "quatre-vingt-dix-neuf",
        200: "deux cents",
        203: "deux cent trois",
        1000: "mille",
        4380: "quatre mille trois cent quatre-vingts",
    },
    "it": {
        21: "ventuno",
        28: "ventotto",
        33: "trentatré",
        100: "cento",
        103: "centotré",
        1000: "mille",
        2342: "duemilatrecentoquarantadue",
    },
}


@pytest.mark.parametrize("language", grammar.LANGUAGES)
def test_forms(language):
    for value, expected in _EXPECTED[language].items():
        assert numerals.words(value, language=language) == expected


@pytest.mark.parametrize("language", grammar.LANGUAGES)
def test_every_number_has_its_own_words(language):
    forms = {numerals.words(value, language=language) for value in range(numerals.LARGEST + 1)}
    assert len(forms) == numerals.LARGEST + 1


def test_out_of_range_and_unknown_language():
    with pytest.raises(ValueError, match="0 to 9999, got 10000"):
        numerals.words(10_000, language="en")
    with pytest.raises(ValueError, match="got 'xx'"):
        numerals.words(1, language="xx")
