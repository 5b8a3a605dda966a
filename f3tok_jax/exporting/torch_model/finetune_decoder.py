# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the decoder further on a folder of wavs; latents stay what they are.

    python FOLDER/finetune_decoder.py WAVS --output=TUNED --steps=1000

TUNED is loaded as FOLDER is; f3tok_jax goes on with it, too (--config.init_from.workdir=TUNED).
"""

import argparse
import pathlib
import wave

import torch
from transformers import AutoFeatureExtractor
from transformers import AutoModel

_FOLDER = pathlib.Path(__file__).resolve().parent


def _read(path: pathlib.Path, rate: int) -> torch.Tensor:
    """A wav as [n] in [-1, 1]."""
    try:
        with wave.open(str(path)) as sound:
            found = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
            samples = bytearray(sound.readframes(sound.getnframes()))
    except (wave.Error, EOFError) as error:
        raise SystemExit(f"{path} must be a wav of 16 bits, got: {error}") from None
    if found != (rate, 1, 2) or not samples:
        raise SystemExit(f"{path} must be sound of {rate} Hz, mono, 16 bits: convert or remove it")
    return torch.frombuffer(samples, dtype=torch.int16).float() / 2**15


def _crop(sound: torch.Tensor, length: int) -> torch.Tensor:
    start = int(torch.randint(max(1, len(sound) - length + 1), ()))
    return sound[start : start + length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wavs", type=pathlib.Path, help="folder of wavs, mono, 16 bits")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8, help="crops")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a crop")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    given = parser.parse_args()
    if given.output.exists() or min(given.steps, given.batch_size, given.seconds) <= 0:
        raise SystemExit(f"--output must not be there yet, numbers above 0, got {vars(given)}")
    paths = [path for path in sorted(given.wavs.rglob("*")) if path.suffix.lower() == ".wav"]
    if not paths:
        raise SystemExit(f"{given.wavs} must hold wavs, got none")
    extractor = AutoFeatureExtractor.from_pretrained(_FOLDER)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(_FOLDER, trust_remote_code=True).train().to(device)
    model.requires_grad_(False).decoder.requires_grad_(True)
    rate = model.config.sampling_rate
    sounds = [_read(path, rate) for path in paths]
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=given.learning_rate)
    for step in range(1, given.steps + 1):
        chosen = torch.randint(len(sounds), (given.batch_size,)).tolist()
        crops = [_crop(sounds[index], int(given.seconds * rate)).numpy() for index in chosen]
        inputs = extractor(crops, sampling_rate=rate, return_tensors="pt").to(device)
        loss = model(**inputs, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 1 or not step % 100 or step == given.steps:
            print(f"step {step}: log-mel distance {loss.item():.3f}", flush=True)
    model.save_pretrained(given.output)


if __name__ == "__main__":
    main()
