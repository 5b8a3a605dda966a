# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Writes one HTML page about one run or several side by side, with everything it shows inside it.

    python -m f3tok_jax.report --runs runs/a runs/b --output=report.html
    python -m f3tok_jax.report --runs runs/ablation/full_0 --tables runs/ablation.json ...

Reads config.json, metrics.jsonl, results*.json with their listen/ folder, probe*.json, ablation*.json,
transcripts*.json and samples/ of each run; what probe, ablation and compare wrote elsewhere is named by
--tables.
What was changed or damaged since is named and left out: lines of metrics.jsonl hold a checksum ("sum"),
JSON files a seal, and SHA256SUMS beside sounds, which sha256sum -c reads as well, has theirs.
The page opens with sounds, whose takes (the original, reconstructions, references) are switched
while they play; then come the map that probe left of its features, curves, tables, and
configurations, of runs of one stage what differs. It loads nothing: charts are SVG, spectrograms PNG
and sounds WAV inside the file. It follows the browser from light to dark.

Exit codes: 0 finished, 1 a folder that is not a run, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys

from data_pipelines import command


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.report", __doc__)
    add = parser.add_argument
    add("--runs", nargs="+", required=True, type=command.path, metavar="DIR", help="run folders")
    text = "JSON files of probe, ablation and compare"
    add("--tables", nargs="+", default=[], type=command.path, metavar="FILE", help=text)
    add("--output", required=True, type=command.file, help="HTML file to write")
    return command.run(parser, _report, arguments)


def _report(given: argparse.Namespace) -> None:
    from data_pipelines.records import atomic
    from f3tok_jax.reporting import page
    from f3tok_jax.runs import history
    from f3tok_jax.runs import results

    runs = history.read_all(given.runs)
    inside = {run.folder / name for run in runs for name in run.results}
    paths = [pathlib.Path(path).resolve() for path in given.tables]
    named = {"/".join(path.parts[-2:]): results.read(path) for path in paths if path not in inside}
    for name, result in named.items():
        if not isinstance(result, page.Named):
            raise ValueError(f"--tables wants files of probe, ablation and compare, got {name}")
    atomic.write_text(given.output, page.render(runs, named))
    num_bytes = given.output.stat().st_size
    print(f"{given.output}: {len(runs)} runs, {num_bytes / 1e6:.1f} MB, open it in any browser")


if __name__ == "__main__":
    sys.exit(main())
