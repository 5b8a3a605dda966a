# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files and shard sets that the tests of data_pipelines make for themselves."""

import dataclasses
import pathlib

import numpy as np
import soundfile
import tokenizers

from data_pipelines.building import builder
from data_pipelines.inputs import folders
from data_pipelines.inputs import listing
from data_pipelines.reading import mixture_pipeline
from data_pipelines.reading import pipeline
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import conversion as conversion_lib


def tone(seconds: float = 0.5, *, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    """Returns a tone at half of full scale, [samples], float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def speechlike(seconds: float = 1.0, sample_rate: int = 16_000) -> np.ndarray:
    """A buzz of 120 Hz with pauses, [samples]: enough for measures of speech to accept it."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 30))
    envelope = np.clip(np.sin(2 * np.pi * 3 * time), 0.0, 1.0)
    return 0.1 * envelope * buzz + 1e-4 * rng.normal(size=len(time))


def write_folder(
    folder: pathlib.Path, *, num_files: int = 8, first: int = 0, rate: int = 16_000
) -> pathlib.Path:
    """Writes tones of different pitch and length, `{digit}_{speaker}_{index}.wav`, from `first` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + num_files):
        sound = tone(0.3 + 0.11 * index, rate=rate, hertz=200.0 + 50.0 * index)
        name = f"{index % 10}_{('ada', 'bob')[index % 2]}_{index}.wav"
        soundfile.write(folder / name, sound, rate, subtype="PCM_16")
    return folder


def conversion(**changes) -> conversion_lib.Conversion:
    """A conversion at 16 kHz with segments of half a second."""
    fields = dict(
        sample_rate=16_000, segment_length=8_000, mono="mean", min_seconds=0.05, max_seconds=3600.0
    )
    return conversion_lib.Conversion(**(fields | changes))


def shard_set(folder: pathlib.Path, *, num_files: int = 8, **changes) -> pathlib.Path:
    """Builds a shard set of `num_files` tones below `folder` and returns the set's folder."""
    source = folders.Folder(str(write_folder(folder / "sounds", num_files=num_files)))
    builder.build(source, folder / "shards", conversion(**changes), say=lambda line: None)
    return folder / "shards"


def open_pipeline(mixture, *, kind=pipeline.Pipeline, **fields) -> mixture_pipeline.MixturePipeline:
    """Opens a pipeline; the fields of mixture_pipeline.Options stand among its own."""
    names = {field.name for field in dataclasses.fields(mixture_pipeline.Options)} & fields.keys()
    options = mixture_pipeline.Options(**{name: fields.pop(name) for name in names})
    return kind(str(mixture), options, **fields)


def tokenizer(folder: pathlib.Path) -> pathlib.Path:
    """Writes a byte-level tokenizer.json: every byte a token, and the end of text; its folder."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {token: index for index, token in enumerate(alphabet)}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    model.save(str(folder / "tokenizer.json"))
    return folder


def labelled_set(
    folder: pathlib.Path, *, num_files: int = 8, first: int = 0, texts: bool = True
) -> pathlib.Path:
    """A shard set of tones with the labels digit and speaker and, of every other one, a text.

    They get longer, by 0.11 s from 0.3 s on, and segments are of a second. Sets with another
    `first` index share no sound.
    """
    files = write_folder(folder / "sounds", num_files=num_files, first=first)
    table = "file,text\n"
    for index, path in enumerate(sorted(files.iterdir(), key=lambda p: int(p.stem.split("_")[2]))):
        table += f"{path.name},{f'tone {index}' if index % 2 == 0 else ''}\n"
    (folder / "texts.csv").write_text(table)
    source = folders.Folder(
        str(files),
        label_pattern=r"(?P<digit>\d)_(?P<speaker>[a-z]+)_",
        metadata=(str(folder / "texts.csv"),) if texts else (),
    )
    builder.build(
        source, folder / "shards", conversion(segment_length=16_000), say=lambda line: None
    )
    return folder / "shards"


@dataclasses.dataclass(frozen=True)
class TextsBesides(folders.Folder):
    """A folder whose listing gives every sound the same texts, beside those of its table."""

    texts: tuple[sound_records.Text, ...] = ()

    def listed(self) -> listing.Listing:
        found = super().listed()
        items = (dataclasses.replace(item, texts=self.texts) for item in found.items)
        return dataclasses.replace(found, items=tuple(items))


def captioned_set(folder: pathlib.Path, *captions: str) -> pathlib.Path:
    """A shard set of tones with the same captions for each."""
    texts = tuple(sound_records.Text(caption, sound_records.CAPTION) for caption in captions)
    source = TextsBesides(str(write_folder(folder / "sounds")), texts=texts)
    builder.build(source, folder / "shards", conversion(), say=lambda line: None)
    return folder / "shards"
