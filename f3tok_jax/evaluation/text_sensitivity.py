# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whether generated sound follows its text, or its noise alone.

Every text is said again with other noise, and every noise is heard again with the next text that is
another one. Where the text decides what is heard, sounds of other texts lie further apart than sounds
of one text, a ratio above 1. It is about 1 where a text changes sounds no more than noise does, and 0
where it changes nothing. No recogniser is asked, so nothing that a recogniser prefers is measured.
"""

from collections.abc import Callable, Sequence

import numpy as np

from f3tok_jax.evaluation import metrics

_OTHER_SEED = 1_000_000  # further than the batches of any evaluation count
Say = Callable[[Sequence[int], int], list[np.ndarray]]


def measure(
    first: Sequence[np.ndarray],
    generate: Say,
    *,
    texts: Sequence[str],
    seed: int,
    sample_rate: int,
) -> dict[str, float]:
    """Distances between sounds of one text, and between sounds of one noise.

    Args:
        first: [n] float32 of each example, what `generate` makes of all in order with `seed`.
        generate: (numbers of examples whose texts are said, seed of the noise) to waveforms; the
            noise is that of the place in the list.
        texts: of each example; those that are equal are one.
        seed: of the noise of `first`.
        sample_rate: Hz.

    Returns:
        distance_other_seed and distance_other_text, in dB, see `aligned_distance`, on average; and
        text_sensitivity, the second over the first. Nothing where all say one text.
    """
    order = np.arange(len(first))
    if len(set(texts)) < 2:
        return {}
    others = [
        next(place for place in (*order[one:], *order[:one]) if texts[place] != texts[one])
        for one in order
    ]

    def apart(again: Sequence[np.ndarray]) -> float:
        pairs = zip(first, again, strict=True)
        return float(np.mean([aligned_distance(*pair, sample_rate) for pair in pairs]))

    other_seed = apart(generate(order, seed + _OTHER_SEED))
    other_text = apart(generate(others, seed))
    return {
        "distance_other_seed": other_seed,
        "distance_other_text": other_text,
        "text_sensitivity": other_text / max(other_seed, np.finfo(np.float32).tiny),
    }


def aligned_distance(one: np.ndarray, other: np.ndarray, sample_rate: int) -> float:
    """Mel-cepstral distance along the best alignment in time, dB per frame of the longer sound.

    Args:
        one: [n] float32.
        other: [m] float32, as long or not.
        sample_rate: Hz.

    Source: Sakoe and Chiba, 1978, all steps of one frame allowed; cepstra as in
    `metrics.mel_cepstral_distortion`.
    """
    rows, columns = (metrics.mel_cepstra(sound, sample_rate) for sound in (one, other))
    reached = np.cumsum(metrics.cepstral_distances(rows[0], columns))
    for row in rows[1:]:
        cost = metrics.cepstral_distances(row, columns)
        # The cheapest way to a column comes from the row above into some column before, or into
        # this one, and goes along this row from there.
        entered = np.minimum(reached, np.concatenate([[np.inf], reached[:-1]]))
        along = np.cumsum(cost)
        reached = along + np.minimum.accumulate(entered - (along - cost))
    return float(reached[-1] / max(len(rows), len(columns)))
