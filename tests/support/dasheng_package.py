# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Dasheng's own encoder, of its package, to compare ours with.

Its front end is torchaudio's, of which no release goes with every PyTorch: here stands in what
torchaudio documents, in PyTorch (with torchaudio 2.11's own, compiled parts left out, all that is
compared agrees as well).
"""

from collections.abc import Iterator
import contextlib
import importlib.util
import math
import sys
import types
from typing import Any

import pytest

_VERSION = "0.0.9"  # what sound longer than ten seconds becomes differs between versions


def make(**fields: Any):
    """A torch.nn.Module of Dasheng's class with random weights and statistics, for evaluation.

    Where the package or what it needs is absent, the test is skipped.
    """
    torch = pytest.importorskip("torch")
    for name in ("einops", "dasheng"):
        if importlib.util.find_spec(name) is None:
            wanted = f"pip install --no-deps dasheng=={_VERSION} einops"
            pytest.skip(f"needs {name}, for what it is compared with: {wanted}")
    with _torchaudio():
        import dasheng
        from dasheng.pretrained import pretrained
    if dasheng.__version__ != _VERSION:
        pytest.skip(f"needs dasheng {_VERSION}, got {dasheng.__version__}")
    torch.manual_seed(0)
    model = pretrained.Dasheng(**fields).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.startswith("front_end") or not tensor.is_floating_point():
                continue
            # Nothing is as it is at first: gains are not 1, biases not 0.
            tensor += (0.05 if tensor.ndim > 1 else 0.2) * torch.rand_like(tensor)
            if "running" in name:
                tensor *= 300.0 if name.endswith("var") else -100.0
    return model


@contextlib.contextmanager
def _torchaudio() -> Iterator[None]:
    """Has torchaudio.transforms to be imported from, and nobody else find it so."""
    names = ("torchaudio", "torchaudio.transforms")
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    package, transforms = (types.ModuleType(name) for name in names)
    package.transforms = transforms
    transforms.MelSpectrogram, transforms.AmplitudeToDB = _transforms()
    sys.modules |= dict(zip(names, (package, transforms)))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


def _transforms() -> tuple[type, type]:
    """Classes as torchaudio has them, in what Dasheng asks of them."""
    import torch

    class Spectrogram(torch.nn.Module):
        def __init__(self, n_fft: int):
            super().__init__()
            self.register_buffer("window", torch.hann_window(n_fft))

    class MelScale(torch.nn.Module):
        """Triangles of height 1, equally spaced in 2595 log10(1 + Hz / 700)."""

        def __init__(self, n_fft: int, n_mels: int, f_max: float):
            super().__init__()
            highest = 2595 * math.log10(1 + f_max / 700)
            edges = 700 * (10 ** (torch.linspace(0, highest, n_mels + 2) / 2595) - 1)
            hz = torch.linspace(0, f_max, n_fft // 2 + 1)[:, None]
            up = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
            down = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
            self.register_buffer("fb", torch.minimum(up, down).clamp(min=0))

    class MelSpectrogram(torch.nn.Module):
        def __init__(
            self, *, sample_rate, n_fft, win_length, hop_length, n_mels, f_min, f_max, center
        ):
            super().__init__()
            assert (sample_rate, f_min, 2 * f_max, win_length) == (
                16_000,
                0,
                16_000,
                n_fft,
            ) and center
            self.spectrogram, self.hop = Spectrogram(n_fft), hop_length
            self.mel_scale = MelScale(n_fft, n_mels, f_max)

        def forward(self, waveform):
            window = self.spectrogram.window
            spectrum = torch.stft(
                waveform,
                len(window),
                self.hop,
                window=window,
                pad_mode="reflect",
                return_complex=True,
            )
            return (spectrum.abs() ** 2).mT @ self.mel_scale.fb

    class AmplitudeToDB(torch.nn.Module):
        def __init__(self, top_db: float):
            super().__init__()
            self.top_db = top_db

        def forward(self, power):
            levels = 10 * torch.log10(power.clamp(min=1e-10)).mT
            return torch.maximum(levels, levels.max() - self.top_db)  # of all that is in the batch

    return MelSpectrogram, AmplitudeToDB
