# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where every parameter and activation of every shipped config lives is what was reviewed.

REWRITE_GOLDEN=1 python -m pytest tests/configs/test_shardings.py writes tests/golden/shardings anew.
Those that are left out of the ordinary suite, as tracing takes longer, run with tests/run.sh --slow.
"""

import os
import pathlib

import pytest

from configs import slices as advertised
from f3tok_jax.devices import slices
from f3tok_jax.runs import config as config_lib
from tests.support import shardings

_ROOT = pathlib.Path(__file__).parents[2]
_GOLDEN = _ROOT / "tests" / "golden" / "shardings"
_OF_LATENTS = (
    "representation",
    "generation",
    "diffusion_transformer",
)  # there is no run to make them of sound


_QUICK = (("language_model", "base"), ("representation", "base"), ("generation", "base"))
_ALL = [(stage, preset) for stage, presets in advertised.ALL.items() for preset in presets]


@pytest.mark.parametrize(
    "stage, preset",
    [pytest.param(*one, marks=() if one in _QUICK else pytest.mark.slow) for one in _ALL],
)
def test_every_array_lives_where_it_was_reviewed(stage, preset):
    latents = ["--config.data.latents=True"] if stage in _OF_LATENTS else []
    config = config_lib.read(f"{_ROOT / 'configs' / stage}.py:{preset}", latents)
    targets = [slices.parse(*each) for each in advertised.ALL[stage][preset]]
    found, golden = shardings.text(config, targets), _GOLDEN / f"{stage}_{preset}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")
