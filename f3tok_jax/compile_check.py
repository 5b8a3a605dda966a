# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Compiles the real train step for a TPU slice on any machine, and says what it costs per chip;
before it what a run measures on the slice before its first step, where it does.

    python -m f3tok_jax.compile_check --config=configs/autoencoder.py:base --topology=v5e:4x4 \
        --output=cost.json [--num_slices=2] [--part=generator] [--seconds_per_chip=8] \
        [--config.KEY=VALUE]

The figures come from the TPU compiler and the chips' data sheets, so they are the same on every
machine; only the compile seconds are this machine's. Needs libtpu (extra "tpu"), and no TPU.

Exit codes: 0 fits; 1 wrong config, topology or missing library; 2 the step, or what comes before the
first, does not fit the chip's memory; 4 a full disk.
"""

import argparse
from collections.abc import Sequence
import hashlib
import os
import sys
import time
from typing import Any

from data_pipelines import command
from f3tok_jax.devices import slices

EXIT_FITS, EXIT_REFUSED, EXIT_DOES_NOT_FIT = 0, 1, slices.EXIT_DOES_NOT_FIT


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.compile_check", __doc__)
    add = parser.add_argument
    parser.add_config()
    text = "generation and chips per axis, such as v5e:4x4 or v5p:4x4x4"
    add("--topology", required=True, help=text)
    text = "slices, joined by the data-centre network"
    add("--num_slices", type=int, default=1, help=text)
    add("--output", type=command.file, help="JSON file to write")
    add("--hlo", type=command.file, help="file for the text of the compiled program")
    text = (
        "file of a program that was compiled before by the same command, which is then only measured "
        "again; where there is none, what is compiled is kept there"
    )
    add("--kept", type=command.file, help=text)
    text = (
        "all; generator: the step before the discriminators join; patch: a call of "
        "generating, eight patches of one sound, on one chip; patches: the same of 64 sounds"
    )
    add("--part", default="all", help=text)
    text = (
        "of XLA, -1 to 0: at -0.5 it compiles several times faster, to a program of about the same "
        "roofline and more cycles; 0 is what training uses"
    )
    add("--effort", type=float, default=0.0, help=text)
    text = "of sound; 0 for the config's batch"
    add("--seconds_per_chip", type=float, default=0.0, help=text)
    return command.run(parser, _check, arguments)


def _check(given: argparse.Namespace) -> None:
    import jax

    from f3tok_jax.cost import kept as kept_lib
    from f3tok_jax.cost import schedule
    from f3tok_jax.cost import step as cost_step
    from f3tok_jax.cost import table
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.runs import results
    from f3tok_jax.stages import registry

    def write(figures, **more):
        if given.output is not None:
            cost = results.Cost(topology=str(target), figures=figures, **more)
            results.write(given.output, cost)

    target = slices.parse(given.topology, given.num_slices)
    config = config_lib.read(given.config, given.overrides)
    config = cost_step.fit_config(
        config, target, part=given.part, seconds_per_chip=given.seconds_per_chip
    )
    jax.config.update("jax_exec_time_optimization_effort", given.effort)

    def figures(name, kept, work):
        scopes = registry.of(config.stage).scopes
        named = {"config": f"{given.config} ({name})", "effort": given.effort}
        return named | cost_step.measure(kept, work, target, scopes=scopes)

    def timed(recorder, compile_, *arguments):
        """What `compile_` gives, and what is kept of it."""
        wall, cpu = time.monotonic(), time.process_time()
        made = compile_(config, target, *arguments)
        if made is None:
            return None, None
        seconds = time.monotonic() - wall, time.process_time() - cpu
        return made, kept_lib.of(made[0], recorder.collect(), seconds, made_for)

    made_for, first = _made_for(given, config, target), None
    if given.kept is not None and given.kept.exists():
        kept = kept_lib.read(given.kept, made_for)
        work = cost_step.work_of(config, target, given.part)
    else:
        try:
            with schedule.recording() as recorder:
                if given.part == cost_step.ALL:
                    first, before = timed(recorder, cost_step.compile_statistics)
                (_, work), kept = timed(recorder, cost_step.compile_part, given.part)
        except cost_step.MemoryDoesNotFitError as error:
            write({}, fits=False, error=str(error))
            raise command.Refused(error, EXIT_DOES_NOT_FIT) from error
        if given.kept is not None:
            kept.write(given.kept)
    cost = figures(given.part, kept, work) | {"batch_size": config.data.batch_size}
    if first is not None:
        statistics = figures(cost_step.STATISTICS, before, first[1])
        cost[cost_step.STATISTICS] = statistics | {"steps": first[2]}
        print(table.format_table(statistics))
    write(cost, fits=True)
    if given.hlo is not None:
        given.hlo.write_text(kept.text, encoding="utf-8")
    print(table.format_table(cost))


def _made_for(given: argparse.Namespace, config: Any, target: slices.Slice) -> str:
    """What a program is compiled for, the whole config by its digest."""
    digest = hashlib.sha256(config.to_json(sort_keys=True).encode()).hexdigest()[:16]
    return f"{given.config} ({given.part}, config {digest}) on {target}, effort {given.effort}"


if __name__ == "__main__":
    # JAX reads JAX_PLATFORMS when it is imported; libtpu the rest when it is loaded.
    os.environ.update(slices.COMPILER_ENVIRONMENT, JAX_PLATFORMS="cpu")
    sys.exit(main())
