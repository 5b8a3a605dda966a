# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What every further form of an exported autoencoder is tried with."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import pathlib
import re
import subprocess
import sys

import numpy as np

from f3tok_jax import export
from f3tok_jax.inference import tokenizer
from f3tok_jax.models import autoencoder as autoencoder_lib
from tests.support import tiny_models

# Float32 sums in another order, over 7 stages: of latents, whose rms is 1, and of the sound's peak.
LATENT_ATOL, _SOUND_ATOL = 1e-4, 1e-4


def sound(*shape: int) -> np.ndarray:
    """Noise of an rms of 0.1."""
    return 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)


def check_sound(found: np.ndarray, expected: np.ndarray) -> None:
    """Holds a sound to another one."""
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=_SOUND_ATOL * scale)


def check_stream(
    autoencoder: autoencoder_lib.Autoencoder,
    rows: int,
    chunk: int,
    *,
    stream: Callable[[str, Sequence[np.ndarray]], Iterator[np.ndarray]],
    whole: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Holds what a stream gives, `chunk` latents at a time, to the whole.

    Args:
        autoencoder: whose geometry it is.
        rows: sounds side by side.
        chunk: latents.
        stream: (step, chunks in their order) -> what each gives.
        whole: waveform -> its latents, and the sound that is made of them.
    """
    hop, ahead = autoencoder.samples_per_latent, autoencoder.encoder_lookahead
    late, num_latents = autoencoder.decoder_lookahead, 10
    waveform = sound(rows, num_latents * hop - 90)
    expected, made = whole(waveform)
    padded = np.pad(waveform, ((0, 0), (0, 90 + ahead)))
    starts = range(0, num_latents, chunk)
    chunks = [padded[:, i * hop : (i + chunk) * hop + ahead] for i in starts]
    latents = _joined(stream("encode_step", chunks))
    np.testing.assert_allclose(latents, expected, atol=LATENT_ATOL)
    padded = np.pad(latents, ((0, 0), (0, chunk * late), (0, 0)))
    chunks = np.split(padded, range(chunk, padded.shape[1], chunk), axis=1)
    found = _joined(stream("decode_step", chunks))
    check_sound(found[:, late * hop :][:, : made.shape[1]], made)


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts), axis=1)


def check_readme(root: pathlib.Path, form: str, alone: str) -> None:
    """Runs the program of a form's README where little else can be imported.

    Args:
        root: an empty folder.
        form: of export's flags.
        alone: a program around that one: it goes to the folder of its first argument, takes its
            waveform from sound.npy, and leaves latents, sound and latent in found.npz.
    """
    run, folder = root / "run", root / "model"
    tiny_models.write_run(str(run))
    assert export.main([f"--workdir={run}", f"--output={folder}", f"--{form}"]) == 0
    ours, waveform = tokenizer.F3Tokenizer.from_pretrained(str(run)), sound(16_000)
    np.save(folder / "sound.npy", waveform)
    text = (folder / form / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    code = alone.format(program=program)
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=300)
    found, latents = np.load(folder / "found.npz"), ours.encode(waveform)
    np.testing.assert_allclose(found["latents"][0], latents.values, atol=LATENT_ATOL)
    np.testing.assert_allclose(found["latent"][0, -1], latents.values[-1], atol=LATENT_ATOL)
    check_sound(found["sound"][0], ours.decode(latents))
