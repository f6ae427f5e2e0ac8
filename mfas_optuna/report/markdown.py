"""A report as Markdown, to be pasted into a README or a paper's repository."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mfas_optuna.report.tables import Document, Table

_SPECIAL = re.compile(r"[\\`*_|<>~#&]|\](?=[(\[:])")
"""Characters that Markdown or HTML would read as more than themselves; a bracket only where it could close a link."""


def render(document: Document) -> str:
    """Return a report as Markdown; names of the user's are escaped, so that none of them is markup."""
    lines = [f"# {escaped(document.title)}", ""]
    if document.stand_in:
        lines += [f"**STAND-IN: {escaped(document.stand_in)}.**", ""]
    lines += [f"- {escaped(name)}: {escaped(text)}" for name, text in document.header]
    lines += ["", f"**{escaped(document.verdict)}**", ""]
    lines += [f"- {escaped(note)}" for note in document.notes]
    for table in document.tables:
        lines += ["", f"## {escaped(table.title)}", "", *_drawn(table)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)


def _drawn(table: Table) -> Iterable[str]:
    yield _row(map(escaped, table.headings))
    yield _row("--:" if is_number else "---" for is_number in table.numbers)
    for row in table.rows:
        yield _row(map(escaped, row))
    for note in table.notes:
        yield ""
        yield escaped(note)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
