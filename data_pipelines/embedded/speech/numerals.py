# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers in words, in five languages: speech needs the words that are said, not the figures."""

LANGUAGES = ("de", "en", "es", "fr", "it")
LARGEST = 9999

_SMALL = {  # 0 to 19, 0 to 15 (es), 0 to 16 (fr): the words that are not composed
    "en": (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen"
    ).split(),
    "de": (
        "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
        "fünfzehn sechzehn siebzehn achtzehn neunzehn"
    ).split(),
    "es": (
        "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
        "dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés "
        "veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve"
    ).split(),
    "fr": (
        "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze "
        "seize dix-sept dix-huit dix-neuf"
    ).split(),
    "it": (
        "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici "
        "quattordici quindici sedici diciassette diciotto diciannove"
    ).split(),
}
_TENS = {  # 20, 30, ...
    "en": "twenty thirty forty fifty sixty seventy eighty ninety".split(),
    "de": "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split(),
    "es": "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa".split(),
    "fr": "vingt trente quarante cinquante soixante".split(),
    "it": "venti trenta quaranta cinquanta sessanta settanta ottanta novanta".split(),
}
_SPANISH_HUNDREDS = (
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos "
    "novecientos"
).split()


def digit(value: int, *, language: str) -> str:
    """Returns the word for one digit, 0 to 9."""
    return _SMALL[language][value]


def words(value: int, *, language: str) -> str:
    """Returns a whole number, 0 to LARGEST, as it is said.

    Raises:
        ValueError: a number out of range or a language not in LANGUAGES.
    """
    if language not in LANGUAGES:
        raise ValueError(
            f"language of a number in words must be one of {LANGUAGES}, got {language!r}"
        )
    if not 0 <= value <= LARGEST:
        raise ValueError(f"number in words must be 0 to {LARGEST}, got {value}")
    return {"de": _german, "en": _english, "es": _spanish, "fr": _french, "it": _italian}[language](
        value
    )


def _english(value: int) -> str:
    if value < 20:
        return _SMALL["en"][value]
    if value < 100:
        tens = _TENS["en"][value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens} {_english(value % 10)}"
    size, name = (1000, "thousand") if value >= 1000 else (100, "hundred")
    head = f"{_english(value // size)} {name}"
    return head if value % size == 0 else f"{head} {_english(value % size)}"


def _german(value: int) -> str:
    if value < 20:
        return _SMALL["de"][value]
    if value < 100:
        tens, unit = _TENS["de"][value // 10 - 2], value % 10
        return tens if unit == 0 else f"{_german_head(unit)}und{tens}"
    size, name = (1000, "tausend") if value >= 1000 else (100, "hundert")
    head = f"{_german_head(value // size)}{name}"
    return head if value % size == 0 else head + _german(value % size)


def _german_head(value: int) -> str:
    return "ein" if value == 1 else _german(value)  # "eins" only stands at the end


def _spanish(value: int) -> str:
    if value < 30:
        return _SMALL["es"][value]
    if value < 100:
        tens = _TENS["es"][value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens} y {_spanish(value % 10)}"
    if value == 100:
        return "cien"
    if value < 1000:
        head = _SPANISH_HUNDREDS[value // 100 - 1]
        return head if value % 100 == 0 else f"{head} {_spanish(value % 100)}"
    head = "mil" if value < 2000 else f"{_spanish(value // 1000)} mil"
    return head if value % 1000 == 0 else f"{head} {_spanish(value % 1000)}"


def _french(value: int) -> str:
    if value < 20:
        return _SMALL["fr"][value]
    if value < 70:
        tens, unit = _TENS["fr"][value // 10 - 2], value % 10
        if unit == 1:
            return f"{tens} et un"
        return tens if unit == 0 else f"{tens}-{_french(unit)}"
    if value < 80:
        return "soixante et onze" if value == 71 else f"soixante-{_french(value - 60)}"
    if value < 100:
        return "quatre-vingts" if value == 80 else f"quatre-vingt-{_french(value - 80)}"
    size, name = (1000, "mille") if value >= 1000 else (100, "cent")
    count, rest = divmod(value, size)
    if count == 1:
        head = name
    else:  # "cents" only when nothing follows; "quatre-vingts mille" cannot occur below 10,000
        head = f"{_french(count)} {name}" + ("s" if name == "cent" and rest == 0 else "")
    return head if rest == 0 else f"{head} {_french(rest)}"


def _italian(value: int) -> str:
    if value < 20:
        return _SMALL["it"][value]
    if value < 100:
        tens, unit = _TENS["it"][value // 10 - 2], value % 10
        if unit in (1, 8):
            return tens[:-1] + _SMALL["it"][unit]  # ventuno, ventotto
        if unit == 3:
            return tens + "tré"
        return tens if unit == 0 else tens + _SMALL["it"][unit]
    if value < 1000:
        count, rest = divmod(value, 100)
        head = "cento" if count == 1 else _SMALL["it"][count] + "cento"
        return head if rest == 0 else head + _italian_tail(rest)
    count, rest = divmod(value, 1000)
    head = "mille" if count == 1 else _SMALL["it"][count] + "mila"
    return head if rest == 0 else head + _italian_tail(rest)


def _italian_tail(value: int) -> str:
    return (
        "tré" if value == 3 else _italian(value)
    )  # a final "tre" after another word has an accent
