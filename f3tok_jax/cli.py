# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""f3tok: a trained tokenizer on the command line.

    f3tok info --model=RUN
    f3tok encode speech.wav latents.npz --model=RUN
    f3tok encode RECORDINGS more.flac --output_dir=LATENTS
    f3tok decode latents.npz back.wav
    f3tok represent speech.wav representations.npz
    f3tok transcribe speech.wav
    f3tok generate --text="seven three nine" --output=out.wav

A folder stands for all sound in it, or all .npz where latents are read. Of many inputs those that
cannot be used are refused by name, and the others go on. "-" is standard input or output. Nothing
that exists is replaced without --force, and with it nothing but an earlier output.

RUN, before or behind the verb, is the work folder of an autoencoder run, for info, encode and
decode, of a representation run, which knows its autoencoder, or of a generation run, which knows
both; or a folder of runs by their stages, such as a bundle of f3tok_jax.export, of which that is
used which knows most; or a folder that f3tok_jax.export made of one; or the name of a model that
comes with the package: "small", if this package has it, unless a folder of that name lies here.
Without --model it is $F3TOK_MODEL, or else small if the package has it, or else runs/demo, where
launch/tpu_train.sh leaves such runs; info says which. What is compiled for it is kept in
$JAX_COMPILATION_CACHE_DIR, or else in f3tok_jax/ of the user's cache: the first use of a model takes
longer.

Exit codes: 0 finished, 1 wrong arguments, model or file, 4 a full disk; one sentence on stderr says
which, and for each of many files that was refused.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import functools
import json
import os
import sys

from data_pipelines import command
from f3tok_jax.runs import places

_SOUND = "wav, flac, ogg or mp3 of any rate"
_WRITTEN = (".wav", ".flac", ".ogg")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code, with a sentence on stderr if it is not 0."""
    return command.run(_parser(), lambda given: given.command(given), argv)


def _parser() -> command.Parser:
    parser = command.make_parser("f3tok", __doc__)
    _add_model(parser, None)
    verbs = parser.add_subparsers(
        required=True, metavar="{info,encode,decode,represent,transcribe,generate}"
    )

    def verb(work, text: str, files: str = ""):
        """Adds a verb and what all have; `files` are what it reads."""
        new = verbs.add_parser(work.__name__.removeprefix("_"), help=text)
        new.set_defaults(command=work)
        _add_model(new, argparse.SUPPRESS)  # It may have been given before the verb.
        if files:
            new.add_argument("files", nargs="+", type=command.path, help=files)
        return new.add_argument

    def to_files(add, what: str) -> None:
        """Adds the flags of a verb that writes a file of each that it reads."""
        text = (
            f"for {what} of several inputs or of a folder: they stand below it as the inputs do "
            "below the folder that all share"
        )
        add("--output_dir", type=command.path, help=text)
        add("--force", action="store_true", help=f"replace {what} that exist")

    def to_frames(work, what: str) -> None:
        """Adds a verb that reads sound and writes what is made of it."""
        files = f"a recording and the .npz to write; or recordings and folders: {_SOUND}"
        add = verb(work, f"sound to {what} (.npz)", files)
        to_files(add, what)
        text = "encode the mean of all channels, or each by itself"
        add("--channels", choices=("mix", "keep"), default="mix", help=text)

    verb(_info, "what the model is, as JSON; its weights are not read")
    to_frames(_encode, "latents")
    written = ", ".join(_WRITTEN)
    files = f"an .npz that encode wrote and the sound to write ({written}); or .npz and folders"
    add = verb(_decode, "latents (.npz) to sound", files)
    to_files(add, "sound")
    formats = [ending[1:] for ending in _WRITTEN]
    add("--format", choices=formats, default="wav", help="of sound in --output_dir or a pipe")
    to_frames(_represent, "representations")
    add = verb(_transcribe, "sound to text, on the console", f"recordings and folders: {_SOUND}")
    text = "what is asked: any task that the run was trained on, such as language"
    add("--task", default="transcription", help=text)
    _add_generate(verb(_generate, "text to sound"), written)
    return parser


def _add_generate(add, written: str) -> None:
    """Adds the flags of generate."""
    add("--text", default="", help="what to say, or the caption of a sound (see --task)")
    add("--output", required=True, type=command.path, help=f"{written}; - for a wav to a pipe")
    add("--force", action="store_true", help="replace an output that exists")
    add("--prompt", type=command.path, help="recording to continue; --text may then be left out")
    text = "what is said in --prompt: its voice then says --text, and only that is written"
    add("--prompt_text", default="", help=text)
    text = "run that was trained with config.train_only=decoder on the same latents, to decode them"
    add("--decoder", type=command.path, default="", help=text)
    add("--task", help="how the text is meant, such as transcription (speech) or caption")
    add("--max_seconds", type=float, default=10.0, help="of sound at most")
    add("--seed", type=int, default=0, help="of the noise")
    add("--guidance", type=float, help="1 none, more is closer to the text; default the run's")
    add("--steps", type=int, dest="num_steps", help="of the sampler; default the run's")
    add("--solver", choices=("euler", "midpoint"), help="default the run's")
    add("--temperature", type=float, help="standard deviation of the noise; default the run's")
    add("--stream", action="store_true", help="write sound while it is being made")


def _add_model(parser: command.Parser, default) -> None:
    text = "run folder, bundle, export or small; default $F3TOK_MODEL, or small, or runs/demo"
    parser.add_argument("--model", type=command.path, default=default, help=text)
    text = "checkpoint to use; the newest whole one if absent"
    parser.add_argument("--step", type=int, default=default, help=text)
    places.add_flag(functools.partial(parser.add_argument, default=default))


def _info(given: argparse.Namespace) -> None:
    print(json.dumps(_model(given, "autoencoder").info(), indent=2))


def _encode(given: argparse.Namespace) -> int:
    from f3tok_jax.inference import verbs

    plan = _plan(given, "latents", ending=".npz")
    return verbs.encode(plan, _model(given, "autoencoder"), channels=given.channels)


def _represent(given: argparse.Namespace) -> int:
    from f3tok_jax.inference import verbs

    plan = _plan(given, "latents", ending=".npz")
    return verbs.represent(plan, _model(given, "representation"), channels=given.channels)


def _decode(given: argparse.Namespace) -> int:
    from f3tok_jax.inference import verbs

    ending = f".{given.format}"
    plan = _plan(given, "sound", ending=ending, endings=(".npz",))
    return verbs.decode(plan, _model(given, "autoencoder"), ending=ending)


def _transcribe(given: argparse.Namespace) -> int:
    from f3tok_jax.inference import jobs
    from f3tok_jax.inference import verbs

    is_one = len(given.files) == 1 and not os.path.isdir(given.files[0])
    plan = jobs.one(given.files[0]) if is_one else jobs.many(given.files)
    return verbs.transcribe(plan, _model(given, "representation"), task=given.task)


def _generate(given: argparse.Namespace) -> int:
    from f3tok_jax.inference import jobs
    from f3tok_jax.inference import verbs

    plan = jobs.one(given.prompt or "", given.output, "sound", force=given.force)
    options = ("guidance", "num_steps", "solver", "temperature")
    changes = {name: getattr(given, name) for name in options}
    model = dataclasses.replace(_model(given, "generation"), decoder=given.decoder)
    return verbs.generate(
        plan,
        model,
        given.text,
        prompt_text=given.prompt_text,
        task=given.task,
        sampler={name: value for name, value in changes.items() if value is not None},
        max_seconds=given.max_seconds,
        seed=given.seed,
        stream=given.stream,
    )


def _plan(given: argparse.Namespace, kind: str, **options):
    """What becomes of the files: settled by their names, before JAX is imported."""
    from f3tok_jax.inference import jobs

    if given.output_dir is not None:
        return jobs.many(given.files, given.output_dir, kind, force=given.force, **options)
    if len(given.files) != 2:
        raise ValueError(
            f"an input and an output are wanted, got {len(given.files)} files: give --output_dir "
            "for what is made of several, or of a folder"
        )
    return jobs.one(*given.files, kind, force=given.force)


def _model(given: argparse.Namespace, stage: str):
    """The run to use; it is loaded when it is needed."""
    from f3tok_jax.inference import model_folder
    from f3tok_jax.inference import verbs

    return verbs.Model(model_folder.find(given.model, stage), given.step, dict(given.moved or ()))


if __name__ == "__main__":
    sys.exit(main())
