# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An exported folder is what X-ARES wants: its own check passes, and one of its tasks runs."""

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
import wave

import numpy as np
import pytest

from f3tok_jax import export
from f3tok_jax.inference import tokenizer
from tests.support import tiny_runs

_PROGRAM = """
import importlib.machinery, sys, types
sys.modules.update(dict.fromkeys(("jax", "flax", "f3tok_jax")))  # Not to be imported.
try:
    import torchaudio
except (ImportError, OSError):  # Its releases fit one of PyTorch's each: it reads and resamples here.
    import soundfile, torch
    load = lambda path: (torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None], 16_000)
    same = lambda audio, rate, wanted: audio
    stands_in = types.ModuleType("torchaudio")
    stands_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    stands_in.load, stands_in.functional = load, types.SimpleNamespace(resample=same)
    sys.modules["torchaudio"] = stands_in
sys.path.insert(0, ".")
import numpy as np, torch
from xares import task as task_lib
from xares.audio_encoder_checker import check_audio_encoder
from xares.utils import attr_from_py_path
encoder = attr_from_py_path("model/xares_encoder.py", endswith="Encoder")()
assert check_audio_encoder(encoder)
with torch.inference_mode():
    np.save("frames.npy", encoder(torch.from_numpy(np.load("sound.npy"))).numpy())
    assert encoder(torch.zeros(1, 600 * encoder.sampling_rate)).shape == (1, 15_000, encoder.output_dim)
config = attr_from_py_path("tasks/esc50_task.py", endswith="_config")(encoder)
config.env_root, config.num_encoder_workers = "env", 0
config.epochs, config.batch_size_train, config.learning_rate = 40, 8, 5e-2
task = task_lib.XaresTask(config)
task.make_encoded_tar()
print("score", *task.run_mlp())
"""


def _write_fold(folder, fold: int) -> None:
    """A fold of ESC-50 with sounds of two kinds: a low tone, and noise."""
    rng = np.random.default_rng(fold)
    with tarfile.open(folder / f"wds-audio-fold-{fold}-000000.tar", "w") as tar:
        for index in range(8):
            times = np.arange(8000) / 16_000
            tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * rng.random()) * times)
            sound = tone if index % 2 else 0.1 * rng.normal(size=8000)
            content = io.BytesIO()
            with wave.open(content, "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", ""))
                file.writeframes((sound * 2**15).astype(np.int16).tobytes())
            label = json.dumps({"label": index % 2}).encode()
            for name, part in (("wav", content.getvalue()), ("json", label)):
                entry = tarfile.TarInfo(f"{fold}_{index}.{name}")
                entry.size = len(part)
                tar.addfile(entry, io.BytesIO(part))


def test_the_benchmarks_own_check_passes_and_a_task_of_it_learns(tmp_path):
    for package in ("torch", "transformers", "xares"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"X-ARES needs {package}, of the xares extra")
    run = tiny_runs.write_chain(tmp_path)["representation"]
    assert export.main([f"--workdir={run}", f"--output={tmp_path}/model"]) == 0
    sound = 0.1 * np.random.default_rng(0).normal(size=(2, 50_000)).astype(np.float32)
    np.save(tmp_path / "sound.npy", sound)
    folder = tmp_path / "env" / "esc50"
    folder.mkdir(parents=True)
    for fold in range(1, 6):
        _write_fold(folder, fold)
    (folder / ".audio_tar_ready").touch()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=tmp_path, timeout=580, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = tokenizer.F3Tokenizer.from_pretrained(run).represent(sound)
    found = np.load(tmp_path / "frames.npy")
    for row, frames in zip(found, expected.rows, strict=True):
        np.testing.assert_allclose(row, frames, atol=1e-4)
    score = next(line for line in done.stdout.splitlines() if line.startswith("score"))
    assert float(score.split()[1]) > 0.75  # Of 40 sounds; 0.5 is chance.
