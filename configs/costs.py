# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Makes the tables of configs/README.md that say what every preset costs on the slices it is for.

    python -m f3tok_jax.compile_check --config=configs/generation.py:base --topology=v5e:4x4 \
        --effort=-1 --config.data.latents=True --output=cost.json
    python -m configs.costs cost.json ...
    python -m configs.costs --commands=DIR

What compile_check wrote is kept in configs/costs.jsonl, a line for each config, slice and share of
the batch; of two of the same the later stays. Without arguments the tables alone are made anew. With
--commands the commands of all rows are printed, to be run one after the other: what they compile is
kept in DIR, and measured again where it is there already.
"""

from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
import re
import sys
from typing import Any

from configs import autoencoder
from configs import blocks
from configs import diffusion_transformer
from configs import generation
from configs import language_model
from configs import page
from configs import representation
from configs import semantic_autoencoder
from configs import semantic_bottleneck
from configs import semantic_encoder
from configs import slices
from f3tok_jax.cost import communication
from f3tok_jax.devices import slices as device_slices
from f3tok_jax.runs import results

PATH = pathlib.Path(__file__).with_name("costs.jsonl")
README = blocks.README
BEGIN = "<!-- made by `python -m configs.costs` -->"

# Of which weak scaling is shown: base from one host to 1,024 chips, large from 64 to 4,096.
_SCALED_TO = {
    "base": (("v5e:2x4", 1), ("v5e:16x16", 4)),
    "large": (("v5p:4x4x4", 1), ("v5p:16x16x16", 1)),
}
SCALED = {  # to seconds of sound per chip and step
    "autoencoder:base": 20,
    "autoencoder:large": 20,
    "representation:base": 320,
    "generation:base": 640,
    "representation:large": 1280,
    "generation:large": 320,
}
QUICK, SCALING, FULL = -1, -0.5, 0  # efforts: of all presets, of weak scaling, what training uses
_ON_LATENTS = ("representation", "generation", "diffusion_transformer")
_RECIPES = {
    "autoencoder": autoencoder,
    "semantic_autoencoder": semantic_autoencoder,
    "language_model": language_model,
    "representation": representation,
    "generation": generation,
    "diffusion_transformer": diffusion_transformer,
    "semantic_encoder": semantic_encoder,
    "semantic_bottleneck": semantic_bottleneck,
}
_GIB, _DAY, _HOUR = 2**30, 24 * 3600, 3600
_NAMED = re.compile(r"configs/(\w+)\.py:(\w+) \((\w+)\)")
_KEY = ("recipe", "part", "topology", "work")


def row(path: pathlib.Path) -> dict[str, Any]:
    """What is kept of a result of compile_check.

    Raises:
        ValueError: where it is another result, or of a step that does not fit.
    """
    cost = results.read(path)
    if not isinstance(cost, results.Cost) or not cost.fits:
        raise ValueError(f"{path} must be what compile_check wrote of a step that fits")
    figures = cost.figures
    named = _NAMED.search(figures["config"])
    if not named:
        raise ValueError(f"{path} must be of a config of this folder, got {figures['config']}")
    stage, preset, part = named.groups()
    is_full = figures["effort"] == FULL and not figures["kernels"]["unpriced"]
    return {
        "recipe": f"{stage}:{preset}",
        "part": part,
        "topology": cost.topology,
        "work": round(figures[figures["unit"]], 2),
        "unit": figures["unit"],
        "num_chips": figures["num_chips"],
        "effort": figures["effort"],
        "memory": figures["memory_bytes"]["peak"],
        "limit": figures["memory_bytes"]["limit"],
        "flops": figures["flops"],
        "own": figures["model_flops"],
        "bytes": figures["bytes_accessed"],
        "roofline_seconds": figures["roofline"]["seconds"],
        # At less than full effort XLA's cycles mean nothing.
        "estimated_seconds": figures["estimated"]["seconds"] if is_full else None,
        "collectives": {
            f"{kind['opcode']} {kind['network']}": kind["bytes"] for kind in figures["collectives"]
        },
        "compile_cpu_seconds": round(figures["compile_cpu_seconds"]),
    }


def read(path: pathlib.Path = PATH) -> list[dict[str, Any]]:
    """The rows that are kept."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add(rows: Sequence[Mapping[str, Any]], path: pathlib.Path = PATH) -> None:
    """Keeps rows, each in place of one of the same config, slice and share of the batch."""
    kept = {_key(one): one for one in [*(read(path) if path.exists() else ()), *rows]}
    lines = [json.dumps(kept[key]) for key in sorted(kept)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def advertised() -> Iterator[tuple[str, str]]:
    """Recipe and preset, and name of a slice that it is for."""
    for stage, presets in slices.ALL.items():
        for preset, targets in presets.items():
            for target in targets:
                yield f"{stage}:{preset}", str(device_slices.parse(*target))


def commands(folder: str) -> Iterator[str]:
    """The commands that measure every row, of the presets and of weak scaling."""
    for stage, presets in slices.ALL.items():
        for preset, targets in presets.items():
            for topology, num_slices in targets:
                yield _command(folder, f"{stage}:{preset}", topology, num_slices, QUICK)
    for recipe, seconds in SCALED.items():
        for topology, num_slices in _SCALED_TO[recipe.split(":")[1]]:
            share = f"--seconds_per_chip={seconds}"
            yield _command(folder, recipe, topology, num_slices, SCALING, share)


def _command(folder: str, recipe: str, topology: str, num_slices: int, effort: float, *more: str):
    stage, preset = recipe.split(":")
    name = f"{folder}/{stage}_{preset}_{num_slices}x{topology.replace(':', '_')}_{-effort:g}"
    words = ["python -m f3tok_jax.compile_check", f"--config=configs/{stage}.py:{preset}"]
    words += [f"--topology={topology}", f"--num_slices={num_slices}", f"--effort={effort}", *more]
    words += ["--config.data.latents=True"] if stage in _ON_LATENTS else []
    return " ".join([*words, f"--kept={name}.gz", f"--output={name}.json"])


def make(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables."""
    head = ("preset", "slice", "a chip's share", "memory", "TFLOP", "of them the model's own")
    head += ("GB", "roofline", "ICI", "DCN", "compiled in")
    whole = {(one["recipe"], one["topology"]): one for one in rows if one["effort"] == QUICK}
    matrix = []
    for recipe, topology in advertised():
        one = whole.get((recipe, topology))
        cells = _cells(one) if one else ("not compiled yet", *[""] * 8)
        matrix.append((f"`{recipe}`", topology, *cells))
    counted = {key: one for key, one in whole.items() if _is_counted(one)}
    parts = [page.table(head, matrix)]
    parts += [_STRONG, _strong(counted), _WEAK, _weak(rows), _PLAN, _plan(counted, rows)]
    return "\n\n".join(parts)


_STRONG = """\
Strong scaling: the recipe's own batch on more and more chips of a generation. ICI is what a chip sends
to the others of its slice in a step, DCN what it sends to other slices, at the data sheet's bandwidth,
an all-reduce counted twice. Efficiency is the chip-seconds at the roofline of the smallest slice over
this one's, where each network is hidden behind the chip's work or takes longer than it, and where
nothing is hidden. What ends the scaling is the collective that takes most of a step."""
_WEAK = """\
Weak scaling, with as much sound per chip on every slice (effort -0.5), likewise."""
_PLAN = """\
Hours of sound that a slice trains on in a day, every step of it: at most (at the roofline, all
communication hidden), at the roofline with none hidden, and by the cycles of the program that training
uses (`--effort=0`), where it was compiled, with all and none hidden. How long the recipe's steps take is at
the cycles, or at the roofline where those are not known; dollars are the list prices of `f3tok_jax/devices/slices.py`."""


def _is_counted(one: Mapping[str, Any]) -> bool:
    """Whether a row counts as rows do now; those of before have other bytes, and no kernels."""
    return "own" in one


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    share = (
        f"{one['work']:,.1f} s" if one["unit"] == "audio_seconds" else f"{one['work']:,.0f} tokens"
    )
    memory = f"{one['memory'] / _GIB:.2f} of {one['limit'] / _GIB:.2f} GiB"
    compiled = f"{one['compile_cpu_seconds']:,} s of CPU"
    if not _is_counted(one):
        return share, memory, "not measured again yet", *[""] * 5, compiled
    return (
        share,
        memory,
        f"{one['flops'] / 1e12:.3f}",
        f"{100 * one['own'] / one['flops']:.0f} %",
        f"{one['bytes'] / 1e9:.2f}",
        f"{1e3 * one['roofline_seconds']:.1f} ms",
        *(f"{1e3 * seconds:.1f} ms" for seconds in _networks(one).values()),
        compiled,
    )


def scaled(rows: Sequence[Mapping[str, Any]], recipe: str) -> list[Mapping[str, Any]]:
    """The rows of weak scaling of a recipe, from the fewest chips on."""
    found = [one for one in rows if one["recipe"] == recipe and one["effort"] == SCALING]
    return sorted(found, key=lambda one: one["num_chips"])


_SCALING_HEAD = ("preset", "chips", "slice", "a chip's share", "TFLOP", "memory", "roofline")
_SCALING_HEAD += ("ICI", "DCN", "efficiency, hidden", "not hidden", "most of what is sent")


def _weak(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for recipe in SCALED:
        group = [one for one in scaled(rows, recipe) if _is_counted(one)]
        missing = (f"`{recipe}`", "", "not measured again yet", *[""] * (len(_SCALING_HEAD) - 3))
        lines += _compared(group) if group else [missing]
    return page.table(_SCALING_HEAD, lines)


def _strong(counted: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for (recipe, topology), one in counted.items():
        groups.setdefault((recipe, _slice(topology).name), []).append(one)
    lines = []
    for group in groups.values():
        if len(group) > 1:
            lines += _compared(sorted(group, key=lambda one: one["num_chips"]))
    return page.table(_SCALING_HEAD, lines)


def _compared(group: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A line for each slice; efficiency is that of what a chip-second does, against the first."""
    for one in group:
        networks, roofline = _networks(one), one["roofline_seconds"]
        hidden, bare = max(roofline, *networks.values()), roofline + sum(networks.values())
        best = group[0]["roofline_seconds"] / group[0]["work"] * one["work"]
        seconds = {kind: _seconds(one, kind) for kind in one["collectives"]}
        most = max(seconds, key=seconds.get, default="nothing")
        yield (
            f"`{one['recipe']}`",
            f"{one['num_chips']:,}",
            one["topology"],
            *_cells(one)[:1],
            f"{one['flops'] / 1e12:.3f}",
            f"{one['memory'] / _GIB:.2f} GiB",
            f"{1e3 * roofline:.1f} ms",
            *(f"{1e3 * took:.1f} ms" for took in networks.values()),
            f"{100 * best / hidden:.0f} %",
            f"{100 * best / bare:.0f} %",
            f"{most}, {100 * seconds.get(most, 0.0) / roofline:.0f} % of the roofline",
        )


def _plan(
    counted: Mapping[tuple[str, str], Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> str:
    head = ("preset", "slice", "chips", "at most", "none hidden", "by cycles", "none hidden")
    head += ("the recipe's steps", "dollars a day")
    full = {
        (one["recipe"], one["topology"], one["work"]): one
        for one in rows
        if one["effort"] == FULL and one.get("estimated_seconds")
    }
    lines = []
    for (recipe, topology), one in counted.items():
        if one["unit"] != "audio_seconds" or "tiny" in recipe.split(":")[1]:
            continue
        best, worst = _bounds(one, one["roofline_seconds"])
        by_cycles: Sequence[float] = ()
        # Of the same share per chip: another has other cycles.
        if known := full.get((recipe, topology, one["work"])):
            by_cycles = _bounds(known, known["estimated_seconds"])
        needed = _num_steps(recipe) * min(by_cycles or (best,)) / _HOUR
        price = _slice(topology).chip.list_price
        hours = [_hours_a_day(one, seconds) for seconds in (best, worst, *by_cycles)]
        lines.append(
            (
                f"`{recipe}`",
                topology,
                f"{one['num_chips']:,}",
                *[f"{hour:,.0f} h" for hour in hours],
                *[""] * (4 - len(hours)),
                f"{needed:,.1f} h",
                f"{24 * price * one['num_chips']:,.0f}" if price else "",
            )
        )
    return page.table(head, lines)


def _bounds(one: Mapping[str, Any], seconds: float) -> tuple[float, float]:
    """Seconds of a step with all communication hidden behind `seconds` of a chip's work, and with
    none."""
    networks = _networks(one).values()
    return max(seconds, *networks), seconds + sum(networks)


def _hours_a_day(one: Mapping[str, Any], seconds: float) -> float:
    return one["work"] * one["num_chips"] / seconds * _DAY / _HOUR


def _num_steps(recipe: str) -> int:
    stage, preset = recipe.split(":")
    return _RECIPES[stage].get_config(preset).num_steps


def _networks(one: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that a chip sends in a step, by network."""
    return {
        network: sum(_seconds(one, kind) for kind in one["collectives"] if kind.endswith(network))
        for network in ("ICI", "DCN")
    }


def _seconds(one: Mapping[str, Any], kind: str) -> float:
    """Of a kind of collective, such as "all-gather ICI"."""
    opcode, network = kind.split(" ")
    chip = _slice(one["topology"]).chip
    return communication.seconds(opcode, network, one["collectives"][kind], chip)


def _slice(name: str) -> device_slices.Slice:
    """Of a row's topology, such as "2 slices of v5e:4x4"."""
    *several, topology = name.split(" slices of ")
    return device_slices.parse(topology, *map(int, several))


def replaced(text: str, made: str) -> str:
    """The text of README.md with the tables between the marks."""
    return blocks.replaced(text, re.escape(BEGIN), lambda mark: made)


def _key(one: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(one[name]) for name in (*_KEY, "effort"))


def _main(arguments: Sequence[str]) -> None:
    for word in arguments:
        if word.startswith("--commands="):
            print("\n".join(commands(word.removeprefix("--commands="))))
            return
    add([row(pathlib.Path(name)) for name in arguments])
    text = README.read_text(encoding="utf-8")
    README.write_text(replaced(text, make(read())), encoding="utf-8")


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"{error}")
