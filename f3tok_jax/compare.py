# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Compares autoencoders of many kinds: equal data, steps and seeds, equal measures.

    python -m f3tok_jax.compare --config=configs/comparison.py:tiny --config.data.train=DIR/train \
        --config.data.heldout=DIR/test --config.language_model.folder=MODEL --workdir=runs/comparison

For every arm and seed an autoencoder is trained, behind the frozen models through which it hears, where
there are any, which arms share; on its latents a representation encoder, a flow head and a diffusion
transformer. Each is an ordinary run of f3tok_jax.train below --workdir. Sound that none of them has heard is scored as it is and
under noise on its latents, labels are read off latents and representations, and held-out texts are said.
All of it is written to comparison.json and comparison.html in --workdir, means and standard deviations
over the seeds; after each seed, too. The same command goes on where it was stopped, and does nothing
twice.

Arms are those of the sweep that config.arms names and those of config.rivals, whose autoencoders have
recipes of their own; config.only some of them by name.

Exit codes: 0 finished, 1 wrong arguments, data or work folder (one sentence on stderr says which),
4 a full disk, others as f3tok_jax.train gave them.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys

from data_pipelines import command


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.compare", __doc__)
    parser.add_config()
    text = "folder of all runs, and of the page"
    parser.add_argument("--workdir", required=True, type=command.path, help=text)
    return command.run(parser, _compare, arguments)


def _compare(given: argparse.Namespace) -> None:
    from data_pipelines.records import atomic
    from f3tok_jax.comparing import comparison
    from f3tok_jax.comparing import plan
    from f3tok_jax.reporting import page
    from f3tok_jax.runs import history
    from f3tok_jax.sweeping import finishing

    of = plan.read(given.config, given.overrides, given.workdir)
    try:
        result, chains = comparison.compare(of, say=command.say)
    except finishing.TrainingStopped as error:
        raise command.Refused(error, max(error.code, command.EXIT_REFUSED)) from error
    # Of each arm the autoencoder of the first seed is heard.
    shown = [chain.runs["autoencoder"].workdir for chain in chains[: len(of.arms)]]
    target = pathlib.Path(of.place("comparison.html"))
    atomic.write_text(target, page.render(history.read_all(shown), {"comparison": result}))
    print(f"{target}: {len(chains)} chains of {', '.join(plan.STAGES)}")


if __name__ == "__main__":
    sys.exit(main())
