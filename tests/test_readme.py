# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The README's commands on a folder of sound, from files to a listening page and back to a file."""

import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# A model that compiles in seconds and runs of a few steps; everything else is as the README says.
_SMALL = {
    "f3tok_jax.train": (
        "--config.num_steps=4 --config.optimizer.generator.warmup_steps=2 --config.data.batch_size=4 "
        "--config.model.encoder_channels=(8,8,8,8) --config.model.decoder_channels=(8,8,8,8) "
        "--config.losses.mel_windows=(256,) --config.losses.mel_bands=(20,)"
    ),
    "f3tok_jax.evaluate": "--num_examples=2",
}


def _commands() -> list[str]:
    """Indented lines of the README that run one of our programs, continuation lines joined."""
    text = (_ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [line for line in lines if line.startswith(("python -m", ".venv/bin/f3tok"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A work folder with sound of several rates, and one file that is none."""
    root = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for index, (rate, suffix) in enumerate([(8_000, "wav"), (22_050, "flac"), (44_100, "ogg")] * 4):
        time = np.arange(rate) / rate
        tone = 0.3 * np.sin(2 * np.pi * 110 * (index + 2) * time) + 0.01 * rng.normal(size=rate)
        (root / "sounds").mkdir(exist_ok=True)
        soundfile.write(root / "sounds" / f"tone_{index}.{suffix}", tone, rate)
    (root / "sounds" / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(root / "speech.wav", 0.1 * rng.normal(size=30_001), 22_050)
    return root


def test_commands_work_in_their_order(folder):
    words = {
        "DIR": "sounds",
        "SHARDS": "shards",
        ".venv/bin/f3tok": f"{sys.executable} -m f3tok_jax.cli",
    }
    # What is trained first is used afterwards.
    commands = sorted(
        (command for command in _commands() if "compile_check" not in command),
        key=lambda command: command.startswith(".venv"),
    )
    assert len(commands) == 7
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "JAX_PLATFORMS": "cpu",
        "F3TOK_MODEL": "runs/mine",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    }
    for command in commands:
        if command.startswith("python"):
            command = command.replace("python", sys.executable, 1)
        for word, replacement in words.items():
            command = command.replace(word, replacement)
        arguments = shlex.split(command.replace("configs/", f"{_ROOT}/configs/"))
        arguments += shlex.split(
            next((more for name, more in _SMALL.items() if name in arguments), "")
        )
        done = subprocess.run(
            arguments, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    refused = (folder / "shards" / "train" / "refusals.jsonl").read_text() + (
        folder / "shards" / "test" / "refusals.jsonl"
    ).read_text()
    assert "broken.wav" in refused
    before, after = soundfile.info(folder / "speech.wav"), soundfile.info(folder / "back.wav")
    assert (after.samplerate, after.frames) == (before.samplerate, before.frames)
    assert (folder / "report.html").stat().st_size > 10_000
