# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""f3tok: a trained tokenizer on the command line.

    f3tok info --model=RUN
    f3tok encode speech.wav out.npz --model=RUN
    f3tok decode out.npz back.wav --model=RUN
    f3tok represent speech.wav out.npz --model=RUN
    f3tok transcribe speech.wav --model=RUN
    f3tok generate --text="seven three nine" --output=out.wav --model=RUN

RUN is the work folder of an autoencoder run, for the first three, of a representation run, which
knows its autoencoder, or of a generation run, which knows both. Without --model it is $F3TOK_MODEL,
or else the one that launch/tpu_train.sh leaves in runs/demo: autoencoder, representation,
generation.

Exit codes: 0 finished, 1 wrong arguments, model or file; one sentence on stderr says which.
"""

import argparse
from collections.abc import Sequence
import functools
import json
import os
import sys

from data_pipelines import command

_SOUND = "wav, flac, ogg or mp3 of any rate"
_WRITTEN = ".wav, .flac or .ogg"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, or 1 with one sentence on stderr."""
    return command.run(_parser(), lambda given: given.command(given), argv)


def _parser() -> command.Parser:
    parser = command.make_parser("f3tok", __doc__)
    verbs = parser.add_subparsers(
        required=True, metavar="{info,encode,decode,represent,transcribe,generate}"
    )

    def verb(work, run: str, text: str):
        """Adds a verb and what all have; `run` of the main job is its model where none is named."""
        new = verbs.add_parser(work.__name__.removeprefix("_"), help=text)
        new.set_defaults(command=work)
        default = os.environ.get("F3TOK_MODEL", f"runs/demo/{run}")
        new.add_argument("--model", type=command.path, default=default, help="run folder")
        text = "checkpoint to use; the newest whole one if absent"
        new.add_argument("--step", type=int, help=text)
        return new.add_argument

    def to_frames(work, run: str, what: str) -> None:
        """Adds a verb that reads a sound file and writes what is made of it."""
        add = verb(work, run, f"sound file to {what} (.npz)")
        add("input", type=command.path, help=_SOUND)
        add("output", type=_latent_file, help=".npz")
        text = "encode the mean of all channels, or each by itself"
        add("--channels", choices=("mix", "keep"), default="mix", help=text)

    verb(_info, "autoencoder", "what the model is, as JSON")
    to_frames(_encode, "autoencoder", "latents")
    add = verb(_decode, "autoencoder", "latents (.npz) to sound file")
    add("input", type=command.path, help=".npz that encode wrote")
    add("output", type=command.path, help=_WRITTEN)
    to_frames(_represent, "representation", "representations")
    add = verb(_transcribe, "representation", "sound file to text, on the console")
    add("input", type=command.path, help=_SOUND)
    text = "what is asked: any task that the run was trained on, such as language"
    add("--task", default="transcription", help=text)
    add = verb(_generate, "generation", "text to sound file")
    add("--text", default="", help="what to say, or the caption of a sound (see --task)")
    add("--output", required=True, type=command.path, help=_WRITTEN)
    add("--prompt", type=command.path, help="recording to continue; --text may then be left out")
    add("--task", help="how the text is meant, such as transcription (speech) or caption")
    add("--max_seconds", type=float, default=10.0, help="of sound at most")
    add("--seed", type=int, default=0, help="of the noise")
    add("--guidance", type=float, help="1 none, more is closer to the text; default the run's")
    add("--steps", type=int, dest="num_steps", help="of the sampler; default the run's")
    add("--solver", choices=("euler", "midpoint"), help="default the run's")
    add("--temperature", type=float, help="standard deviation of the noise; default the run's")
    add("--stream", action="store_true", help="write sound while it is being made")
    return parser


def _latent_file(text: str) -> str:
    """Type of a file of latents to write: a sound that stands in its place is not written over."""
    if not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"must end in .npz, got {text!r}")
    return command.path(text)


def _load(given: argparse.Namespace):
    # Imported late: --help and a wrong command need no JAX.
    from f3tok_jax.inference import tokenizer

    # Standard output is for the result alone: `info` is JSON there.
    say = functools.partial(print, file=sys.stderr)
    return tokenizer.F3Tokenizer.from_pretrained(given.model, given.step, say=say)


def _info(given: argparse.Namespace) -> None:
    import jax

    codec = _load(given).codec
    autoencoder = codec.autoencoder
    info = dict(
        model=given.model,
        step=codec.step,
        sample_rate=autoencoder.sample_rate,
        latent_rate=autoencoder.latent_rate,
        latent_dim=autoencoder.latent_dim,
        samples_per_latent=autoencoder.samples_per_latent,
        encoder_lookahead_samples=autoencoder.encoder_lookahead,
        decoder_lookahead_latents=autoencoder.decoder_lookahead,
        parameters=codec.num_parameters,
        fingerprint=codec.fingerprint,
        device=jax.devices()[0].device_kind,
    )
    print(json.dumps(info, indent=2))


def _encode(given: argparse.Namespace) -> None:
    _save(_load(given).encode_file(given.input, channels=given.channels), given.output)


def _save(encoded, output: str) -> None:
    from f3tok_jax.inference import latent_file

    latent_file.save(encoded, output)
    channels, frames, width = encoded.values.shape
    print(
        f"{output}: {channels} x {frames} {encoded.kind} of {width} at "
        f"{encoded.latent_rate:g} Hz, from {encoded.num_samples[0]} samples at "
        f"{encoded.sample_rate} Hz"
    )


def _represent(given: argparse.Namespace) -> None:
    _save(_load(given).represent_file(given.input, channels=given.channels), given.output)


def _transcribe(given: argparse.Namespace) -> None:
    print(_load(given).transcribe_file(given.input, task=given.task))


def _generate(given: argparse.Namespace) -> None:
    options = ("guidance", "num_steps", "solver", "temperature")
    changes = {name: getattr(given, name) for name in options}
    sound = _load(given).generate_file(
        given.text,
        given.output,
        task=given.task,
        prompt=given.prompt,
        sampler={name: value for name, value in changes.items() if value is not None},
        max_seconds=given.max_seconds,
        seed=given.seed,
        stream=given.stream,
    )
    print(f"{given.output}: {sound.seconds:.2f} s at {sound.sample_rate} Hz, {sound.ending}")


def _decode(given: argparse.Namespace) -> None:
    from f3tok_jax.inference import latent_file

    source = latent_file.load(given.input)
    _load(given).decode_file(source, given.output)
    print(f"{given.output}: {source.num_samples[0]} samples at {source.sample_rate} Hz")


if __name__ == "__main__":
    sys.exit(main())
