# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""One clip of an embedded corpus: the sound and what is known about it."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Clip:
    """A synthesised sound with its annotation.

    Attributes:
        key: unique name, "<corpus>-<seed>-<index>".
        waveform: [samples] float32, mono, strictly inside [-1, 1].
        text: what is said, or a caption of what is heard; lower case, no punctuation.
        task: "transcribe" (the text is what is said) or "caption".
        labels: label name to value, both strings.
    """

    key: str
    waveform: np.ndarray
    text: str
    task: str
    labels: dict[str, str]
