# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of sound, of latents and of sets, and the programs that read them."""

import contextlib
import dataclasses
import io
import json
import pathlib
import random
import shutil
import types
from typing import Any

import numpy as np
import soundfile

from data_pipelines.building import builder
from data_pipelines.inputs import folders
from data_pipelines.reading import pipeline
from data_pipelines.reading import sources
from data_pipelines.records import latents as latent_records
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from tests.fuzz import mutations
from tests.fuzz import target as target_lib
from tests.support import cases
from tests.support import containers
from tests.support import sounds


def latents(folder: pathlib.Path) -> target_lib.Target:
    """Latents that are decoded: `f3tok decode`."""
    from f3tok_jax.inference import codec as codec_lib
    from f3tok_jax.inference import files
    from f3tok_jax.inference import latent_file
    from tests.support import tiny_models

    codec = codec_lib.Codec(*_bare(tiny_models.built()))
    rows = np.random.default_rng(0).normal(size=(2, 5, codec.autoencoder.latent_dim))
    num_samples = 5 * codec.autoencoder.samples_per_latent
    whole = []
    for count, rate in ((1, codec.sample_rate), (2, codec.sample_rate), (1, 8_000)):
        made = codec.frames_of(
            rows[:count].astype(np.float32),
            [num_samples * rate // codec.sample_rate] * count,
            sample_rate=rate,
        )
        latent_file.save(made, folder / "a.npz")
        whole.append((folder / "a.npz").read_bytes())
    with contextlib.suppress(BaseException):  # where the cases are absent
        whole += [path.read_bytes() for path in sorted(cases.folder("latents").glob("*.npz"))]
    path, output = folder / "a.npz", folder / "a.wav"

    def write(rng: random.Random) -> None:
        data = rng.choice(whole[:3] if rng.random() < 0.8 else whole)
        with contextlib.suppress(Exception):  # a case that is no archive, changed as bytes
            if rng.random() < 0.6:
                path.write_bytes(mutations.of_zip(data, rng, _array))
                return
        path.write_bytes(mutations.of_bytes(data, rng, whole))

    def read() -> None:
        output.unlink(missing_ok=True)
        files.decode_file(codec, latent_file.load(path), output)
        soundfile.info(output)

    return target_lib.Target(write, read, (path,))


def _bare(built: tuple) -> tuple:
    autoencoder, variables = built
    return autoencoder, variables["params"]


def _array(data: bytes, rng: random.Random) -> bytes:
    """A .npy: its bytes, its header, or another array in its place."""
    if rng.random() < 0.4:
        return mutations.of_bytes(data[:200], rng) + data[200:]
    written = io.BytesIO()
    values = (0, -1, 2**31, 2**62, np.inf, np.nan, "", "x" * 50, b"x", 1.5, True, 1j, [1, 2], [[]])
    np.save(written, np.asarray(rng.choice(values)))
    return written.getvalue()


def manifests(folder: pathlib.Path) -> target_lib.Target:
    """manifest.json of a set that is opened and read."""
    shards = sounds.labelled_set(folder)

    def read() -> None:
        sources.open_source(str(shards), sample_rate=None)
        made = _pipeline(shards)
        made.sets, made.fingerprint
        made.local_batch(0)
        manifest.verify(manifest.read(shards), shards, checksums=True)

    return target_lib.of_files(shards, {manifest.FILE_NAME: mutations.of_sealed_json}, read)


def _pipeline(shards: pathlib.Path, **fields) -> pipeline.Pipeline:
    options = dict(batch_size=4, max_replaced=3) | fields
    return sounds.open_pipeline(shards, sample_rate=16_000, crop_length=4_000, **options)


def records(folder: pathlib.Path) -> target_lib.Target:
    """Records as bytes, and shards that hold them, of sound and of latents."""
    shards = sounds.labelled_set(folder)
    whole_set = sources.ShardSet(shards)
    sound = [sound_records.encode(whole_set[index]) for index in range(len(whole_set))]
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 4)).astype(np.float32)
    latent = [latent_records.encode(_latent_record(whole_set[0], values))]
    shard = shards / manifest.read(shards).shards[0].name
    record, whole_shard = folder / "record", shard.read_bytes()
    index = 0

    def write(rng: random.Random) -> None:
        nonlocal index
        index = rng.randrange(4)
        if index == 0:  # Of the same size: another is refused when the set is opened.
            data = bytearray(whole_shard)
            for _ in range(rng.choice((1, 3, 30))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            shard.write_bytes(data)
            record.write_bytes(b"")
        else:
            shard.write_bytes(whole_shard)
            kind = rng.choice((sound, sound, latent))
            record.write_bytes(_record(rng.choice(kind), rng, sound + latent))

    def read() -> None:
        if index == 0:
            _pipeline(shards).local_batch(0)
            return
        data = record.read_bytes()
        if data[:4] == sound_records.MAGIC:
            sound_records.decode(data)
        else:
            found = latent_records.decode(data, latent_dim=4)
            assert found.latents.shape[1] == 4

    return target_lib.Target(write, read, (record, shard))


def _latent_record(sound: sound_records.Record, values: np.ndarray) -> Any:
    fields = {field.name for field in dataclasses.fields(latent_records.LatentRecord)}
    given = {name: getattr(sound, name) for name in fields if hasattr(sound, name)}
    return latent_records.LatentRecord(**given | dict(latents=values))


def _record(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """A record: its bytes, or its header as JSON, padded as it must be or not."""
    if rng.random() < 0.5:
        return mutations.of_bytes(data, rng, others)
    length = int.from_bytes(data[8:12], "little")
    header = mutations.of_json(data[12 : 12 + length], rng)
    if rng.random() < 0.9:
        header += b" " * (-(12 + len(header)) % 16)
    return data[:8] + len(header).to_bytes(4, "little") + header + data[12 + length :]


def audio(folder: pathlib.Path) -> target_lib.Target:
    """Sound in every container: as `f3tok encode` reads it, and as shards are built of it."""
    from f3tok_jax.inference import files

    rng = np.random.default_rng(0)
    whole = {kind: make(rng).content for kind, make in sorted(containers.KINDS.items())}
    with contextlib.suppress(BaseException):  # where the cases are absent
        for path in sorted(cases.folder("sounds").iterdir()):
            whole[path.name] = path.read_bytes()
    others, index, path = list(whole.values()), 0, folder / "sounds" / "a.wav"
    path.parent.mkdir()
    path.write_bytes(whole["wav"])
    codec = _Echo()

    def write(rng: random.Random) -> None:
        nonlocal index
        index = rng.randrange(3)
        path.write_bytes(mutations.of_bytes(whole[rng.choice(sorted(whole))], rng, others))

    def read() -> None:
        if index:
            files.encode_file(codec, path, channels="keep", say=target_lib.silent)
            return
        shutil.rmtree(folder / "shards", ignore_errors=True)
        source = folders.Folder(str(path.parent))
        builder.build(source, folder / "shards", sounds.conversion(), say=target_lib.silent)

    return target_lib.Target(write, read, (path,))


class _Echo:
    """A codec that takes all of a sound, and gives what it heard."""

    sample_rate, autoencoder = 16_000, types.SimpleNamespace(level_db=0.0)

    def encode_blocks(self, blocks, *, gain):
        assert gain == 1.0
        for block in blocks:
            assert block.dtype == np.float32 and np.isfinite(block).all()
            yield block[..., None]

    def frames_of(self, latents, num_samples, **fields):
        return latents, num_samples, fields


def tables(folder: pathlib.Path) -> target_lib.Target:
    """Tables of texts beside sounds, as shards are built with them."""
    files = sounds.write_folder(folder / "sounds", num_files=3)
    names = sorted(path.name for path in files.iterdir())
    table = folder / "metadata.csv"
    lines = [f"{name},text {index},ada\n" for index, name in enumerate(names)]
    objects = [json.dumps({"file": name, "text": "a", "speaker": "b"}) + "\n" for name in names]
    whole = {
        "csv": "file,text,speaker\n" + "".join(lines),
        "tsv": "file\ttext\n" + "".join(f"{name}\ta b\n" for name in names),
        "jsonl": "".join(objects),
        "json": json.dumps([json.loads(line) for line in objects]),
        "trans.txt": "".join(f"{name.removesuffix('.wav')} SAID THIS\n" for name in names),
        "bars": "".join(f"{name.removesuffix('.wav')}|Said|said\n" for name in names),
    }
    endings = {"trans.txt": "1-2.trans.txt", "bars": "metadata.csv", "json": "metadata.json"}
    now = table
    table.write_text(whole["csv"])

    def write(rng: random.Random) -> None:
        nonlocal now
        now.unlink(missing_ok=True)
        kind = rng.choice(sorted(whole))
        now = folder / endings.get(kind, f"metadata.{kind}")
        data = whole[kind].encode()
        change = {"json": mutations.of_json, "jsonl": mutations.of_json_lines}
        others = [text.encode() for text in whole.values()]
        now.write_bytes(change.get(kind, target_lib.with_others(others))(data, rng))

    def read() -> None:
        found = folders.Folder(str(files), metadata=(str(now),)).listed()
        assert len(found.items) == len(names)

    return target_lib.Target(write, read, (table,))
