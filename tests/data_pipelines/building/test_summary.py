# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is said at the end of a build: the numbers add up, and what it recommends helps."""

import json
import re

import numpy as np
import pytest
import soundfile

from data_pipelines.building import summary
from data_pipelines.records import manifest
from data_pipelines.sound import levels
from tests.support import builds
from tests.support import sounds


@pytest.fixture
def folder(tmp_path):
    """Eight tones, others that are clipped, opposite, enormous or no sound, and a table of texts."""
    folder = sounds.write_folder(tmp_path / "sounds")
    noise = 0.1 * np.random.default_rng(0).standard_normal((8_000, 1)).astype(np.float32)
    for name, samples in {
        "8_eve_clipped": np.clip(noise * 10.0, -1.0, 1.0),
        "8_eve_opposite": noise * np.float32([1.0, -0.98]),
        "8_eve_quiet": noise * 1e-3,
        "8_eve_enormous": noise * 1e30,
    }.items():
        soundfile.write(folder / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    (folder / "notes.txt").write_text("no sound")
    rows = "".join(f"{path.name}\tsaid {path.stem}\n" for path in sorted(folder.glob("*.wav"))[:6])
    (tmp_path / "texts.tsv").write_text(f"file\ttext\n{rows}gone.wav\tno sound\n")
    return folder


def _build(folder, output, *flags, capsys):
    arguments = [
        *(f"--source=folder --input={folder} --output={output} --sample_rate=16000").split(),
        *(
            f"--metadata={folder.parent / 'texts.tsv'} --num_workers=1 --segment_seconds=0.5"
        ).split(),
        r"--label_pattern=^(?P<digit>\d)_(?P<speaker>[a-z]+)_",
        *flags,
    ]
    code, said, _ = builds.run(arguments, capsys)
    assert code == 0
    return said


def _numbers(pattern, text):
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in\n{text}"
    return [int(number) for number in found.groups()]


def test_the_numbers_add_up(folder, tmp_path, capsys):
    said = _build(folder, tmp_path / "out", "--holdout=0.3", capsys=capsys)
    entries, listed, skipped, texts = _numbers(
        r"(\d+) entries: (\d+) sounds, (\d+) passed over \((\d+) \.txt\)", said
    )
    assert entries == listed + skipped == len(list(folder.iterdir())) and skipped == texts
    rows, matched, without, bare = _numbers(
        r"(\d+) rows of tables: (\d+) matched, (\d+) without sound; (\d+) sounds without row", said
    )
    assert rows == matched + without == 7 and without == 1 and matched + bare == listed
    offered = refused = 0
    for part in ("train", "test"):
        content = manifest.read(tmp_path / "out" / part)
        used, of, records = _numbers(rf"{part}: (\d+) of (\d+) sounds used: (\d+) records", said)
        assert (used, of, records) == (content.num_used, content.num_sources, content.num_records)
        assert used + sum(content.refused.values()) == of
        offered, refused = offered + of, refused + of - used
    assert offered == listed == 12 and refused == 1
    (counted,) = _numbers(r"(\d+) refused: 1 out_of_range; \S+refusals.jsonl names them", said)
    assert counted == refused
    assert "label speaker: ada " in said and "levels of the records: peak " in said


def test_what_is_recommended_helps(folder, tmp_path, capsys):
    said = _build(folder, tmp_path / "out", capsys=capsys)
    cut = re.search(r"transcripts lost .*record of 0.5 s .*: (\d+); (--segment_seconds=\S+)", said)
    assert int(cut[1]) == manifest.read(tmp_path / "out").lost_transcripts > 0
    flags = re.findall(r"(\d+) sounds .*(--(?:max|min)_\w+=\S+) refuses them", said)
    assert [flag.split("=")[0] for _, flag in flags] == [
        "--max_clipped", "--min_rms_db", "--min_bandwidth", "--max_mix_loss_db"
    ]  # fmt: skip
    assert "1 sounds with more than 10 dB lost by mixing their channels: use --mono=left" in said
    for number, (count, flag) in enumerate(flags):
        again = _build(folder, tmp_path / str(number), cut[2], flag, capsys=capsys)
        assert flag not in again.replace(f"--{flag}", "") and "transcripts lost" not in again
        content = manifest.read(tmp_path / str(number))
        reason = next(r for r, names in levels.REASONS.items() if flag.startswith(f"--{names[0]}="))
        assert content.refused[reason] == int(count) and not content.lost_transcripts
    left = _build(folder, tmp_path / "left", "--mono=left", capsys=capsys)
    assert "lost by mixing" not in left


def test_an_older_manifest_is_summarized(tmp_path):
    folder = sounds.shard_set(tmp_path)
    path = folder / manifest.FILE_NAME
    fields = json.loads(path.read_text()) | {"format": "f3tok shard set 1"}
    for name in "texts lost_transcripts lost_seconds hours levels noteworthy kept rows".split():
        del fields[name]
    del fields["seal"]
    path.write_text(json.dumps(fields))
    said = summary.of({"": manifest.read(folder)}, folder, "built")
    assert said.startswith("built\n  8 of 8 sounds used: ")
