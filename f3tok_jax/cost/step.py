# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a train step costs on a slice, and what comes before the first, from the programs that the
TPU's compiler makes of them."""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

import jax
import ml_collections

from f3tok_jax.cost import communication
from f3tok_jax.cost import hlo_cost
from f3tok_jax.cost import kept as kept_lib
from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.devices import slices
from f3tok_jax.runs import lineage
from f3tok_jax.stages import registry
from f3tok_jax.training import programs as programs_lib
from f3tok_jax.training import stage as stage_lib
from f3tok_jax.training import validation

ALL = "all"  # the part that is the whole step
STATISTICS = (
    "statistics"  # what a run measures before its first step, an example per chip at a time
)


class MemoryDoesNotFitError(ValueError):
    """The compiled step needs more memory than a chip has."""


def fit_config(
    config: ml_collections.ConfigDict,
    target: slices.Slice,
    *,
    part: str = ALL,
    seconds_per_chip: float = 0.0,
) -> ml_collections.ConfigDict:
    """The config for `target`: its part, its batch.

    Args:
        config: of the run.
        target: slices to compile for.
        part: ALL, or one of those that the stage names: step_parts and programs of its definition.
        seconds_per_chip: of sound per chip and step, to the nearest row; 0 keeps the config's batch.

    Raises:
        ValueError: for a part that the stage has not, or sound where it hears none.
    """
    definition = registry.of(config.stage)
    validation.validate(config, definition)
    _check_part(part, definition)
    config = ml_collections.ConfigDict(config.to_dict())
    if part in definition.step_parts:
        definition.step_parts[part](config)
    if seconds_per_chip:
        seconds = definition.derived(config).get("crop_seconds")
        if not seconds:
            raise ValueError(
                f"--seconds_per_chip needs a stage that hears sound, got {config.stage!r}: change "
                "config.data.batch_size"
            )
        examples = config.packing.examples if "packing" in config else 1
        rows = max(1, round(seconds_per_chip / seconds / examples / target.chip.devices))
        config.data.batch_size = rows * examples * target.chip.devices * target.num_chips
    config.lock()
    return config


def _check_part(part: str, definition: stage_lib.Definition) -> None:
    having: dict[str, list[str]] = {}
    for other in registry.STAGES.values():
        for name in (*other.step_parts, *other.programs):
            having.setdefault(name, []).append(other.name)
    if part not in (ALL, *having):
        raise ValueError(f"--part must be one of {(ALL, *having)}, got {part!r}")
    if part != ALL and definition.name not in having[part]:
        raise ValueError(
            f"--part={part} needs the stage {' or '.join(map(repr, having[part]))}, got "
            f"{definition.name!r}"
        )


def compile_part(
    config: ml_collections.ConfigDict,
    target: slices.Slice,
    part: str = ALL,
    *,
    run: lineage.Lineage | None = None,
) -> tuple[jax.stages.Compiled, stage_lib.Stage | stage_lib.Program]:
    """Compiles the train step of a config as training does, or a program of its finished runs.

    Args:
        config: from `fit_config`.
        target: slices to compile for.
        part: that `config` was fitted for.
        run: of the config, where what it names may have moved; as the stage's `make` takes it.

    Returns:
        The compiled program, and what it does.

    Raises:
        MemoryDoesNotFitError: with what it needs and what there is.
        ValueError: where config and slices do not fit together, as training would say it.
    """
    definition = registry.of(config.stage)
    validation.validate(config, definition)
    try:
        if part in definition.programs:
            return _compile_program(config, target, part)
        mesh = programs_lib.make_mesh(config, slices.devices(target))
        stage = definition.make(config, run)
        with sharding.use(mesh):
            compiled = programs_lib.CompiledStage(stage, config, mesh)
            compiled.compile("train_step")
        return compiled.train_step, stage
    except jax.errors.JaxRuntimeError as error:
        per_chip = config.data.batch_size / target.num_chips
        lever = "lower config.data.batch_size or raise config.optimizer.accumulate"
        _explain(error, "step", config, target, per_chip, lever)
        raise


def compile_statistics(
    config: ml_collections.ConfigDict, target: slices.Slice
) -> tuple[jax.stages.Compiled, stage_lib.Stage, int] | None:
    """Compiles what a run measures before its first step, as `compile_part` does that.

    Returns:
        The compiled program, what it does at a time, and how often it is run; None where nothing is
        measured.
    """
    mesh = programs_lib.make_mesh(config, slices.devices(target))
    stage = registry.of(config.stage).make(config)
    if stage.statistics is None:
        return None
    rows = sharding.num_data_shards(mesh)
    try:
        with sharding.use(mesh):
            compiled = programs_lib.CompiledStage(stage, config, mesh)
            compiled.compile(STATISTICS)
    except jax.errors.JaxRuntimeError as error:
        per_chip = rows / target.num_chips
        lever = "lower config.data.crop_frames"
        _explain(error, "statistics", config, target, per_chip, lever)
        raise
    amount = stage.per_batch * rows / config.data.batch_size
    work = dataclasses.replace(stage, per_batch=amount, model_flops=0.0)
    return compiled.statistics, work, -(-stage.statistics.num_examples // rows)


def work_of(
    config: ml_collections.ConfigDict, target: slices.Slice, part: str = ALL
) -> stage_lib.Stage | stage_lib.Program:
    """What `compile_part` would say of the same: what the program does, without compiling it."""
    definition = registry.of(config.stage)
    if part in definition.programs:
        (device,) = slices.devices(target)
        return definition.programs[part](config, device)
    return definition.make(config, None)


def _compile_program(
    config: ml_collections.ConfigDict, target: slices.Slice, part: str
) -> tuple[jax.stages.Compiled, stage_lib.Program]:
    if target.num_chips * target.chip.devices != 1:
        raise ValueError(
            f"--part={part} is for one chip, such as v5e:1x1 or v6e:1x1, got --topology={target}"
        )
    (device,) = slices.devices(target)
    program = registry.of(config.stage).programs[part](config, device)
    options = compilation.parse_options(config.compiler, device.platform)
    return compilation.compiled(program.lowered, options), program


def measure(
    kept: kept_lib.Kept,
    work: stage_lib.Stage | stage_lib.Program,
    target: slices.Slice,
    *,
    scopes: tuple[str, ...],
) -> dict[str, Any]:
    """What the compiled step costs, per chip unless its name says otherwise.

    Args:
        kept: of what `compile_part` compiled.
        work: what it does, of the same.
        target: it was compiled for.
        scopes: of the stage's definition.

    Raises:
        ValueError: where the model would need more than its program does, or than the chip can do:
            then one of the figures is wrong.
    """
    chip, program = target.chip, hlo_cost.parse(kept.text, scopes, kept.schedules)
    kernels, unpriced = program.kernels(), program.unpriced()
    modules = program.costs()
    whole = hlo_cost.total(modules.values())
    flops, num_bytes = chip.devices * whole.flops, chip.devices * whole.bytes
    own = work.model_flops / target.num_chips
    compute_seconds, memory_seconds = flops / chip.peak_flops, num_bytes / chip.bandwidth
    seconds = whole.cycles / chip.clock
    sent = communication.by_kind(program, target)
    networks = communication.by_network(sent)
    amount = work.per_batch / target.num_chips

    def rate(seconds: float) -> dict[str, float]:
        per_second = amount / seconds if seconds else 0.0
        return {"seconds": seconds, f"{work.unit}_per_chip_second": per_second}

    figures = {
        "topology": str(target),
        "num_chips": target.num_chips,
        "unit": work.unit,
        work.unit: amount,
        "compile_seconds": kept.seconds[0],
        "compile_cpu_seconds": kept.seconds[1],
        "memory_bytes": {"limit": chip.memory * 2**30} | dict(kept.memory),
        "flops": flops,
        "bytes_accessed": num_bytes,
        "model_flops": own,
        "model_flops_share": own / flops if own and not program.uncounted() else None,
        "roofline": rate(max(compute_seconds, memory_seconds))
        | {"bound_by": "flops" if compute_seconds > memory_seconds else "bytes"},
        "estimated": rate(seconds) | {"cycles": whole.cycles},
        "kernels": {"seconds": kernels.cycles / chip.clock, "unpriced": unpriced},
        "communication": networks,
        "modules": _modules(modules, chip),
        "collectives": sent,
        "backward_sums": communication.backward_sums(program),
        "dearest_operations": _dearest(program, chip),
    } | _utilization(own / chip.peak_flops, seconds, networks, unpriced)
    _check_shares(figures)
    return figures


def _utilization(
    peak_seconds: float, seconds: float, networks: Mapping[str, Any], unpriced: Sequence[str]
) -> dict[str, float | None]:
    """The share of the chip's peak that are the model's own FLOPs, with all communication hidden
    behind the cycles, and with none; None where it is not known."""
    if unpriced or not seconds or not peak_seconds:
        return {"estimated_mfu": None, "estimated_mfu_exposed": None}
    of_networks = [network["seconds"] for network in networks.values()]
    return {
        "estimated_mfu": peak_seconds / max(seconds, *of_networks),
        "estimated_mfu_exposed": peak_seconds / (seconds + sum(of_networks)),
    }


def _check_shares(figures: Mapping[str, Any]) -> None:
    for name, whole in (("model_flops_share", "FLOPs"), ("estimated_mfu", "peak")):
        if (figures[name] or 0.0) > 1.0:
            raise ValueError(
                f"the model's own FLOPs must be at most all of the program's {whole}, got "
                f"{figures['model_flops']:.4g} own, {figures['flops']:.4g} compiled and "
                f"{figures['estimated']['seconds']:.4g} s, a share of {figures[name]:.3f}: correct "
                "the stage's model_flops or the count of the program"
            )


def _modules(modules: Mapping[str, hlo_cost.Cost], chip: slices.Chip) -> dict[str, Any]:
    cycles = sum(cost.cycles for cost in modules.values())
    return {
        name: _seconds_and_work(cost, chip) | {"estimated_share": cost.cycles / (cycles or 1.0)}
        for name, cost in modules.items()
        if cost.flops or cost.bytes
    }


def _dearest(program: hlo_cost.Program, chip: slices.Chip) -> list[dict[str, Any]]:
    dearest = list(program.operations().items())[:40]
    return [{"op_name": name} | _seconds_and_work(cost, chip) for name, cost in dearest]


def _seconds_and_work(cost: hlo_cost.Cost, chip: slices.Chip) -> dict[str, float]:
    seconds = cost.cycles / chip.clock
    flops, num_bytes = chip.devices * cost.flops, chip.devices * cost.bytes
    return {"estimated_seconds": seconds, "flops": flops, "bytes": num_bytes}


def _explain(
    error: Exception,
    what: str,
    config: ml_collections.ConfigDict,
    target: slices.Slice,
    per_chip: float,
    lever: str,
) -> None:
    """Raises the compiler's refusal for lack of memory as one sentence; is silent of other errors."""
    said = str(error)
    if "RESOURCE_EXHAUSTED" not in said:
        return
    sizes = re.search(r"\(([\d.]+[KMGT]?)\) exceeds available \w+ \(([\d.]+[KMGT]?)\)", said)
    # Of memory of another kind the compiler says it in other words.
    got = "{} needed of {}".format(*sizes.groups()) if sizes else f"{said.splitlines()[0]:.300}"
    raise MemoryDoesNotFitError(
        f"the {what} of {config.stage}:{config.preset} must fit the memory of a chip of {target}, "
        f"got {got}, with {per_chip:g} examples per chip; {lever}"
    ) from error
