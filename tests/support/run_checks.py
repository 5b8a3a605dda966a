# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What has to hold for runs of every stage."""

import pathlib
import shutil

import jax
import ml_collections

from f3tok_jax.runs import saved_states
from f3tok_jax.stages import registry
from f3tok_jax.training import session


def train(config: ml_collections.ConfigDict, workdir: str, devices=None) -> int:
    """Runs the stage that the config names to its end; returns the exit code."""
    return session.run(config, workdir, stage=registry.of(config.stage), devices=devices)


def check_that_it_resumes_bit_equal(
    run: str, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
    """Takes a finished run back to its last checkpoint but one, in a copy, and lets it end again."""
    last = config.num_steps
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(last))
    (workdir / "DONE").unlink()
    assert train(config, str(workdir), devices=jax.devices()[:1]) == session.EXIT_DONE
    prints = [saved_states.read_meta(str(path), last)["fingerprints"] for path in (run, workdir)]
    assert prints[0] == prints[1]
