# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""An exported autoencoder in StableHLO, which JAX runs without this package.

FOLDER/stablehlo/encode.stablehlo  decode.stablehlo  encode_step.stablehlo  decode_step.stablehlo
                 functions.json    what each takes and gives
                 README.md         how to call them

The weights are those of model.safetensors, which each function takes by name: they are stored once,
and a program may keep them on its device, shard or change them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors_numpy

from data_pipelines.records import atomic
from f3tok_jax.exporting import forms
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import torch_weights

PLATFORMS = ("cpu", "cuda", "tpu")

# Of the largest value, at least 1: the same sums in another order.
_TOLERANCE = 1e-4

_README = """# F3-Tokenizer's autoencoder in StableHLO

Each `.stablehlo` file is one function as `jax.export` serializes it, for {platforms}, by
{version}: versions of JAX of half a year later read it, too. Later ones may need a new export.
{rules}
They need `pip install jax flatbuffers safetensors`. Each takes its weights first, a dict of tensors of
`model.safetensors`; `functions.json` names them, and the geometry. Bound to the function before it is compiled, as here, they are laid out once and for all;
given as arguments they can be moved, sharded or changed, and are laid out anew in every call.

```python
import json
import jax
from jax import export
import jax.numpy as jnp
from safetensors.numpy import load_file

described = json.load(open("stablehlo/functions.json"))
tensors = load_file("model.safetensors")


def load(name):
    function = export.deserialize(bytearray(open(f"stablehlo/{{name}}.stablehlo", "rb").read()))
    weights = {{one: tensors[one] for one in described["functions"][name]["weights"]}}
    return jax.jit(lambda *arrays: function.call(weights, *arrays))


encode, decode, encode_step = load("encode"), load("decode"), load("encode_step")
waveform = 0.1 * jax.random.normal(jax.random.key(0), (1, {sample_rate}))
encoded = encode(waveform, jnp.ones(waveform.shape, bool))
latents, mask = encoded[:2]
sound, mask = decode(*encoded)

shapes = described["functions"]["encode_step"]["caches"]  # of a row
caches = [jnp.zeros((1, *shape)) for shape in shapes]
padded = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % {hop} + {ahead})))
for begin in range(0, waveform.shape[1], {hop}):
    latent, caches = encode_step(padded[:, begin : begin + {hop} + {ahead}], caches)
```
"""


def write(
    root: pathlib.Path, autoencoder: autoencoder_lib.Autoencoder, latents_fingerprint: str
) -> None:
    """Writes the folder and runs every function in it beside the autoencoder that it is of.

    Args:
        root: folder with the weights under PyTorch's names, where the new folder is made.
        autoencoder: computes in float32 there, whatever its compute_dtype.
        latents_fingerprint: of the weights that made the latents.

    Raises:
        ValueError: where a function that was written gives other numbers.
    """
    folder = root / "stablehlo"
    folder.mkdir()
    autoencoder = autoencoder.clone(compute_dtype="float32")
    tensors = safetensors_numpy.load_file(root / "model.safetensors")
    functions = {}
    for function in _functions(autoencoder):
        path = folder / f"{function.name}.stablehlo"
        weights = function.weights(tensors)
        exported = _exported(function, weights)
        atomic.write_bytes(path, exported.serialize())
        _check(path, function, weights)
        functions[function.name] = {
            "file": path.name,
            "weights": list(weights),
            "takes": list(function.takes),
            "gives": list(function.gives),
            "caches": [list(shape) for shape in function.caches],
        }
    described = forms.describe(autoencoder, latents_fingerprint) | {
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
        "calling_convention": exported.calling_convention_version,
        "functions": functions,
    }
    atomic.write_text(folder / "functions.json", json.dumps(described, indent=2) + "\n")
    atomic.write_text(folder / "README.md", _readme(autoencoder))


def _readme(autoencoder: autoencoder_lib.Autoencoder) -> str:
    return _README.format(
        platforms=", ".join(PLATFORMS),
        version=f"jax {jax.__version__}",
        rules=forms.rules(autoencoder),
        sample_rate=autoencoder.sample_rate,
        hop=autoencoder.samples_per_latent,
        ahead=autoencoder.encoder_lookahead,
    )


def load(root: pathlib.Path, name: str) -> Callable[..., Any]:
    """A function of a folder, with its weights, as the README has it."""
    folder = root / "stablehlo"
    described = json.loads((folder / "functions.json").read_text(encoding="utf-8"))
    tensors = safetensors_numpy.load_file(root / "model.safetensors")
    weights = {one: tensors[one] for one in described["functions"][name]["weights"]}
    exported = export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes()))
    return jax.jit(lambda *arrays: exported.call(weights, *arrays))


@dataclasses.dataclass(kw_only=True)
class _Function:
    """What becomes a file.

    Attributes:
        name: of the function.
        part: of the model, whose weights it takes.
        call: (weights by PyTorch's names, what it takes, and of a step the caches) -> results.
        takes: name -> its shape of so many rows and samples or latents; any of them, too.
        gives: names of the results.
        caches: shapes of a row.
    """

    name: str
    part: str
    call: Callable[..., Any]
    takes: dict[str, Callable[[Any, Any], tuple[Any, ...]]]
    gives: tuple[str, ...]
    caches: Sequence[tuple[int, ...]] = ()

    def weights(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Those of a model's that it takes."""
        return {name: tensors[name] for name in sorted(tensors) if name.startswith(f"{self.part}.")}

    def arguments(self, rows: Any, length: Any) -> list[Any]:
        """Shapes and dtypes of all but the weights."""
        found: list[Any] = [
            jax.ShapeDtypeStruct(
                shape(rows, length), jnp.bool_ if name.endswith("_mask") else jnp.float32
            )
            for name, shape in self.takes.items()
        ]
        caches = [jax.ShapeDtypeStruct((rows, *shape), jnp.float32) for shape in self.caches]
        return found + ([caches] if caches else [])


def _exported(function: _Function, weights: Mapping[str, np.ndarray]) -> export.Exported:
    """Of any number of rows, and of samples or latents."""
    sizes = export.symbolic_shape("rows, length", constraints=["rows >= 1", "length >= 1"])
    given = {name: jax.ShapeDtypeStruct(one.shape, one.dtype) for name, one in weights.items()}
    traced = jax.jit(function.call)
    return export.export(traced, platforms=PLATFORMS)(given, *function.arguments(*sizes))


def _check(path: pathlib.Path, function: _Function, weights: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless a file gives what the function does that it was made of."""
    rng = np.random.default_rng(0)
    read = export.deserialize(bytearray(path.read_bytes()))
    for rows, length in ((2, 5), (1, 1)):
        arrays = jax.tree.map(
            lambda one: (0.1 * rng.normal(size=one.shape)).astype(one.dtype),
            function.arguments(rows, length),
        )
        expected = jax.jit(function.call)(dict(weights), *arrays)
        found = jax.jit(read.call)(dict(weights), *arrays)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            one, other = (np.asarray(array, np.float32) for array in (one, other))
            bound = _TOLERANCE * max(1.0, np.abs(other).max())
            if one.shape != other.shape or not np.allclose(one, other, rtol=0, atol=bound):
                raise ValueError(
                    f"{path.name} must give what the autoencoder does that it was made of, got other "
                    f"numbers from {rows} rows of {length}: install the jax that "
                    "launch/requirements.lock names"
                )


def _functions(autoencoder: autoencoder_lib.Autoencoder) -> list[_Function]:
    hop, width = autoencoder.samples_per_latent, autoencoder.latent_dim
    model = _Model(autoencoder)
    in_latents = {"latents": lambda b, t: (b, t, width)}
    scales = {"audio_scales": lambda b, t: (b,)} if autoencoder.level_db else {}
    return [
        _Function(
            name="encode",
            part="encoder",
            call=model.encode,
            takes={name: lambda b, n: (b, n) for name in ("waveform", "waveform_mask")},
            gives=("latents", "latents_mask", *scales),
        ),
        _Function(
            name="decode",
            part="decoder",
            call=model.decode,
            takes=in_latents | {"latents_mask": lambda b, t: (b, t)} | scales,
            gives=("waveform", "waveform_mask"),
        ),
        _Function(
            name="encode_step",
            part="encoder",
            call=model.encode_step,
            takes={"waveform": lambda b, k: (b, k * hop + autoencoder.encoder_lookahead)},
            gives=("latents", "caches"),
            caches=model.caches("encoder"),
        ),
        _Function(
            name="decode_step",
            part="decoder",
            call=model.decode_step,
            takes=in_latents,
            gives=("waveform", "caches"),
            caches=model.caches("decoder"),
        ),
    ]


class _Model:
    """An autoencoder as functions of its weights under PyTorch's names, and of arrays alone."""

    def __init__(self, autoencoder: autoencoder_lib.Autoencoder):
        self._autoencoder = autoencoder
        self._params = pretrained_autoencoder.abstract_params(autoencoder)

    def encode(self, weights, waveform: jax.Array, mask: jax.Array) -> tuple[jax.Array, ...]:
        """Whole waveforms [b, n] to latents, each at the level of the model if it has one."""
        hop, num_samples = self._autoencoder.samples_per_latent, waveform.shape[1]
        scales = ()
        if self._autoencoder.level_db:
            gains = self._autoencoder.gains(waveform, mask)
            waveform, scales = gains * waveform, (1.0 / gains[:, 0],)
        # All of a multiple of the hop that is known to be one, whatever n is.
        count = (num_samples + hop - 1) // hop
        padding = ((0, 0), (0, count * hop - num_samples))
        waveform = jnp.pad(jnp.where(mask, waveform, 0.0), padding)
        latents = self._apply("encoder", weights, waveform, method="waveform_to_latents")
        return latents, jnp.pad(mask, padding).reshape(-1, count, hop).any(axis=-1), *scales

    def decode(
        self, weights, latents: jax.Array, mask: jax.Array, scales: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Whole sequences of latents [b, t, d] to waveforms, multiplied by scales [b]."""
        latents = jnp.where(mask[..., None], latents, 0.0)
        waveform = self._apply("decoder", weights, latents, method="latents_to_waveform")
        if scales is not None:
            waveform = scales[:, None] * waveform
        return waveform, jnp.repeat(mask, self._autoencoder.samples_per_latent, axis=1)

    def encode_step(self, weights, waveform: jax.Array, caches: list[jax.Array]):
        """A chunk [b, k * hop + lookahead] of a stream to its latents, and the caches after it."""
        hop, ahead = self._autoencoder.samples_per_latent, self._autoencoder.encoder_lookahead
        rows, count = waveform.shape[0], (waveform.shape[1] - ahead) // hop
        own = waveform[:, : count * hop].reshape(rows, count, hop)
        after = waveform[:, count * hop :].reshape(rows, 1, ahead)
        after = jnp.concatenate([own[:, 1:, :ahead], after], axis=1)
        chunks = jnp.concatenate([own, after], axis=2)
        return self._scan("encoder", weights, caches, chunks)

    def decode_step(self, weights, latents: jax.Array, caches: list[jax.Array]):
        """The next latents [b, k, d] of a stream to sound, and the caches after them."""
        return self._scan("decoder", weights, caches, latents[:, :, None])

    def caches(self, part: str) -> list[tuple[int, ...]]:
        """Shapes of what a stream keeps, of a row."""
        leaves = jax.tree.leaves(self._state(part, self._params, 1))
        return [leaf.shape[1:] for leaf in leaves if leaf.dtype != jnp.bool_]

    def _scan(self, part: str, weights, caches: list[jax.Array], chunks: jax.Array):
        """One latent after the other, of chunks [b, k, ...].

        sequence-layers compares a step's lengths as fractions, which lengths that are free are not;
        those of one latent are known.
        """
        method = {"encoder": "encode_step", "decoder": "decode_step"}[part]
        state = self._state(part, self._params, chunks.shape[0])
        leaves, structure = jax.tree.flatten(state)

        def step(caches, chunk):
            # All that a stream gives is valid. What is not, in the state of its beginning, is zeros.
            kept = iter(caches)
            filled = [
                jnp.ones(one.shape, bool) if one.dtype == jnp.bool_ else next(kept)
                for one in leaves
            ]
            state = jax.tree.unflatten(structure, filled)
            state, found = self._apply(part, weights, state, chunk, method=method)
            kept = [one for one in jax.tree.leaves(state) if one.dtype != jnp.bool_]
            return kept, found

        caches, found = jax.lax.scan(step, caches, jnp.moveaxis(chunks, 1, 0))
        found = jnp.moveaxis(found, 0, 1)
        return found.reshape(
            found.shape[0], found.shape[1] * found.shape[2], *found.shape[3:]
        ), caches

    def _state(self, part: str, params, rows):
        apply = functools.partial(self._autoencoder.apply, method=f"{part}_state")
        return jax.eval_shape(lambda params: apply({"params": params}, rows), params)

    def _apply(self, part: str, weights, *arrays, method: str):
        params = torch_weights.from_tensors(weights, {part: self._params[part]})
        return self._autoencoder.apply({"params": params}, *arrays, method=method)
