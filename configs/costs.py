# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Makes the tables of configs/README.md that say what every preset costs on the slices it is for.

    python -m f3tok_jax.compile_check --config=configs/generation.py:base --topology=v5e:4x4 \
        --effort=-1 --config.data.latents=True --output=cost.json
    python -m configs.costs cost.json ...

What compile_check wrote is kept in configs/costs.jsonl, a line for each config, slice and share of
the batch; of two of the same the later stays. Without arguments the tables alone are made anew.
"""

from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
import re
import sys
from typing import Any

from configs import page
from configs import slices
from f3tok_jax.devices import slices as device_slices
from f3tok_jax.runs import results

PATH = pathlib.Path(__file__).with_name("costs.jsonl")
README = pathlib.Path(__file__).with_name("README.md")
BEGIN, END = "<!-- made by `python -m configs.costs` -->", "<!-- until here -->"

# Bytes/s that a chip of v5e sends. Source: "System architecture" of cloud.google.com/tpu/docs/v5e: 1,600
# Gbit/s between the chips of a slice; 6.4 Tbit/s from a pod of 256 to the data centre.
_NETWORKS = {"ICI": 1600e9 / 8, "DCN": 6.4e12 / 8 / 256}
# Of which weak scaling is shown.
SCALED = ("autoencoder:base", "representation:base", "generation:base")
_GIB = 2**30
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
        "bytes": figures["bytes_accessed"],
        "roofline_seconds": figures["roofline"]["seconds"],
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


def make(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables."""
    head = ("preset", "slice", "a chip's share", "memory", "TFLOP", "GB", "roofline", "compiled in")
    whole = {(one["recipe"], one["topology"]): one for one in rows if one["effort"] == -1}
    matrix = []
    for recipe, topology in advertised():
        one = whole.get((recipe, topology))
        cells = _cells(one) if one else ("not compiled yet", *[""] * 5)
        matrix.append((f"`{recipe}`", topology, *cells))
    parts = [page.table(head, matrix), _WORDS, _scaling(rows)]
    return "\n\n".join(parts)


_WORDS = """\
Weak scaling, with as much sound per chip on every slice (effort -0.5). Bytes are those that a chip
sends and receives in a step, by network: between chips of a slice (ICI) and between slices (DCN).
Their seconds are at the data sheet's 200 and 3.1 GB/s of v5e's chip, an all-reduce counted twice;
efficiency is the roofline of the smallest slice over this one's, or over the slowest network where
that takes longer: with all communication hidden, and with none."""


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    share = (
        f"{one['work']:,.1f} s" if one["unit"] == "audio_seconds" else f"{one['work']:,.0f} tokens"
    )
    return (
        share,
        f"{one['memory'] / _GIB:.2f} of {one['limit'] / _GIB:.2f} GiB",
        f"{one['flops'] / 1e12:.3f}",
        f"{one['bytes'] / 1e9:.2f}",
        f"{1e3 * one['roofline_seconds']:.1f} ms",
        f"{one['compile_cpu_seconds']:,} s of CPU",
    )


def scaled(rows: Sequence[Mapping[str, Any]], recipe: str) -> list[Mapping[str, Any]]:
    """The rows of weak scaling of a recipe, from the fewest chips on."""
    found = [one for one in rows if one["recipe"] == recipe and one["effort"] == -0.5]
    return sorted(found, key=lambda one: one["num_chips"])


def _scaling(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("preset", "chips", "slice", "TFLOP", "against the first", "memory")
    head += ("ICI", "DCN", "most of it", "roofline", "efficiency, hidden", "not hidden")
    lines = []
    for recipe in SCALED:
        found = scaled(rows, recipe)
        for one in found:
            lines.append((f"`{recipe}`", f"{one['num_chips']:,}", *_scaled_cells(one, found[0])))
    return page.table(head, lines)


def _scaled_cells(one: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = {kind: _seconds(kind, num_bytes) for kind, num_bytes in one["collectives"].items()}
    by_network = {
        network: sum(took for kind, took in seconds.items() if kind.endswith(network))
        for network in _NETWORKS
    }
    sent = {
        network: sum(num for kind, num in one["collectives"].items() if kind.endswith(network))
        for network in _NETWORKS
    }
    most = max(seconds, key=seconds.get, default="none")
    hidden = max(one["roofline_seconds"], *by_network.values())
    bare = one["roofline_seconds"] + sum(by_network.values())
    return (
        one["topology"],
        f"{one['flops'] / 1e12:.3f}",
        f"{100 * (one['flops'] / first['flops'] - 1):+.2f} %",
        f"{one['memory'] / _GIB:.2f} GiB",
        *(f"{num / 1e6:,.0f} MB, {1e3 * by_network[name]:.1f} ms" for name, num in sent.items()),
        most,
        f"{1e3 * one['roofline_seconds']:.1f} ms",
        f"{100 * first['roofline_seconds'] / hidden:.0f} %",
        f"{100 * first['roofline_seconds'] / bare:.0f} %",
    )


def _seconds(kind: str, num_bytes: float) -> float:
    """Of a collective: what is reduced has to come and to go again."""
    opcode, network = kind.split(" ")
    return (2.0 if opcode == "all-reduce" else 1.0) * num_bytes / _NETWORKS[network]


def replaced(text: str, made: str) -> str:
    """The text of README.md with the tables between the marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}"


def _key(one: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(one[name]) for name in (*_KEY, "effort"))


if __name__ == "__main__":
    try:
        add([row(pathlib.Path(name)) for name in sys.argv[1:]])
        text = README.read_text(encoding="utf-8")
        README.write_text(replaced(text, make(read())), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"{error}")
