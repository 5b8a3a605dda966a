# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""All chains of a comparison, and what is written of them after each seed."""

from collections.abc import Callable, Mapping, Sequence
import pathlib

from data_pipelines.reading import sources
from f3tok_jax.comparing import autoencoders
from f3tok_jax.comparing import chain as chain_lib
from f3tok_jax.comparing import measures
from f3tok_jax.comparing import plan as plan_lib
from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import results
from f3tok_jax.sweeping import driver

FILE_NAME = "comparison.json"


def compare(
    of: plan_lib.Comparison, *, say: Callable[[str], None] = print
) -> tuple[comparison_results.Comparison, Sequence[plan_lib.Chain]]:
    """Trains and measures what is not yet; writes comparison.json whenever a seed of all arms is done.

    Returns:
        What was written, and the chains.

    Raises:
        ValueError: if recipes, data and labels do not fit together.
        finishing.TrainingStopped: if a run ended before its last step.
        checkpoint.CheckpointError: where a run has no whole checkpoint.
    """
    chains = chains_of(of)
    sample_rate = chains[0].runs["autoencoder"].config.model.sample_rate
    scored = sources.open_sound(of.scored, sample_rate=sample_rate).fingerprint
    chain_lib.check_probed(of, sample_rate=sample_rate)
    found: dict[str, list[Sequence[measures.Figure]]] = {arm.name: [] for arm in of.arms}
    hear_through, references, result = {}, {}, None
    with driver.alone(of.workdir):
        for number, chain in enumerate(chains, 1):
            say(f"{chain.name}, chain {number} of {len(chains)}")
            found[chain.arm.name].append(chain_lib.follow(of, chain, say=say))
            heard = chain_lib.reconstruct(of, chain, say=say)  # once more, from its file
            hear_through[chain.arm.name] = heard.semantic_encoder
            references = references or measures.of_references(heard)
            if number % len(of.arms) == 0:
                seeds = of.config.seeds[: number // len(of.arms)]
                result = _result(of, chains, found, hear_through, references, seeds, scored)
                results.write(pathlib.Path(of.place(FILE_NAME)), result)
    return result, chains


def chains_of(of: plan_lib.Comparison) -> list[plan_lib.Chain]:
    """A chain for each seed and arm, all checked: all arms with the first seed come first.

    Raises:
        ValueError: if a config cannot be, arms or seeds are alike, or a folder holds another run.
    """
    seeds = of.config.seeds
    if len(set(seeds)) < len(seeds) or not seeds:
        raise ValueError(f"config.seeds must be different numbers, got {list(seeds)}")
    chains = [
        plan_lib.chain(of, run, frozen)
        for seed in seeds
        for run, frozen in autoencoders.of_seed(of, seed)
    ]
    for chain in chains[: len(of.arms)]:  # those of other seeds are as these
        autoencoders.check(of, chain)
    return chains


def _result(
    of: plan_lib.Comparison,
    chains: Sequence[plan_lib.Chain],
    found: Mapping[str, Sequence[Sequence[measures.Figure]]],
    hear_through: Mapping[str, str],
    references: Mapping[str, Mapping[str, float]],
    seeds: Sequence[int],
    scored: str,
) -> comparison_results.Comparison:
    compared, rows = measures.over_seeds(of.arms, found, hear_through)
    runs = {stage: run for chain in chains for stage, run in chain.runs.items()}
    stages = [stage for stage in (*plan_lib.FROZEN, *plan_lib.STAGES) if stage in runs]
    return comparison_results.Comparison(
        recipes={stage: of.recipe(stage) for stage in stages},
        changes={stage: tuple(of.config[stage].changes) for stage in stages},
        num_steps={stage: runs[stage].config.num_steps for stage in stages},
        seeds=tuple(seeds),
        heldout=scored,
        num_examples=of.config.evaluation.num_examples,
        measures=compared,
        arms=rows,
        references=references,
    )
