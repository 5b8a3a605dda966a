# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Codecs to be timed: an autoencoder in each of its forms, and those of transformers beside it.

Weights are random: what a codec costs does not depend on them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np
import onnxruntime
import torch
import transformers

from f3tok_jax.exporting import onnx_folder
from f3tok_jax.exporting import parts as parts_lib
from f3tok_jax.exporting import stablehlo_folder
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import torch_weights
from f3tok_jax.pretrained import weight_files

# The published model at 24 kHz; transformers' own defaults are those of 16 kHz.
_DAC_24KHZ = dict(
    encoder_hidden_size=64,
    downsampling_ratios=[2, 4, 5, 8],
    decoder_hidden_size=1536,
    n_codebooks=32,
    sampling_rate=24_000,
)


@dataclasses.dataclass(kw_only=True)
class Codec:
    """Something that codes sound; every call returns when all is computed.

    Attributes:
        name: "f3tok" with its form, or the other's.
        encode: waveform [b, n] float32 -> what `decode` takes.
        decode: that -> sound.
        encode_step: encodes the next chunk of `samples_per_step` of a stream; None where it cannot.
        decode_step: decodes what that gives; None where it cannot.
        samples_per_step: of a chunk.
        sample_rate: Hz of the sound that it codes: 24,000 of all others.
    """

    name: str
    encode: Callable[[np.ndarray], Any]
    decode: Callable[[Any], Any]
    encode_step: Callable[[], Any] | None = None
    decode_step: Callable[[], Any] | None = None
    samples_per_step: int = 0
    sample_rate: int = 24_000


def ours(
    autoencoder: autoencoder_lib.Autoencoder, params: Any, root: pathlib.Path, num_threads: int
) -> list[Codec]:
    """All forms of an autoencoder, in JAX, PyTorch, ONNX and StableHLO.

    Args:
        autoencoder: that computes in float32.
        params: of it.
        root: an empty folder, for the forms that are files.
        num_threads: of ONNX Runtime; JAX has those of the machine.
    """
    config = parts_lib.describe(autoencoder) | {"parts": ["encoder", "decoder"]}
    (root / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weight_files.write(root / "model.safetensors", torch_weights.tensors(params))
    onnx_folder.write(root, autoencoder, "")
    stablehlo_folder.write(root, autoencoder, "")
    made = [
        _in_jax(autoencoder, params),
        # As the module's docstring advises on a CPU.
        _in_torch(onnx_folder.load(root).to(memory_format=torch.channels_last)),
        _in_onnx(root / "onnx", num_threads),
        _in_stablehlo(root),
    ]
    chunk = np.zeros(
        (1, autoencoder.samples_per_latent + autoencoder.encoder_lookahead), np.float32
    )
    latent = np.zeros((1, 1, autoencoder.latent_dim), np.float32)
    for codec, encode_step, decode_step in made:
        codec.samples_per_step = autoencoder.samples_per_latent
        codec.sample_rate = autoencoder.sample_rate
        codec.encode_step = functools.partial(encode_step, chunk)
        codec.decode_step = functools.partial(decode_step, latent)
    return [codec for codec, _, _ in made]


_Made = tuple[Codec, Callable[[np.ndarray], Any], Callable[[np.ndarray], Any]]


def _in_jax(autoencoder: autoencoder_lib.Autoencoder, params: Any) -> _Made:
    autoencoder = pretrained_autoencoder.for_use(autoencoder)
    codec, variables = codec_lib.Codec(autoencoder, params), {"params": params}

    def encode(waveform: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
        return codec.encode_with_gains(list(waveform), batch_size=len(waveform))

    def decode(found: tuple[list[np.ndarray], list[float]]) -> list[np.ndarray]:
        latents, gains = found
        return codec.decode(latents, gains=gains, batch_size=len(latents))

    def stepper(name: str, state: str) -> Callable[[np.ndarray], np.ndarray]:
        step = jax.jit(functools.partial(autoencoder.apply, method=name))
        kept = [autoencoder.apply(variables, 1, method=state)]

        def call(chunk: np.ndarray) -> np.ndarray:
            kept[0], found = step(variables, kept[0], chunk)
            return np.asarray(found)

        return call

    made = Codec(name="f3tok jax", encode=encode, decode=decode)
    return (
        made,
        stepper("encode_step", "encoder_state"),
        stepper("decode_step", "decoder_state"),
    )


def _in_torch(model: Any) -> _Made:
    caches: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "decoder": {}}

    @torch.inference_mode()
    def encode(waveform: np.ndarray) -> Any:
        return model.encode(torch.from_numpy(waveform))

    @torch.inference_mode()
    def decode(found: Any) -> np.ndarray:
        return model.decode(found.latents, audio_scales=found.audio_scales).audio.numpy()

    @torch.inference_mode()
    def step(part: str, chunk: np.ndarray) -> np.ndarray:
        return getattr(model, part)(torch.from_numpy(chunk), caches[part]).numpy()

    made = Codec(name="f3tok torch", encode=encode, decode=decode)
    return made, functools.partial(step, "encoder"), functools.partial(step, "decoder")


def _in_onnx(folder: pathlib.Path, num_threads: int) -> _Made:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads

    def session(name: str) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(
            folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
        )

    def stepper(name: str, given: str) -> Callable[[np.ndarray], np.ndarray]:
        step = session(name)
        cache = {
            one.name: np.zeros((1, *one.shape[1:]), np.float32) for one in step.get_inputs()[1:]
        }

        def call(chunk: np.ndarray) -> np.ndarray:
            found, *after = step.run(None, {given: chunk} | cache)
            cache.update(zip(cache, after, strict=True))
            return found

        return call

    encoder, decoder = session("encode"), session("decode")
    made = Codec(
        name="f3tok onnx",
        encode=lambda waveform: encoder.run(
            None, {"waveform": waveform, "waveform_mask": np.ones(waveform.shape, bool)}
        ),
        decode=lambda found: decoder.run(
            None, dict(zip([one.name for one in decoder.get_inputs()], found, strict=True))
        ),
    )
    return made, stepper("encode_step", "waveform"), stepper("decode_step", "latents")


def _in_stablehlo(root: pathlib.Path) -> _Made:
    functions = {name: stablehlo_folder.load(root, name) for name in ("encode", "decode")}

    def stepper(name: str) -> Callable[[np.ndarray], np.ndarray]:
        step = stablehlo_folder.load(root, name)
        described = json.loads((root / "stablehlo/functions.json").read_text(encoding="utf-8"))
        shapes = described["functions"][name]["caches"]
        caches = [[np.zeros((1, *shape), np.float32) for shape in shapes]]

        def call(chunk: np.ndarray) -> np.ndarray:
            found, caches[0] = step(chunk, caches[0])
            return np.asarray(found)

        return call

    made = Codec(
        name="f3tok stablehlo",
        encode=lambda waveform: jax.block_until_ready(
            functions["encode"](waveform, np.ones(waveform.shape, bool))
        ),
        decode=lambda found: jax.block_until_ready(functions["decode"](*found)),
    )
    return made, stepper("encode_step"), stepper("decode_step")


def of_transformers(names: Sequence[str]) -> list[Codec]:
    """DAC, EnCodec and Mimi in their published shapes at 24 kHz."""
    makers: Mapping[str, Callable[[], Codec]] = {"dac": _dac, "encodec": _encodec, "mimi": _mimi}
    torch.manual_seed(0)
    return [makers[name]() for name in names]


def _dac() -> Codec:
    model = transformers.DacModel(transformers.DacConfig(**_DAC_24KHZ)).eval()
    return Codec(
        name="dac",
        encode=_inferring(lambda waveform: model.encode(_mono(waveform)).audio_codes),
        decode=_inferring(lambda codes: model.decode(audio_codes=codes).audio_values.numpy()),
    )


def _encodec() -> Codec:
    model = transformers.EncodecModel(transformers.EncodecConfig()).eval()  # 24 kHz

    def encode(waveform: np.ndarray) -> Any:
        # 6 kbit/s, 8 codebooks, as the paper's examples at 24 kHz.
        return model.encode(_mono(waveform), bandwidth=6.0)

    def decode(found: Any) -> np.ndarray:
        return model.decode(found.audio_codes, found.audio_scales).audio_values.numpy()

    return Codec(name="encodec", encode=_inferring(encode), decode=_inferring(decode))


def _mimi() -> Codec:
    model = transformers.MimiModel(transformers.MimiConfig()).eval()  # 24 kHz
    hop = 2 * 960  # 12.5 Hz: two of our latents
    chunk, kept = torch.zeros(1, 1, hop), {}

    def step() -> Any:
        found = model.encode(
            chunk,
            num_quantizers=8,  # as Moshi has them
            encoder_cache=kept.get("cache"),
            padding_cache=kept.get("padding"),
            use_streaming=True,
        )
        kept.update(cache=found.encoder_cache, padding=found.padding_cache)
        return found.audio_codes

    return Codec(
        name="mimi",
        encode=_inferring(lambda w: model.encode(_mono(w), num_quantizers=8).audio_codes),
        decode=_inferring(lambda codes: model.decode(codes).audio_values.numpy()),
        encode_step=_inferring(step),  # its decoder's convolutions keep nothing of the chunk before
        samples_per_step=hop,
    )


def _mono(waveform: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(waveform)[:, None]


def _inferring(call: Callable[..., Any]) -> Callable[..., Any]:
    return torch.inference_mode()(call)
