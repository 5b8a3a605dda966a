# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""One chain from its first step to its last figure; what is there already is not done again."""

from collections.abc import Callable, Mapping
import functools
import hashlib
import json
import pathlib
from typing import Any

from data_pipelines.reading import mixture
from f3tok_jax.comparing import measures
from f3tok_jax.comparing import plan as plan_lib
from f3tok_jax.evaluation import diffusion_transformer
from f3tok_jax.evaluation import generation
from f3tok_jax.evaluation import reconstruction
from f3tok_jax.evaluation.judges import panel
from f3tok_jax.inference import latent_shards
from f3tok_jax.probing import probes
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results
from f3tok_jax.sweeping import finishing
from f3tok_jax.sweeping import plan as sweep_plan


def follow(
    of: plan_lib.Comparison, chain: plan_lib.Chain, *, say: Callable[[str], None] = print
) -> list[measures.Figure]:
    """Trains and measures what is not yet, and returns the figures of a chain.

    Raises:
        ValueError: where data and labels do not fit together.
        finishing.TrainingStopped: if a run ended before its last step.
    """
    for stage, run in chain.runs.items():
        finishing.finish([run], of.place(stage), say=say)
        if stage == "autoencoder":
            encode(of, chain, say=say)
    heard = reconstruct(of, chain, say=say)
    known = probe(of, chain, say=say)
    said = {
        "flow head": generate(of, chain, say=say),
        "diffusion transformer": diffuse(of, chain, say=say),
    }
    return [
        *measures.of_reconstruction(heard),
        *measures.of_probe(known),
        *measures.of_generation(said),
    ]


def check_probed(of: plan_lib.Comparison, *, sample_rate: int) -> None:
    """Refuses sets that probes cannot learn from or be tested on, before anything is trained.

    Raises:
        ValueError: where one is no set of sound at that rate, or has not the labels.
    """
    shards, test, options = _probed(of)
    probes.check(shards, {test: test}, sample_rate=sample_rate, options=options)


def encode(of: plan_lib.Comparison, chain: plan_lib.Chain, *, say: Callable[[str], None]) -> None:
    """Writes the latents of all sound that later stages are trained on."""
    data, workdir = of.config.data, chain.runs["autoencoder"].workdir
    for name, place, _ in plan_lib.latent_sets(data.train, chain.latents):
        latent_shards.encode_shards(workdir, name, place, say=say)
    latent_shards.encode_shards(workdir, data.heldout, plan_lib.heldout(chain.latents), say=say)


def reconstruct(
    of: plan_lib.Comparison, chain: plan_lib.Chain, *, say: Callable[[str], None]
) -> results.Reconstruction:
    """Scores of held-out sound."""
    section = of.config.evaluation
    asked = dict(
        shards=of.scored,
        num_examples=section.num_examples,
        judges=panel.Choice(names=section.judges.split(","), num_examples=section.judge_examples),
        visqol_examples=0,
    )
    measure = functools.partial(reconstruction.evaluate, say=say)
    return _once(chain.runs["autoencoder"], "results", asked, measure)


def probe(
    of: plan_lib.Comparison, chain: plan_lib.Chain, *, say: Callable[[str], None]
) -> probe_results.Probe:
    """What latents and representations know."""
    shards, test, options = _probed(of)
    asked = dict(shards=shards, test_shards=[test], options=options)
    measure = functools.partial(probes.probe, say=say)
    return _once(chain.runs["representation"], "probe", asked, measure)


def _probed(of: plan_lib.Comparison) -> tuple[str, str, probes.Options]:
    """What probes learn from, what they are tested on, and of what."""
    section, data = of.config.probe, of.config.data
    shards = section.train or ",".join(name for name, _ in mixture.parse(data.train))
    options = probes.Options(labels=section.labels, poolings=(section.pooling,))
    return shards, section.heldout or data.heldout, options


def generate(
    of: plan_lib.Comparison, chain: plan_lib.Chain, *, say: Callable[[str], None]
) -> results.Generation:
    """Sound from the texts of held-out sound, by the flow head."""
    measure = functools.partial(generation.evaluate, say=say)
    return _once(chain.runs["generation"], "results", _texts(of), measure)


def diffuse(
    of: plan_lib.Comparison, chain: plan_lib.Chain, *, say: Callable[[str], None]
) -> results.Generation:
    """The same by the diffusion transformer, in the representations of the same run."""
    representation = chain.runs["representation"].workdir
    measure = functools.partial(
        diffusion_transformer.evaluate, representation=representation, say=say
    )
    return _once(chain.runs["diffusion_transformer"], "results", _texts(of), measure)


def _texts(of: plan_lib.Comparison) -> dict[str, Any]:
    """What every generator is asked."""
    return dict(
        shards=of.config.data.heldout,
        num_examples=of.config.evaluation.num_texts,
        text_sensitivity=True,
        judges=panel.Choice(names=(panel.NONE,)),
    )


def _once(
    run: sweep_plan.Run, name: str, asked: Mapping[str, Any], measure: Callable[..., Any]
) -> Any:
    """What is measured of a run: read where it is there, in a file that is named by what was asked."""
    told = json.dumps({**asked, "step": run.config.num_steps}, sort_keys=True, default=repr)
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    target = pathlib.Path(run.workdir, f"{name}_{digest}.json")
    if target.is_file():
        return results.read(target)
    return measure(run.workdir, output=target, **asked)
