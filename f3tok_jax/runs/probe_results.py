# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a label: the results of probes, of ablations and of the stability of targets.

They are written and read by `results`, as all others.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

# Names of rows of probes that know nothing of the sound: an answer that is always the same, and
# what is learnt from labels in another order.
COMMONEST, SHUFFLED = "commonest", "shuffled"
TITLES = {
    COMMONEST: "always the commonest",
    SHUFFLED: "labels shuffled",
    "log_mel": "log-mel statistics",
    "mfcc": "MFCC statistics",
    "latents": "raw latents",
    "representations": "representations",
}
_POOLED = ":"  # between the name of a feature and its pooling; no arm has one in its name


def feature_row(name: str, pooling: str) -> str:
    """Name of the row of a feature, or an arm, pooled over time in one way."""
    return f"{name}{_POOLED}{pooling}" if pooling else name


def split_row(row: str) -> tuple[str, str]:
    """The name and the pooling of a row; "" in results of before, which have one for all rows."""
    name, _, pooling = row.partition(_POOLED)
    return name, pooling


def title_of(row: str) -> str:
    """A row of probes in words."""
    name, pooling = split_row(row)
    return ", ".join(filter(None, (TITLES.get(name, name), pooling)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation over `values`, one per seed, or a list per run or group."""

    mean: float
    std: float
    values: Any = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureAccuracy:
    """Of the linear probe and of the nearest neighbours.

    `linear` is spread over seeds, or, where groups are left out in turn, over these. Attentive
    pooling has no neighbours; files of before have neither shuffled labels nor fits.
    """

    linear: Spread
    neighbours: float | None = None
    shuffled: Spread | None = None  # of the linear probe on labels in another order
    seeds_std: float | None = None  # where `linear` is spread over groups: mean over these
    fit: Mapping[str, Any] | None = None  # how the linear probe came to its end


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmAccuracy:
    """The same over the runs of an arm."""

    name: str
    title: str
    linear: Spread
    neighbours: Spread | None = None
    shuffled: Spread | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tested:
    """Examples of a test set, those of unseen classes, the commonest class's share, accuracies."""

    num_examples: int
    num_unseen: int
    majority: float
    unseen_classes: tuple[str, ...] = ()
    num_train: int | None = None
    chance: float | None = None  # share of right answers of one who guesses among what was learnt
    features: Mapping[str, FeatureAccuracy] | None = None  # of a probe
    rows: tuple[ArmAccuracy, ...] | None = None  # of an ablation
    groups: Mapping[str, "Tested"] | None = None  # each left out of what was learnt, tested alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbedLabel:
    """Test set -> what is known of a label."""

    classes: tuple[str, ...] = ()
    num_train: int = 0
    alike: str = ""  # label of the groups on which the probe's settings were chosen
    num_groups: int = 0  # of these in what is learnt
    tests: Mapping[str, Tested]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plane:
    """Points on two axes, and the share of the variance that lies along each."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    shares: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """Some tested clips: their values of each label, "" for none, and the plane of each feature."""

    labels: Mapping[str, tuple[str, ...]]
    features: Mapping[str, Plane]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """What the features of one run know."""

    FORMAT: ClassVar[str] = "f3tok probe 1"
    workdir: str = ""
    autoencoder: Any = None
    shards: str = ""
    exclude: tuple[str, ...]  # label=value, kept out of what probes learn
    only: tuple[str, ...]  # label=value, tested alone
    leave_out: str = ""  # label whose values were left out in turn
    pooling: str  # one or several with commas between
    num_seeds: int  # of the linear probe and of shuffled labels
    recipe: Mapping[str, Any] | None = None  # of the linear probe; without a name X-ARES's
    labels: Mapping[str, ProbedLabel]
    map: FeatureMap | None = None  # files of before have none


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmErrors:
    """Error rates of the transcripts of an arm."""

    name: str
    title: str = ""
    characters: Spread
    words: Spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribedSet:
    """Error rates on one set."""

    num_examples: int
    rows: tuple[ArmErrors, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation(Probe):
    """What the features of several recipes know."""

    FORMAT: ClassVar[str] = "f3tok ablation 1"
    num_steps: int
    seeds: tuple[int, ...]
    arms: Mapping[str, tuple[str, ...]]  # name -> what it changes
    test_shards: Mapping[str, str] | None = None
    transcripts: Mapping[str, TranscribedSet] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StableLabels:
    """Shares of the labels of one kind of target; values are a list of seeds per autoencoder."""

    name: str
    kept: Mapping[str, Spread]  # what is done to the sound -> share that stays the same
    by_chance: Spread  # that would, drawn as often as they occur
    in_use: Spread  # perplexity of the codes, of their number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stability:
    """How steady the labels of RQ-MTP are on autoencoders."""

    FORMAT: ClassVar[str] = "f3tok stability 1"
    workdirs: tuple[str, ...]
    autoencoders: tuple[str, ...]  # their fingerprints
    shards: str  # whose statistics normalise
    test_shards: str
    num_frames: int
    seeds: tuple[int, ...]  # of the codebooks
    num_codebooks: int
    codebook_size: int
    arms: Mapping[str, tuple[str, ...]]  # name -> what it changes
    rows: tuple[StableLabels, ...]
