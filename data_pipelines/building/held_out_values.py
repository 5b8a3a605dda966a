# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The values by which sounds are held out: of their labels, or what is said and heard in them."""

from collections.abc import Callable, Mapping, Sequence
import functools

from data_pipelines.building import workers
from data_pipelines.inputs import listing
from data_pipelines.records import sound as sound_records

# What stands for a label -> the kinds of texts whose words are its values.
TEXTS = {"text": sound_records.TEXT_KINDS} | {kind: (kind,) for kind in sound_records.TEXT_KINDS}

_OPENED_AT_A_TIME = 64  # sounds that a worker is given to ask for their values


def of(
    label: str, texts: Sequence[sound_records.Text], labels: Mapping[str, str]
) -> tuple[str, ...]:
    """Returns the values of a sound: one of a label, one for each text of a kind, none if it has none.

    A label that is called like a kind of texts counts beside them.

    Args:
        label: its name, or one of TEXTS.
        texts: of the sound.
        labels: likewise.
    """
    words = [text.words for text in texts if text.kind in TEXTS.get(label, ())]
    return tuple(dict.fromkeys(filter(None, [*words, labels.get(label)])))


def find(
    source: listing.Input,
    found: listing.Listing,
    labels: Sequence[str],
    *,
    num_workers: int,
    say: Callable[[str], None],
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Label -> key -> values of a sound; of one that cannot be opened, which the build refuses, none.

    Args:
        source: opens sounds whose values are not listed.
        found: what it lists.
        labels: by which is held out.
        num_workers: processes that open sounds.
        say: told when many have to be.

    Raises:
        ValueError: if a sound has no value of a label, or none has a text of a kind.
    """
    items = found.items
    values = {
        label: {item.key: of(label, item.texts, item.labels) for item in items} for label in labels
    }
    need_none = {label: set().union(*found.together.get(label, ())) for label in labels}
    unopened = set()
    asked = [
        item
        for item in items
        if any(not values[one][item.key] and item.key not in need_none[one] for one in labels)
    ]
    if found.labels_inside and asked:
        noun = "label" if len(labels) == 1 else "labels"
        say(f"opening {len(asked)} sounds for their {noun} {', '.join(map(repr, labels))}")
        starts = range(0, len(asked), _OPENED_AT_A_TIME)
        tasks = [asked[start : start + _OPENED_AT_A_TIME] for start in starts]
        work = functools.partial(_opened, source=source, labels=tuple(labels))
        for _, known in workers.run(work, tasks, num_workers=num_workers, on_item=lambda key: None):
            unopened.update(key for key, its in known.items() if its is None)
            for key, its in known.items():
                for label, value in (its or {}).items():
                    values[label][key] = value
    for label in labels:
        missing = [key for key, its in values[label].items() if not its and key not in unopened]
        _check(label, missing, len(items), need_none[label])
    return values


def _check(label: str, missing: Sequence[str], num_items: int, need_none: set[str]) -> None:
    if label in TEXTS:
        # A sound without one is held out by itself.
        if len(missing) == num_items:
            raise ValueError(
                f"--holdout_by={label} needs sounds with a {label}, none of {num_items} has one: "
                "give them (--metadata, --sidecars)"
            )
        return
    if len(missing) < num_items:
        missing = [key for key in missing if key not in need_none]
    if missing:
        raise ValueError(
            f"--holdout_by={label} needs a label {label!r} of every sound, {len(missing)} of "
            f"{num_items} have none, such as {missing[0]}: give it (--label_pattern, --metadata) "
            "or leave them out (--exclude)"
        )


def _opened(
    items: Sequence[listing.Item],
    *,
    source: listing.Input,
    labels: tuple[str, ...],
    crashed: dict[str, str],
    report: Callable[[str], None],
) -> dict[str, dict[str, tuple[str, ...]] | None]:
    """Key -> label -> values; None where a sound cannot be opened."""
    found = {}
    for item in items:
        report(item.key)
        found[item.key] = None
        if item.key not in crashed:
            try:
                with source.opened(item) as sound:
                    found[item.key] = {one: of(one, sound.texts, sound.labels) for one in labels}
            except Exception:  # The build says which and why.
                continue
    return found
