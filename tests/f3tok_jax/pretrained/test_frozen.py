# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound that is encoded within a step: at the level of the autoencoder, each row by itself."""

import jax
import numpy as np
import pytest

from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import frozen as frozen_lib
from f3tok_jax.runs import lineage
from tests.support import tiny_models
from tests.support import tiny_representation


@pytest.mark.parametrize("level_db", [-20.0, 0.0])
def test_a_step_hears_what_the_codec_hears(level_db, tmp_path):
    tiny_models.write_run(tmp_path / "run", level_db=level_db)
    run = lineage.Lineage.read(str(tmp_path / "run"))
    config = tiny_representation.make_config(
        "--config.data.latents=False",
        "--config.supervision.weight=0",
        f"--config.autoencoder.workdir={tmp_path / 'run'}",
    )
    models = frozen_lib.FrozenModels(
        lineage.Lineage(config=config), reads_latents=False, compute_dtype="float32", remat="none"
    )
    _, params, _ = pretrained_autoencoder.load(run)
    rng, lengths = np.random.default_rng(0), (3_200, 2_000, 640)
    rows = [
        (scale * rng.normal(size=length)).astype(np.float32)
        for scale, length in zip((0.3, 0.01, 0.1), lengths)
    ]
    waveform = np.full((3, 3_200), np.nan, np.float32)
    for row, sound in zip(waveform, rows):
        row[: len(sound)] = sound
    mask = np.arange(3_200) < np.array(lengths)[:, None]
    batch = {"waveform": waveform, "mask": mask}
    latents, frames = jax.jit(models.latents)({"autoencoder": params}, batch)
    expected = codec_lib.Codec.load(run).encode(rows)
    for found, valid, wanted in zip(latents, frames, expected, strict=True):
        np.testing.assert_allclose(found[np.asarray(valid)], wanted, atol=1e-4)
    heard = np.asarray(models.heard(batch))
    rms = [20 * np.log10(np.std(row[:length])) for row, length in zip(heard, lengths)]
    wanted = [level_db] * 3 if level_db else [-10.46, -40.0, -20.0]
    np.testing.assert_allclose(rms, wanted, atol=0.3)
