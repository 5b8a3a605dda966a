# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Further forms of an exported autoencoder: which there are, what they need, and what they share.

In each of them there are the same four functions, encode, decode, encode_step and decode_step, of
float32 arrays.
"""

from collections.abc import Callable, Iterable
import importlib
import importlib.util
import pathlib
from typing import Any

from f3tok_jax.models import autoencoder as autoencoder_lib

# (folder with the model in PyTorch, autoencoder, fingerprint of its latents): writes a folder there.
Form = Callable[[pathlib.Path, autoencoder_lib.Autoencoder, str], None]

# Packages beyond those that the project requires.
_PACKAGES = {
    "onnx": ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"),
    "stablehlo": ("flatbuffers",),
}
FUNCTIONS = ("encode", "decode", "encode_step", "decode_step")


def find(names: Iterable[str]) -> list[Form]:
    """What writes the forms of these names.

    Raises:
        ValueError: where a package that one needs is not installed.
    """
    for name in names:
        absent = [one for one in _PACKAGES[name] if importlib.util.find_spec(one) is None]
        if absent:
            raise ValueError(
                f"--{name} needs packages that are not installed, {', '.join(absent)}: install "
                f"them, by pip install -e '.[{name}]' for instance"
            )
    module = "f3tok_jax.exporting.{}_folder"
    return [importlib.import_module(module.format(name)).write for name in names]


def describe(autoencoder: autoencoder_lib.Autoencoder, latents_fingerprint: str) -> dict[str, Any]:
    """What a program must know that calls the functions."""
    return {
        "sample_rate": autoencoder.sample_rate,  # Hz
        "samples_per_latent": autoencoder.samples_per_latent,
        "latent_dim": autoencoder.latent_dim,
        "encoder_lookahead": autoencoder.encoder_lookahead,  # samples
        "decoder_lookahead": autoencoder.decoder_lookahead,  # latents
        "level_db": float(autoencoder.level_db),  # dBFS of rms; 0: sound is heard as it comes
        "latents_fingerprint": latents_fingerprint,
    }


_RULES = """
| function | takes | gives |
| --- | --- | --- |
| `encode` | waveform [b, n], its mask [b, n] | latents [b, t, {latent_dim}], their mask [b, t]{scales} |
| `decode` | latents [b, t, {latent_dim}], their mask [b, t]{scales} | waveform [b, {hop} t], its mask [b, {hop} t] |
| `encode_step` | waveform [b, {hop} k + {ahead}], caches | latents [b, k, {latent_dim}], caches |
| `decode_step` | latents [b, k, {latent_dim}], caches | waveform [b, {hop} k], caches |

A waveform is float32 in [-1, 1], mono, at {sample_rate} Hz; latents are float32, one for each {hop} samples that
have begun, t = ceil(n / {hop}). A mask is bool, True where valid, which comes first: of a batch that is
padded on the right every row is what it would be alone. Numbers of rows b, samples n and latents t, k
are free, at least 1 each.

A stream begins with caches of zeros, and each step is given those of the step before. A chunk of sound
ends with the {ahead} samples with which the next begins; after the end of the sound come zeros, up to a
whole number of latents and {ahead} more. {late}
{level}"""
_SCALES = ", audio_scales [b]"
_LEVEL = """
Every sound is heard at a level of {level_db:g} dBFS: `encode` divides it by its `audio_scales`, float32, by
which `decode` multiplies. Scales of 1 give sound of that level, as for latents that were generated. Steps
hear a stream as it comes, whose level is not known before it ends: divide it by a scale that brings it to
about that level, and multiply by the same what is decoded.
"""
_LATE = (
    "Sound comes {samples} samples late: drop that many at the beginning of a\n"
    "stream, and give decode_step a latent of zeros after the last."
)


def rules(autoencoder: autoencoder_lib.Autoencoder) -> str:
    """What the functions take and give, in Markdown."""
    hop, late = autoencoder.samples_per_latent, autoencoder.decoder_lookahead
    level_db = autoencoder.level_db
    return _RULES.format(
        latent_dim=autoencoder.latent_dim,
        hop=hop,
        ahead=autoencoder.encoder_lookahead,
        sample_rate=autoencoder.sample_rate,
        late=_LATE.format(samples=late * hop) if late else "Sound comes at once.",
        scales=_SCALES if level_db else "",
        level=_LEVEL.format(level_db=level_db) if level_db else "",
    )
