# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a model's page says of the sound that it was trained on: which, how long, under which licences."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import re
from typing import Any

from data_pipelines.records import manifest as manifest_lib
from f3tok_jax.exporting import heard_sets
from f3tok_jax.exporting import licences as licences_lib
from f3tok_jax.exporting import markdown
from f3tok_jax.exporting import training_facts
from f3tok_jax.models import semantic_coder
from f3tok_jax.pretrained import semantic_encoder
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lineage

_MAX_VALUES = 12  # of a label, that are listed
_PEOPLE = re.compile("speaker|client|user|person|author|name")  # labels, whose values are counted


def every(chain: Sequence[training_facts.Facts]) -> Iterator[training_facts.Facts]:
    """Of the runs of a chain, and before each that of the frozen weights that are among its own."""
    for facts in chain:
        if facts.hears_through:
            yield from every([facts.hears_through])
        yield facts


def licences(chain: Sequence[training_facts.Facts]) -> licences_lib.Licences:
    """Of all sound that a run and those before it were trained on, as far as it is known."""
    known = [*every(chain)]
    heard = heard_sets.once(one for facts in known for one in (*facts.sets, *(facts.earlier or ())))
    found = licences_lib.Licences.of([one.manifest for one in heard])
    unsaid = [facts.run.stage for facts in known if not facts.sets or facts.earlier is None]
    unsaid += {facts.published for facts in known} - {""}
    return dataclasses.replace(found, unknown=(*found.unknown, *unsaid))


def asked(found: licences_lib.Licences) -> str:
    """What they ask of whoever passes the weights on; "" where there is nothing known of them."""
    if not found.sources:
        return ""
    title = "What the weights were trained on, under which licence, and whom that asks to be named:"
    lines = [*map(markdown.text, found.said()), *map(markdown.text, found.to_be_named())]
    return f"{title}\n\n{markdown.items(lines)}"


def trained(facts: training_facts.Facts) -> str:
    """One run: how long, on which devices, on what."""
    run = facts.run
    amount = "an unknown amount of sound"
    if facts.seconds is not None:
        most = "" if facts.is_measured else "at most "
        amount = f"{most}{markdown.duration(facts.seconds)} of sound, what came again counted again"
    lines = [
        f"{run.step} of {run.config.num_steps} steps, {amount}; preset "
        f"{markdown.code(run.config.get('preset') or 'unknown')}, seed {run.config.seed}",
        _started(facts.environment),
        *map(_set, facts.sets),
    ]
    if facts.why_unknown:
        lines.append(f"sources, speakers and licences: unknown; {markdown.text(facts.why_unknown)}")
    below = run.frozen_fingerprints()
    if model := run.trained_on.get("language_model"):
        below["language_model"] = model
    for name, fingerprint in below.items():
        kind, after = "a frozen", ""
        if trains(run, name):
            kind, after = "a", f", which it trained on ({markdown.text(run.config[name].train)})"
        if name == semantic_coder.ENCODER:
            after = f", {markdown.text(semantic_encoder.origin_of_heard(run))}"
        what = f"{kind} {name.replace('_', ' ')} of fingerprint {markdown.code(fingerprint)}"
        lines.append(f"on {what}{after}")
    if weights := run.trained_on.get(run_folder.WEIGHTS):
        alone = "; its decoder alone has learnt since" if run.config.get("train_only") else ""
        lines.append(f"begun with the weights of fingerprint {markdown.code(weights)}{alone}")
        if facts.earlier is None:
            lines.append("what those weights were trained on: unknown")
        elif others := heard_sets.once(facts.earlier, facts.sets):
            lines += (f"on which those weights were trained: {_set(one)}" for one in others)
        else:
            lines.append("those weights were trained on nothing else")
    return f"The {run.stage}:\n\n{markdown.items(lines)}"


def trains(run: lineage.Lineage, name: str) -> bool:
    """Whether a run trains a model on which it was begun, as a generation run may."""
    section = run.config.get(name, {})
    return run.stage == "generation" and section.get("train", "nothing") != "nothing"


def _started(environment: Mapping[str, Any]) -> str:
    """On what a run was last started, as it noted then."""
    given = {name: environment.get(name) for name in ("device", "devices")}
    line = "last started on unknown devices"
    if all(given.values()):
        line = (
            f"last started on {markdown.text(given['devices'])} x {markdown.text(given['device'])}"
        )
    for name, field, key in (("jax", "versions", "jax"), ("f3tok_jax's commit", "git", "commit")):
        section = environment.get(field)
        if isinstance(section, dict) and key in section:
            line += f", with {name} {markdown.text(section[key])}"
            line += " and changes to it" if section.get("dirty") else ""
    return line


def _set(one: heard_sets.HeardSet) -> str:
    """A set of shards in a line."""
    found, name = one.manifest, markdown.place(one.name)
    refused = sum(found.refused.values())
    labels = [_label(label, values) for label, values in sorted(found.labels.items())]
    texts = [
        f"{markdown.text(kind)} of {counts['sounds']}"
        for kind, counts in sorted(found.texts.items())
        if counts.get("sounds")
    ]
    return (
        f"{name}, weight {one.weight:g}: {markdown.duration(found.seconds)} at "
        f"{found.sample_rate} Hz, {found.num_used} of {found.num_sources} recordings that were "
        f"offered, {refused} refused; from: {_origin(found.settings)}; labels: "
        f"{', '.join(labels) or 'none'}; texts: {', '.join(texts) or 'none'}; "
        f"{_licensed(found)}; fingerprint {markdown.code(found.fingerprint[:16])}"
    )


def _licensed(found: manifest_lib.Manifest) -> str:
    known = licences_lib.Licences.of([found])
    if known.unknown:
        return "licences: unknown, its manifest has none"
    names = sorted({one.get("licence", "unknown") for _, one in known.sources})
    return f"licences: {', '.join(map(markdown.text, names)) or 'none, as it was computed'}"


def _origin(settings: Mapping[str, Any]) -> str:
    """Where a set comes from, as far as it was said when it was built; no path of a machine."""
    said = [settings.get("source", "unknown"), settings.get("full_name")]
    said += [*(settings.get("corpora") or ())]
    said += [f"seed {settings['seed']}" if "seed" in settings else None]
    return markdown.text(" ".join(str(part) for part in said if part))


def _label(name: str, values: Sequence[str] | None) -> str:
    if values is None:
        return f"{markdown.text(name)} (too many values to be listed)"
    if _PEOPLE.search(name.lower()) or len(values) > _MAX_VALUES:
        return f"{markdown.text(name)} ({len(values)} values)"
    return f"{markdown.text(name)} ({', '.join(map(markdown.text, values))})"
