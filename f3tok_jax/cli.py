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

_DEFAULT_MODEL = "runs/demo/autoencoder"
_DEFAULT_REPRESENTATION = "runs/demo/representation"
_DEFAULT_GENERATION = "runs/demo/generation"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, or 1 with one sentence on stderr."""
    return command.run(_parser(), lambda given: given.command(given), argv)


def _parser() -> command.Parser:
    parser = command.make_parser("f3tok", __doc__)
    commands = parser.add_subparsers(
        required=True, metavar="{info,encode,decode,represent,transcribe,generate}"
    )
    common = _common(_DEFAULT_MODEL)
    representing = _common(_DEFAULT_REPRESENTATION)

    info = commands.add_parser("info", parents=[common], help="what the model is, as JSON")
    info.set_defaults(command=_info)

    encode = commands.add_parser("encode", parents=[common], help="sound file to latents (.npz)")
    encode.add_argument("input", type=command.path, help="wav, flac, ogg or mp3 of any rate")
    encode.add_argument("output", type=_latent_file, help=".npz")
    encode.add_argument(
        "--channels",
        choices=("mix", "keep"),
        default="mix",
        help="encode the mean of all channels, or each by itself",
    )
    encode.set_defaults(command=_encode)

    decode = commands.add_parser("decode", parents=[common], help="latents (.npz) to sound file")
    decode.add_argument("input", type=command.path, help=".npz that encode wrote")
    decode.add_argument("output", type=command.path, help=".wav, .flac or .ogg")
    decode.set_defaults(command=_decode)

    represent = commands.add_parser(
        "represent", parents=[representing], help="sound file to representations (.npz)"
    )
    represent.add_argument("input", type=command.path, help="wav, flac, ogg or mp3 of any rate")
    represent.add_argument("output", type=_latent_file, help=".npz")
    represent.add_argument("--channels", choices=("mix", "keep"), default="mix")
    represent.set_defaults(command=_represent)

    transcribe = commands.add_parser(
        "transcribe", parents=[representing], help="sound file to text, on the console"
    )
    transcribe.add_argument("input", type=command.path, help="wav, flac, ogg or mp3 of any rate")
    transcribe.add_argument(
        "--task",
        default="transcription",
        help="what is asked: any task that the run was trained on, such as language",
    )
    transcribe.set_defaults(command=_transcribe)
    _add_generate(commands)
    return parser


def _add_generate(commands: argparse._SubParsersAction) -> None:
    generate = commands.add_parser(
        "generate", parents=[_common(_DEFAULT_GENERATION)], help="text to sound file"
    )
    add = generate.add_argument
    add("--text", default="", help="what to say, or the caption of a sound (see --task)")
    add("--output", required=True, type=command.path, help=".wav, .flac or .ogg")
    add("--prompt", type=command.path, help="recording to continue; --text may then be left out")
    add("--task", help="how the text is meant, such as transcription (speech) or caption")
    add("--max_seconds", type=float, default=10.0, help="of sound at most")
    add("--seed", type=int, default=0, help="of the noise")
    add("--guidance", type=float, help="1 none, more is closer to the text; default the run's")
    add("--steps", type=int, dest="num_steps", help="of the sampler; default the run's")
    add("--solver", choices=("euler", "midpoint"), help="default the run's")
    add("--temperature", type=float, help="standard deviation of the noise; default the run's")
    add("--stream", action="store_true", help="write sound while it is being made")
    generate.set_defaults(command=_generate)


def _common(model: str) -> command.Parser:
    """The flags that say which model."""
    common = command.Parser(add_help=False)
    default = os.environ.get("F3TOK_MODEL", model)
    common.add_argument("--model", type=command.path, default=default, help="run folder")
    common.add_argument(
        "--step", type=int, help="checkpoint to use; the newest whole one if absent"
    )
    return common


def _latent_file(text: str) -> str:
    """Type of a file of latents to write: a sound that stands in its place is not written over."""
    if not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"must end in .npz, got {text!r}")
    return command.path(text)


def _load(arguments: argparse.Namespace):
    # Imported late: --help and a wrong command need no JAX.
    from f3tok_jax.inference import tokenizer

    # Standard output is for the result alone: `info` is JSON there.
    say = functools.partial(print, file=sys.stderr)
    return tokenizer.F3Tokenizer.from_pretrained(arguments.model, arguments.step, say=say)


def _info(arguments: argparse.Namespace) -> int:
    import jax

    codec = _load(arguments).codec
    autoencoder = codec.autoencoder
    print(
        json.dumps(
            {
                "model": arguments.model,
                "step": codec.step,
                "sample_rate": autoencoder.sample_rate,
                "latent_rate": autoencoder.latent_rate,
                "latent_dim": autoencoder.latent_dim,
                "samples_per_latent": autoencoder.samples_per_latent,
                "encoder_lookahead_samples": autoencoder.encoder_lookahead,
                "decoder_lookahead_latents": autoencoder.decoder_lookahead,
                "parameters": codec.num_parameters,
                "fingerprint": codec.fingerprint,
                "device": jax.devices()[0].device_kind,
            },
            indent=2,
        )
    )
    return 0


def _encode(arguments: argparse.Namespace) -> int:
    encoded = _load(arguments).encode_file(arguments.input, channels=arguments.channels)
    return _save(encoded, arguments.output)


def _save(encoded, output: str) -> int:
    encoded.save(output)
    channels, frames, width = encoded.latents.shape
    print(
        f"{output}: {channels} x {frames} {encoded.kind} of {width} at "
        f"{encoded.latent_rate:g} Hz, from {encoded.num_samples} samples at "
        f"{encoded.sample_rate} Hz"
    )
    return 0


def _represent(arguments: argparse.Namespace) -> int:
    represented = _load(arguments).represent_file(arguments.input, channels=arguments.channels)
    return _save(represented, arguments.output)


def _transcribe(arguments: argparse.Namespace) -> int:
    print(_load(arguments).transcribe_file(arguments.input, task=arguments.task))
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    options = ("guidance", "num_steps", "solver", "temperature")
    changes = {name: getattr(arguments, name) for name in options}
    sound = _load(arguments).generate_file(
        arguments.text,
        arguments.output,
        task=arguments.task,
        prompt=arguments.prompt,
        sampler={name: value for name, value in changes.items() if value is not None},
        max_seconds=arguments.max_seconds,
        seed=arguments.seed,
        stream=arguments.stream,
    )
    print(f"{arguments.output}: {sound.seconds:.2f} s at {sound.sample_rate} Hz, {sound.ending}")
    return 0


def _decode(arguments: argparse.Namespace) -> int:
    from f3tok_jax.inference import latent_file

    source = latent_file.load(arguments.input)
    _load(arguments).decode_file(source, arguments.output)
    print(f"{arguments.output}: {source.num_samples} samples at {source.sample_rate} Hz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
