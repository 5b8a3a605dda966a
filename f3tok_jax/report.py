# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Writes one HTML page about one run or several side by side, with everything it shows inside it.

    python -m f3tok_jax.report --runs runs/a runs/b --output=report.html
    python -m f3tok_jax.report --runs runs/ablation/full_0 --tables runs/ablation.json ...

Reads config.json, metrics.jsonl, results*.json with their listen/ folder, probe*.json, ablation*.json,
transcripts*.json and samples/ of each run; what probe and ablation wrote elsewhere is named by --tables.
The page loads nothing: charts are SVG, spectrograms PNG and sounds WAV inside the file.

Exit codes: 0 finished, 1 a folder that is not a run; one sentence on stderr says which.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys

from data_pipelines.records import atomic
from f3tok_jax.reporting import page
from f3tok_jax.runs import history
from f3tok_jax.runs import results


def write_report(
    folders: Sequence[str], output: pathlib.Path, *, tables: Sequence[str] = ()
) -> int:
    """Writes the page about runs; returns its bytes.

    Args:
        folders: of the runs.
        output: HTML file to write.
        tables: files that probe or ablation wrote, beside those in the folders.

    Raises:
        ValueError: if a folder is not a run, or a file no table.
    """
    runs = history.read_all(folders)
    inside = {run.folder / name for run in runs for name in run.results}
    paths = [pathlib.Path(path).resolve() for path in tables]
    named = {"/".join(path.parts[-2:]): results.read(path) for path in paths if path not in inside}
    for name, result in named.items():
        if not isinstance(result, results.Probes):
            raise ValueError(f"--tables wants files of probe and ablation, got {name}")
    output.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(output, page.render(runs, named))
    return output.stat().st_size


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.report", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--runs", nargs="+", required=True, metavar="DIR", help="run folders")
    parser.add_argument(
        "--tables", nargs="+", default=[], metavar="FILE", help="JSON files of probe and ablation"
    )
    parser.add_argument("--output", required=True, type=pathlib.Path, help="HTML file to write")
    given = parser.parse_args(arguments)
    try:
        num_bytes = write_report(given.runs, given.output, tables=given.tables)
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(
        f"{given.output}: {len(given.runs)} runs, {num_bytes / 1e6:.1f} MB, open it in any browser"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
