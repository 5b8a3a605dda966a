# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Recognisers of speech, and how far what they hear is from what was said.

A recogniser errs by itself: its figures tell differences, of a sound from its recording, and no
absolute intelligibility. The first row of a table is what it makes of the recordings.
"""

import os
import pathlib
import re
import threading
from typing import Any
import unicodedata

import numpy as np

from data_pipelines.embedded.speech import numerals
from data_pipelines.records import pcm16
from f3tok_jax.evaluation import error_rates
from f3tok_jax.evaluation.judges import judge
from f3tok_jax.runs import results

_EDGE = judge.RATE // 10  # samples of silence that pocketsphinx hears before and after a sound
_PIECE = 30  # seconds
_TO_TEXT, _TO_RECORDING = "word_error_rate", "word_error_rate_to_recording"


def _figures(name: str) -> dict[str, results.Metric]:
    return {
        _TO_TEXT: judge.metric(
            f"{name} WER",
            higher=False,
            explanation=f"Share of the words of the transcript that {name} misses or mishears, over "
            "all sounds together.",
        ),
        _TO_RECORDING: judge.metric(
            f"{name} WER to recording",
            higher=False,
            explanation=f"The same beside what {name} hears in the recording itself: what was lost, "
            "whatever it makes of the recording.",
        ),
    }


class _Recogniser(judge.Judge):
    """Word error rates of what `_hear` returns, a text."""

    comparing = frozenset({_TO_RECORDING})
    _languages: tuple[str, ...] = ()  # that it knows; () for all

    def verdict(
        self, heard: str, *, reference: str | None = None, text: str = "", language: str = ""
    ) -> judge.Verdict:
        if not _is_known(language, self._languages):
            known = " and ".join(self._languages)
            return self.none(f"{self.name} knows the language {known}, the sound is in {language}")
        wanted = {_TO_TEXT: spoken_words(text, language)}
        undefined = {_TO_TEXT: "the text has no words" if text else "there is no transcript"}
        if reference is not None:
            wanted[_TO_RECORDING] = spoken_words(reference, language)
            undefined[_TO_RECORDING] = f"{self.name} hears nothing in the recording"
        values, weights = {}, {}
        for name, words in wanted.items():
            edits, length = error_rates.words(words, spoken_words(heard, language))
            if length:
                values[name], weights[name] = edits / length, float(length)
                del undefined[name]
        return judge.Verdict(values, undefined, weights)


def _is_known(language: str, languages: tuple[str, ...]) -> bool:
    """Whether a label such as "en", "en-us" or "English" is of one of the languages, or says nothing."""
    spelled = {"en": "english"}
    told = re.split(r"[-_ ]", language.casefold())[0]
    return not language or not languages or told in {*languages, *map(spelled.get, languages)}


def spoken_words(text: str, language: str = "") -> str:
    """A text as recognisers write it: words of small letters, numbers as they are said.

    Marks are left out, hyphens part words, apostrophes inside of words stay. Numbers from 0 to 9999
    are spelled in the language, English where it is not told or has no spelling here.
    """
    language = language if language in ("de", "es", "fr", "it") else "en"
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    kept = "".join(one if one.isalnum() or one == "'" else " " for one in text)
    words = []
    for word in kept.split():
        word = word.strip("'")
        if word.isascii() and word.isdecimal() and int(word) <= numerals.LARGEST:
            word = numerals.words(int(word), language=language).replace("-", " ")
        words += [word] if word else []
    return " ".join(words)


class Pocketsphinx(_Recogniser):
    """A small recogniser of English read aloud, with a language model of its own: weak, but here."""

    name = "pocketsphinx"
    package = judge.Package(
        name="pocketsphinx",
        files=("pocketsphinx/model/en-us/en-us.lm.bin",),
        install="pip install pocketsphinx",
        licence="BSD-2-Clause",
    )
    figures = _figures("pocketsphinx")
    _languages = ("en",)

    def __init__(self):
        import pocketsphinx  # pylint: disable=g-import-not-at-top: an extra

        self._decoder = pocketsphinx.Decoder(samprate=judge.RATE, loglevel="FATAL")
        self._lock = threading.Lock()

    def _hear(self, sound: np.ndarray) -> str:
        # A sound that begins in the middle of a word loses it, even one of a recording.
        pcm, _ = pcm16.from_float(np.pad(sound, _EDGE))
        with self._lock:
            # What it has learnt of the noise would go from one sound to the next.
            self._decoder.reinit_feat()
            self._decoder.start_utt()
            self._decoder.process_raw(pcm.astype("<i2").tobytes(), full_utt=True)
            self._decoder.end_utt()
            found = self._decoder.hyp()
        return found.hypstr if found else ""


class FolderRecogniser(_Recogniser):
    """A recogniser in a folder of Hugging Face's format, such as Whisper, run by transformers."""

    name = "recogniser"
    package = judge.Package(
        name="transformers",
        modules=("torch",),
        install="pip install -e '.[parity]' in the checkout",
        licence="of the folder",
    )
    figures = _figures("recogniser")

    def __init__(self, folder: str | os.PathLike):
        """Loads it, from that folder alone; no code in it is run, no weights are unpickled.

        Raises:
            ValueError: if there is no such folder, or transformers finds no recogniser in it.
        """
        self._folder = pathlib.Path(folder)
        if not (self._folder / "config.json").is_file():
            raise ValueError(
                "--recogniser must be a folder of a recogniser with config.json and safetensors, "
                f"got {folder}: download one, such as openai/whisper-tiny"
            )
        try:
            self._recognise = _pipeline(self._folder)
        except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
            said = " ".join(str(error).split())[:300]
            raise ValueError(
                f"--recogniser must be a folder that transformers {self.package.version} reads as "
                f"one of speech, got {folder}: {said}"
            ) from None
        self._lock = threading.Lock()

    @property
    def source(self) -> results.JudgeSource:
        return results.JudgeSource(
            package=f"{self._folder} by {self.package.name}",
            version=self.package.version,
            licence=self.package.licence,
        )

    def _hear(self, sound: np.ndarray) -> str:
        with self._lock:
            # What is longer than Whisper hears at once is heard in pieces, as each kind does that.
            is_whisper = self._recognise.type == "seq2seq_whisper"
            pieces = dict(return_timestamps=True) if is_whisper else dict(chunk_length_s=_PIECE)
            options = pieces if len(sound) > _PIECE * judge.RATE else {}
            found = self._recognise({"raw": sound, "sampling_rate": judge.RATE}, **options)
        return str(found["text"])


def _pipeline(folder: pathlib.Path) -> Any:
    """What of transformers turns a sound into a text, by a folder alone."""
    import transformers  # pylint: disable=g-import-not-at-top: an extra

    alone = dict(local_files_only=True, trust_remote_code=False)
    config = transformers.AutoConfig.from_pretrained(folder, **alone)
    is_ctc = any(name.endswith("ForCTC") for name in config.architectures or ())
    kind = transformers.AutoModelForCTC if is_ctc else transformers.AutoModelForSpeechSeq2Seq
    return transformers.pipeline(
        "automatic-speech-recognition",
        model=kind.from_pretrained(folder, use_safetensors=True, **alone),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder, **alone),
        feature_extractor=transformers.AutoFeatureExtractor.from_pretrained(folder, **alone),
        device="cpu",
    )
