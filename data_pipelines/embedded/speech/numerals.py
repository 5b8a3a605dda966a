# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers in words, in five languages: speech needs the words that are said, not the figures."""

from data_pipelines.embedded.speech import grammar

LARGEST = 9999


def digit(value: int, *, language: str) -> str:
    """Returns the word for one digit, 0 to 9."""
    return grammar.read(language).units[value]


def words(value: int, *, language: str) -> str:
    """Returns a whole number, 0 to LARGEST, as it is said.

    Raises:
        ValueError: a number out of range or a language not in grammar.LANGUAGES.
    """
    if language not in grammar.LANGUAGES:
        raise ValueError(
            f"language of a number in words must be one of {grammar.LANGUAGES}, got {language!r}"
        )
    if not 0 <= value <= LARGEST:
        raise ValueError(f"number in words must be 0 to {LARGEST}, got {value}")
    spell = {"de": _german, "en": _english, "es": _spanish, "fr": _french, "it": _italian}[language]
    return spell(value, grammar.read(language))


def _english(value: int, forms: grammar.Grammar) -> str:
    if value < 20:
        return forms.units[value]
    if value < 100:
        tens = forms.tens[value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens} {_english(value % 10, forms)}"
    size, name = (1000, "thousand") if value >= 1000 else (100, "hundred")
    head = f"{_english(value // size, forms)} {name}"
    return head if value % size == 0 else f"{head} {_english(value % size, forms)}"


def _german(value: int, forms: grammar.Grammar) -> str:
    if value < 20:
        return forms.units[value]
    if value < 100:
        tens, unit = forms.tens[value // 10 - 2], value % 10
        return tens if unit == 0 else f"{_german_head(unit, forms)}und{tens}"
    size, name = (1000, "tausend") if value >= 1000 else (100, "hundert")
    head = f"{_german_head(value // size, forms)}{name}"
    return head if value % size == 0 else head + _german(value % size, forms)


def _german_head(value: int, forms: grammar.Grammar) -> str:
    return "ein" if value == 1 else _german(value, forms)  # "eins" only stands at the end


def _spanish(value: int, forms: grammar.Grammar) -> str:
    if value < 30:
        return forms.units[value]
    if value < 100:
        tens = forms.tens[value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens} y {_spanish(value % 10, forms)}"
    if value == 100:
        return "cien"
    if value < 1000:
        head = forms.hundreds[value // 100 - 1]
        return head if value % 100 == 0 else f"{head} {_spanish(value % 100, forms)}"
    head = "mil" if value < 2000 else f"{_spanish(value // 1000, forms)} mil"
    return head if value % 1000 == 0 else f"{head} {_spanish(value % 1000, forms)}"


def _french(value: int, forms: grammar.Grammar) -> str:
    if value < 20:
        return forms.units[value]
    if value < 70:
        tens, unit = forms.tens[value // 10 - 2], value % 10
        if unit == 1:
            return f"{tens} et un"
        return tens if unit == 0 else f"{tens}-{_french(unit, forms)}"
    if value < 80:
        return "soixante et onze" if value == 71 else f"soixante-{_french(value - 60, forms)}"
    if value < 100:
        return "quatre-vingts" if value == 80 else f"quatre-vingt-{_french(value - 80, forms)}"
    size, name = (1000, "mille") if value >= 1000 else (100, "cent")
    count, rest = divmod(value, size)
    if count == 1:
        head = name
    else:  # "cents" only when nothing follows; "quatre-vingts mille" cannot occur below 10,000
        head = f"{_french(count, forms)} {name}" + ("s" if name == "cent" and rest == 0 else "")
    return head if rest == 0 else f"{head} {_french(rest, forms)}"


def _italian(value: int, forms: grammar.Grammar) -> str:
    if value < 20:
        return forms.units[value]
    if value < 100:
        tens, unit = forms.tens[value // 10 - 2], value % 10
        if unit in (1, 8):
            return tens[:-1] + forms.units[unit]  # ventuno, ventotto
        if unit == 3:
            return tens + "tré"
        return tens if unit == 0 else tens + forms.units[unit]
    if value < 1000:
        count, rest = divmod(value, 100)
        head = "cento" if count == 1 else forms.units[count] + "cento"
        return head if rest == 0 else head + _italian_tail(rest, forms)
    count, rest = divmod(value, 1000)
    head = "mille" if count == 1 else forms.units[count] + "mila"
    return head if rest == 0 else head + _italian_tail(rest, forms)


def _italian_tail(value: int, forms: grammar.Grammar) -> str:
    # A final "tre" after another word has an accent.
    return "tré" if value == 3 else _italian(value, forms)
