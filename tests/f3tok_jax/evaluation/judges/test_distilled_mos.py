# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""DistillMOS re-run in JAX, beside PyTorch's own layers with the same weights."""

import sys
import types

import numpy as np
import pytest

from f3tok_jax.evaluation.judges import distilled_mos
from f3tok_jax.evaluation.judges import judge
from tests.support import sounds

_missing = distilled_mos.DistillMos.package.missing()


@pytest.fixture(scope="module")
def hearer():
    if _missing:
        pytest.skip(_missing)
    return distilled_mos.DistillMos()


@pytest.mark.parametrize("seconds, wanted", [(2.0, 1.2570221), (9.0, 1.1048470)])
def test_opinions_are_those_of_the_package(hearer, seconds, wanted):
    # By distillmos 0.9.1 with torch 2.13: one window that is filled up, and three that overlap.
    found = hearer(sounds.speechlike(seconds), judge.RATE)
    assert found.values == pytest.approx({"mos": wanted}, abs=1e-3) and not found.undefined


def test_the_network_is_that_of_torch(hearer, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("xls_r_sqa")
    # It imports torchaudio for its command line alone, whose wheels need not fit this torch.
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    distillmos = pytest.importorskip("distillmos")
    model = distillmos.ConvTransformerSQAModel(load_weights=False)
    path = hearer.package.file(distilled_mos._WEIGHTS)
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    window = np.random.default_rng(0).normal(size=122_880).astype(np.float32)
    window /= np.abs(window).max()
    with torch.no_grad():
        wanted = model.eval()(torch.from_numpy(window)[None]).item()
    # float32 in convolutions of 2,304 terms, which each sums in its own order.
    assert distilled_mos.opinion(hearer._weights, window) == pytest.approx(wanted, abs=1e-3)


def test_windows_cover_a_long_sound_and_reach_its_ends():
    sound = np.arange(1, 200_001, dtype=np.float32) / 200_000
    found = distilled_mos.windows(sound)
    assert len(found) == 6 and {len(window) for window in found} == {122_880}
    assert all(window[-1] == pytest.approx(1.0) for window in found)  # each to its own peak
    assert found[0][0] == pytest.approx(sound[0] / sound[122_879])
    short = distilled_mos.windows(sound[:100])
    assert len(short) == 1 and not short[0][100:].any()
