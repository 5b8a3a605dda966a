# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The final schedule of a kernel, as libtpu writes it down: how many bundles run how often.

XLA gives Pallas kernels no estimate of their cycles. libtpu writes each compiled instruction's
bundles of machine code to a folder when asked to before it is loaded; a bundle takes a cycle.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import os
import pathlib
import re
import tempfile

_ARGUMENTS = "LIBTPU_INIT_ARGS"
_FLAGS = (
    "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_hlo_text=false "
    "--xla_jf_dump_llo_pass_label_regex=^final_bundles$"
)
_FILE = re.compile(r"\d+-(.*)-\d\d-final_bundles\.txt")
_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s.*?:")
_BRANCH = re.compile(r"sbr\.rel (?:\(([^)]*)\) )?target = \$region(\d+)")
_START = re.compile(r"Start(?:/End empty)? region (\d+)")
_LIMIT = re.compile(r", (\d+) /\* loop exit test \*/")
_PRODUCT = "vmatmul"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Cycles of one call of a kernel, by what decides how often they are spent.

    Attributes:
        always: of what runs in every step of the grid, and of what runs once.
        edges: of branches without a product, such as those that begin and finish a row of tiles,
            if every step took them.
        products: of the branch that holds the products, if every step took it.
    """

    always: float
    edges: float
    products: float


def parse(text: str) -> Schedule:
    """Reads the final bundles of a kernel.

    Args:
        text: of a file "...-final_bundles.txt".

    Raises:
        ValueError: where a loop does not say how often it runs.
    """
    bundles = [line for line in text.splitlines() if _BUNDLE.match(line)]
    starts = {
        int(region): place for place, line in enumerate(bundles) for region in _START.findall(line)
    }
    times, branches, ended = [1] * len(bundles), [], -1
    for place, line in enumerate(bundles):
        for _, region in _BRANCH.findall(line):
            target = starts[int(region)]
            if target > place:
                branches.append((place + 1, target))
                continue
            count = _trip_count(bundles[max(target, ended + 1) : place + 1])
            ended = place
            for inside in range(target, place + 1):
                times[inside] *= count
    return _by_kind([_PRODUCT in line for line in bundles], times, branches)


def _trip_count(end: list[str]) -> int:
    """Of a loop, which ends by comparing its counter with a constant: after all loops inside."""
    found = [int(limit) for line in end for limit in _LIMIT.findall(line)]
    if not found:
        raise ValueError("a loop of a kernel's schedule must say how often it runs, got no limit")
    return found[-1]


def _by_kind(
    has_product: list[bool], times: list[int], branches: list[tuple[int, int]]
) -> Schedule:
    """The sum of `times` over the bundles of each kind."""
    products = [place for place, is_product in enumerate(has_product) if is_product]
    holding = [
        (first, last)
        for first, last in branches
        if products and first <= products[0] and products[-1] < last
    ]
    # The narrowest: around it lies the step of the grid, which all of them are part of.
    first, last = min(holding, key=lambda one: one[1] - one[0], default=(0, 0))
    kinds = ["always"] * len(times)
    kinds[first:last] = ["products"] * (last - first)
    for begin, end in branches:
        nested = any(
            begin <= one and two <= end and (one, two) != (begin, end) for one, two in branches
        )
        if not nested and not any(has_product[begin:end]) and not first <= begin < last:
            kinds[begin:end] = ["edges"] * (end - begin)
    return Schedule(
        **{
            kind: float(sum(count for count, of in zip(times, kinds) if of == kind))
            for kind in ("always", "edges", "products")
        }
    )


class Recorder:
    """Has libtpu write the final schedules of what this process compiles."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def collect(self) -> Mapping[str, str]:
        """Texts of the schedules that were written since the last call, by name of instruction."""
        found = {}
        for path in sorted(self._folder.iterdir()):
            if named := _FILE.fullmatch(path.name):
                found[named.group(1)] = path.read_text(encoding="utf-8", errors="replace")
            path.unlink()
        return found


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """A recorder, for a process that has not loaded libtpu yet; in another it records nothing."""
    before = os.environ.get(_ARGUMENTS, "")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_ARGUMENTS] = f"{before} {_FLAGS.format(folder=folder)}".strip()
        try:
            yield Recorder(pathlib.Path(folder))
        finally:
            os.environ[_ARGUMENTS] = before
