# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A prepared TFDS data set as an input of shards, without TensorFlow wherever its features allow.

Waveforms as a `Tensor` of int16 or float and encoded files as bytes are read by NumPy alone; the
`Audio` feature exists only with TensorFlow (extra `tensorflow`), and only while shards are built.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import io
import os
import pathlib

import numpy as np

from data_pipelines.inputs import columns
from data_pipelines.inputs import listing
from data_pipelines.records import pcm16
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files

_AUDIO_NAMES = ("audio", "waveform", "speech", "sound", "wav", "flac")
_RATE_NAMES = ("sample_rate", "sampling_rate", "rate")
_ITEM_BYTES = 2**18  # assumed per example, which the data set does not tell one by one
_BLOCK_SAMPLES = 2**19


@dataclasses.dataclass(frozen=True)
class Tfds:
    """One split of a data set that TFDS has prepared with `file_format="array_record"`.

    Attributes:
        name: as TFDS writes it, `name[/config][:version]`, or the folder of a prepared version.
        split: as TFDS writes it, such as "train" or "train[:50%]".
        data_dir: where data sets are prepared; "" for TFDS's own default.
        audio_feature: which feature is the sound; "" finds the one that can be.
        source_rate: Hz, where neither the feature nor the data set's metadata say it; 0 if they do.
        text_kind: of texts whose feature does not say it by its name; "" for transcripts.
    """

    name: str
    split: str = "train"
    data_dir: str = ""
    audio_feature: str = ""
    source_rate: int = 0
    text_kind: str = ""

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest."""
        full_name = _builder(self).info.full_name
        fields = dataclasses.asdict(self)
        if not self.text_kind:  # as before there was a choice: the same data is not to be another
            del fields["text_kind"]
        return {"source": "tfds", **fields, "full_name": full_name}

    def listed(self) -> listing.Listing:
        """Lists every example of the split."""
        # Wrong for all is refused now, not for every example.
        self._check_rate()
        name = _builder(self).info.full_name
        items = tuple(
            listing.Item(f"{name}/{self.split}/{index:08d}", _ITEM_BYTES, index)
            for index in range(len(_data_source(self)))
        )
        return listing.Listing(items, {}, labels_inside=True)

    @contextlib.contextmanager
    def opened(self, item: listing.Item) -> Iterator[audio_files.Sound]:
        """Opens one example; text and class labels come with it, numbers as strings."""
        example = _data_source(self)[item.index]
        audio_name = self._audio_name()
        texts, labels = _texts_and_labels(
            _builder(self).info.features, example, text_kind=self.text_kind, where=item.key
        )
        value = example[audio_name]
        if isinstance(value, bytes):
            with audio_files.opened(io.BytesIO(value)) as sound:
                yield dataclasses.replace(sound, texts=texts, labels=labels)
            return
        waveform = _to_float(np.asarray(value))
        starts = range(0, len(waveform), _BLOCK_SAMPLES)
        blocks = (waveform[start : start + _BLOCK_SAMPLES] for start in starts)
        yield audio_files.Sound(self._rate(example), len(waveform), blocks, texts, labels)

    def _audio_name(self) -> str:
        features = _builder(self).info.features
        if self.audio_feature:
            if self.audio_feature not in features:
                raise ValueError(
                    f"--audio_feature={self.audio_feature!r} is no feature of {self.name}: "
                    f"{sorted(features)}"
                )
            return self.audio_feature
        candidates = [name for name in features if _can_be_audio(features[name])]
        named = [name for name in candidates if name in _AUDIO_NAMES]
        candidates = named or candidates
        if len(candidates) != 1:
            raise ValueError(
                f"which feature of {self.name} is the sound? {candidates or sorted(features)}: say "
                "--audio_feature"
            )
        return candidates[0]

    def _rate(self, example: dict) -> int:
        """Hz as given, as the example says, or as the data set says; 0 if nobody does."""
        if self.source_rate:
            return self.source_rate
        info = _builder(self).info
        said = [example.get(name) for name in _RATE_NAMES]
        said += [(info.metadata or {}).get(name) for name in _RATE_NAMES]
        said += [getattr(info.features[self._audio_name()], "sample_rate", None)]
        return next((int(value) for value in said if value), 0)

    def _check_rate(self) -> None:
        features = _builder(self).info.features
        is_encoded = np.dtype(features[self._audio_name()].np_dtype) == np.object_
        if not (is_encoded or self._rate({}) or any(name in features for name in _RATE_NAMES)):
            raise ValueError(f"{self.name} does not say its sample rate: give --source_rate")


@functools.lru_cache(maxsize=2)
def _builder(data_set: Tfds):
    """The data set's reader, or one sentence in place of what TFDS raises when there is none."""
    # Two tenths of a second and a banner that a build from a folder does not need.
    import tensorflow_datasets

    try:
        if os.path.isdir(data_set.name):
            return tensorflow_datasets.builder_from_directory(
                _version_folder(pathlib.Path(data_set.name))
            )
        return tensorflow_datasets.builder(data_set.name, data_dir=data_set.data_dir or None)
    except ModuleNotFoundError as error:
        raise ValueError(_missing_module(data_set, error)) from None
    except (tensorflow_datasets.core.DatasetNotFoundError, FileNotFoundError) as error:
        raise ValueError(f"TFDS has no data set {data_set.name!r}: {_one_line(error)}") from None


def _version_folder(folder: pathlib.Path) -> pathlib.Path:
    patterns = (f"{depth}dataset_info.json" for depth in ("", "*/", "*/*/"))
    found = sorted({path.parent for pattern in patterns for path in folder.glob(pattern)})
    if len(found) != 1:
        names = ", ".join(str(path) for path in found) or "none"
        raise ValueError(f"--input={folder} must hold one prepared data set, found: {names}")
    return found[0]


@functools.lru_cache(maxsize=2)
def _data_source(data_set: Tfds):
    try:
        return _builder(data_set).as_data_source(split=data_set.split)
    except ModuleNotFoundError as error:
        raise ValueError(_missing_module(data_set, error)) from None
    except (NotImplementedError, ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"split {data_set.split!r} of {data_set.name} cannot be read at random, which needs "
            f"a data set prepared with file_format='array_record': {_one_line(error)}"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _missing_module(data_set: Tfds, error: ModuleNotFoundError) -> str:
    # TFDS raises again with a longer message, without the name.
    while not error.name and isinstance(error.__cause__, ModuleNotFoundError):
        error = error.__cause__
    if error.name and error.name.split(".")[0] == "tensorflow":
        return (
            f"data set {data_set.name} has code or a feature that only TensorFlow can read, such as "
            "tfds.features.Audio (Tensor and encoded bytes need none): pip install -e "
            "'.[tensorflow]' in the checkout to build its shards, training then does without"
        )
    what = (
        f"the module {error.name}, which" if error.name else f"a module that ({_one_line(error)})"
    )
    return f"data set {data_set.name} needs {what} is not installed"


def _can_be_audio(feature) -> bool:
    kind, shape = type(feature).__name__, getattr(feature, "shape", None)
    if kind == "Audio":
        return True
    if kind != "Tensor":
        return False
    dtype = np.dtype(feature.np_dtype)
    if shape == ():
        return dtype == np.object_
    # Samples, or samples by a few channels.
    is_waveform = len(shape) == 1 or (len(shape) == 2 and shape[1] is not None and shape[1] <= 8)
    return is_waveform and dtype in (np.int16, np.int32, np.float32, np.float64)


def _texts_and_labels(
    features, example: dict, *, text_kind: str, where: str
) -> tuple[tuple[sound_records.Text, ...], dict[str, str]]:
    """Texts by the names of their features, as of a table's columns; what is no text is a label."""
    words, labels = {}, {}
    for name, value in example.items():
        kind = type(features[name]).__name__
        if kind == "Text":
            words[name] = value
        elif kind == "Sequence" and type(features[name].feature).__name__ == "Text":
            words[name] = list(value)
        elif kind == "ClassLabel":
            labels[name] = features[name].int2str(int(value)) if int(value) >= 0 else ""
        elif kind == "Scalar" and name not in _RATE_NAMES:
            labels[name] = str(value)
    texts, others = columns.texts_and_labels(words, text_kind=text_kind, where=where)
    return texts, labels | others


def _to_float(values: np.ndarray) -> np.ndarray:
    """Samples of a Tensor or Audio feature as [samples, channels] float32, full scale [-1, 1]."""
    if values.ndim == 1:
        values = values[:, None]
    if np.issubdtype(values.dtype, np.integer):
        # TFDS decodes 16-bit sound into int64; int32 tensors hold 32-bit sound.
        full_scale = 2.0**31 if values.dtype == np.int32 else pcm16.FULL_SCALE
        return (values / full_scale).astype(np.float32)
    return values.astype(np.float32, copy=False)
