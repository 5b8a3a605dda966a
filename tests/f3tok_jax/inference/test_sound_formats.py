# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound files that are written: limits of formats, whole or absent, errors with their reason."""

import errno
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from f3tok_jax.inference import sound_formats
from tests.support import disks

_ROOT = pathlib.Path(__file__).parents[3]


def _write(path, rate=16_000, channels=1, count=3_000, **options):
    rng = np.random.default_rng(0)
    with sound_formats.written(path, rate, channels=channels, **options) as file:
        for _ in range(2):
            file.write(0.1 * rng.normal(size=(count // 2, channels)).astype(np.float32))


# The ends of what each takes: libsndfile writes and reads it. Beyond them it fails, or crashes.
@pytest.mark.parametrize(
    "ending, rate, channels",
    [
        (".wav", 1_000, 1),
        (".wav", 768_000, 64),
        (".flac", 1_000, 8),
        (".flac", 65_535, 1),
        (".flac", 88_210, 1),
        (".flac", 655_350, 8),
        (".ogg", 1_000, 64),
        (".ogg", 12_345, 3),
        (".ogg", 200_000, 2),
    ],
)
def test_what_a_format_takes_is_written(tmp_path, ending, rate, channels):
    path = tmp_path / f"a{ending}"
    _write(path, rate, channels)
    found = soundfile.info(path)
    assert (found.samplerate, found.channels, found.frames) == (rate, channels, 3_000)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    assert sound_formats.is_of_kind(path)


@pytest.mark.parametrize(
    "ending, rate, channels, words",
    [
        (".ogg", 200_001, 1, "rate up to 200000 Hz, as OGG has, got 200001 Hz"),
        (".ogg", 768_000, 2, "rate up to 200000 Hz"),
        (".ogg", 16_000, 256, "1 to 255 channels"),
        (".flac", 655_351, 1, "rate up to 655350 Hz, above 65535 Hz in steps of 10"),
        (".flac", 700_000, 1, "rate up to 655350 Hz"),
        (".flac", 65_536, 1, "in steps of 10"),
        (".flac", 88_201, 1, "in steps of 10, as FLAC has, got 88201 Hz"),
        (".flac", 16_000, 9, "1 to 8 channels, as FLAC has, got 9"),
        (".wav", 16_000, 0, "1 to 1024 channels"),
        (".wav", 2**30 * 2, 1, "rate up to 2147483647 Hz"),
        (".mp3", 16_000, 1, r"must end in one of .wav, .flac, .ogg, got '.mp3'"),
        ("", 16_000, 1, "got ''"),
    ],
)
def test_what_a_format_does_not_take_is_refused_before_it_is_written(
    tmp_path, ending, rate, channels, words
):
    with pytest.raises(ValueError, match=words):
        _write(tmp_path / "new" / f"a{ending}", rate, channels)
    assert not list(tmp_path.iterdir())


def test_a_large_wav_is_an_rf64(tmp_path):
    for count, name in ((2**31 - 2**11, "WAV"), (2**31 - 2**11 + 1, "RF64")):
        _write(tmp_path / "a.wav", num_samples=count)
        assert soundfile.info(tmp_path / "a.wav").format == name
    _write(tmp_path / "a.wav", channels=2, num_samples=2**30)
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    assert sound_formats.is_of_kind(tmp_path / "a.wav")
    _write(tmp_path / "a.flac", num_samples=2**32)
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"


def test_a_block_of_any_length_is_written(tmp_path):
    """libvorbis takes its memory from the stack: 3 million samples at once end the process."""
    program = (
        "import sys, numpy, soundfile\n"
        "from f3tok_jax.inference import sound_formats\n"
        "with sound_formats.written(sys.argv[1], 48_000) as file:\n"
        "    file.write(numpy.zeros(3_000_000, numpy.float32))\n"
    )
    path = tmp_path / "a.ogg"
    subprocess.run([sys.executable, "-c", program, path], cwd=_ROOT, check=True)
    assert soundfile.info(path).frames == 3_000_000


@pytest.fixture
def full_disk():
    """No file may become larger than 20,000 bytes."""
    with disks.room(20_000):
        yield


@pytest.mark.parametrize("ending", sound_formats.FORMATS)
@pytest.mark.parametrize("in_place", [False, True])
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path, full_disk, ending, in_place):
    path = tmp_path / f"a{ending}"
    with pytest.raises(OSError) as raised:
        _write(path, count=300_000, in_place=in_place)
    assert raised.value.errno == errno.EFBIG and raised.value.filename == str(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("in_place", [False, True])
def test_an_error_leaves_nothing_behind(tmp_path, in_place):
    with pytest.raises(KeyError):
        with sound_formats.written(tmp_path / "a.wav", 16_000, in_place=in_place) as file:
            file.write(np.zeros(100))
            raise KeyError
    assert not list(tmp_path.iterdir())


def test_sound_in_place_can_be_read_while_it_grows_and_spares_other_names(tmp_path):
    kept, path = tmp_path / "kept.wav", tmp_path / "a.wav"
    _write(kept)
    path.hardlink_to(kept)
    before = kept.read_bytes()
    with sound_formats.written(path, 16_000, in_place=True) as file:
        file.write(np.zeros(100))
        file.flush()
        assert path.stat().st_size == 44 + 200
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    "name, data, is_kind",
    [
        ("a.wav", b"RIFF....WAVE", True),
        ("a.wav", b"RF64", True),
        ("a.wav", b"", True),
        ("a.wav", b"fLaC", False),
        ("a.flac", b"fLaC", True),
        ("a.ogg", b"OggS", True),
        ("a.ogg", b"the only copy of my thesis", False),
    ],
)
def test_files_of_a_kind_are_known_by_their_beginning(tmp_path, name, data, is_kind):
    (tmp_path / name).write_bytes(data)
    assert sound_formats.is_of_kind(tmp_path / name) == is_kind
