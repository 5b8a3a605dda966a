# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where values come from, in full; and what follows from those of a preset, beside the published."""

from collections.abc import Iterator, Mapping, Sequence

import jax
import ml_collections

from f3tok_jax.devices import sharding
from f3tok_jax.stages import registry

# Name in the brackets of a recipe's comment -> what it is.
ALL = {
    "F3": "F3-Tokenizer: Taming Audio Autoencoder Latents for Understanding and Generation, arXiv "
    "2606.06357: title, abstract and introduction as published, its tables and equations as public "
    "notes give them",
    "SpectroStream": "SpectroStream: A Versatile Neural Codec for General Audio, arXiv 2508.05207; "
    "numbers of github.com/magenta/magenta-realtime",
    "DAC": "High-Fidelity Audio Compression with Improved RVQGAN, arXiv 2306.06546; numbers of "
    "github.com/descriptinc/descript-audio-codec, `conf/final/24khz.yml`",
    "EnCodec": "High Fidelity Neural Audio Compression, arXiv 2210.13438; numbers of "
    "github.com/facebookresearch/audiocraft",
    "RAE": "Representation autoencoders, github.com/bytetriper/RAE",
    "BEST-RQ": "Self-supervised Learning with Random-projection Quantizer for Speech Recognition, "
    "arXiv 2202.01855",
    "NEST-RQ": "NEST-RQ: Next Token Prediction for Speech Self-Supervised Pre-Training, arXiv "
    "2409.08680",
    "TouchNet": "github.com/xingchensong/TouchNet, by an author of F3: random labels, next-token "
    "prediction",
    "Qwen3": "Qwen3-0.6B and Qwen3-4B, their published config.json",
    "VoxCPM": "github.com/OpenBMB/VoxCPM: flow head on a language model at the rates of F3",
    "LoSATok": "LoSATok, arXiv 2605.27840; numbers of github.com/wxyzd123/LoSATok",
    "UniFlow-Audio": "numbers of github.com/wsntxxn/UniFlow-Audio, the generator by which LoSATok and "
    "DashengTokenizer are measured",
    "Semantic-VAE": "numbers of github.com/ZhikangNiu/Semantic-VAE",
    "VibeVoice": "VibeVoice, arXiv 2508.19205; numbers of its acoustic tokenizer, "
    "github.com/vibevoice-community/VibeVoice",
    "Stable Audio": "numbers of github.com/Stability-AI/stable-audio-tools, `models/bottleneck.py`",
    "NextStep": "NextStep-1: Toward Autoregressive Image Generation with Continuous Tokens at Scale, "
    "arXiv 2508.10711",
    "CAM": "Continuous Autoregressive Models with Noise Augmentation Avoid Error Accumulation, arXiv "
    "2411.18447",
    "Dasheng": "Scaling up masked audio encoder learning for general audio classification, arXiv "
    "2406.06992; numbers of its package dasheng 0.0.9",
    "measured": "with this code; figures in `README.md` or beside the value",
    "chosen": "by this project, for the reason that is given or because something had to be; not "
    "compared with other values",
    "as": "another recipe of this folder has it",
    "yours": "no default: what to train on",
}

# Sound in a step of others, to hold against ours.
_PUBLISHED = {
    "autoencoder": "DAC 27 s (72 of 0.38 s), EnCodec 64 s",
    "generation": "VoxCPM's tuning 655 s (8,192 positions at 12.5 Hz)",
}


def facts(
    configs: Mapping[str, ml_collections.ConfigDict], columns: Sequence[str]
) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Head and rows of a table of what follows from presets' values, a column for each of `columns`."""
    made = {preset: _facts(configs[preset]) for preset in columns}
    names = dict.fromkeys(name for preset in columns for name in made[preset])
    rows = [(name, *(made[preset].get(name, "") for preset in columns)) for name in names]
    published = _PUBLISHED.get(configs[columns[0]].stage)
    if published:
        rows.append(("sound in a step, published", published, *[""] * (len(columns) - 1)))
    return ("what follows", *columns), rows


def _facts(config: ml_collections.ConfigDict) -> dict[str, str]:
    definition = registry.of(config.stage)
    derived, data = definition.derived(config), config.data
    found = {"parameters that are trained": _parameters(config, definition)}
    if "seconds_per_batch" in derived:
        seconds = derived["seconds_per_batch"]
        found["an example"] = f"{derived['crop_seconds']:g} s at most"
        found["a step"] = f"{data.batch_size:,} examples, {seconds:,.0f} s of sound at most"
        found["the run"] = (
            f"{config.num_steps:,} steps, {derived['hours_of_sound']:,.0f} h of sound at most"
        )
    else:
        found["a step"] = f"{data.batch_size:,} rows of {data.length:,} tokens"
        tokens = config.num_steps * data.batch_size * data.length
        found["the run"] = f"{config.num_steps:,} steps, {tokens:,} tokens at most"
    if "packing" in config:
        found["a row"] = f"{config.packing.examples} examples, {_row(config, derived)}"
    for name, start in _starts(config.optimizer):
        step = round(start * config.num_steps) if 0 <= start < 1 else round(start)
        share = f"from step {step:,}, {100 * step / config.num_steps:g} % of the run, on"
        found[f"{name} learns"] = share if 0 <= step < config.num_steps else "never"
    return found


def _starts(optimizers: ml_collections.ConfigDict) -> Iterator[tuple[str, float]]:
    """What does not learn from the first step on, and its start as the recipe has it."""
    for player, section in optimizers.items():
        if isinstance(section, ml_collections.ConfigDict):
            if section.start:
                yield player, section.start
            for name, module in section.modules.items():
                if module.start:
                    yield f"{player}'s {name}", module.start


def _row(config: ml_collections.ConfigDict, derived: Mapping[str, float]) -> str:
    packing, rate = config.packing, derived["latent_rate_hz"]
    heard = config if "supervision" in config else config.representation.recipe
    patch = heard.supervision.patch
    latents = packing.frames if "frames" in packing else packing.patches * patch
    return f"{latents / rate:.1f} s of sound, {packing.positions:,} positions of the language model"


def _parameters(config: ml_collections.ConfigDict, definition) -> str:
    """Trained parameters by player, millions, of the real modules; nothing is computed."""
    config = ml_collections.ConfigDict(config.to_dict())
    if "latents" in config.data:
        config.data.latents = True  # there is no autoencoder to pass through
    stage = definition.make(config)
    state = sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0)))
    parts = state.params
    if len(parts) == 1 and len(next(iter(parts.values()))) <= 3:  # of one player, its modules
        parts = next(iter(parts.values()))
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree)) / 1e6 for name, tree in parts.items()
    }
    return ", ".join(f"{name.replace('_', ' ')} {count:,.1f} M" for name, count in counts.items())
