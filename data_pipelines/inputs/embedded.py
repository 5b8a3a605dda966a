# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpora as an input: clips that are synthesised on the spot."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import itertools
import math

from data_pipelines.inputs import listing
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files

SOURCE = "embedded"  # what manifests call it: sound that is computed, and of nobody
_CLIPS_MEASURED = 16  # of each corpus, to learn how long its clips are


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Clips that are synthesised on the spot; see `corpora`.

    Attributes:
        corpora: names out of corpora.CORPORA.
        num_clips: of each corpus, in the order of `corpora`.
        seed: other seeds, other clips.
        sample_rate: Hz at which they are made.
    """

    corpora: tuple[str, ...]
    num_clips: tuple[int, ...]
    seed: int
    sample_rate: int

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest."""
        return {"source": SOURCE, **dataclasses.asdict(self)}

    def listed(self) -> listing.Listing:
        """Lists the clips of one corpus after the other.

        What another corpus has and its own has not, such as a voice, a clip has not to have: by
        that it is held out by itself.
        """
        # The synthesisers take a moment to import, and a build from a folder needs none of them.
        from data_pipelines.embedded import corpora

        num_bytes = 8 * self.sample_rate  # four seconds, about the mean
        items = {
            name: [
                listing.Item(f"{name}-{self.seed}-{index:07d}", num_bytes, index)
                for index in range(count)
            ]
            for name, count in zip(self.corpora, self.num_clips)
        }
        alone = {name: [(item.key,) for item in of_corpus] for name, of_corpus in items.items()}
        says = {name: corpora.says(name) for name in items}
        return listing.Listing(
            tuple(itertools.chain(*items.values())),
            {},
            labels_inside=True,
            together={
                label: tuple(
                    itertools.chain(*(alone[name] for name in items if label not in says[name]))
                )
                for label in dict.fromkeys(itertools.chain(*says.values()))
            },
            stratum=lambda item: corpora.stratum(_corpus(item), item.index, seed=self.seed),
            licences={"embedded corpora": {"licence": "none, as they are computed"}},
        )

    @contextlib.contextmanager
    def opened(self, item: listing.Item) -> Iterator[audio_files.Sound]:
        """Makes one clip."""
        from data_pipelines.embedded import corpora

        name = _corpus(item)
        clip = corpora.generate(name, item.index, seed=self.seed, sample_rate=self.sample_rate)
        yield audio_files.Sound(
            sample_rate=self.sample_rate,
            num_frames=len(clip.waveform),
            blocks=iter([clip.waveform[:, None]]),
            texts=(sound_records.Text(clip.text, clip.text_kind),) if clip.text else (),
            labels={"corpus": name, **clip.labels},
        )


def _corpus(item: listing.Item) -> str:
    return item.key.partition("-")[0]


def choose(
    names: Sequence[str],
    *,
    num_clips: int,
    hours: float,
    seed: int,
    sample_rate: int,
    say: Callable[[str], None],
) -> Embedded:
    """Chooses embedded corpora: those named, or all that this machine can make.

    Args:
        names: out of corpora.CORPORA; empty for all, those that cannot be made being said and left
            out.
        num_clips: of each corpus; 0 to go by `hours`.
        hours: of sound in all, spread evenly over the corpora and met roughly; 0 to go by
            `num_clips`.
        seed: other seeds, other clips.
        sample_rate: Hz.
        say: told about corpora that cannot be made.

    Raises:
        ValueError: for an unknown name, or one that cannot be made here, or not exactly one size.
    """
    from data_pipelines.embedded import corpora

    if (num_clips > 0) == (hours > 0):
        raise ValueError(
            f"embedded corpora need either --num_clips or --hours, got {num_clips} and {hours:g}"
        )
    missing = {name: corpora.available(name) for name in names or corpora.CORPORA}
    missing = {name: reason for name, reason in missing.items() if reason}
    if names and missing:
        raise ValueError(
            "; ".join(f"corpus {name} cannot be made: {reason}" for name, reason in missing.items())
        )
    for name, reason in missing.items():
        say(f"without the {name} corpus: {reason}")
    chosen = tuple(name for name in names or corpora.CORPORA if name not in missing)
    if not chosen:
        raise ValueError("no embedded corpus can be made here: " + "; ".join(missing.values()))
    counts = [num_clips] * len(chosen)
    if hours:
        for place, name in enumerate(chosen):
            clips = [
                corpora.generate(name, index, seed=seed, sample_rate=sample_rate)
                for index in range(_CLIPS_MEASURED)
            ]
            mean_seconds = sum(len(clip.waveform) for clip in clips) / len(clips) / sample_rate
            counts[place] = math.ceil(hours * 3600 / len(chosen) / mean_seconds)
    return Embedded(chosen, tuple(counts), seed, sample_rate)
