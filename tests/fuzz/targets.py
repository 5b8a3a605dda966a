# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is read of files that strangers wrote, and such files: each kind writes a case and reads it."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import io
import json
import pathlib
import pickle
import random
import shutil
from typing import Any
from unittest import mock

import numpy as np
import soundfile

from data_pipelines.building import builder
from data_pipelines.inputs import folders
from data_pipelines.reading import pipeline
from data_pipelines.reading import sources
from data_pipelines.records import latents as latent_records
from data_pipelines.records import manifest
from data_pipelines.records import sealed
from data_pipelines.records import sound as sound_records
from tests.fuzz import mutations
from tests.support import cases
from tests.support import containers
from tests.support import html_page
from tests.support import sounds

Change = Callable[[bytes, random.Random], bytes]


@dataclasses.dataclass(frozen=True)
class Target:
    """Files that are changed, and who reads them.

    Attributes:
        write: writes the case of a generator over the files of the one before.
        read: does what a program does with them; whatever it raises is judged.
        kept: the files of a case.
    """

    write: Callable[[random.Random], None]
    read: Callable[[], Any]
    kept: tuple[pathlib.Path, ...]


def of_files(folder: pathlib.Path, changes: Mapping[str, Change], read: Callable) -> Target:
    """A target that changes one of a folder's files, sometimes two, and leaves the others whole.

    Args:
        folder: of whole files.
        changes: name of a file in it -> how it is changed.
        read: as in Target.
    """
    whole = {folder / name: (folder / name).read_bytes() for name in changes}
    now = dict(whole)

    def write(rng: random.Random) -> None:
        wanted = dict(whole)
        for name in rng.sample(sorted(changes), k=min(len(changes), rng.choice((1, 1, 1, 2)))):
            wanted[folder / name] = changes[name](whole[folder / name], rng)
        for path, content in wanted.items():
            if content != now[path] or not path.is_file():
                path.write_bytes(content)
        now.update(wanted)

    return Target(write, read, tuple(whole))


def _with_others(others: list[bytes]) -> Change:
    return lambda data, rng: mutations.of_bytes(data, rng, others)


def latents(folder: pathlib.Path) -> Target:
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

    return Target(write, read, (path,))


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


def language_model(folder: pathlib.Path) -> Target:
    """A language model's folder: config.json, safetensors in one file or two, tokenizer.json."""
    from f3tok_jax.pretrained import language_model as pretrained
    from tests.support import tiny_models

    model = pathlib.Path(tiny_models.write_language_model(folder))

    def read() -> None:
        found = pretrained.read(model, compute_dtype="float32", remat="none")
        pretrained.load_params(model, found)

    changes = {
        "config.json": mutations.of_json,
        "model.safetensors": mutations.of_safetensors,
        "tokenizer.json": mutations.of_json,
    }
    return of_files(model, changes, read)


def run_config(folder: pathlib.Path) -> Target:
    """config.json of runs that are resumed and used, also where their checkpoints say it too."""
    from f3tok_jax.inference import tokenizer
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.runs import folder as run_folder
    from tests.support import tiny_runs

    runs = {name: pathlib.Path(run) for name, run in tiny_runs.write_chain(folder).items()}
    paths = {name: run / "config.json" for name, run in runs.items()}
    kept = {name: run / "checkpoints" / "3" / "meta" / "metadata" for name, run in runs.items()}
    configs = {name: config_lib.load(str(run)) for name, run in runs.items()}
    whole = {path: path.read_bytes() for path in (*paths.values(), *kept.values())}
    name, is_resumed = "generation", False

    def write(rng: random.Random) -> None:
        nonlocal name, is_resumed
        for path, content in whole.items():
            path.write_bytes(content)
        name, is_resumed = rng.choice((*sorted(runs), "autoencoder")), rng.random() < 0.3
        path = paths[name]
        path.write_bytes(mutations.of_sealed_json(whole[path], rng))
        with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
            content = json.loads(path.read_bytes())
            content.pop(sealed.NAME, None)
            metadata = json.loads(whole[kept[name]]) | {"config": content}
            metadata.pop(sealed.NAME)
            kept[name].write_text(json.dumps(sealed.seal(metadata)))

    def read() -> None:
        run = str(runs[name])
        if is_resumed:
            config_lib.check_same_run(configs[name], run)
            run_folder.check_kept(configs[name], run)
            return
        found = tokenizer.F3Tokenizer.from_pretrained(run, say=_silent)
        found.sample_rate
        parts = {"autoencoder": "codec", "representation": "representer"}
        getattr(found, parts.get(name, "text_to_sound"))
        if name == "representation":
            found.transcriber

    return Target(write, read, tuple(whole))


def _silent(text: str) -> None:
    """Where what is said goes."""


def metadata(folder: pathlib.Path) -> Target:
    """The small files of a run: metadata of a checkpoint, frozen.json, DONE, metrics.jsonl."""
    from f3tok_jax.runs import folder as run_folder
    from f3tok_jax.runs import lineage
    from f3tok_jax.runs import metric_writer
    from f3tok_jax.runs import saved_states
    from tests.support import tiny_models

    run = folder / "run"
    tiny_models.write_run(run)
    (run / run_folder.FROZEN).unlink(missing_ok=True)
    models = {"autoencoder": "f" * 64}
    measured = {"mean": [0.5, 1.5], "whitening": [[1.0]]}
    run_folder.settle_frozen(str(run), models, lambda: measured)
    run_folder.mark_done(str(run), 3)
    writer = metric_writer.MetricWriter(str(run), say=_silent)
    for step in (1, 2, 3):
        writer.write(step, {"train/loss": 1.0 / step})
    writer.close()

    def read() -> None:
        run_folder.done_step(str(run), 3)
        run_folder.frozen(str(run))
        run_folder.check_began_with(str(run), models, say=_silent)
        lineage.Lineage.read(str(run)).check()
        saved_states.read_meta(str(run))
        metric_writer.MetricWriter(str(run), resume_step=1, say=_silent).close()
        shutil.rmtree(run / "tensorboard", ignore_errors=True)

    changes = {
        "checkpoints/3/meta/metadata": mutations.of_sealed_json,
        "frozen.json": mutations.of_sealed_json,
        "DONE": mutations.of_json,
        "metrics.jsonl": mutations.of_json_lines,
    }
    return of_files(run, changes, read)


def manifests(folder: pathlib.Path) -> Target:
    """manifest.json of a set that is opened and read."""
    shards = sounds.labelled_set(folder)

    def read() -> None:
        sources.open_source(str(shards), sample_rate=None)
        made = _pipeline(shards)
        made.sets, made.fingerprint
        made.local_batch(0)
        manifest.verify(manifest.read(shards), shards, checksums=True)

    return of_files(shards, {manifest.FILE_NAME: mutations.of_sealed_json}, read)


def _pipeline(shards: pathlib.Path, **fields) -> pipeline.Pipeline:
    options = dict(batch_size=4, max_replaced=3) | fields
    return sounds.open_pipeline(shards, sample_rate=16_000, crop_length=4_000, **options)


def records(folder: pathlib.Path) -> Target:
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

    return Target(write, read, (record, shard))


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


def audio(folder: pathlib.Path) -> Target:
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
            files.encode_file(codec, path, channels="keep", say=_silent)
            return
        shutil.rmtree(folder / "shards", ignore_errors=True)
        source = folders.Folder(str(path.parent))
        builder.build(source, folder / "shards", sounds.conversion(), say=_silent)

    return Target(write, read, (path,))


class _Echo:
    """A codec that takes all of a sound, and gives what it heard."""

    sample_rate = 16_000

    def encode_stream(self, blocks):
        for block in blocks:
            assert block.dtype == np.float32 and np.isfinite(block).all()
            yield block[..., None]

    def frames_of(self, latents, num_samples, **fields):
        return latents, num_samples, fields


_DRAWINGS = ("line_chart", "bar_chart", "spectrogram", "sound")


def _remembering(draw: Callable) -> Callable:
    """The same function, which draws nothing twice: a case changes one file of many."""
    drawn = {}

    def remembered(*given, **options):
        key = pickle.dumps((given, options))
        if key not in drawn:
            drawn[key] = draw(*given, **options)
        return drawn[key]

    return remembered


def report(folder: pathlib.Path) -> Target:
    """What a page is made of: config, curves, results of every kind, sounds."""
    from f3tok_jax import report as report_door
    from f3tok_jax.reporting import charts
    from tests.f3tok_jax import test_report
    from tests.f3tok_jax.reporting import test_page

    run = pathlib.Path(test_report._write_run(folder / "run"))
    (run / "probe.json").write_text(json.dumps(test_page._probes(0.5)))
    (run / "ablation.json").write_text(json.dumps(test_page._ablation()))
    other = pathlib.Path(test_page._write_representation_run(folder / "other", 0.8))
    names = [f"run/{path.relative_to(run)}" for path in run.rglob("*.json")]
    names += [f"other/{path.relative_to(other)}" for path in other.rglob("*.json")]
    changes = dict.fromkeys(names, mutations.of_json)
    changes |= dict.fromkeys(("run/metrics.jsonl", "other/metrics.jsonl"), mutations.of_json_lines)
    sounds_of = [path.relative_to(folder) for path in run.rglob("*.wav")]
    changes |= dict.fromkeys(map(str, sounds_of[:3]), mutations.of_bytes)

    drawn = {name: _remembering(getattr(charts, name)) for name in _DRAWINGS}

    def read() -> None:
        output = folder / "report.html"
        output.unlink(missing_ok=True)
        given = ["--runs", str(run), str(other), f"--output={output}"]
        with mock.patch.multiple(charts, **drawn):
            code = report_door.main(given)
        if code == 0:
            _check_page(output.read_text())

    return of_files(folder, changes, read)


def _check_page(text: str) -> None:
    """Nothing on a page does anything, whatever it was made of."""
    page = html_page.Page(text)
    tags, names = zip(*((tag, tuple(attributes)) for tag, attributes in page.tags))
    assert not {"script", "iframe", "object", "embed", "form", "link"} & {*tags}
    assert not [name for each in names for name in each if name.startswith("on")]
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


def tables(folder: pathlib.Path) -> Target:
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
        now.write_bytes(change.get(kind, _with_others(others))(data, rng))

    def read() -> None:
        found = folders.Folder(str(files), metadata=(str(now),)).listed()
        assert len(found.items) == len(names)

    return Target(write, read, (table,))


TARGETS = {
    "latents": latents,
    "language_model": language_model,
    "config": run_config,
    "metadata": metadata,
    "manifest": manifests,
    "records": records,
    "audio": audio,
    "report": report,
    "tables": tables,
}
