# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What an ablation found, as text: a line per label, test set and kind of probe, a column per arm."""

from collections.abc import Iterator, Mapping

from f3tok_jax.probing import probe_table
from f3tok_jax.runs import probe_results

_KINDS = {"linear": "linear", "neighbours": "neighbours", "shuffled": "labels shuffled"}


def format_table(results: probe_results.Ablation) -> str:
    """The accuracies and error rates as text."""
    parts = [*_accuracies(results), *_errors(results)]
    titles = list(dict.fromkeys(title for _, cells in parts for title in cells))
    widths = [max(13, len(title)) for title in titles]
    head = f"{'label':10} {'tested on':22} {'probe':24}"
    lines = [head + "".join(f"  {t:>{width}}" for t, width in zip(titles, widths))]
    for (label, where, kind), spreads in parts:
        cells = {title: f"{one.mean:.3f} ± {one.std:.3f}" for title, one in spreads.items()}
        line = f"{label:10} {where:22} {kind:24}"
        line += "".join(f"  {cells.get(t, ''):>{width}}" for t, width in zip(titles, widths))
        lines.append(line)
    over = f"{len(results.seeds)} seeds of the training and {results.num_seeds} of the probe"
    if results.leave_out:
        over = f"each {results.leave_out} that was left out, of their means over {over}"
    lines.append(f"mean ± standard deviation over {over}")
    for label, found in results.labels.items():
        for name, test in found.tests.items():
            lines += probe_table.describe(label, found, name, test)
    return "\n".join(lines)


def _accuracies(
    results: probe_results.Ablation,
) -> Iterator[tuple[tuple[str, str, str], Mapping[str, probe_results.Spread]]]:
    """What is measured, where and how -> title of an arm -> accuracy."""
    for label, found in results.labels.items():
        for name, test in found.tests.items():
            where = f"{test.num_examples} of {name}"
            poolings = dict.fromkeys(probe_results.split_row(row.name)[1] for row in test.rows)
            for pooling in poolings:
                for kind, title in _KINDS.items():
                    cells = {
                        probe_results.title_of(probe_results.split_row(row.name)[0]): getattr(
                            row, kind
                        )
                        for row in test.rows
                        if probe_results.split_row(row.name)[1] == pooling and getattr(row, kind)
                    }
                    if cells:
                        yield (label, where, f"{title} {pooling}".strip()), cells


def _errors(
    results: probe_results.Ablation,
) -> Iterator[tuple[tuple[str, str, str], Mapping[str, probe_results.Spread]]]:
    for name, found in (results.transcripts or {}).items():
        for kind in ("characters", "words"):
            cells = {row.title: getattr(row, kind) for row in found.rows}
            yield ("errors", f"{found.num_examples} of {name}", kind), cells
