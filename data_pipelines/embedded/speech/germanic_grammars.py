# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Words and templates of English and German."""

from data_pipelines.embedded.speech import grammar

ENGLISH = grammar.Grammar(
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
GERMAN = grammar.Grammar(
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
