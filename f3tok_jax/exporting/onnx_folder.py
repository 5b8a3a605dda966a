# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An exported autoencoder in ONNX, made of the module in PyTorch that lies beside it.

FOLDER/onnx/encode.onnx  decode.onnx  encode_step.onnx  decode_step.onnx    each with its weights
            README.md                                                       how to call them
"""

import contextlib
import json
import logging
import pathlib
from typing import Any
import warnings

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from safetensors import torch as safetensors_torch
import torch
from torch import nn

from data_pipelines.records import atomic
from f3tok_jax.exporting import forms
from f3tok_jax.exporting.torch_model import autoencoder_f3_tokenizer as torch_autoencoder
from f3tok_jax.exporting.torch_model import configuration_f3_tokenizer as configuration
from f3tok_jax.exporting.torch_model import modeling_f3_tokenizer as modeling
from f3tok_jax.models import autoencoder as autoencoder_lib

# Of the largest value, at least 1: float32 sums in another order, over all layers.
_TOLERANCE = 1e-4

_SCALES = "audio_scales"

_README = """# F3-Tokenizer's autoencoder in ONNX

Each file is one function with its weights, for ONNX Runtime and whatever else reads opset {opset}.
{rules}
Inputs and outputs have names: `waveform`, `waveform_mask`, `latents`, `latents_mask`{scales}, and of a step a
`cache.NAME` for every `next.NAME`, in the same order. The geometry is in the files' metadata, too.

```python
import numpy as np
import onnxruntime

encode, decode, encode_step = (
    onnxruntime.InferenceSession(f"onnx/{{name}}.onnx") for name in ("encode", "decode", "encode_step")
)
waveform = 0.1 * np.random.randn(1, {sample_rate}).astype(np.float32)
inputs = {{"waveform": waveform, "waveform_mask": np.ones(waveform.shape, bool)}}
encoded = encode.run(None, inputs)
latents = encoded[0]
sound, mask = decode.run(None, dict(zip([i.name for i in decode.get_inputs()], encoded)))

cache = {{i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in encode_step.get_inputs()[1:]}}
padded = np.pad(waveform, ((0, 0), (0, -waveform.shape[1] % {hop} + {ahead})))
for begin in range(0, waveform.shape[1], {hop}):
    chunk = padded[:, begin : begin + {hop} + {ahead}]
    latent, *after = encode_step.run(None, {{"waveform": chunk}} | cache)
    cache = dict(zip(cache, after))
```
"""


def write(
    root: pathlib.Path, autoencoder: autoencoder_lib.Autoencoder, latents_fingerprint: str
) -> None:
    """Writes the folder and runs every file in it beside the module in PyTorch.

    Args:
        root: folder with that module's config and weights, where the new folder is made.
        autoencoder: whose geometry it has.
        latents_fingerprint: of the weights that made the latents.

    Raises:
        ValueError: where ONNX Runtime gives other numbers than PyTorch.
    """
    folder = root / "onnx"
    folder.mkdir()
    model = load(root)
    described = forms.describe(autoencoder, latents_fingerprint)
    functions = dict(zip(forms.FUNCTIONS, _functions(model)))
    for name, function in functions.items():
        program = _traced(function)
        opset = program.model.opset_imports[""]
        metadata = described | {"caches": json.dumps(function.caches)}
        program.model.metadata_props.update({key: str(value) for key, value in metadata.items()})
        atomic.write_bytes(folder / f"{name}.onnx", program.model_proto.SerializeToString())
        _check(folder / f"{name}.onnx", function)
    text = _README.format(
        opset=opset,
        rules=forms.rules(autoencoder),
        scales=f", `{_SCALES}`" if autoencoder.level_db else "",
        sample_rate=autoencoder.sample_rate,
        hop=autoencoder.samples_per_latent,
        ahead=autoencoder.encoder_lookahead,
    )
    atomic.write_text(folder / "README.md", text)


def load(root: pathlib.Path) -> modeling.F3TokModel:
    """The autoencoder of a folder in PyTorch, to be run; without transformers' progress bars."""
    config = configuration.F3TokConfig.from_pretrained(root)
    config.parts = ["encoder", "decoder"]
    tensors = safetensors_torch.load_file(root / "model.safetensors")
    model = modeling.F3TokModel(config)
    model.load_state_dict(
        {name: tensors[name] for name in tensors if name.split(".")[0] in config.parts}
    )
    return model.eval().requires_grad_(False)


class _Function(nn.Module):
    """What becomes a file: tensors in, tensors out, all by name.

    Attributes:
        inputs: name -> its axes: a name where it is free, else a size.
        outputs: the same of what it gives.
        caches: name -> shape of a row.
    """

    def __init__(self, model: modeling.F3TokModel):
        super().__init__()
        self.model, self.config = model, model.config
        self.inputs: dict[str, tuple[Any, ...]] = {}
        self.outputs: dict[str, tuple[Any, ...]] = {}
        self.caches: dict[str, list[int]] = {}

    def keep(self, cache: torch_autoencoder.Cache) -> None:
        """Makes inputs and outputs of all that a stream keeps."""
        self.caches = {name: list(value.shape[1:]) for name, value in cache.items()}
        for prefix, arrays in (("cache", self.inputs), ("next", self.outputs)):
            arrays |= {f"{prefix}.{name}": ("b", *shape) for name, shape in self.caches.items()}


class _Encode(_Function):
    """Whole waveforms to latents."""

    def __init__(self, model: modeling.F3TokModel):
        super().__init__(model)
        self.inputs = {"waveform": ("b", "n"), "waveform_mask": ("b", "n")}
        self.outputs = {"latents": ("b", "t", self.config.latent_dim), "latents_mask": ("b", "t")}
        if self.config.level_db:
            self.outputs[_SCALES] = ("b",)

    def forward(self, waveform: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        encoded = self.model.encode(waveform, mask)
        scales = () if encoded.audio_scales is None else (encoded.audio_scales,)
        return encoded.latents, encoded.padding_mask, *scales


class _Decode(_Function):
    """Whole sequences of latents to waveforms."""

    def __init__(self, model: modeling.F3TokModel):
        super().__init__(model)
        self.inputs = {"latents": ("b", "t", self.config.latent_dim), "latents_mask": ("b", "t")}
        if self.config.level_db:
            self.inputs[_SCALES] = ("b",)
        self.outputs = {"waveform": ("b", "n"), "waveform_mask": ("b", "n")}

    def forward(
        self, latents: torch.Tensor, mask: torch.Tensor, scales: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        decoded = self.model.decode(latents, mask, audio_scales=scales)
        return decoded.audio[:, 0], decoded.padding_mask


class _EncodeStep(_Function):
    """A chunk of a stream of sound to its latents."""

    def __init__(self, model: modeling.F3TokModel):
        super().__init__(model)
        self.inputs = {"waveform": ("b", "n")}
        self.outputs = {"latents": ("b", "k", self.config.latent_dim)}
        cache: torch_autoencoder.Cache = {}
        hop, ahead = self.config.samples_per_latent, self.config.encoder_lookahead
        model.encoder(torch.zeros(1, hop + ahead), cache)
        self.keep(cache)

    def forward(self, waveform: torch.Tensor, caches: list[torch.Tensor]) -> list[torch.Tensor]:
        cache = dict(zip(self.caches, caches, strict=True))
        return [self.model.encoder(waveform, cache), *cache.values()]


class _DecodeStep(_Function):
    """The next latents of a stream to sound."""

    def __init__(self, model: modeling.F3TokModel):
        super().__init__(model)
        self.inputs = {"latents": ("b", "k", self.config.latent_dim)}
        self.outputs = {"waveform": ("b", "n")}
        cache: torch_autoencoder.Cache = {}
        model.decoder(torch.zeros(1, 1, self.config.latent_dim), cache)
        self.keep(cache)

    def forward(self, latents: torch.Tensor, caches: list[torch.Tensor]) -> list[torch.Tensor]:
        cache = dict(zip(self.caches, caches, strict=True))
        return [self.model.decoder(latents, cache), *cache.values()]


def _functions(model: modeling.F3TokModel) -> list[_Function]:
    """In the order of their names."""
    return [kind(model) for kind in (_Encode, _Decode, _EncodeStep, _DecodeStep)]


def _traced(function: _Function) -> torch.onnx.ONNXProgram:
    arrays = _examples(function)[0]
    given = [torch.from_numpy(array) for array in arrays.values()]
    axes = [
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(sizes) if isinstance(size, str)}
        for sizes in function.inputs.values()
    ]
    first = len(given) - len(function.caches)
    if function.caches:
        given, axes = [*given[:first], given[first:]], [*axes[:first], axes[first:]]
    with _quiet():
        program = torch.onnx.export(
            function,
            tuple(given),
            dynamo=True,
            dynamic_shapes=axes,
            input_names=list(function.inputs),
            output_names=list(function.outputs),
            # onnxscript 0.7.2 takes a sum with 1e-8 for one with 0: silence would become NaN.
            optimize=False,
            verbose=False,
        )
    _name_axes(program, function)
    return program


def _name_axes(program: torch.onnx.ONNXProgram, function: _Function) -> None:
    """Gives free axes the names that the README has for them."""
    graph = program.model.graph
    for values, named in ((graph.inputs, function.inputs), (graph.outputs, function.outputs)):
        for value, sizes in zip(values, named.values(), strict=True):
            value.shape = onnx_ir.Shape(sizes)


def _examples(function: _Function) -> list[dict[str, np.ndarray]]:
    """Inputs: rows that end apart, with noise behind their ends and silence in them; one odd row."""
    rng, config = np.random.default_rng(0), function.config
    hop, ahead = config.samples_per_latent, config.encoder_lookahead
    lengths = {"n": (2 * hop + ahead, 5 * hop + ahead)} if function.caches else {}
    lengths |= {} if function.caches else {"n": (3 * hop + 7, hop + 333), "t": (3, 1)}
    lengths |= {"k": (2, 5)}
    examples = []
    for index, rows in enumerate((3, 1)):
        sizes = {"b": rows} | {name: pair[index] for name, pair in lengths.items()}
        arrays = {}
        for name, axes in function.inputs.items():
            shape = tuple(sizes.get(axis, axis) for axis in axes)
            if name.endswith("_mask"):
                ends = np.linspace(shape[1], 1, rows, dtype=int)
                arrays[name] = np.arange(shape[1])[None] < ends[:, None]
            else:
                scale = 0.1 if name == "waveform" else 1.0
                arrays[name] = (scale * rng.normal(size=shape)).astype(np.float32)
                if name == _SCALES:
                    arrays[name] = np.exp(arrays[name])
        if "waveform" in arrays:
            arrays["waveform"][:, : 2 * ahead] = 0.0
        examples.append(arrays)
    return examples


def _check(path: pathlib.Path, function: _Function) -> None:
    """Raises ValueError unless ONNX Runtime makes of a file's inputs what PyTorch does."""
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    first = len(function.inputs) - len(function.caches)
    for arrays in _examples(function):
        given = [torch.from_numpy(array) for array in arrays.values()]
        expected = function(*given[:first], *([given[first:]] if function.caches else []))
        for name, one, other in zip(function.outputs, session.run(None, arrays), expected):
            other = other.numpy()
            bound = _TOLERANCE * max(1.0, np.abs(other.astype(np.float32)).max())
            if one.shape != other.shape or not np.allclose(one, other, rtol=0, atol=bound):
                raise ValueError(
                    f"{path.name} must give what the module in PyTorch does, got another {name} of "
                    f"{_shapes(arrays)}: install the versions of torch, onnx, onnxscript and "
                    "onnxruntime that setup.py names"
                )


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    shapes = {name: array.shape for name, array in arrays.items() if "cache." not in name}
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


@contextlib.contextmanager
def _quiet():
    """Without what the exporter says of packages that are not needed and of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
