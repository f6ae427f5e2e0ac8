"""`mfas-optuna doctor`: whether everything that a search needs is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mfas_optuna.cli import completion
from mfas_optuna.cli.options import DataRoot, Json, Storage, Weights, clear_errors

if TYPE_CHECKING:
    from mfas_optuna.doctor import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    study: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option(
            "--study",
            "-s",
            help="Look at this study's data, backbones and features too.",
            autocompletion=completion.studies,
        ),
    ] = None,
    storage: Storage = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Look at versions, device, home, database, weights and data, and say what to do where something is wrong.

    Nothing is written. Exits with 1 when there is a problem that a search would fail on.
    """
    with clear_errors(as_json=as_json):
        from mfas_optuna.doctor import Subject, examine, examine_packages

        findings = examine_packages()
        is_whole = all(finding.level != "problem" for finding in findings)
        if is_whole:
            from mfas_optuna import spec as settings

            spec = None if study is None else settings.load_spec(settings.find_study(study))
            home = settings.home_folder()
            subject = Subject(
                home=home,
                storage_url=settings.storage_url(storage, spec, home),
                weights=settings.weights_location(weights, spec),
                data_root=settings.data_root(data_root),
                spec=spec,
                study=study or "",
            )
            findings += examine(subject)
        _print(findings, is_whole=is_whole, as_json=as_json)
        if any(finding.level == "problem" for finding in findings):
            raise typer.Exit(1)


def _print(findings: Sequence[Finding], *, is_whole: bool, as_json: bool) -> None:
    from mfas_optuna.cli import output

    counts = {level: sum(finding.level == level for finding in findings) for level in _STYLES}
    if as_json:
        output.print_json(
            {
                "sound": counts["problem"] == 0,
                "complete": is_whole,
                "counts": counts,
                "findings": [asdict(finding) for finding in findings],
            }
        )
        return
    console = output.make_console()
    areas = dict.fromkeys(finding.area for finding in findings)
    width = max(len(finding.name) for finding in findings)
    for area in areas:
        console.print(Text(area, style="bold"))
        for finding in findings:
            if finding.area == area:
                _print_finding(console, finding, width)
    rest = "" if is_whole else " The rest was not looked at, since it needs these packages."
    console.print(
        Text(f"{_count(counts['problem'], 'problem')}, {_count(counts['warning'], 'warning')}.{rest}", style="bold")
    )


def _print_finding(console: Console, finding: Finding, width: int) -> None:
    """Print a line, and the remedy on the next; in a terminal both are folded beside the name."""
    level = Text(f"  {finding.level:<8}", style=_STYLES[finding.level])
    remedy = [Text(finding.remedy, style="" if finding.level == "ok" else "bold")] if finding.remedy else []
    lines = [*map(Text, finding.found.splitlines()), *remedy]
    for row, line in enumerate(lines):
        table = Table.grid(padding=(0, 1), pad_edge=False)
        table.add_column(width=10, no_wrap=True)
        table.add_column(width=width, no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(level if row == 0 else "", finding.name if row == 0 else "", line)
        console.print(table)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
