# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Latents on disk: what goes in comes out, and nothing else is taken, whatever the bytes are."""

import dataclasses
import io
import math
import tracemalloc
import zipfile

import numpy as np
import pytest

from f3tok_jax.inference import frames
from f3tok_jax.inference import latent_file
from f3tok_jax.inference import rates
from tests.support import cases

_MEMBERS = dict(
    version=3,
    gains=np.ones(1),
    latents=np.zeros((1, 20, 8), np.float32),
    latent_rate=25.0,
    sample_rate=16_000,
    num_samples=12_800,
    fingerprint="abc",
    kind="latents",
)


def _save(path, **changes) -> frames.Frames:
    rows = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    values = dict(
        rows=rows,
        latent_rate=25.0,
        sample_rate=44_100,
        num_samples=[8_820] * len(changes.get("rows", rows)),
        fingerprint="0123abcd",
        gains=[0.3, 77.0][: len(changes.get("rows", rows))],
    )
    saved = frames.Frames(**(values | changes))
    latent_file.save(saved, path)
    return saved


@pytest.mark.parametrize("kind", [frames.LATENTS, frames.REPRESENTATIONS])
def test_round_trip(tmp_path, kind):
    saved = _save(tmp_path / "a.npz", kind=kind)
    loaded = latent_file.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.values, saved.values)
    assert dataclasses.replace(loaded, rows=()) == dataclasses.replace(saved, rows=())
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("gain", [0.0, -1.0, 1e7, np.nan, np.inf])
def test_gains_that_nothing_reads_are_not_written(tmp_path, gain):
    with pytest.raises(ValueError, match=r"gains .* for .*a\.npz, which must be"):
        _save(tmp_path / "a.npz", gains=[1.0, gain])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_earlier_versions_have_no_gains(tmp_path, version):
    members = {name: value for name, value in _MEMBERS.items() if name != "gains"}
    np.savez(tmp_path / "a.npz", **members | dict(version=version))
    assert latent_file.load(tmp_path / "a.npz").gains == (1.0,)


@pytest.mark.parametrize("seed", range(40))
def test_sound_of_every_length_and_rate_is_within_its_latents(tmp_path, seed):
    rng = np.random.default_rng(seed)
    model_rate, hop = int(rng.choice([8_000, 16_000, 24_000, 48_000])), int(rng.integers(1, 2_000))
    rate, count = int(rng.integers(1_000, 768_001)), int(rng.integers(1, 50_000))
    heard = sum(
        block.shape[1]
        for block in rates.resampled([np.zeros((1, count), np.float32)], rate, model_rate)
    )
    saved = _save(
        tmp_path / "a.npz",
        rows=np.zeros((1, math.ceil(heard / hop), 1), np.float32),
        latent_rate=model_rate / hop,
        sample_rate=rate,
        num_samples=[count],
    )
    assert latent_file.load(tmp_path / "a.npz").num_samples == saved.num_samples


def _truncated(path):
    _save(path)
    path.write_bytes(path.read_bytes()[:200])


def _pickled(path):
    np.savez(path, latents=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _nan(path):
    _save(path, rows=np.full((1, 2, 8), np.nan, np.float32))


def _other_rank(path):
    _save(path, rows=np.zeros((2, 8), np.float32))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("text"),
        lambda path: path.mkdir(),
        lambda path: np.savez(path, other=np.zeros(3)),
        _truncated,
        _pickled,
        _nan,
        _other_rank,
    ],
)
def test_what_is_not_latents_is_refused(write, tmp_path):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(ValueError, match="a.npz must"):
        latent_file.load(path)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(sample_rate=2**30), "sound of 1073741824 Hz, where 1000 to 768000 are read"),
        (dict(sample_rate=0), "sound of 0 Hz"),
        (dict(sample_rate=np.array(["a", "b"])), "sample_rate must be one value"),
        (dict(sample_rate=16_000.0), "sample_rate must be integer, got float64"),
        (dict(num_samples=2**40), "1099511627776 samples, where 20 frames at 25 Hz hold 12800"),
        (dict(num_samples=12_100), "12100 samples"),
        (dict(num_samples=-5), "-5 samples"),
        (dict(num_samples=0), "0 samples"),
        (dict(num_samples=np.array([1, 2])), "num_samples must be one value"),
        (dict(num_samples=np.zeros(10**6)), "num_samples must be one value, got more than"),
        (dict(latents=np.zeros((0, 20, 8), np.float32)), r"latents of float32 \[0, 20, 8\]"),
        (dict(latents=np.zeros((65, 20, 8), np.float32)), "1 to 64 channels"),
        (dict(latents=np.zeros((1, 0, 8), np.float32), num_samples=1), "there must be some"),
        (dict(latents=np.zeros((1, 20, 0), np.float32)), "there must be some"),
        (dict(latents=np.zeros((1, 20, 8))), "latents of float64"),
        (dict(latent_rate="x"), "latent_rate must be floating, got <U1"),
        (dict(latent_rate=0.0), "latents at 0.0 Hz"),
        (dict(latent_rate=-25.0), "latents at -25.0 Hz"),
        (dict(latent_rate=math.nan), "latents at nan Hz"),
        (dict(latent_rate=math.inf), "latents at inf Hz"),
        (dict(gains=np.ones(2)), r"gains of float64 \[2\], which must be float64 \[1\]"),
        (dict(gains=np.ones(1, np.float32)), "gains of float32"),
        (dict(gains=np.zeros(1)), r"gains \[0.0\], which must be 1e-06 to 1e\+06"),
        (dict(gains=np.full(1, -1.0)), "gains .-1.0., which"),
        (dict(gains=np.full(1, np.nan)), "gains .nan., which"),
        (dict(gains=np.full(1, np.inf)), "gains .inf., which"),
        (dict(version=99), "version 99, where 1 to 3 are read: a newer f3tok"),
        (dict(version=0), "version 0"),
        (dict(kind="other"), "'other' of weights 'abc'"),
        (dict(kind=3), "kind must be str_, got int64"),
        (dict(fingerprint=b"abc"), r"fingerprint must be str_, got \|S3"),
        (dict(fingerprint="a\x1b[2J"), "of weights"),
    ],
)
def test_values_that_cannot_be_are_refused(changes, words, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **_MEMBERS | changes)
    with pytest.raises(ValueError, match=f"a.npz must be an .npz .*{words}"):
        latent_file.load(path)


@pytest.mark.parametrize("version, words", [(3, "latents is compressed"), (4, "newer f3tok")])
def test_compressed_arrays_are_refused_unless_a_newer_version_wrote_them(version, words, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **_MEMBERS | dict(version=version))
    with pytest.raises(ValueError, match=words):
        latent_file.load(tmp_path / "a.npz")


def test_a_file_without_a_value_is_refused_by_its_name(tmp_path):
    for name in _MEMBERS:
        np.savez(tmp_path / "a.npz", **{key: _MEMBERS[key] for key in _MEMBERS if key != name})
        with pytest.raises(ValueError, match=f"there is no '{name}' in it"):
            latent_file.load(tmp_path / "a.npz")


def _npy(shape: str, descr: str = "<f4") -> bytes:
    """A .npy that claims a shape and holds nothing."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (117 - len(header)) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def _write(path, name: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """A good file with other bytes for one of its arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in _MEMBERS.items():
            file = io.BytesIO()
            np.save(file, value)
            how = compression if key == name else zipfile.ZIP_STORED
            archive.writestr(f"{key}.npy", data if key == name else file.getvalue(), how)


@pytest.mark.parametrize("name", ["latents", "num_samples"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "shape, size",
    [
        ("(1, 1000000000, 8)", 0),  # as many bytes as it says are not there
        ("(1, 2000000, 8)", 64_000_000),  # they are, compressed to nothing
        ("(8000000000,)", 0),
        ("(-1, 5, 8)", 0),
        ("(1, 99999999999999999999, 8)", 0),
        ("('a', 2)", 0),
        ("(" * 3000, 0),  # beyond what Python's parser takes
        ("1L", 0),
    ],
)
def test_sizes_are_checked_before_memory_is_taken(tmp_path, name, compression, shape, size):
    path = tmp_path / "a.npz"
    _write(path, name, _npy(shape) + bytes(size), compression)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="a.npz must be"):
            latent_file.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A file that is there may be read whole, and compared with what it says.
    assert peak < 2e6 + 3 * path.stat().st_size


def test_sizes_in_the_directory_are_not_believed(tmp_path):
    """A stored member of 8 GiB in a file of a few kilobytes."""
    path = tmp_path / "a.npz"
    np.savez(path, **_MEMBERS)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"latents.npy") - 46  # of the central directory
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 20 : entry + 28] = (0xFFFF0000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match="latents must be within the file, got 4294901760 bytes"):
        latent_file.load(path)


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of which some are others, are gone, or stand twice."""
    changed = bytearray(data)
    kind = rng.integers(4)
    if kind == 0:  # flips
        for place in rng.integers(len(changed), size=rng.integers(1, 6)):
            changed[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del changed[rng.integers(len(changed)) :]
    elif kind == 2:  # in a header of an array, its check sum made right again
        changed = bytearray(_edited(data, rng))
    else:
        first, last = sorted(rng.integers(len(changed), size=2))
        changed[first:first] = changed[first : min(last, first + 400)]
    return bytes(changed)


def _edited(data: bytes, rng: np.random.Generator) -> bytes:
    """The same archive with a few bytes of one member replaced, of its header mostly."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new:
        chosen = rng.integers(len(old.namelist()))
        for number, name in enumerate(old.namelist()):
            member = bytearray(old.read(name))
            if number == chosen:
                for place in rng.integers(min(140, len(member)), size=rng.integers(1, 4)):
                    member[place] = rng.integers(256)
            new.writestr(
                name, bytes(member), rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            )
    return written.getvalue()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_right_or_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.npz"
    saved = _save(path)
    whole, num_refused = path.read_bytes(), 0
    for _ in range(250):
        path.write_bytes(_damaged(whole, rng))
        try:
            found = latent_file.load(path)
        except ValueError as error:
            num_refused += 1
            assert str(error).startswith(f"{path} must be an .npz")
        else:
            assert found.values.shape[2] and np.isfinite(found.values).all()
            assert found.kind in (frames.LATENTS, frames.REPRESENTATIONS)
            assert 0 < found.num_samples[0] <= 2 * saved.num_samples[0] * saved.latent_rate
    assert 125 < num_refused < 250


def test_cases_are_refused(tmp_path):
    """Each of those that lie beside the project, in its own words."""
    words = {
        "decode_channels_0": "channels",
        "decode_num_samples_2e40": "samples",
        "decode_num_samples_neg": "-5 samples",
        "decode_rate_2e30": "1073741824 Hz",
        "latents_version_99": "newer f3tok",
        "latents_latent_rate_string": "latent_rate must be floating",
        "latents_bomb": "compressed",
    }
    paths = sorted(cases.folder("latents").glob("*.npz"))
    assert len(paths) >= 11
    for path in paths:
        with pytest.raises(ValueError, match=f"{path.name} must be.*{words.get(path.stem, '')}"):
            latent_file.load(path)


def test_sounds_of_unlike_lengths_are_not_one_file(tmp_path):
    with pytest.raises(ValueError, match=r"channels of one length, got \[3, 5\] samples"):
        _save(tmp_path / "a.npz", num_samples=[5, 3])
    assert not list(tmp_path.iterdir())
