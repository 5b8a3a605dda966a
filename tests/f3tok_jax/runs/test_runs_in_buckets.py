# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run whose folder lies in a bucket: trained, resumed, finished."""

import pathlib

import pytest

from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import saved_states
from tests.support import bucket
from tests.support import toy_run


@pytest.mark.reliability("R04", "R13")
def test_a_run_in_a_bucket_ends_as_one_on_a_disk_and_keeps_the_steps_that_it_must(tmp_path):
    cloud, shards = bucket.serve(), toy_run.build_data(tmp_path)
    url, here = f"{bucket.URL}/run", tmp_path / "run"
    assert toy_run.train(shards, url, "--config.num_steps=5") == 0
    assert saved_states.steps(url) == [4, 5] and run_folder.done_step(url, 5) == 5
    assert toy_run.train(shards, url) == toy_run.train(shards, here) == 0
    # Where it was finished before, and where it began again, stays; others go.
    assert saved_states.steps(url) == [5, 8, 12] and saved_states.verify(url) == 12
    assert toy_run.fingerprints(url) == toy_run.fingerprints(here)
    # All of it lies in the bucket, and no folder is called gs: on this machine.
    assert (cloud / "run" / "checkpoints" / "12").is_dir() and not pathlib.Path("gs:").exists()
