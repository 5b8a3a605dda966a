# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Makes the tables of configs/README.md that say what models were measured to do.

    python -m f3tok_jax.evaluate --workdir=RUN --shards=DIR/test --output=RUN/results.json
    python -m configs.evidence NAME=RUN/results.json ...

A results file is kept as configs/evidence/NAME.json, without sounds and without what is of a machine,
and its table stands in README.md between "<!-- evidence: NAME -->" and "<!-- until here -->". Without
arguments the tables alone are made anew.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import pathlib
import re
import sys

from configs import blocks
from f3tok_jax.exporting import figures
from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results

FOLDER = pathlib.Path(__file__).with_name("evidence")
README = blocks.README
_MARK = r"<!-- evidence: (\w+) -->"


def keep(name: str, path: pathlib.Path, folder: pathlib.Path = FOLDER) -> None:
    """Keeps a results file under a name.

    Raises:
        ValueError: where it is none, or of a kind that has no table.
    """
    found = results.read(path)
    if figures.made(found) is None:
        raise ValueError(
            f"{path} must be of evaluate, probe, ablation or compare, got {type(found).__name__}"
        )
    results.write(folder / f"{name}.json", dataclasses.replace(found, **_without_places(found)))


def _without_places(found: results.Result) -> dict[str, object]:
    """The fields that say where something lay, or that nothing shows, as nothing."""
    empty = dict(workdir="", fit_shards="", config=None, sounds=(), test_shards=None)
    fields = {field.name for field in dataclasses.fields(found)}
    changes = {name: value for name, value in empty.items() if name in fields}
    if isinstance(getattr(found, "shards", None), results.ShardSet):
        changes["shards"] = dataclasses.replace(found.shards, path="")
    elif "shards" in fields:
        changes["shards"] = ""
    if "classifier" in fields:
        changes["classifier"] = dataclasses.replace(found.classifier, shards="")
    if isinstance(found, probe_results.Probe):
        changes["labels"] = {
            label: dataclasses.replace(probed, tests=_by_ends(probed.tests))
            for label, probed in found.labels.items()
        }
    if isinstance(found, probe_results.Ablation):
        changes["arms"] = _without_paths(found.arms)
    if isinstance(found, comparison_results.Comparison):
        changes["changes"] = _without_paths(found.changes)
    return changes


def _without_paths(changes: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(map(_changed, of_name)) for name, of_name in changes.items()}


def _changed(change: str) -> str:
    """A change of an arm, of a path in it the end alone."""
    key, equals, value = change.partition("=")
    return f"{key}{equals}{'/'.join(_parts(value)[-2:])}" if "/" in value else change


def _by_ends(tests: Mapping[str, probe_results.Tested]) -> dict[str, probe_results.Tested]:
    """By the ends of the paths of test sets, which tables show."""
    found = {"/".join(_parts(path)[-2:]): one for path, one in tests.items()}
    if len(found) < len(tests):
        raise ValueError(
            f"test sets must differ in the last two names of their paths, got {', '.join(tests)}"
        )
    return found


def _parts(path: str) -> tuple[str, ...]:
    return pathlib.PurePath(path).parts


def replaced(text: str, folder: pathlib.Path = FOLDER) -> str:
    """README.md with the tables that its marks ask for.

    Raises:
        ValueError: where a mark names what is not kept, or has no end.
    """

    def table(mark: re.Match) -> str:
        name = mark[1]
        path = folder / f"{name}.json"
        if not path.is_file():
            raise ValueError(
                f"README.md asks for {path.name}, which is not there: keep it by {name}=FILE"
            )
        return figures.made(results.read(path))

    return blocks.replaced(text, _MARK, table)


def names(text: str) -> Iterator[str]:
    """Those of the tables that a page asks for."""
    return (mark[1] for mark in re.finditer(_MARK, text))


def _main(arguments: Sequence[str]) -> None:
    for argument in arguments:
        name, found, path = argument.partition("=")
        if not found or not re.fullmatch(r"\w+", name):
            raise ValueError(
                f"NAME=FILE is wanted, NAME of letters, digits and _, got {argument!r}"
            )
        keep(name, pathlib.Path(path))
    README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"{error}")
