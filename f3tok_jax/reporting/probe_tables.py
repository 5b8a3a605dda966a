# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a report with the accuracies of probes: a run's own, and those of ablations."""

from collections.abc import Mapping, Sequence

from f3tok_jax.reporting import html
from f3tok_jax.runs import history as run_history
from f3tok_jax.runs import results

_REFERENCES = (results.COMMONEST, "log_mel", "latents")

_Entry = tuple[str, str, tuple[results.Cell | None, ...]]  # row's name, title, cells


def render(
    runs: Sequence[run_history.RunHistory],
    colors: Mapping[str, str],
    named: Mapping[str, results.Table],
) -> str:
    """HTML of every table; "" where there is none.

    Args:
        runs: with the tables in their folders; probes of several runs share a table.
        colors: of the runs.
        named: name -> table that is in no run's folder.
    """
    groups: dict[tuple, list[tuple[str, results.Table]]] = {}
    ablations: dict[str, results.Table] = {}
    tables = [(run.name, file, table) for run in runs for file, table in run.tables.items()]
    for owner, file, table in [*tables, *(("", name, table) for name, table in named.items())]:
        name = f"{owner} {file}".strip()
        if table.arms:
            ablations[name] = table
        else:
            title = html.key(colors[owner], owner) if owner else html.text(name)
            groups.setdefault((table.columns, table.seeds, table.facts), []).append((title, table))
    heard = "".join(_heard(run) for run in runs)
    if not groups and not ablations:
        return heard
    parts = [
        "<p>What simple classifiers read off the features of a sound, pooled over time: the "
        "share of right answers of a linear layer, and below it its standard deviation over seeds "
        "and the share of the ten nearest neighbours. Green marks the best of a column.</p>"
    ]
    parts += [_probes(members) for members in groups.values()]
    parts += [_ablation(name, table) for name, table in ablations.items()]
    return "".join([*parts, heard])


def _heard(run: run_history.RunHistory) -> str:
    """What a run's language model made of sentences."""
    parts = []
    for file, found in run.transcripts.items():
        pairs = [
            [html.text(said), f'<td class="text">{html.text(heard)}</td>']
            for said, heard in found.pairs
        ]
        parts.append(
            f"<h3>Transcripts: {html.text(run.name)} {html.text(file)}</h3>"
            f"<p>Of {found.num_examples:,} sentences, {100 * found.characters:.1f} % of the "
            f"characters and {100 * found.words:.1f} % of the words were wrong.</p>"
            f"{html.table(['said', 'heard'], pairs)}"
        )
    return "".join(parts)


def _probes(members: Sequence[tuple[str, results.Table]]) -> str:
    """One table of the probes of several runs; what is the same of all is shown once."""
    entries: list[_Entry] = []
    names = list(dict.fromkeys(name for _, table in members for name in table.cells))
    for name in names:
        having = [(title, table.cells[name]) for title, table in members if name in table.cells]
        title = html.text(results.TITLES.get(name, name))
        if len(members) > 1 and (
            len({cells for _, cells in having}) > 1 or name not in _REFERENCES
        ):
            entries += [(name, f"{title}<small>{of}</small>", cells) for of, cells in having]
        else:
            entries.append((name, title, having[0][1]))
    return _table(members[0][1], entries)


def _ablation(name: str, table: results.Table) -> str:
    entries = [
        (row, html.text(results.TITLES.get(row, row)), cells) for row, cells in table.cells.items()
    ]
    arms = "".join(
        f"<dt>{html.text(arm)}</dt><dd><code>{html.text(changes)}</code></dd>"
        for arm, changes in table.arms.items()
    )
    return f"<h3>Ablation: {html.text(name)}</h3>{_table(table, entries)}<dl>{arms}</dl>"


def _table(table: results.Table, entries: Sequence[_Entry]) -> str:
    """Rows of features, columns of labels and test sets."""
    latents = next((cells for name, _, cells in entries if name == "latents"), None)
    head, best = [""], []
    for index, column in enumerate(table.columns):
        unseen = f", {column.num_unseen:,} of unseen classes" if column.num_unseen else ""
        head.append(
            f"{html.text(column.label)}<small>{html.text(column.test)}: "
            f"{column.num_examples:,}{unseen}</small>"
        )
        means = [cells[index].mean for *_, cells in entries if cells[index]]
        best.append((min if column.is_error else max)(means, default=None))
    rows = [
        [
            title,
            *(
                _cell(
                    cell,
                    best[index],
                    None if name in _REFERENCES or not latents else latents[index],
                )
                for index, cell in enumerate(cells)
            ),
        ]
        for name, title, cells in entries
    ]
    said = f"Mean and spread over {table.seeds}. {' '.join(table.facts)}"
    return f'{html.table(head, rows)}<p class="soft">{html.text(said)}</p>'


def _cell(cell: results.Cell | None, best: float, latents: results.Cell | None) -> str:
    if cell is None:
        return ""
    small = ""
    if cell.spread is not None:
        small = f"<small>± {cell.spread:.3f}</small>"
    if cell.neighbours is not None:
        small += f"<small>neighbours {cell.neighbours:.3f}</small>"
    if latents is not None:
        small += f"<small>{cell.mean - latents.mean:+.3f} to raw latents</small>"
    kind = ' class="best"' if cell.mean == best else ""
    return f"<td{kind}>{cell.mean:.3f}{small}</td>"
