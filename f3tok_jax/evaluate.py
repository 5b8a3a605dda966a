# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Measures a run on held-out shards: what is measured follows from its stage.

    python -m f3tok_jax.evaluate --workdir=runs/autoencoder --shards=DIR/test --output=results.json

autoencoder     a table of metrics: the model, the model decoding latents with noise of alpha times
                their rms added, principal components of raw frames, a mel spectrum with Griffin-Lim,
                and Opus at 6, 12 and 24 kbit/s where opus-tools is installed
language_model  loss and perplexity of held-out texts, and how often it finds the answers
representation  what the run writes down of speech, and its character and word error rates
generation      sound from held-out texts beside the recordings; several values, with commas, of a
                flag of the sampler give a row of the table each; --zero_shot: after prompts
diffusion_transformer  by the same table, each sound as long as the recording of its text; the Frechet
                distance needs --representation

--stage=autoencoder and --stage=representation measure what a run of a later stage was trained on. A
folder that f3tok_jax.export made, or "small", the model that comes with the package, is measured
likewise; its autoencoder needs --fit_shards.

Published judges that are installed hear some examples of every row, the recordings too: configs/
README.md, "Published judges".

Where manifests tell that the model was trained on the sound that it is measured on, or on clips of an
embedded corpus that may be the same, a line says so.

Results are JSON; sounds are written to listen/ beside it.

Exit codes: 0 finished, 1 wrong arguments, data or work folder, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import importlib
import inspect
import itertools
import sys

from data_pipelines import command
from f3tok_jax.inference import model_folder
from f3tok_jax.runs import places

_SAMPLER = ("guidance", "num_steps", "temperature", "renormalize")
_JUDGES = dict(judges="names", judge_examples="num_examples", recogniser="recogniser")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return command.run(_parser(), _evaluate, arguments)


def _parser() -> command.Parser:
    """Flags without a default have that of the stage's evaluation."""
    parser = command.make_parser("python -m f3tok_jax.evaluate", __doc__)
    add = parser.add_argument
    add("--workdir", required=True, type=command.path, help="run folder")
    text = "held-out shard set, or tfds:NAME@SPLIT#FEATURE for an autoencoder"
    add("--shards", required=True, type=command.path, help=text)
    add("--output", required=True, type=command.file, help="JSON file to write")
    text = "to measure, where the run is of a later one; default the run's own"
    add("--stage", choices=model_folder.STAGES, help=text)
    add("--step", type=int, help="of the checkpoint; the newest whole one if absent")
    places.add_flag(add)
    add = parser.add_argument_group("all but language_model").add_argument
    text = "evenly spaced; 0 for all, of an autoencoder; default 200, of speech to transcribe 100"
    add("--num_examples", type=int, help=text)
    add = parser.add_argument_group("diffusion_transformer").add_argument
    text = "run on the same autoencoder, of whose representations the Frechet distance is"
    add("--representation", type=command.path, metavar="RUN", help=text)
    add = parser.add_argument_group("all that make sound").add_argument
    text = "examples of which sounds are written; default 4"
    add("--listen", "--num_listen", dest="num_listen", type=int, help=text)
    text = "published judges: all, none, or names with commas; default those that are installed"
    add("--judges", type=command.values(), metavar="NAMES", help=text)
    text = "examples that they hear in every row, at about a second of a core a second; default 8"
    add("--judge_examples", type=int, metavar="N", help=text)
    text = "folder of a recogniser such as Whisper, beside them, by transformers"
    add("--recogniser", type=command.path, metavar="DIR", help=text)
    add = parser.add_argument_group("autoencoder").add_argument
    text = "as --shards, or a mixture, for the PCA reference; default the run's training data"
    add("--fit_shards", type=command.path, help=text)
    add("--batch_size", type=int, help="sounds coded at a time; default 8")
    text = "examples of a second or more that ViSQOL hears, slowly; 0 for none; default 2"
    add("--visqol_examples", type=int, help=text)
    text = "dBFS of the peak with commas, -40 to 0 for example: at each the model hears every sound"
    add("--levels", type=command.values(float), metavar="DB", help=text)
    add = parser.add_argument_group("generation, diffusion_transformer").add_argument
    text = "recordings that a classifier of generated sound is trained on"
    names = ("--classifier_shards", "--judge_shards")
    add(*names, dest="classifier_shards", type=command.path, metavar="DIR", help=text)
    text = "what it tells apart, such as digit"
    add("--classifier_label", "--judge_label", dest="classifier_label", metavar="LABEL", help=text)
    text = "character error rate by the run's own representation encoder and language model"
    add("--transcribe", action="store_true", default=None, help=text)
    text = "each text in the voice of another recording of its speaker, given with its text"
    add("--zero_shot", action="store_true", default=None, help=text)
    text = "how much of what is generated follows its text and how much its noise: thrice the time"
    add("--text_sensitivity", action="store_true", default=None, help=text)
    add("--seed", type=int, help="of the noise; default 0")
    text = "of the sampler, several with commas; default the run's"
    add("--guidance", type=command.values(float), help=text)
    add("--steps", "--num_steps", dest="num_steps", type=command.values(int), help=text)
    add("--temperature", type=command.values(float), help=text)
    add("--renormalize", type=command.values(_truth), help="true, false " + text)
    return parser


def _evaluate(given: argparse.Namespace) -> None:
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.stages import registry

    given.workdir = model_folder.inside(given.workdir)
    stage = model_folder.written_stage(given.workdir) or config_lib.load(given.workdir).stage
    if given.stage and given.stage != stage:
        model_folder.find(given.workdir, given.stage)  # refuses runs of earlier stages
        stage = given.stage
    measured = [name for name, known in registry.STAGES.items() if known.evaluation]
    if stage not in measured:
        raise ValueError(
            f"--workdir must be a run of one of the stages {', '.join(measured)}, got "
            f"{given.workdir} of the stage {stage!r}: its losses on held-out data are in its "
            "metrics.jsonl, which f3tok_jax.report shows; measure what is trained on it"
        )
    evaluation = importlib.import_module(f"f3tok_jax.evaluation.{registry.of(stage).evaluation}")
    options = {name: value for name, value in vars(given).items() if value is not None}
    options.pop("stage", None)
    if "moved" in options:
        options["moved"] = dict(options["moved"])
    accepted = {*inspect.signature(evaluation.evaluate).parameters}
    accepted |= {*_SAMPLER} if "changes" in accepted else set()
    accepted |= {*_JUDGES} if "judges" in accepted else set()
    foreign = [f"--{name}" for name in options if name not in accepted]
    if foreign:
        raise ValueError(
            f"{', '.join(foreign)} cannot be given for {given.workdir}, a run of the {stage} "
            "stage; see --help"
        )
    values = [[(name, one) for one in options.pop(name)] for name in _SAMPLER if name in options]
    if values:
        options["changes"] = [dict(combined) for combined in itertools.product(*values)]
    judging = {field: options.pop(flag) for flag, field in _JUDGES.items() if flag in options}
    if judging:
        from f3tok_jax.evaluation.judges import panel

        options["judges"] = panel.Choice(**judging)
    _say_what_was_heard(given)
    results = evaluation.evaluate(**options, say=command.say)
    print(evaluation.format_table(results))
    print(f"{given.workdir}, step {results.step}: {given.output}")


def _say_what_was_heard(given: argparse.Namespace) -> None:
    """One line where the model was trained on what it is measured on, as far as manifests tell."""
    from data_pipelines.records import manifest
    from f3tok_jax.exporting import heard_sets
    from f3tok_jax.exporting import training_facts

    try:
        found = places.Places(dict(given.moved or ()))
        run = model_folder.open_run(given.workdir, given.step, found)
        why = heard_sets.why_heard(training_facts.named(run), manifest.read(given.shards))
    except (ValueError, OSError):
        return  # refused in its own words by what reads it next, or no folder of shards
    if why:
        command.say(f"{given.shards} is not held out from {given.workdir}: {why}")


def _truth(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(value)
    return value.lower() == "true"


if __name__ == "__main__":
    sys.exit(main())
