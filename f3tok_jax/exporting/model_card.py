# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""README.md of an exported folder: what the model is, and what is known of how it came to be.

It is read from the run, its data and its results; what they do not say is said to be unknown.
"""

from collections.abc import Iterator, Mapping, Sequence
import importlib.metadata
import re
from typing import Any

import numpy as np

from f3tok_jax.exporting import figures
from f3tok_jax.exporting import licences as licences_lib
from f3tok_jax.exporting import markdown
from f3tok_jax.exporting import methods
from f3tok_jax.exporting import provenance
from f3tok_jax.exporting import training_facts
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import lineage
from f3tok_jax.runs import sound as sound_lib

_LANGUAGE = re.compile(r"[a-z]{2,3}")  # as in ISO 639, which a model's page may state

_TITLES = {
    "autoencoder": "audio autoencoder",
    "representation": "audio tokenizer for understanding",
    "generation": "audio tokenizer and generator",
}
_TASKS = {"generation": "text-to-audio"}
_MAKES = {
    "representation": "A causal transformer makes a representation of every latent.",
    "answers": "A frozen language model reads representations and answers in text.",
    "generation": "A language model{trained} and a flow head make latents, and so sound, of text.",
}
_USES = {
    "autoencoder": """\
with torch.no_grad():
    encoded = model.encode(**inputs)  # latents [b, t, latent_dim], and which of them are valid
    audio = model.decode(
        encoded.latents, encoded.padding_mask, audio_scales=encoded.audio_scales
    ).audio""",
    "representation": """\
    representations = model.represent(encoded.latents, encoded.padding_mask).representations""",
    "answers": """\
    answers = model.answer(encoded.latents, encoded.padding_mask)  # token ids of each
print(text.batch_decode(answers, skip_special_tokens=True))""",
    "generation": """\
spoken = model.generate(**model.prepare_text(text, "seven three nine"), max_seconds=3).audio""",
}
_BOTTLENECKS = {
    "kl_vae": "KL-VAE: latents are the means of Gaussians",
    "sigma_vae": "sigma-VAE: noise of a drawn deviation in training",
    "soft_norm": "soft norm: a learned scale and shift per channel, a penalty, little noise in training",
}
_COMMANDS = {
    "autoencoder": (
        "f3tok encode speech.wav latents.npz --model=MODEL",
        "f3tok decode latents.npz back.wav --model=MODEL",
    ),
    "representation": ("f3tok represent speech.wav representations.npz --model=MODEL",),
    "answers": ("f3tok transcribe speech.wav --task={task} --model=MODEL",),
    "generation": ('f3tok generate --text="seven three nine" --output=out.wav --model=MODEL',),
}
_SOFTWARE = """\
@software{{f3tok_jax,
  title = {{{{f3tok_jax: F3-Tokenizer in JAX}}}}, author = {{{{The f3tok_jax authors}}}},
  version = {{{version}}}
}}"""


def render(
    chain: Sequence[training_facts.Facts],
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> str:
    """The page, in Markdown.

    Args:
        chain: of the run, at the step that is exported, and of those that it was trained on, the first one
            first; see `gather`.
        config: config.json of the folder.
        tensors: its weights, by name.
    """
    run = chain[-1].run
    licences = provenance.licences(chain)
    name = methods.of(config).name
    title = f"{name}: {_TITLES[run.stage]}, {config['sampling_rate'] / 1000:g} kHz"
    sections = {
        f"# {title}": _what(run, config, tensors, licences),
        "## How to use it": _use(run, config),
        "## What it was trained on": "\n\n".join(map(provenance.trained, provenance.every(chain))),
        "## Figures": "\n\n".join(figures.of(chain)),
        "## Licences of the sound": provenance.asked(licences),
        "## Limits": markdown.items(_limits(chain, config)),
        "## Configuration": _configuration(run, config, tensors),
        "## Citation": _citation(config),
    }
    body = "\n\n".join(f"{head}\n\n{text}" for head, text in sections.items() if text)
    return f"{markdown.front_matter(_fields(chain, config, licences))}\n\n{body}\n"


def gather(run: lineage.Lineage) -> Sequence[training_facts.Facts]:
    """What is known of a run and of those that it was trained on, the first one first."""
    ancestors = (run.ancestor(stage) for stage in _TITLES if stage != run.stage)
    return [*map(training_facts.gather, filter(None, ancestors)), training_facts.gather(run)]


def _fields(
    chain: Sequence[training_facts.Facts],
    config: Mapping[str, Any],
    licences: licences_lib.Licences,
) -> dict[str, Any]:
    """Of the front matter."""
    stage = chain[-1].run.stage
    languages = sorted(_languages(chain) or ())
    known = all(map(_LANGUAGE.fullmatch, languages)) and languages
    in_torch = _in_torch(config)
    tags = ["audio", "audio-tokenizer", methods.of(config).tag, f"f3tok-{stage}", "jax"]
    return {
        "library_name": "transformers" if in_torch else "f3tok_jax",
        "pipeline_tag": _TASKS.get(stage, "feature-extraction"),
        "tags": tags + ["pytorch"] * in_torch,
        **({"language": languages} if known else {}),
        **({"license": licences.weights.lower()} if licences.weights else {}),
        "sampling_rate": config["sampling_rate"],
    }


def _languages(chain: Sequence[training_facts.Facts]) -> set[str] | None:
    """That all its sound is labelled with; None where any of it is of unknown ones."""
    found = [facts.values_of("language") for facts in chain]
    return set().union(*found) if all(found) else None


def _what(
    run: lineage.Lineage,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    licences: licences_lib.Licences,
) -> str:
    after = " and, beyond its latents, ".join(one.linked for one in methods.followed(config))
    _, *later = _abilities(run, config)
    trained = ", trained on," if provenance.trains(run, "language_model") else ""
    makes = " ".join(
        [methods.codes(config, run.sound), *(_MAKES[one].format(trained=trained) for one in later)]
    )
    return (
        f"{makes} Made after {after} by f3tok_jax, an independent implementation in JAX, and exported from "
        "a run of it.\n\n"
        + markdown.items(
            [
                f"stage {run.stage}, step {run.step}",
                f"sound: mono, {config['sampling_rate']} Hz",
                *_rounded(config, tensors),
                f"its latents carry the fingerprint {markdown.code(config['latents_fingerprint'])}",
                f"fingerprint of the {run.stage}'s weights: {markdown.code(run.fingerprint)}",
                f"licence of the weights: {licences.weights or 'unknown'}"
                + ("; the code beside them is under Apache-2.0" if _in_torch(config) else "")
                + (", the language model under its own" if _reads_text(run, config) else ""),
            ]
        )
    )


def _rounded(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Iterator[str]:
    """How the autoencoder's weights, which are the first, differ from those of the run, if they do."""
    if (dtype := next(iter(tensors.values())).dtype.name) != config["dtype"]:
        yield (
            f"its weights are those of the run rounded to {dtype}, and are computed with in "
            f"{config['dtype']}: its latents and its sound are near those of the run, not equal"
        )


def _abilities(run: lineage.Lineage, config: Mapping[str, Any]) -> Sequence[str]:
    """What the folder can do: what each stage up to the run's brought, and answers if it has them."""
    stages = list(_TITLES)
    found = stages[: stages.index(run.stage) + 1]
    return [*found[:2], "answers", *found[2:]] if config.get("answers") else found


def _reads_text(run: lineage.Lineage, config: Mapping[str, Any]) -> bool:
    """Whether there is a language model in the folder."""
    return not {"answers", "generation"}.isdisjoint(_abilities(run, config))


def _in_torch(config: Mapping[str, Any]) -> bool:
    """Whether the modules in PyTorch are in the folder."""
    return "auto_map" in config


def _use(run: lineage.Lineage, config: Mapping[str, Any]) -> str:
    commands = [line for ability in _abilities(run, config) for line in _COMMANDS[ability]]
    if reads := config.get("answers"):
        commands = [line.format(task=reads["task"]) for line in commands]
    files = f"With f3tok_jax, of files of any rate and length:\n\n{_fenced('bash', commands)}"
    return f"{_use_in_torch(run, config)}\n\n{files}" if _in_torch(config) else files


def _use_in_torch(run: lineage.Lineage, config: Mapping[str, Any]) -> str:
    reads_text = _reads_text(run, config)
    text = ", PreTrainedTokenizerFast" if reads_text else ""
    lines = [
        "import torch",
        f"from transformers import AutoFeatureExtractor, AutoModel{text}",
        "",
        'folder = "MODEL"  # this one',
        "model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()",
        "extractor = AutoFeatureExtractor.from_pretrained(folder)",
        *["text = PreTrainedTokenizerFast.from_pretrained(folder)"] * reads_text,
        "rate = model.config.sampling_rate  # Hz, at which sounds must be",
        "sounds = [0.1 * torch.randn(rate).numpy()]  # yours, each [n] in [-1, 1]",
        'inputs = extractor(sounds, sampling_rate=rate, return_tensors="pt")',
        *(_USES[ability] for ability in _abilities(run, config)),
    ]
    return f"PyTorch and transformers 5 are all that is needed:\n\n{_fenced('python', lines)}"


def _fenced(language: str, lines: Sequence[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _limits(chain: Sequence[training_facts.Facts], config: Mapping[str, Any]) -> Iterator[str]:
    """What it does not know, as far as that follows from how it was trained."""
    first, rate = chain[0], config["sampling_rate"]
    crop = first.run.config.data.crop_frames / first.run.sound.latent_rate
    yield f"Sound must be mono at {rate} Hz: resample others; above {rate / 2:g} Hz all is lost."
    yield f"The autoencoder has learnt from pieces of {crop:.3g} s."
    levels = [one.manifest.levels.get("rms_db") for one in first.sets]
    if levels and all(levels):
        low, high = min(one["p1"] for one in levels), max(one["p99"] for one in levels)
        loud = f"Its recordings were of {low:.0f} to {high:.0f} dBFS (rms, 1st to 99th percentile)"
    else:
        loud = "How loud its recordings were is unknown"
    yield f"{loud}; it has heard them with a gain of {_gain(first)}."
    if level_db := config["level_db"]:
        streamed = "; a stream is heard as it comes, which is best near that level"
        yield (
            f"Every whole sound is heard at {level_db:g} dBFS and decoded at its own level"
            f"{'' if exported_config.is_semantic(config) else streamed}."
        )
    languages = _languages(chain)
    if languages:
        named = ", ".join(map(markdown.text, sorted(languages)))
        yield f"The languages that it has heard, as its data is labelled: {named}."
    else:
        yield "Which languages it has heard is unknown: not all of its data says so."
    yield "It was not tried on sound unlike what is listed above: other noise, rooms, voices."
    if fields := config.get("answers"):
        asked = ", ".join(map(markdown.text, fields["tasks"]))
        yield f"It was taught to answer {asked}, in at most {fields['max_tokens']} tokens with the question."
    if config.get("generation"):
        asked = ", ".join(map(markdown.text, config["generation"]["tasks"]))
        yield (
            f"Texts are of {config['generation']['max_tokens']} tokens at most; it has learnt the "
            f"tasks {asked}."
        )


def _gain(facts: training_facts.Facts) -> str:
    low, high = facts.run.config.data.get("gain_db", (0.0, 0.0))
    # Earlier versions had a level of their own for training.
    level = facts.run.config.data.get("level_db", facts.run.level_db)
    brought = f" after being brought to {level:g} dBFS" if level else ""
    return f"{low:g} to {high:g} dB{brought}"


def _level(level_db: float) -> str:
    return f"{level_db:g} dBFS of rms" if level_db else "their own"


def _configuration(
    run: lineage.Lineage, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> str:
    sizes = dict.fromkeys(config["parts"], 0)
    learned = {name: one.size for name, one in tensors.items() if ".statistics." not in name}
    for name, size in learned.items():
        sizes[name.split(".")[0]] += size
    sound, other = run.sound, config.get("bottleneck")
    rows = [
        ("latents", f"{sound.latent_dim} values at {sound.latent_rate:g} Hz"),
        ("samples per latent", f"{sound.samples_per_latent}"),
        *_ahead(config),
        ("latents of mean 0 and rms 1", "yes" if config["normalize"] else "no"),
        *((("bottleneck", _BOTTLENECKS[other["kind"]]),) if other else ()),
        ("level at which whole sounds are heard", _level(config["level_db"])),
        *((f"parameters of {markdown.text(part)}", f"{size:,}") for part, size in sizes.items()),
        *_heard_through(config, learned),
    ]
    if fields := config.get("representation"):
        shape = f"{fields['num_layers']} layers of width {fields['width']}"
        rows.append(("representation encoder", f"{shape}, window {fields['window'] or 'all'}"))
    return f"{markdown.table(['', ''], rows)}\n\n`config.json` has all of it."


def _ahead(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of what is heard before it is coded."""
    if exported_config.is_semantic(config):
        yield "of a sound, the encoder and the decoder hear", "all, at once"
    else:
        yield "samples that the encoder sees ahead", f"{config['hop_length']}"
        yield "latents that the decoder sees ahead", f"{config['decoder_lookahead']}"


def _heard_through(
    config: Mapping[str, Any], learned: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """A row of the semantic encoder, where there is one, of sizes by name."""
    if exported_config.is_semantic(config):
        fields = config[sound_lib.SEMANTIC]["semantic_encoder"]
        own = sum(size for name, size in learned.items() if ".semantic_encoder." in name)
        shape = f"{fields['num_layers']} layers of width {fields['width']}"
        yield "parameters of the frozen semantic encoder in the encoder", f"{own:,}, {shape}"


def _citation(config: Mapping[str, Any]) -> str:
    try:
        version = importlib.metadata.version("f3tok_jax")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    cited = [one.cited for one in methods.followed(config)]
    lines = [*cited, _SOFTWARE.format(version=version)]
    return f"The method, and the software that trained this model:\n\n{_fenced('bibtex', lines)}"
