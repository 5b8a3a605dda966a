# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A TFDS data set, prepared offline and without TensorFlow, becomes shards and batches."""

import importlib.util
import io
import json
import shutil
import sys

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from data_pipelines.building import builder
from data_pipelines.inputs import tfds as tfds_input
from data_pipelines.reading import sources
from data_pipelines.records import sound as sound_records
from tests.support import sounds

RATE = 16_000
SPEAKERS = ["ada", "bob"]


class TinySpeech(tfds.core.GeneratorBasedBuilder):
    """Tones called speech, in each form that needs no TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16),
                    "waveform": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
                    "encoded": tfds.features.Tensor(shape=(), dtype=np.object_),
                    "speaker": tfds.features.ClassLabel(names=SPEAKERS),
                    "text": tfds.features.Text(),
                    "chapter": tfds.features.Text(),
                    "take": tfds.features.Scalar(np.int64),
                }
            ),
            metadata=tfds.core.MetadataDict(sample_rate=RATE),
        )

    def _split_generators(self, download_manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

    def _generate_examples(self, num_examples):
        for index in range(num_examples):
            sound = _sound(index)
            stream = io.BytesIO()
            # Its own rate, which the file tells.
            soundfile.write(stream, sounds.tone(0.5, rate=8_000), 8_000, format="FLAC")
            yield (
                str(index),
                {
                    "audio": (sound * 32768).astype(np.int16),
                    "waveform": np.stack([sound, np.zeros_like(sound)], axis=1),
                    "encoded": stream.getvalue(),
                    "speaker": index % 2,
                    "text": f"sentence {index}",
                    "chapter": "one",
                    "take": index,
                },
            )


def _sound(index: int) -> np.ndarray:
    return sounds.tone(0.4 + 0.1 * index, hertz=300.0 + 40.0 * index)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    TinySpeech(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder)


def _build(source, output):
    return builder.build(source, output, sounds.conversion(), say=lambda line: None)[""]


def _first_segments(output) -> dict[int, sound_records.Record]:
    """Take -> its first record."""
    shard_set = sources.ShardSet(output)
    found = [shard_set[index] for index in range(len(shard_set))]
    return {int(record.labels["take"]): record for record in found if record.offset == 0}


@pytest.mark.parametrize("feature, scale", [("audio", 1.0), ("waveform", 0.5)])
def test_waveforms_become_records_and_batches(feature, scale, data_dir, tmp_path):
    source = tfds_input.Tfds("tiny_speech", data_dir=data_dir, audio_feature=feature)
    content = _build(source, tmp_path / "out")
    assert content.num_used == 6 and not content.refused
    assert content.labels["speaker"] == SPEAKERS and content.labels["chapter"] == ["one"]
    for take, record in _first_segments(tmp_path / "out").items():
        expected = scale * _sound(take)[:8_000]
        # Half a step of PCM16, and another for the int16 feature's own rounding towards zero.
        np.testing.assert_allclose(record.waveform / 32768, expected, atol=1.6 / 32768)
        said = sound_records.Text(f"sentence {take}", "transcript")
        assert record.texts == ((said,) if record.ends else ())  # a part has no transcript
        assert record.labels["speaker"] == SPEAKERS[take % 2]
    loader = sounds.open_pipeline(
        str(tmp_path / "out"), sample_rate=RATE, crop_length=4_000, batch_size=4
    )
    assert loader.local_batch(0)["mask"].any(axis=1).all()
    assert "tensorflow" not in sys.modules


def test_encoded_files_bring_their_own_rate(data_dir, tmp_path):
    source = tfds_input.Tfds(
        "tiny_speech", data_dir=data_dir, audio_feature="encoded", split="test"
    )
    content = _build(source, tmp_path / "out")
    assert content.num_used == 2 and content.num_samples == 2 * 8_000
    waveform = _first_segments(tmp_path / "out")[0].waveform / 32768
    np.testing.assert_allclose(waveform[500:-500], sounds.tone(0.5)[500:-500], atol=1e-3)


def test_a_folder_and_a_part_of_a_split_will_do(data_dir, tmp_path):
    for name in (f"{data_dir}/tiny_speech/1.0.0", f"{data_dir}/tiny_speech"):
        source = tfds_input.Tfds(name, audio_feature="audio", split="train[:50%]")
        keys = [item.key for item in source.listed().items]
        assert keys == [f"tiny_speech/1.0.0/train[:50%]/{index:08d}" for index in range(3)]


def test_a_data_set_is_read_directly_without_shards(data_dir, tmp_path):
    name = f"tfds:{data_dir}/tiny_speech"
    train = sources.open_source(f"{name}#audio", sample_rate=24_000)
    assert len(train) == 6
    take = int(train[0].labels["take"])
    expected = sounds.tone(0.4 + 0.1 * take, rate=24_000, hertz=300.0 + 40.0 * take)
    np.testing.assert_allclose(train[0].waveform[500:-500] / 32768, expected[500:-500], atol=1e-3)
    assert train[0].key == "tiny_speech/1.0.0/train/00000000"
    loader = sounds.open_pipeline(
        f"{name}@test#audio=1,{name}#audio=2", sample_rate=24_000, crop_length=4_000, batch_size=3
    )
    assert loader.local_batch(0)["mask"].all()
    assert sum("/test/" in key for key in loader.example_keys(0)) == 1
    assert (
        loader.fingerprint
        != sounds.open_pipeline(
            f"{name}#audio=1", sample_rate=24_000, crop_length=4_000, batch_size=3
        ).fingerprint
    )


def test_builds_from_tfds_work_in_worker_processes(data_dir, tmp_path):
    source = tfds_input.Tfds("tiny_speech", data_dir=data_dir, audio_feature="audio")
    expected = _build(source, tmp_path / "a")
    manifests = builder.build(
        source, tmp_path / "b", sounds.conversion(), num_workers=1, say=lambda line: None
    )
    assert manifests[""].shards == expected.shards


class TinyScenes(tfds.core.GeneratorBasedBuilder):
    """Sound with what is said in it, what describes it, once and several times, and more."""

    VERSION = tfds.core.Version("1.0.0")
    FIELDS = {
        "sentence": "good morning",
        "caption": "a greeting",
        "captions": ["somebody speaks", "two words"],
        "chapter": "one",
    }

    def _info(self):
        text = tfds.features.Text()
        features = dict.fromkeys(self.FIELDS, text) | {"captions": tfds.features.Sequence(text)}
        features["audio"] = tfds.features.Tensor(shape=(None,), dtype=np.int16)
        features["kind"] = tfds.features.ClassLabel(names=["indoors"])
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(sample_rate=RATE),
        )

    def _split_generators(self, download_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        sound = (sounds.tone(0.4) * 32768).astype(np.int16)
        yield "0", self.FIELDS | {"audio": sound, "kind": 0}


@pytest.mark.parametrize("text_kind, kind", [("", "transcript"), ("caption", "caption")])
def test_features_called_captions_are_captions(text_kind, kind, tmp_path):
    TinyScenes(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    source = tfds_input.Tfds("tiny_scenes", data_dir=str(tmp_path), text_kind=text_kind)
    assert ("text_kind" in source.settings()) == bool(text_kind)
    content = _build(source, tmp_path / "out")
    assert not content.refused
    record = sources.ShardSet(tmp_path / "out")[0]
    captions = ("a greeting", "somebody speaks", "two words")
    assert record.texts == (
        sound_records.Text("good morning", kind),
        *(sound_records.Text(caption, "caption") for caption in captions),
    )
    assert record.labels == {"chapter": "one", "kind": "indoors"}


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(audio_feature=""), "which feature of tiny_speech is the sound"),
        (dict(audio_feature="video"), "'video' is no feature of tiny_speech"),
        (dict(split="validation"), "split 'validation' of tiny_speech cannot be read"),
        (dict(name="no_such_data_set"), "TFDS has no data set 'no_such_data_set'"),
    ],
)
def test_what_cannot_be_found_is_said_in_a_sentence(changes, message, data_dir, tmp_path):
    fields = dict(name="tiny_speech", data_dir=data_dir, audio_feature="audio") | changes
    with pytest.raises(ValueError, match=message):
        _build(tfds_input.Tfds(**fields), tmp_path / "out")


def test_empty_folder_is_no_data_set(tmp_path):
    with pytest.raises(ValueError, match="must hold one prepared data set, found: none"):
        tfds_input.Tfds(str(tmp_path)).listed()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_audio_features_ask_for_tensorflow(data_dir, tmp_path):
    folder = shutil.copytree(f"{data_dir}/tiny_speech/1.0.0", tmp_path / "1.0.0")
    path = folder / "features.json"
    content = json.loads(path.read_text())
    content["featuresDict"]["features"]["audio"] = {
        "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
        "audio": {
            "shape": {"dimensions": ["-1"]},
            "dtype": "int64",
            "encoding": "none",
            "sampleRate": "16000",
        },
    }
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError,
        match=r"only TensorFlow can read, such as tfds.features.Audio.*"
        r"pip install -e '\.\[tensorflow\]' in the checkout",
    ):
        _build(tfds_input.Tfds(str(folder)), tmp_path / "out")


@pytest.mark.parametrize(
    "name, message",
    [
        ("tensorflow", "only TensorFlow can read"),
        ("apache_beam", "needs the module apache_beam, which is not installed"),
        (None, "needs a module that .No module named None. is not installed"),
    ],
)
def test_a_module_that_is_missing_is_named_however_it_was_raised(name, message, monkeypatch):
    def builder(*arguments, **options):
        try:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"Failed to construct: {error}") from error

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(ValueError, match=message):
        tfds_input.Tfds(f"never_asked_for_{name}").listed()


def test_rate_must_be_known(data_dir, tmp_path):
    folder = shutil.copytree(f"{data_dir}/tiny_speech/1.0.0", tmp_path / "1.0.0")
    (folder / "metadata.json").unlink()
    with pytest.raises(ValueError, match="does not say its sample rate: give --source_rate"):
        _build(tfds_input.Tfds(str(folder), audio_feature="audio"), tmp_path / "a")
    source = tfds_input.Tfds(str(folder), audio_feature="audio", source_rate=8_000)
    assert _build(source, tmp_path / "b").num_used == 6
