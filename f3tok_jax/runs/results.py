# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The results that programs leave as JSON: a dataclass per kind, written and read here alone.

"format" in a file names its kind and version, "seal" gives away any change of the rest; files of
earlier versions have none.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import typing
from typing import Any, ClassVar

from data_pipelines.records import atomic
from data_pipelines.records import sealed
from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import typed_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sounds:
    """Of one example: row -> sound file, relative to the results."""

    key: str
    files: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of an evaluation in words."""

    title: str
    unit: str
    explanation: str
    higher_is_better: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Of the `count` examples with a value; reason -> how many have none."""

    mean: float | None
    standard_error: float | None
    count: int
    undefined: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredRow:
    """One way to make the sound again, with its score for each metric."""

    name: str
    title: str
    description: str
    metrics: Mapping[str, Score]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeSource:
    """The package whose weights judge."""

    package: str
    version: str
    licence: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """What published judges say of some examples; figures are "judge/figure"."""

    num_examples: int
    judges: Mapping[str, JudgeSource]
    absent: Mapping[str, str]  # judge -> what it lacks
    metrics: Mapping[str, Metric]
    rows: tuple[ScoredRow, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardSet:
    """The held-out sound of an evaluation; the rate in Hz."""

    path: str
    fingerprint: str
    sample_rate: int
    num_records: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentStatistics:
    """Moments of latent frames: `dim` values at `rate` Hz."""

    rate: float
    dim: int
    num_frames: int
    channel_mean: tuple[float, ...]
    channel_rms: tuple[float, ...]
    rms: float
    effective_rank: float
    drift_rms: float | None = None  # of what a channel is on average of a sound
    spectrum: tuple[float, ...] | None = None  # shares of the variance by direction, largest first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flops:
    """Multiplications and additions of products with weights for a second of sound, as
    models.flops counts them."""

    encode: float  # what is frozen included
    decode: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Sound through an autoencoder and back, beside references."""

    FORMAT: ClassVar[str] = "f3tok evaluation 1"
    workdir: str = ""
    step: int
    config: Mapping[str, Any] | None = None
    shards: ShardSet
    fit_shards: str = ""
    num_examples: int
    seconds: float
    unreadable: tuple[str, ...]  # a reason each
    noise_seed: int = 0
    noise_rms: float = 1.0  # of the noise on latents at alpha 1: theirs
    latents: LatentStatistics
    flops_per_second: Flops | None = None
    semantic_encoder: str = ""  # whose weights those are through which sound is heard; "" for none
    missing: Mapping[str, str]  # metric, or a row -> why it was not measured
    metrics: Mapping[str, Metric]
    rows: tuple[ScoredRow, ...]
    spectral_frechet_distance: Mapping[str, float] | None = None
    silence_db: float | None = None  # rms of what silence comes out as, dBFS
    judged: Judged | None = None
    sounds: tuple[Sounds, ...] = typed_json.named("listen")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierSource:
    """What a classifier of sound learnt from, and what it tells; "" and "" for none."""

    shards: str
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedRow:
    """Figures of one way to make sound from text; shares in [0, 1], lengths in seconds."""

    name: str
    title: str
    classifier_accuracy: float | None = typed_json.named("judge_accuracy", default=None)
    character_error_rate: float | None = None
    never_stopped: float | None = None
    stopped_at_once: float | None = None
    seconds: float | None = None
    duration_error: float | None = None
    frechet_distance: float | None = None
    speaker_similarity: float | None = None  # cosine of its voice and the prompt's
    distance_other_seed: float | None = None  # dB, to the same text with other noise
    distance_other_text: float | None = None  # dB, to another text with the same noise
    text_sensitivity: float | None = None  # the second over the first
    latents: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """Which recording, with its text, came before each text; by whom words and voices are judged."""

    prompts: Mapping[str, str]  # key -> key of its prompt
    words: str
    voices: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """Sound made from the texts of held-out clips, after prompts where it is `zero_shot`."""

    FORMAT: ClassVar[str] = "f3tok generation 1"
    workdir: str = ""
    step: int = 0
    shards: str = ""
    num_examples: int
    classifier: ClassifierSource = typed_json.named("judge")
    sampler: Mapping[str, Any]
    max_seconds: float
    gives_lengths: bool = False  # each is as long as the recording of its text
    rows: tuple[GeneratedRow, ...]
    texts: Mapping[str, str]  # key -> text
    zero_shot: ZeroShot | None = None
    judged: Judged | None = None
    sounds: tuple[Sounds, ...] = typed_json.named("listen")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcript:
    """What was said, and what was heard."""

    key: str = ""
    reference: str
    hypothesis: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcripts:
    """Shares of wrong characters and words over all sentences, and some of these."""

    FORMAT: ClassVar[str] = "f3tok transcripts 1"
    step: int = 0
    shards: str = ""
    num_examples: int
    characters: float
    words: float
    examples: tuple[Transcript, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Held-out texts: nats per token and their exponential; answers after their context alone."""

    FORMAT: ClassVar[str] = "f3tok language model 1"
    workdir: str = ""
    step: int
    shards: str = ""
    num_records: int
    loss: float
    perplexity: float
    context_loss: float | None = None
    context_accuracy: float | None = None  # share of the answers' tokens that are found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a call takes that makes `amount` of `unit`: quartiles and the best of all rounds."""

    name: str
    amount: float
    unit: str
    seconds: tuple[float, ...]
    best: float
    times_the_first: tuple[float, ...]  # of the same round, by the call that the others follow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How fast things are on a machine, beside what they are compared with."""

    FORMAT: ClassVar[str] = "f3tok benchmark 1"
    name: str
    machine: Mapping[str, Any]  # device, devices, cores, versions
    tables: Mapping[str, tuple[Timing, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweptRun:
    """One run of a sweep, as its folder tells it; what it has not said is None."""

    name: str
    changes: tuple[str, ...]  # of the recipe, "key=value"
    state: str  # waiting, running, done, failed, stopped, pruned
    code: int = 0  # that a failed one ended with
    words: str = ""  # its last ones, where it failed; why, where it was pruned or is not ranked
    step: int
    num_steps: int
    eta_seconds: float | None = None
    wall_seconds: float | None = None
    goodput: float | None = None
    chip_hours: float | None = None
    dollars: float | None = None
    value: float | None = None  # of the metric, the newest; None where that is not finite
    best: float | None = None
    best_step: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """How far the runs of a sweep are, best first."""

    FORMAT: ClassVar[str] = "f3tok sweep 1"
    workdir: str
    recipe: str
    metric: str
    goal: str  # minimize, maximize
    rows: tuple[SweptRun, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a compiled step costs; `figures` stand beside the other fields on disk."""

    FORMAT: ClassVar[str] = "f3tok cost 1"
    topology: str
    fits: bool
    error: str | None = None  # where it does not fit
    figures: Mapping[str, Any] = typed_json.named(typed_json.BESIDE)


Result = (
    Reconstruction
    | Generation
    | LanguageModel
    | probe_results.Probe
    | probe_results.Ablation
    | probe_results.Stability
    | comparison_results.Comparison
    | Transcripts
    | Benchmark
    | Sweep
    | Cost
)
KINDS = {kind.FORMAT: kind for kind in typing.get_args(Result)}


def write(path: pathlib.Path, result: Any) -> None:
    """Writes results so that the file is whole or absent; makes its folder.

    Args:
        path: JSON file.
        result: one of `KINDS`.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    # The seal is of what will be read: JSON has its own words for keys and numbers.
    content = json.loads(json.dumps(typed_json.write(result), allow_nan=False))
    atomic.write_text(path, json.dumps(sealed.seal(content), indent=1) + "\n")


def read(path: pathlib.Path) -> Result:
    """Reads what `write` wrote, in this or an earlier version, without trust.

    Raises:
        ValueError: if the file is not there, damaged, changed, something else, or of a newer
            version.
    """
    content = sealed.opened(typed_json.read_object(path), path.name)
    kind = str(content.pop("format", None))
    if kind not in KINDS:
        raise ValueError(f"{path.name} {_foreign(kind)}")
    try:
        return typed_json.read(content, KINDS[kind])
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None


def _foreign(kind: str) -> str:
    """Why a file of this "format" is not read."""
    ours = {name.rpartition(" ")[0]: name for name in KINDS}
    name, _, version = kind.rpartition(" ")
    if name in ours and version.isdecimal():
        return f"is {kind!r}, this version reads {ours[name]!r}: update f3tok_jax"
    return f'has no results: its "format" must be one of {", ".join(KINDS)}, got {kind!r:.60}'
