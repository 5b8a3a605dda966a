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

from f3tok_jax.cost import hlo_cost
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
        raise _explained(error, "step", config, target, per_chip, lever) from error


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
        raise _explained(error, "statistics", config, target, per_chip, lever) from error
    amount = stage.per_batch * rows / config.data.batch_size
    work = dataclasses.replace(stage, per_batch=amount, model_flops=0.0)
    return compiled.statistics, work, -(-stage.statistics.num_examples // rows)


def _compile_program(
    config: ml_collections.ConfigDict, target: slices.Slice, part: str
) -> tuple[jax.stages.Compiled, stage_lib.Program]:
    if target.num_chips * target.chip.devices != 1:
        raise ValueError(
            f"--part={part} is for one chip, such as v5e:1x1 or v5p:1x1x1, got --topology={target}"
        )
    (device,) = slices.devices(target)
    program = registry.of(config.stage).programs[part](config, device)
    options = compilation.parse_options(config.compiler, device.platform)
    return program.lowered.compile(compiler_options=options), program


def measure(
    compiled: jax.stages.Compiled,
    work: stage_lib.Stage | stage_lib.Program,
    target: slices.Slice,
    *,
    scopes: tuple[str, ...],
    compile_seconds: float = 0.0,
) -> dict[str, Any]:
    """What the compiled step costs, per chip unless its name says otherwise.

    Args:
        compiled: of `compile_part`.
        work: what it does, of the same.
        target: it was compiled for.
        scopes: of the stage's definition.
        compile_seconds: to be reported with it.
    """
    chip, program = target.chip, hlo_cost.parse(compiled.as_text(), scopes)
    totals, repeated = compiled.cost_analysis(), program.repeated()
    flops = totals["flops"] + repeated.flops
    # XLA counts a loop's body once, and of a stack that it slices layer by layer the whole.
    modules = program.costs()
    num_bytes = totals["bytes accessed"]
    if repeated.bytes:
        num_bytes = sum(cost.bytes for cost in modules.values())
    cycles = sum(cost.cycles for cost in modules.values())
    products = sum(cost.flops for cost in modules.values())
    own = work.model_flops / target.num_chips
    own = own or chip.devices * _own_flops(modules, scopes)
    compute_seconds = flops * chip.devices / chip.peak_flops
    memory_seconds = num_bytes * chip.devices / chip.bandwidth
    amount = work.per_batch / target.num_chips

    def rate(seconds: float) -> dict[str, float]:
        per_second = amount / seconds if seconds else 0.0
        return {"seconds": seconds, f"{work.unit}_per_chip_second": per_second}

    def seconds_and_work(cost: hlo_cost.Cost) -> dict[str, float]:
        seconds = cost.cycles / chip.clock
        return {"estimated_seconds": seconds, "flops": cost.flops, "bytes": cost.bytes}

    return {
        "topology": str(target),
        "num_chips": target.num_chips,
        "unit": work.unit,
        work.unit: amount,
        "compile_seconds": compile_seconds,
        "memory_bytes": _memory(compiled, chip),
        "flops": flops * chip.devices,
        "bytes_accessed": num_bytes * chip.devices,
        "model_flops_share": own / (max(flops, products) * chip.devices),
        "estimated_mfu": own * chip.clock / (cycles * chip.peak_flops) if cycles else 0.0,
        "roofline": rate(max(compute_seconds, memory_seconds))
        | {"bound_by": "flops" if compute_seconds > memory_seconds else "bytes"},
        "estimated": rate(cycles / chip.clock) | {"cycles": cycles},
        "modules": {
            name: seconds_and_work(cost) | {"estimated_share": cost.cycles / (cycles or 1.0)}
            for name, cost in modules.items()
            if cost.flops or cost.bytes
        },
        "collectives": _collectives(program, target),
        "backward_sums": _backward_sums(program),
        "dearest_operations": [
            {"op_name": name} | seconds_and_work(cost)
            for name, cost in list(program.operations().items())[:40]
        ],
    }


def own_flops(compiled: jax.stages.Compiled, *, scopes: tuple[str, ...]) -> float:
    """FLOPs of the model's own products in one run of a compiled step on one device."""
    return _own_flops(hlo_cost.parse(compiled.as_text(), scopes).costs(), scopes)


def _own_flops(modules: Mapping[str, hlo_cost.Cost], scopes: Sequence[str]) -> float:
    return sum(modules[name].flops for name in scopes)


def _memory(compiled: jax.stages.Compiled, chip: slices.Chip) -> dict[str, float]:
    memory = compiled.memory_analysis()
    return {
        "limit": chip.memory * 2**30,
        "peak": memory.peak_memory_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "donated": memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }


def format_table(cost: dict[str, Any]) -> str:
    """The figures of `measure` for a console."""
    memory, roofline, estimated = cost["memory_bytes"], cost["roofline"], cost["estimated"]
    unit = cost["unit"].replace("_", "-")
    rate = f"{cost['unit']}_per_chip_second"
    lines = [
        f"{cost['config']} on {cost['topology']}, {cost['num_chips']} chips, "
        f"{cost[cost['unit']]:,.2f} {unit} per chip and step",
        f"  fits             {memory['peak'] / 2**30:.2f} GiB of {memory['limit'] / 2**30:.2f}",
        f"  FLOPs            {cost['flops'] / 1e12:.3f} T, {100 * cost['model_flops_share']:.0f} % "
        f"of them the model's own",
        f"  bytes accessed   {cost['bytes_accessed'] / 1e9:.2f} GB",
        f"  roofline         {1e3 * roofline['seconds']:.2f} ms ({roofline['bound_by']}), "
        f"{roofline[rate]:.0f} {unit} per chip-second",
        f"  XLA's estimate   {1e3 * estimated['seconds']:.2f} ms, "
        f"{estimated[rate]:.0f} {unit} per chip-second, "
        f"{100 * cost['estimated_mfu']:.0f} % of the chip's peak are the model's own FLOPs",
        f"  compiled in      {cost['compile_seconds']:.0f} s "
        f"({cost['compile_cpu_seconds']:.0f} s of CPU)",
        f"  {'':16} {'GFLOP':>9} {'GB':>7} {'XLA ms':>8} {'share':>6}",
    ]
    for name, part in cost["modules"].items():
        lines.append(
            f"  {name:16} {part['flops'] / 1e9:9.1f} {part['bytes'] / 1e9:7.2f} "
            f"{1e3 * part['estimated_seconds']:8.2f} {100 * part['estimated_share']:5.1f}%"
        )
    for kind in cost["collectives"]:
        lines.append(
            f"  {kind['opcode']:16} {kind['count']:4d} x  {kind['bytes'] / 1e6:9.2f} MB over "
            f"{kind['network']}: {_by_dtype(kind['dtypes'])}"
        )
    if cost["backward_sums"]:
        lines.append(f"  gradients are summed over chips: MB {_by_dtype(cost['backward_sums'])}")
    return "\n".join(lines)


def _by_dtype(num_bytes: dict[str, float]) -> str:
    """Megabytes by type of element, the most first."""
    most_first = sorted(num_bytes.items(), key=lambda item: -item[1])
    return ", ".join(f"{number / 1e6:.2f} in {dtype}" for dtype, number in most_first)


def _backward_sums(program: hlo_cost.Program) -> dict[str, float]:
    """Bytes per chip and step that the backward pass sums over chips, by the type that it sums in.

    Gradients of weights, and of activations where weights are split among chips.
    """
    sums: dict[str, float] = {}
    for found in program.collectives():
        if found.opcode in ("all-reduce", "reduce-scatter") and "transpose(" in found.op_name:
            if any(len(group) > 1 for group in found.groups or ((0, 1),)):
                for dtype, num_bytes in found.bytes_by_dtype.items():
                    sums[dtype] = sums.get(dtype, 0.0) + found.times * num_bytes
    return sums


def _collectives(program: hlo_cost.Program, target: slices.Slice) -> list[dict[str, Any]]:
    """Communication by kind and network: bytes per chip and step, in all and by type of element."""
    per_slice = target.num_chips * target.chip.devices // target.num_slices
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for found in program.collectives():
        crosses = found.leaves_slice or any(
            len({device // per_slice for device in group}) > 1 for group in found.groups
        )
        network = "DCN" if crosses else "ICI"
        named = {"opcode": found.opcode, "network": network, "count": 0, "bytes": 0.0, "dtypes": {}}
        total = kinds.setdefault((found.opcode, network), named)
        total["count"] += int(found.times)
        total["bytes"] += found.times * found.num_bytes
        for dtype, num_bytes in found.bytes_by_dtype.items():
            total["dtypes"][dtype] = total["dtypes"].get(dtype, 0.0) + found.times * num_bytes
    return [total for _, total in sorted(kinds.items())]


def _explained(
    error: Exception,
    what: str,
    config: ml_collections.ConfigDict,
    target: slices.Slice,
    per_chip: float,
    lever: str,
) -> Exception:
    """The compiler's refusal for lack of memory as one sentence; any other error as it is."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        return error
    sizes = re.search(r"\(([\d.]+[KMGT]?)\) exceeds available \w+ \(([\d.]+[KMGT]?)\)", str(error))
    needed, available = sizes.groups() if sizes else ("more", "less")
    return MemoryDoesNotFitError(
        f"the {what} of {config.stage}:{config.preset} must fit the memory of a chip of {target}, "
        f"got {needed} needed of {available}, with {per_chip:g} examples per chip; {lever}"
    )
