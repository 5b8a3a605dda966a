# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the embedded voices say: digits, numbers, names and everyday sentences, composed here.

Slots take phrases that fit wherever the template puts them: places carry their preposition, things
are feminine or masculine with their own article, and no template makes anything else agree.
"""

import dataclasses
import re

import numpy as np

from data_pipelines import numerals

KINDS = ("digits", "number", "name", "sentence")


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


_ENGLISH = Grammar(
    first_names=tuple(
        (
            "Anna Ben Clara David Emma Frank Grace Henry Ivy Jack Kate Liam Mary Noah Olive Peter "
            "Rose Sam Tessa Will"
        ).split()
    ),
    last_names=tuple(
        (
            "Adams Baker Carter Evans Fisher Green Harris Jones Kelly Lewis Miller Parker Reed "
            "Stone Turner Walker Young"
        ).split()
    ),
    things=(
        "the letter",
        "the old book",
        "a cup of tea",
        "the blue coat",
        "some bread",
        "the window",
        "the small key",
        "a loaf of bread",
        "the green bag",
        "the phone",
        "two apples",
        "the map",
        "the garden gate",
        "a glass of water",
        "the radio",
        "the newspaper",
        "the white box",
    ),
    places=(
        "at home",
        "in the kitchen",
        "near the river",
        "at the station",
        "on the hill",
        "in the garden",
        "by the sea",
        "in the city",
        "at the market",
        "behind the school",
        "in the small shop",
        "on the bridge",
    ),
    times=(
        "today",
        "tomorrow",
        "on Monday",
        "on Friday",
        "in the morning",
        "at noon",
        "every evening",
        "after dinner",
        "next week",
        "in the summer",
        "before breakfast",
        "at night",
    ),
    numbers=(
        "{number}",
        "{number}",
        "room {number}",
        "the answer is {number}",
        "page {number}",
        "it costs {number} pounds",
        "he counted to {number}",
        "number {number}, please",
    ),
    names=(
        "{first}",
        "{first} {last}",
        "my name is {first}",
        "this is {first} {last}",
        "please call {first}",
        "is {first} there?",
        "good morning, {first}",
        "{first} and {friend}",
    ),
    sentences=(
        "{first} put {thing} on the table {time}.",
        "where is {thing}?",
        "we meet {place} {time}.",
        "I lost {thing} {place}.",
        "the weather is fine {time}.",
        "please bring {thing} {time}.",
        "it is very quiet {place}.",
        "{first} lives {place} with {friend}.",
        "can you see {thing}?",
        "the train leaves {time}.",
        "I would like {thing}, thank you.",
        "open the door.",
        "{friend} is waiting {place}.",
        "good night.",
        "nobody was {place} {time}.",
        "she told {friend} about {thing}.",
        "how far is it?",
        "a dog was sleeping {place}.",
        "there is rain {time}.",
        "thank you very much.",
    ),
)
_GERMAN = Grammar(
    first_names=tuple(
        (
            "Anna Bernd Clara Dieter Eva Felix Greta Hans Ida Jonas Karin Lukas Maria Nina Otto "
            "Paula Rolf Sophie Tim Ute"
        ).split()
    ),
    last_names=tuple(
        (
            "Bauer Becker Fischer Hoffmann Keller Klein Koch Lange Meyer Neumann Richter Schmidt "
            "Schulz Vogel Wagner Weber Wolf"
        ).split()
    ),
    things=(
        "den Brief",
        "das alte Buch",
        "eine Tasse Tee",
        "den blauen Mantel",
        "das Brot",
        "das Fenster",
        "den kleinen Schlüssel",
        "die grüne Tasche",
        "zwei Äpfel",
        "die Karte",
        "das Gartentor",
        "ein Glas Wasser",
        "das Radio",
        "die Zeitung",
        "die weiße Kiste",
    ),
    places=(
        "zu Hause",
        "in der Küche",
        "am Fluss",
        "am Bahnhof",
        "auf dem Hügel",
        "im Garten",
        "am Meer",
        "in der Stadt",
        "auf dem Markt",
        "hinter der Schule",
        "im kleinen Laden",
        "auf der Brücke",
    ),
    times=(
        "heute",
        "morgen",
        "am Montag",
        "am Freitag",
        "am frühen Morgen",
        "am Mittag",
        "jeden Abend",
        "nach dem Essen",
        "nächste Woche",
        "im Sommer",
        "vor dem Frühstück",
        "in der Nacht",
    ),
    numbers=(
        "{number}",
        "{number}",
        "Zimmer {number}",
        "die Antwort ist {number}",
        "Seite {number}",
        "das kostet {number} Euro",
        "er zählte bis {number}",
        "Nummer {number}, bitte",
    ),
    names=(
        "{first}",
        "{first} {last}",
        "ich heiße {first}",
        "hier spricht {first} {last}",
        "bitte ruf {first} an",
        "ist {first} da?",
        "guten Morgen, {first}",
        "{first} und {friend}",
    ),
    sentences=(
        "{first} legt {thing} auf den Tisch.",
        "ich suche {thing}.",
        "wir treffen uns {time} {place}.",
        "ich habe {place} {thing} verloren.",
        "das Wetter ist {time} schön.",
        "bitte bring {time} {thing} mit.",
        "{place} ist es sehr still.",
        "{first} wohnt mit {friend} {place}.",
        "siehst du {thing}?",
        "der Zug fährt {time}.",
        "ich möchte {thing}, danke.",
        "mach die Tür auf.",
        "{friend} wartet {place}.",
        "gute Nacht.",
        "niemand war {time} {place}.",
        "wie weit ist es?",
        "ein Hund schlief {place}.",
        "{time} gibt es Regen.",
        "vielen Dank.",
    ),
)
_FRENCH = Grammar(
    first_names=tuple(
        (
            "Alice Bruno Claire Denis Élise Fabien Hélène Hugo Jeanne Julien Louise Luc Marie "
            "Nicolas Odile Pierre Rose Simon Sylvie Thomas"
        ).split()
    ),
    last_names=tuple(
        (
            "Bernard Blanc Chevalier Dubois Durand Fontaine Garnier Lambert Leroy Martin Mercier "
            "Moreau Petit Renard Rousseau Simon Vidal"
        ).split()
    ),
    things=(
        "la lettre",
        "le vieux livre",
        "une tasse de thé",
        "le manteau bleu",
        "du pain",
        "la fenêtre",
        "la petite clé",
        "le sac vert",
        "deux pommes",
        "la carte",
        "la porte du jardin",
        "un verre d'eau",
        "la radio",
        "le journal",
        "la boîte blanche",
    ),
    places=(
        "à la maison",
        "dans la cuisine",
        "près de la rivière",
        "à la gare",
        "sur la colline",
        "dans le jardin",
        "au bord de la mer",
        "en ville",
        "au marché",
        "derrière l'école",
        "dans la petite boutique",
        "sur le pont",
    ),
    times=(
        "aujourd'hui",
        "demain",
        "lundi",
        "vendredi",
        "le matin",
        "à midi",
        "chaque soir",
        "après le dîner",
        "la semaine prochaine",
        "en été",
        "avant le petit déjeuner",
        "la nuit",
    ),
    numbers=(
        "{number}",
        "{number}",
        "chambre {number}",
        "la réponse est {number}",
        "page {number}",
        "cela coûte {number} euros",
        "il a compté jusqu'à {number}",
        "le numéro {number}, s'il vous plaît",
    ),
    names=(
        "{first}",
        "{first} {last}",
        "je m'appelle {first}",
        "ici {first} {last}",
        "appelle {first}, s'il te plaît",
        "est-ce que {first} est là?",
        "bonjour, {first}",
        "{first} et {friend}",
    ),
    sentences=(
        "{first} pose {thing} sur la table.",
        "je cherche {thing}.",
        "on se retrouve {place} {time}.",
        "j'ai perdu {thing} {place}.",
        "il fait beau {time}.",
        "apporte {thing} {time}, s'il te plaît.",
        "tout est calme {place}.",
        "{first} habite {place} avec {friend}.",
        "tu vois {thing}?",
        "le train part {time}.",
        "je voudrais {thing}, merci.",
        "ouvre la porte.",
        "{friend} attend {place}.",
        "bonne nuit.",
        "il n'y avait personne {place} {time}.",
        "c'est loin?",
        "un chien dormait {place}.",
        "il pleut {time}.",
        "merci beaucoup.",
    ),
)
_SPANISH = Grammar(
    first_names=tuple(
        (
            "Alba Bruno Carla Diego Elena Felipe Gloria Hugo Inés Jorge Laura Manuel Nuria Óscar "
            "Pablo Rosa Sara Tomás Vera Yago"
        ).split()
    ),
    last_names=tuple(
        (
            "Aguilar Blanco Castro Delgado Flores García Herrera Iglesias Molina Navarro Ortega "
            "Prieto Ramos Serrano Torres Vega"
        ).split()
    ),
    things=(
        "la carta",
        "el libro viejo",
        "una taza de té",
        "el abrigo azul",
        "el pan",
        "la ventana",
        "la llave pequeña",
        "la bolsa verde",
        "dos manzanas",
        "el mapa",
        "la puerta del jardín",
        "un vaso de agua",
        "la radio",
        "el periódico",
        "la caja blanca",
    ),
    places=(
        "en casa",
        "en la cocina",
        "cerca del río",
        "en la estación",
        "en la colina",
        "en el jardín",
        "junto al mar",
        "en la ciudad",
        "en el mercado",
        "detrás de la escuela",
        "en la pequeña tienda",
        "en el puente",
    ),
    times=(
        "hoy",
        "mañana",
        "el lunes",
        "el viernes",
        "por la mañana",
        "al mediodía",
        "cada tarde",
        "después de la cena",
        "la próxima semana",
        "en verano",
        "antes del desayuno",
        "por la noche",
    ),
    numbers=(
        "{number}",
        "{number}",
        "habitación {number}",
        "la respuesta es {number}",
        "página {number}",
        "es el número {number}",
        "él contó hasta {number}",
        "número {number}, por favor",
    ),
    names=(
        "{first}",
        "{first} {last}",
        "me llamo {first}",
        "habla {first} {last}",
        "llama a {first}, por favor",
        "¿está {first}?",
        "buenos días, {first}",
        "{first} con {friend}",
    ),
    sentences=(
        "{first} pone {thing} sobre la mesa.",
        "¿dónde está {first}?",
        "nos vemos {place} {time}.",
        "perdí {thing} {place}.",
        "hace buen tiempo {time}.",
        "trae {thing} {time}, por favor.",
        "todo está tranquilo {place}.",
        "{first} vive {place} con {friend}.",
        "¿ves {thing}?",
        "el tren sale {time}.",
        "quiero {thing}, gracias.",
        "abre la puerta.",
        "{friend} espera {place}.",
        "buenas noches.",
        "no había nadie {place} {time}.",
        "¿está lejos?",
        "un perro dormía {place}.",
        "llueve {time}.",
        "muchas gracias.",
    ),
)
_ITALIAN = Grammar(
    first_names=tuple(
        (
            "Alba Bruno Carla Dario Elena Fabio Gina Luca Irene Marco Laura Nicola Olga Paolo "
            "Rosa Sandro Silvia Tullio Vera Zeno"
        ).split()
    ),
    last_names=tuple(
        (
            "Amato Bianchi Colombo Conti Ferrari Fontana Galli Greco Leone Marino Neri Ricci "
            "Romano Russo Serra Villa"
        ).split()
    ),
    things=(
        "la lettera",
        "il vecchio libro",
        "una tazza di tè",
        "il cappotto blu",
        "il pane",
        "la finestra",
        "la piccola chiave",
        "la borsa verde",
        "due mele",
        "la mappa",
        "il cancello del giardino",
        "un bicchiere d'acqua",
        "la radio",
        "il giornale",
        "la scatola bianca",
    ),
    places=(
        "a casa",
        "in cucina",
        "vicino al fiume",
        "alla stazione",
        "sulla collina",
        "in giardino",
        "al mare",
        "in città",
        "al mercato",
        "dietro la scuola",
        "nel piccolo negozio",
        "sul ponte",
    ),
    times=(
        "oggi",
        "domani",
        "lunedì",
        "venerdì",
        "di mattina",
        "a mezzogiorno",
        "ogni sera",
        "dopo cena",
        "la prossima settimana",
        "in estate",
        "prima di colazione",
        "di notte",
    ),
    numbers=(
        "{number}",
        "{number}",
        "camera {number}",
        "la risposta è {number}",
        "pagina {number}",
        "costa {number} euro",
        "ha contato fino a {number}",
        "numero {number}, per favore",
    ),
    names=(
        "{first}",
        "{first} {last}",
        "mi chiamo {first}",
        "qui parla {first} {last}",
        "chiama {first}, per favore",
        "c'è {first}?",
        "buongiorno, {first}",
        "{first} con {friend}",
    ),
    sentences=(
        "{first} mette {thing} sul tavolo.",
        "cerco {thing}.",
        "ci vediamo {place} {time}.",
        "ho perso {thing} {place}.",
        "il tempo è bello {time}.",
        "porta {thing} {time}, per favore.",
        "è tutto tranquillo {place}.",
        "{first} abita {place} con {friend}.",
        "vedi {thing}?",
        "il treno parte {time}.",
        "vorrei {thing}, grazie.",
        "apri la porta.",
        "{friend} aspetta {place}.",
        "buona notte.",
        "non c'era nessuno {place} {time}.",
        "è lontano?",
        "un cane dormiva {place}.",
        "piove {time}.",
        "grazie mille.",
    ),
)
GRAMMARS = {"de": _GERMAN, "en": _ENGLISH, "es": _SPANISH, "fr": _FRENCH, "it": _ITALIAN}
LANGUAGES = tuple(GRAMMARS)


def compose(kind: str, rng: np.random.Generator, *, language: str) -> str:
    """Returns something to say, with the punctuation that a voice reads as pauses and melody.

    Args:
        kind: one of KINDS; "digits" is one to six digits one by one, "number" a number up to 9999.
        rng: decides the words.
        language: one of LANGUAGES.
    """
    if kind == "digits":
        return _digits(rng, language)
    grammar = GRAMMARS[language]
    templates = {"number": grammar.numbers, "name": grammar.names, "sentence": grammar.sentences}[
        kind
    ]
    first, friend = rng.choice(grammar.first_names, 2, replace=False)
    # As many short numbers as long ones.
    number = int(rng.integers(0, 10 ** int(rng.integers(1, 5))))
    return str(rng.choice(templates)).format(
        first=first,
        friend=friend,
        last=rng.choice(grammar.last_names),
        thing=rng.choice(grammar.things),
        place=rng.choice(grammar.places),
        time=rng.choice(grammar.times),
        number=numerals.words(number, language=language),
    )


def transcript(text: str) -> str:
    """Returns the words alone: lower case, apostrophes kept, no punctuation, single spaces."""
    return " ".join(re.sub(r"[^\w']+", " ", text.lower()).split())


def _digits(rng: np.random.Generator, language: str) -> str:
    count = int(rng.integers(1, 7))
    words = [numerals.digit(int(value), language=language) for value in rng.integers(0, 10, count)]
    # A pause in the middle of the long ones, as people say telephone numbers.
    return " ".join(words) if count < 4 else f"{' '.join(words[:3])}, {' '.join(words[3:])}"
