"""A report for a terminal."""

from __future__ import annotations

from typing import IO

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from mfas_optuna.report.tables import Document, Table

MIN_WIDTH = 80
"""Below it, the terminal breaks lines itself, so that no number is cut."""


def render(document: Document, *, width: int | None = None, file: IO[str] | None = None) -> None:
    """Print a report.

    Args:
        document: The report.
        width: Columns; None: the terminal's, 80 where there is none.
        file: Where to; None: standard output.
    """
    console = Console(highlight=False, width=width, file=file)
    if console.width < MIN_WIDTH:
        console = Console(highlight=False, width=MIN_WIDTH, file=file)
    console.print(Text(document.title, style="bold"), soft_wrap=True)
    if document.stand_in:
        console.print(Text(f"STAND-IN: {document.stand_in}.", style="bold yellow"), soft_wrap=True)
    for name, text in document.header:
        console.print(Text(f"{name}: {text}"), soft_wrap=True)
    console.print(Text(f"\nVerdict: {document.verdict}", style="bold"), soft_wrap=True)
    for note in document.notes:
        console.print(Text(note, style="yellow" if note.startswith("Warning") else ""), soft_wrap=True)
    for table in document.tables:
        console.print()
        console.print(_drawn(table))
        for note in table.notes:
            console.print(Text(note, style="dim"), soft_wrap=True)


def _drawn(table: Table) -> rich_table.Table:
    drawn = rich_table.Table(
        title=Text(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False,
        pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True,
    )  # fmt: skip
    for position, (heading, is_number) in enumerate(zip(table.headings, table.numbers, strict=True)):
        cells = [row[position] for row in table.rows]
        widest = max(map(len, cells), default=0)
        longest_word = max(map(len, heading.split()), default=0)
        # Rich takes from the widest columns, whatever their least width is: so those of numbers have a fixed one.
        drawn.add_column(
            Text(heading),
            justify="right" if is_number else "left",
            width=max(widest, longest_word) if is_number else None,
            min_width=max(min(widest, 10), longest_word),
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(Text(_breakable(cell)) for cell in row))
    return drawn


def _breakable(cell: str) -> str:
    """Return a cell that may be broken between the layers of a network."""
    return cell.replace("),(", "), (")
