# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How fast batches are made: shares of the ceiling."""

import pytest

from data_pipelines.reading import speed
from tests.support import sounds


def test_shares_are_of_the_ceiling(tmp_path):
    loader = sounds.open_pipeline(
        sounds.shard_set(tmp_path), sample_rate=16_000, crop_length=4_000, batch_size=4
    )
    figures = speed.measure(loader, num_steps=3, num_rounds=1)
    assert figures["batches_share"] == pytest.approx(figures["batches"] / figures["ceiling"])
    assert figures["crop_seconds"] == 0.25 and figures["batch_size"] == 4
    assert all(value > 0 for value in figures.values())
