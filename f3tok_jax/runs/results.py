# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The results that programs leave as JSON: a dataclass per kind, written and read here alone.

"format" in a file names its kind and version. What lies deeper is, in memory as on disk, mappings
with the keys below. A field that is None by default is left out where it is.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import types
import typing
from typing import Any, ClassVar, NotRequired, TypedDict

from data_pipelines.records import atomic

_ON_DISK = {"sounds": "listen", "classifier": "judge"}  # fields under another name than here
_MAX_BYTES = 2**28
_MAX_NUMBER = 1e100  # what is reckoned and drawn with such numbers is finite
COMMONEST = "commonest"  # name of the row of probes that knows nothing of the sound
TITLES = {
    COMMONEST: "always the commonest",
    "log_mel": "log-mel statistics",
    "latents": "raw latents",
    "representations": "representations",
}


# Of one example: row -> sound file, relative to the results.
Sounds = TypedDict("Sounds", {"key": str, "files": Mapping[str, str]})

# A column of an evaluation in words.
Metric = TypedDict(
    "Metric", {"title": str, "unit": str, "explanation": str, "higher_is_better": bool}
)


class Score(TypedDict):
    """Of the `count` examples with a value; reason -> how many have none."""

    mean: float | None
    standard_error: float | None
    count: int
    undefined: Mapping[str, int]


class ScoredRow(TypedDict):
    """One way to make the sound again, with its score for each metric."""

    name: str
    title: str
    description: str
    metrics: Mapping[str, Score]


class ShardSet(TypedDict):
    """The held-out sound of an evaluation; the rate in Hz."""

    path: str
    fingerprint: str
    sample_rate: int
    num_records: NotRequired[int]
    seconds: NotRequired[float]


class LatentStatistics(TypedDict):
    """Moments of latent frames: `dim` values at `rate` Hz."""

    rate: float
    dim: int
    num_frames: int
    channel_mean: tuple[float, ...]
    channel_rms: tuple[float, ...]
    rms: float
    effective_rank: float


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
    latents: LatentStatistics
    missing: Mapping[str, str]  # metric -> why it was not measured
    metrics: Mapping[str, Metric]
    rows: tuple[ScoredRow, ...]
    spectral_frechet_distance: Mapping[str, float] | None = None
    sounds: tuple[Sounds, ...]


# What a classifier of sound learnt from, and what it tells; "" and "" for none.
Classifier = TypedDict("Classifier", {"shards": str, "label": str})


class GeneratedRow(TypedDict):
    """Figures of one way to make sound from text; shares in [0, 1], lengths in seconds."""

    name: str
    title: str
    judge_accuracy: NotRequired[float]
    character_error_rate: NotRequired[float]
    never_stopped: NotRequired[float]
    stopped_at_once: NotRequired[float]
    seconds: NotRequired[float]
    duration_error: NotRequired[float]
    frechet_distance: NotRequired[float]
    latents: NotRequired[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """Sound made from the texts of held-out clips."""

    FORMAT: ClassVar[str] = "f3tok generation 1"
    workdir: str = ""
    step: int = 0
    shards: str = ""
    num_examples: int
    classifier: Classifier
    sampler: Mapping[str, Any]
    max_seconds: float
    rows: tuple[GeneratedRow, ...]
    texts: Mapping[str, str]  # key -> text
    sounds: tuple[Sounds, ...]


# Mean and standard deviation over `values`, one per seed, or a list per run.
Spread = TypedDict("Spread", {"mean": float, "std": float, "values": Any})

# Of the linear probe and of the nearest neighbours; of one run, and over the runs of an arm.
Accuracy = TypedDict("Accuracy", {"linear": Spread, "neighbours": float})
ArmAccuracy = TypedDict(
    "ArmAccuracy", {"name": str, "title": str, "linear": Spread, "neighbours": Spread}
)


class Tested(TypedDict):
    """Examples of a test set, those of unseen classes, the commonest class's share, accuracies."""

    num_examples: int
    num_unseen: int
    majority: float
    features: NotRequired[Mapping[str, Accuracy]]  # of a probe
    rows: NotRequired[tuple[ArmAccuracy, ...]]  # of an ablation


class ProbedLabel(TypedDict):
    """Test set -> what is known of a label."""

    classes: NotRequired[tuple[str, ...]]
    num_train: NotRequired[int]
    tests: Mapping[str, Tested]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """What the features of one run know."""

    FORMAT: ClassVar[str] = "f3tok probe 1"
    workdir: str = ""
    autoencoder: Any = None
    shards: str = ""
    exclude: tuple[str, ...]  # label=value, kept out of what probes learn
    only: tuple[str, ...]  # label=value, tested alone
    pooling: str
    num_seeds: int  # of the linear probe
    recipe: Mapping[str, Any] | None = None
    labels: Mapping[str, ProbedLabel]


class ArmErrors(TypedDict):
    """Error rates of the transcripts of an arm."""

    name: str
    title: NotRequired[str]
    characters: Spread
    words: Spread


Transcribed = TypedDict("Transcribed", {"num_examples": int, "rows": tuple[ArmErrors, ...]})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation(Probe):
    """What the features of several recipes know."""

    FORMAT: ClassVar[str] = "f3tok ablation 1"
    num_steps: int
    seeds: tuple[int, ...]
    arms: Mapping[str, tuple[str, ...]]  # name -> what it changes
    test_shards: Mapping[str, str] | None = None
    transcripts: Mapping[str, Transcribed] | None = None


class Transcript(TypedDict):
    """What was said, and what was heard."""

    key: NotRequired[str]
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


Result = Reconstruction | Generation | LanguageModel | Probe | Ablation | Transcripts
KINDS = {kind.FORMAT: kind for kind in typing.get_args(Result)}


def write(path: pathlib.Path, result: Any) -> None:
    """Writes results so that the file is whole or absent; makes its folder.

    Args:
        path: JSON file.
        result: one of `KINDS`.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, json.dumps(to_json(result), indent=1, allow_nan=False) + "\n")


def to_json(result: Any) -> Any:
    """What is written of results."""
    if not dataclasses.is_dataclass(result):
        return result
    found = ((field, getattr(result, field.name)) for field in dataclasses.fields(result))
    return {"format": result.FORMAT} | {
        _ON_DISK.get(field.name, field.name): value
        for field, value in found
        if value is not None or field.default is not None
    }


def read(path: pathlib.Path) -> Result:
    """Reads what `write` wrote, in this or an earlier version, without trust.

    Raises:
        ValueError: if the file is not there, damaged, something else, or of a newer version.
    """
    content = read_object(path)
    kind = content.get("format")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{path.name} {_foreign(kind)}")
    try:
        return _typed(content, KINDS[kind], "")
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        ValueError: if there is none, or it is larger than any that we write.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        return value
    except FileNotFoundError:
        raise ValueError(f"there is no {path.name}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number, finite, with which one can reckon."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) < _MAX_NUMBER  # NaN is not


def _foreign(kind: Any) -> str:
    """Why a file of this "format" is not read."""
    ours = {name.rpartition(" ")[0]: name for name in KINDS}
    name, _, version = str(kind).rpartition(" ")
    if name in ours and version.isdecimal():
        return f"is {kind!r}, this version reads {ours[name]!r}: update f3tok_jax"
    return f'has no results: its "format" must be one of {", ".join(KINDS)}, got {kind!r:.60}'


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """A value of JSON as the type of a field, which `where` names; refuses any other."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is types.UnionType:
        return None if value is None else _typed(value, arguments[0], where)
    is_record = dataclasses.is_dataclass(wanted) or typing.is_typeddict(wanted)
    if isinstance(value, dict) and is_record:
        return _record(value, wanted, where)
    if isinstance(value, dict) and origin is Mapping:
        return {key: _typed(one, arguments[1], f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list) and origin is tuple:
        return tuple(_typed(one, arguments[0], f"{where}[{i}]") for i, one in enumerate(value))
    if (
        wanted is float
        and is_number(value)
        or wanted is int
        and is_number(value)
        and value % 1 == 0
    ):
        return wanted(value)
    if wanted is Any or (wanted in (str, bool) and isinstance(value, wanted)):
        return value
    names = {tuple: "a list", int: "a whole number", float: "a finite number", str: "a text"}
    expected = names.get(origin or wanted, "true or false" if wanted is bool else "an object")
    raise ValueError(f"{where.lstrip('.')} must be {expected}, got {value!r:.60}")


def _record(content: Mapping[str, Any], wanted: type, where: str) -> Any:
    """The fields of a dataclass or of a TypedDict; what else there is, is left out."""
    if dataclasses.is_dataclass(wanted):
        fields = {field.name: field.default for field in dataclasses.fields(wanted)}
        required = {name for name, default in fields.items() if default is dataclasses.MISSING}
    else:
        fields, required = wanted.__annotations__, wanted.__required_keys__
    hints, found = typing.get_type_hints(wanted), {}
    for name in fields:
        key = _ON_DISK.get(name, name)
        if key in content:
            found[name] = _typed(content[key], hints[name], f"{where}.{key}")
        elif name in required:
            raise ValueError(f"{f'{where}.{key}'.lstrip('.')} is missing")
    return wanted(**found)
