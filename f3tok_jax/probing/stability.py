# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How steady RQ-MTP's labels are: the share that a sound keeps when it is heard a little otherwise.

A label that half a millisecond changes says when a wave began, which nobody can predict.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.models import rq_mtp
from f3tok_jax.probing import arms as arms_lib
from f3tok_jax.probing import disturbances as disturbances_lib
from f3tok_jax.probing import hearing
from f3tok_jax.probing import measurement
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib
from f3tok_jax.stages import representation
from f3tok_jax.stages import representation_loss
from f3tok_jax.stages import rq_targets
from f3tok_jax.sweeping import space
from f3tok_jax.training import stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared.

    Attributes:
        arms: whose targets; see configs/sweeps/targets.py.
        seeds: of the codebooks.
        num_sounds: of each set, evenly spaced; 0 for all.
        batch_size: sounds at a time.
        disturbances: name -> how a sound is heard otherwise.
    """

    arms: Sequence[space.Arm]
    seeds: Sequence[int] = (0, 1, 2)
    num_sounds: int = 500
    batch_size: int = 16
    disturbances: Mapping[str, disturbances_lib.Disturbance] = dataclasses.field(
        default_factory=lambda: disturbances_lib.ALL
    )

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds must be different numbers, got {list(self.seeds)}")
        if not self.arms or self.batch_size < 1 or self.num_sounds < 0:
            raise ValueError(
                f"--arms must name an arm, --batch_size be at least 1 and --num_sounds 0, got "
                f"{len(self.arms)} arms, {self.batch_size} and {self.num_sounds}"
            )


@dataclasses.dataclass(frozen=True)
class Labels:
    """Of one arm, autoencoder and codebook.

    Attributes:
        kept: disturbance -> share of the labels that stay the same.
        in_use: perplexity of the codes, as a share of their number.
        by_chance: share that would stay the same if labels were drawn as often as they occur.
    """

    kept: Mapping[str, float]
    in_use: float
    by_chance: float


def make_targets(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    moved: Mapping[str, str] = types.MappingProxyType({}),
) -> rq_targets.Targets:
    """The targets that a run of a config would be trained on, with the autoencoder of `workdir`."""
    config.autoencoder.workdir, config.supervision.weight = workdir, 0.0
    representation.validate(config)
    run = lineage.Lineage(config=config, places=places.Places(moved))
    return representation_loss.make_model(config, run).targets


def learn(targets: rq_targets.Targets, sounds: hearing.Hearing) -> dict[str, list]:
    """Statistics of what is quantized, as training measures them."""
    sums, total = jax.jit(targets.sums), [np.float64(0.0)] * 3
    for part in sounds:
        more = jax.device_get(sums(*part))
        total = [np.asarray(value, np.float64) + so_far for value, so_far in zip(more, total)]
    return targets.finish(total)


def _labels(
    targets: rq_targets.Targets, frozen: Any, batch: stage.Batch, latents: jax.Array
) -> jax.Array:
    return targets.labels(frozen, targets.values(batch, latents))


def compare(
    label: Callable[..., jax.Array],
    frozen: Any,
    clean: hearing.Hearing,
    disturbed: Mapping[str, hearing.Hearing],
) -> Labels:
    """How many labels of `clean` are those of each other hearing of the same sounds.

    Args:
        label: (frozen, batch, latents) -> labels [b, t, G].
        frozen: arrays of rq_targets.Targets.load.
        clean: the sounds.
        disturbed: name -> them otherwise.
    """

    def labels_of(sounds: hearing.Hearing) -> np.ndarray:
        parts = [np.asarray(label(frozen, batch, x))[valid] for batch, x, valid in sounds]
        return np.concatenate(parts)

    found = labels_of(clean)
    size = frozen["table"].shape[1] // found.shape[1]
    usage = np.stack([np.bincount(codes, minlength=size) for codes in found.T])
    share = usage / len(found)
    return Labels(
        kept={name: float(np.mean(labels_of(one) == found)) for name, one in disturbed.items()},
        in_use=float(jnp.mean(rq_mtp.perplexity(usage))) / size,
        by_chance=float(np.mean(np.sum(np.square(share), axis=-1))),
    )


def measure_run(
    workdir: str,
    targets: Mapping[str, Sequence[rq_targets.Targets]],
    learnt: str,
    tested: str,
    *,
    options: Options,
    moved: Mapping[str, str] = types.MappingProxyType({}),
    say: Callable[[str], None] = print,
) -> tuple[dict[str, list[Labels]], str, int]:
    """Measures every arm on one autoencoder.

    Args:
        workdir: of the autoencoder.
        targets: arm -> those of each seed, which differ in their codebooks alone.
        learnt: set whose statistics normalise.
        tested: set whose labels are compared.
        options: see there.
        moved: see F3Tokenizer.from_pretrained.
        say: where progress goes.

    Returns:
        Arm -> one entry per seed, the autoencoder's fingerprint, and the number of frames compared.
    """
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(workdir, moved=moved, say=say)
    rate, hop = tokenizer.sample_rate, tokenizer.run.sound.samples_per_latent
    read = dict(sample_rate=rate, num_sounds=options.num_sounds)
    read["shortest"] = hop + disturbances_lib.margin(rate)
    learnt_sounds, sounds = hearing.read_sounds(learnt, **read), hearing.read_sounds(tested, **read)

    def hear(disturb: disturbances_lib.Disturbance) -> hearing.Hearing:
        heard = [disturb(sound, rate, seed) for seed, sound in enumerate(sounds)]
        return hearing.Hearing(tokenizer, heard, options.batch_size)

    training = hearing.Hearing(tokenizer, learnt_sounds, options.batch_size)
    clean = hear(disturbances_lib.nothing)
    disturbed = {name: hear(one) for name, one in options.disturbances.items()}
    device, *_ = jax.devices()
    found: dict[str, list[Labels]] = {}
    for name, of_seeds in targets.items():
        first, *_ = of_seeds
        measured, label = learn(first, training), jax.jit(functools.partial(_labels, first))
        for one in of_seeds:
            frozen = one.load(dict.fromkeys(one.abstract(), device), measured)
            labels = compare(label, frozen, clean, disturbed)
            found.setdefault(name, []).append(labels)
        say(f"{workdir}: labels of {name}")
    frames = sum(int(valid.sum()) for *_, valid in clean)
    return found, tokenizer.fingerprint, frames


def measure(
    workdirs: Sequence[str],
    recipe: str,
    overrides: Sequence[str],
    shards: str,
    test_shards: str,
    output: pathlib.Path,
    *,
    options: Options,
    moved: Mapping[str, str] = types.MappingProxyType({}),
    say: Callable[[str], None] = print,
) -> probe_results.Stability:
    """Measures every arm on every autoencoder; writes `output`.

    Args:
        workdirs: runs of the autoencoder stage.
        recipe: file and preset of the representation stage, whose section `rq` counts.
        overrides: "--config.key=value" arguments for all arms.
        shards: set of sound whose statistics normalise.
        test_shards: set of sound whose labels are compared.
        output: JSON file to write.
        options: see there.
        moved: see F3Tokenizer.from_pretrained.
        say: where progress goes.

    Returns:
        What was written.

    Raises:
        ValueError: if runs, recipe and sets do not fit together.
    """
    rq = arms_lib.read_config(recipe, overrides).rq

    def make(arm: space.Arm, seed: int, workdir: str) -> rq_targets.Targets:
        config = arms_lib.read_config(recipe, [*overrides, *arm.arguments(seed)])
        return make_targets(config, workdir, moved=moved)

    targets = {
        workdir: {
            arm.name: [make(arm, seed, workdir) for seed in options.seeds] for arm in options.arms
        }
        for workdir in workdirs
    }
    measured = functools.partial(measure_run, options=options, moved=moved, say=say)
    runs = [measured(workdir, of_arms, shards, test_shards) for workdir, of_arms in targets.items()]
    results = probe_results.Stability(
        workdirs=workdirs,
        autoencoders=[fingerprint for _, fingerprint, _ in runs],
        shards=shards,
        test_shards=test_shards,
        num_frames=sum(count for *_, count in runs),
        seeds=options.seeds,
        num_codebooks=rq.num_codebooks,
        codebook_size=rq.codebook_size,
        arms={arm.name: arm.changes for arm in options.arms},
        rows=[_row(arm.name, [found[arm.name] for found, *_ in runs]) for arm in options.arms],
    )
    results_lib.write(output, results)
    return results


def _row(name: str, found: Sequence[Sequence[Labels]]) -> probe_results.StableLabels:
    """Of one arm: a list of runs of a list of seeds."""

    def spread(value: Callable[[Labels], float]) -> probe_results.Spread:
        return measurement.spread([[value(one) for one in run] for run in found])

    return probe_results.StableLabels(
        name=name,
        kept={key: spread(lambda one, key=key: one.kept[key]) for key in found[0][0].kept},
        in_use=spread(lambda one: one.in_use),
        by_chance=spread(lambda one: one.by_chance),
    )


def format_table(results: probe_results.Stability) -> str:
    """The shares as text, in per cent: a line per arm, a column per disturbance."""
    columns = [*results.rows[0].kept, "by chance", "in use"]
    lines = [f"{'% of labels kept':22}" + "".join(f"{title:>13}" for title in columns)]
    for row in results.rows:
        spreads = [*row.kept.values(), row.by_chance, row.in_use]
        cells = [f"{100 * one.mean:.1f} ± {100 * one.std:.1f}" for one in spreads]
        lines.append(f"{row.name:22}" + "".join(f"{cell:>13}" for cell in cells))
    lines.append(
        f"mean ± standard deviation over {len(results.workdirs)} autoencoders and "
        f"{len(results.seeds)} draws of {results.num_codebooks} codebooks of "
        f"{results.codebook_size}; {results.num_frames} frames in all; in use: perplexity of the "
        "codes"
    )
    return "\n".join(lines)
