# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What every further form of an exported autoencoder is tried with."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import json
import pathlib
import re
import subprocess
import sys
import types
from unittest import mock

import numpy as np

from f3tok_jax import export
from f3tok_jax.exporting import forms
from f3tok_jax.exporting import parts
from f3tok_jax.inference import codec
from f3tok_jax.inference import tokenizer
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files
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


def check_level(
    root: pathlib.Path,
    form: types.ModuleType,
    run: Callable[[str, Sequence[np.ndarray]], Sequence[np.ndarray]],
) -> None:
    """Holds the functions of whole sounds, of a model with a level, to the same model in JAX.

    Args:
        root: an empty folder, in which they come to lie.
        form: module that writes them.
        run: (function, arrays) -> what it gives.
    """
    autoencoder, variables = tiny_models.built()
    autoencoder = autoencoder.clone(level_db=-20.0)
    config = parts.describe(autoencoder) | {"parts": ["encoder", "decoder"]}
    (root / "config.json").write_text(json.dumps(config))
    weight_files.write(root / "model.safetensors", torch_weights.tensors(variables["params"]))
    functions = form._functions
    with mock.patch.object(form, "_functions", lambda *given: functions(*given)[:2]):
        form.write(root, autoencoder, "of the latents")
    (readme,) = root.glob("*/README.md")
    assert "a level of -20 dBFS: `encode` divides" in readme.read_text()
    assert {path.stem for path in readme.parent.iterdir()} >= {*forms.FUNCTIONS[:2]}
    ours = codec.Codec(autoencoder, variables["params"])
    waveform, lengths = sound(3, 9_000), (9_000, 4_001, 1)
    waveform *= np.array([[2.0], [1e-2], [0.1]], np.float32)
    mask = np.arange(9_000) < np.array(lengths)[:, None]
    heard = [row[:length] for row, length in zip(waveform, lengths)]
    waveform = np.where(mask, waveform, 7.0)  # What is behind an end is loud, and not heard.
    latents, valid, scales = run("encode", [waveform, mask])
    gains = ours.gains(heard)
    np.testing.assert_allclose(scales, 1 / np.array(gains), rtol=1e-5)
    decoded, audible = run("decode", [latents, valid, scales])
    expected = ours.encode(heard, gains=gains)
    for row, wanted in enumerate(ours.decode(expected, gains=gains)):
        np.testing.assert_allclose(latents[row, valid[row]], expected[row], atol=LATENT_ATOL)
        check_sound(decoded[row, audible[row]] * gains[row], wanted * gains[row])


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
