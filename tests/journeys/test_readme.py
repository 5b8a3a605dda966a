# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The README's commands on a folder of sound, from files to a listening page and back to a file."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile

from tests.support import tiny_models

_ROOT = pathlib.Path(__file__).resolve().parents[2]

# A model that compiles in seconds and runs of a few steps; everything else is as the README says.
_SMALL = {
    "--output=data/shards": "'--label_pattern=(?P<speaker>tone|hum)_'",
    "configs/autoencoder.py:tiny_24khz": (
        "--config.num_steps=4 --config.optimizer.generator.warmup_steps=2 --config.data.batch_size=4 "
        "'--config.model.strides=((2,2),(2,3))' '--config.model.encoder_channels=(8,8)' "
        "'--config.model.decoder_channels=(8,8)' '--config.losses.mel_windows=(256,)' "
        "'--config.losses.mel_bands=(20,)' '--config.discriminators.periods=(2,)' "
        "'--config.discriminators.stft_windows=(256,)'"
    ),
    "configs/representation.py:base": (
        "--config.num_steps=4 --config.optimizer.encoder.warmup_steps=2 --config.data.batch_size=4 "
        "--config.data.crop_frames=50 --config.packing.examples=2 --config.rq.statistics_frames=2000 "
        "--config.rq.normalization=standardize "  # nine seconds are too few to whiten 32 channels
        "--config.packing.frames=0 --config.packing.positions=0 --config.rq.codebook_size=16 "
        "--config.model.num_layers=1 --config.model.width=32 --config.model.hidden_width=32 "
        "--config.model.num_heads=2 --config.model.num_kv_heads=2 --config.model.head_dim=16 "
        + " ".join(
            f"--config.supervision.tasks.{name}=0.0"
            for name in ("transcription", "caption", "language", "instrument", "event")
        )
        + " --config.supervision.tasks.voice=1.0"
    ),
    "configs/generation.py:base": (
        "--config.num_steps=4 --config.optimizer.head.warmup_steps=2 --config.data.batch_size=4 "
        "--config.data.crop_frames=50 --config.packing.examples=2 --config.packing.patches=0 "
        "--config.packing.positions=0 --config.model.num_layers=1 --config.model.width=32 "
        "--config.model.hidden_width=32 --config.model.num_heads=2 --config.model.num_kv_heads=2 "
        "--config.model.head_dim=16 --config.text.tasks.transcription=0.0 "
        "--config.text.tasks.caption=0.0 --config.text.tasks.voice=1.0"
    ),
    "evaluate --workdir=runs/autoencoder": "--num_examples=2 --judges=none --visqol_examples=0",
    "evaluate --workdir=runs/generation": "--num_examples=2 --judges=none",
    "transcribe": "--task=voice",
}

# The user's own, by the variables that the README sets.
_VARIABLES = {"SOUND": "sounds", "LANGUAGE_MODEL": "text/model", "F3TOK_MODEL": "runs/demo"}


def _text() -> str:
    return (_ROOT / "README.md").read_text(encoding="utf-8")


def _commands() -> list[str]:
    """Indented lines of the README that run one of our programs, continuation lines joined."""
    lines = _text().replace("\\\n", " ").splitlines()
    lines = [line.strip() for line in lines if line.startswith("    ")]
    return [line for line in lines if re.match(r"(cat .* \| )?\.venv/bin/(python|f3tok) ", line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A work folder with sound of several rates, and one file that is none."""
    root = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for index, (rate, suffix) in enumerate([(8_000, "wav"), (22_050, "flac"), (44_100, "ogg")] * 4):
        time = np.arange(rate) / rate
        tone = 0.3 * np.sin(2 * np.pi * 110 * (index + 2) * time) + 0.01 * rng.normal(size=rate)
        (root / "sounds").mkdir(exist_ok=True)
        name = f"{('tone', 'hum')[index % 2]}_{index}.{suffix}"
        soundfile.write(root / "sounds" / name, tone, rate)
    (root / "sounds" / "hum_broken.wav").write_bytes(b"RIFF")
    (root / "sounds" / "metadata.csv").write_text("tone_0|a tone\nhum_1|a hum, longer\n")
    _write_environment(root / ".venv" / "bin")
    (root / "configs").symlink_to(_ROOT / "configs")
    (root / "runs").mkdir()
    # The main job leaves its runs in runs/demo.
    (root / "runs" / "demo").symlink_to(root / "runs")
    tiny_models.write_language_model(root / "text")
    soundfile.write(root / "speech.wav", 0.1 * rng.normal(size=30_001), 22_050)
    return root


def test_commands_work_in_their_order(folder):
    # What is trained first is used afterwards.
    commands = sorted(
        (command for command in _commands() if "compile_check" not in command),
        key=lambda command: ".venv/bin/f3tok " in command,
    )
    assert len(commands) == 20
    for command in commands:
        if "f3tok encode $SOUND" in command:
            (
                folder / "sounds" / "hum_broken.wav"
            ).unlink()  # of many files one that is none is exit 1
        more = next((more for name, more in _SMALL.items() if name in command), "")
        _run(folder, f"{command} {more}")
    refused = "".join(
        (folder / "data" / "shards" / part / "refusals.jsonl").read_text()
        for part in ("train", "test")
    )
    assert "hum_broken.wav" in refused
    before, after = soundfile.info(folder / "speech.wav"), soundfile.info(folder / "back.wav")
    assert (after.samplerate, after.frames) == (before.samplerate, before.frames)
    piped = soundfile.info(folder / "piped.wav")
    assert (piped.samplerate, piped.frames) == (before.samplerate, before.frames)
    assert (folder / "report.html").stat().st_size > 10_000
    ours, in_torch = re.findall(r"```python\n(.*?)```", _text(), re.DOTALL)
    (folder / "program.py").write_text(ours)
    _run(folder, ".venv/bin/python program.py")
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        (folder / "program.py").write_text(in_torch)
        _run(folder, ".venv/bin/python program.py")
    else:
        warnings.warn("the program in PyTorch was not run: it needs the extra parity", stacklevel=1)


def _write_environment(folder: pathlib.Path) -> None:
    """The two programs that the README calls, of the environment in which the test runs."""
    folder.mkdir(parents=True)
    for name, arguments in (("python", ""), ("f3tok", "-m f3tok_jax.cli")):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (folder / name).chmod(0o755)


def _run(folder: pathlib.Path, command: str) -> None:
    """Runs a command of the README as its reader would, beside the runs that it has made so far."""
    environment = {
        **os.environ,
        **_VARIABLES,
        "PYTHONPATH": str(_ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
