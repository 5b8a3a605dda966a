# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Checks all of a launch that can be checked before a slice is asked for; launch/ calls it.

    python -m f3tok_jax.launch_check --accelerator=v5e-16 [--num_slices=2] [--stage=DIR] -- \
        --config=configs/autoencoder.py:base --config.data.train=gs://BUCKET/SHARDS/train \
        --workdir=gs://BUCKET/RUN

After the two dashes is what f3tok_jax.train will be given: its flags, config, mesh and batch on that
slice, data and models. Then the train step is compiled for exactly that slice, where the TPU's
compiler is installed: minutes, and nothing where it was done before.

Exit codes: 0 good, 1 what is wrong, in one sentence, 2 the step does not fit the memory of a chip.
"""

import argparse
from collections.abc import Sequence
import os
import sys

from data_pipelines import command
from f3tok_jax.devices import slices
from f3tok_jax.training import flags as training_flags


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.launch_check", __doc__)
    add = parser.add_argument
    add("--accelerator", required=True, help="slice, such as v5e-16, v5p-128 or v5e:4x4")
    add("--num_slices", type=int, default=1, help="joined by the data-centre network")
    add("--flags", default="default", help=f"of the compiler: {', '.join(slices.FLAGS)}")
    add("--stage", action="append", default=[], type=command.path, help="folder that goes along")
    text = "whether to compile: auto where the TPU's compiler is installed"
    add("--rehearse", choices=("auto", "yes", "no"), default="auto", help=text)
    add("--offline", action="store_true", help="ask no bucket, as in a dry run")
    add("train", nargs="+", help="after --, what f3tok_jax.train is to be given")
    return command.run(parser, _check, arguments)


def _check(given: argparse.Namespace) -> None:
    target = slices.parse(given.accelerator, given.num_slices, flag="--accelerator")
    flags = slices.flags(target.name, given.flags)
    os.environ.update(slices.COMPILER_ENVIRONMENT, LIBTPU_INIT_ARGS=" ".join(flags))
    run = command.parse(training_flags.make_parser("f3tok_jax.train", ""), given.train)

    from f3tok_jax.cost import step as cost_step
    from f3tok_jax.launching import rehearsal
    from f3tok_jax.launching import validation
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.runs import lineage
    from f3tok_jax.runs import places

    config = config_lib.read(run.config, run.overrides)
    found = places.Places(dict(run.moved or ()))
    launch = validation.Launch(config, run.workdir or "", target, found, given.stage, given.offline)
    for note in validation.check(launch):
        command.say(f"note: {note}")
    command.say(f"checked: {config.stage}:{config.preset} on {target}")
    if given.rehearse == "no" or (given.rehearse == "auto" and not rehearsal.can_compile()):
        command.say("not rehearsed: without --rehearse=yes and the TPU's compiler (extra tpu)")
    elif not validation.is_reachable(launch):
        command.say("not rehearsed: the runs that the config names cannot be read from here")
    else:
        try:
            launched = lineage.Lineage.trained_by(config, places=found)
            cost = rehearsal.rehearse(launched, target, flags)
        except cost_step.MemoryDoesNotFitError as error:
            raise command.Refused(error, slices.EXIT_DOES_NOT_FIT) from error
        command.say(rehearsal.in_words(cost, target, config.num_steps))


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"  # read when JAX is imported
    sys.exit(main())
