# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Pieces of HTML that every part of a report is made of, and how they look."""

from collections.abc import Iterable, Sequence
import html
from typing import Any

STYLE = """
:root { --ink: #1d2430; --soft: #5a6475; --line: #dfe3ea; --panel: #f6f7f9; --good: #00694d; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 24px 80px; }
h1 { font-size: 1.9rem; margin: 16px 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 1.35rem; margin: 56px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 28px 0 6px; }
p { max-width: 46rem; margin: 6px 0 12px; } .soft { color: var(--soft); }
a { color: #0b5a94; } a:focus-visible, summary:focus-visible { outline: 3px solid #56b4e9; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0;
  margin: 16px 0; }
.scroll { overflow-x: auto; margin: 8px 0 16px; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: right; vertical-align: top; }
tbody tr { border-top: 1px solid var(--line); }
thead th { vertical-align: bottom; font-weight: 600; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 500; }
td small, th small { display: block; color: var(--soft); font-weight: 400; }
td.best { color: var(--good); font-weight: 700; }
td.text { overflow-wrap: anywhere; max-width: 26rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr));
  gap: 20px 28px; }
figure { margin: 0; } figcaption { font-size: 0.92rem; font-weight: 600; margin-bottom: 2px; }
figcaption small { font-weight: 400; color: var(--soft); }
svg { width: 100%; height: auto; display: block; }
svg .grid { stroke: #e4e7ec; } svg .axis { stroke: #8a93a3; }
svg .tick { font: 11px system-ui, sans-serif; fill: #5a6475; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .curve { stroke-width: 1.7; }
.key { display: inline-block; margin-right: 18px; }
.key i { display: inline-block; width: 16px; height: 4px; border-radius: 2px; margin-right: 7px;
  vertical-align: middle; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr));
  gap: 18px 20px;
  margin: 10px 0 26px; }
.sounds img { width: 100%; height: 120px; display: block; border: 1px solid var(--line); }
.sounds audio { width: 100%; height: 34px; margin-top: 4px; }
.note { background: var(--panel); border-left: 4px solid #e69f00; padding: 8px 14px;
  margin: 10px 0; }
details { margin: 8px 0; } summary { cursor: pointer; color: #0b5a94; }
dl { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: 4px 20px;
  margin: 8px 0; }
dt { font-weight: 600; } dd { margin: 0; max-width: 44rem; }
code { font: 0.9em ui-monospace, monospace; }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
"""


def text(value: Any) -> str:
    """Escapes a value for HTML."""
    return html.escape(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells; a cell may bring its own "<td", the first of a row is a head."""
    lines = []
    for first, *cells in rows:
        tagged = [cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells]
        lines.append(f'<tr><th scope="row">{first}</th>{"".join(tagged)}</tr>')
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def figure(caption: str, content: str) -> str:
    """A picture with its caption above; both are HTML."""
    return f"<figure><figcaption>{caption}</figcaption>{content}</figure>"


def key(color: str, name: str) -> str:
    """A name with its colour before it."""
    return f'<span class="key"><i style="background:{color}"></i>{text(name)}</span>'
