"""`mfas-optuna report`: tables and verdict of a study."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mfas_optuna.cli.options import Name, Storage, Study, clear_errors, request_of

if TYPE_CHECKING:
    from mfas_optuna.report import StudyResults

WIDTH_IN_A_FILE = 100
SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    "": "text",
}
"""What a file of this name is, where no format is given."""


class ReportFormat(StrEnum):
    """What a report is written as."""

    TEXT = "text"
    HTML = "html"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


def report(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    form: Annotated[
        Optional[ReportFormat],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option(
            "--format",
            "-f",
            help="html: one page with all pictures; csv: one row for each method, step and seed \\[default: by the "
            "suffix of --output, text without].",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="File to write \\[default: standard output]."),
    ] = None,
    png: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--png", help="Folder to write each figure to as well, as PNG; networks as SVG. Needs Chromium."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Say whether the search was worth it: best networks, methods with intervals, times, readings of the test split.

    Everything comes from the database; neither data nor the test split are read.
    """
    with clear_errors(as_json=as_json):
        from mfas_optuna.report import collect

        if as_json:
            form = _only_json(form)
        form = form or _format_of(output)
        request = request_of(study, name=name, storage=storage)
        arguments = f"--study {shlex.quote(study)}" + ("" if name is None else f" --name {shlex.quote(name)}")
        results = collect(request.storage_url, request.study_name, request.spec, arguments)
        if png is not None:
            from mfas_optuna.report import html, judge

            written = html.save(html.picture(request.storage_url, results, judge(results)), png)
            typer.echo(f"Wrote {len(written)} pictures to {png}.", err=True)
        if output is None:
            _print(results, form, request.storage_url)
        else:
            _write(output, _rendered(results, form, request.storage_url))
            typer.echo(f"Wrote {output}.", err=True)


def _only_json(form: ReportFormat | None) -> ReportFormat:
    """Return JSON, unless another format was asked for too.

    Raises:
        ReportFormatError: One was.
    """
    if form not in (None, ReportFormat.JSON):
        from mfas_optuna.errors import ReportFormatError

        raise ReportFormatError(f"--json: expected no other --format, found {form.value}. Leave one of them out.")
    return ReportFormat.JSON


def _format_of(output: Path | None) -> ReportFormat:
    """Return the format that a file's name asks for; text without a suffix, and on standard output.

    Raises:
        ReportFormatError: The name asks for none.
    """
    if output is None:
        return ReportFormat.TEXT
    known = SUFFIXES.get(output.suffix.lower())
    if known is None:
        from mfas_optuna.errors import ReportFormatError

        raise ReportFormatError(
            f"--output {output}: expected a name that ends in {', '.join(filter(None, SUFFIXES))}, found "
            f"{output.suffix!r}. "
            "Rename it, or name the format with --format."
        )
    return ReportFormat(known)


def _print(results: StudyResults, form: ReportFormat, storage_url: str) -> None:
    if form is not ReportFormat.TEXT:
        sys.stdout.write(_rendered(results, form, storage_url))
        return
    from mfas_optuna.report import document, judge
    from mfas_optuna.report.text import render

    render(document(results, judge(results)))


def _rendered(results: StudyResults, form: ReportFormat, storage_url: str) -> str:
    import io

    from mfas_optuna.report import document, judge, markdown, render_csv, render_json, text

    if form is ReportFormat.CSV:
        return render_csv(results)
    verdict = judge(results)
    if form is ReportFormat.HTML:
        from mfas_optuna.report import html

        return html.render(results, verdict, html.picture(storage_url, results, verdict))
    if form is ReportFormat.JSON:
        return render_json(results, verdict)
    if form is ReportFormat.MARKDOWN:
        return markdown.render(document(results, verdict))
    drawn = io.StringIO()
    text.render(document(results, verdict), width=WIDTH_IN_A_FILE, file=drawn)
    return drawn.getvalue()


def _write(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, whole."""
    from mfas_optuna.errors import HomeError

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HomeError(
            f"--output {path}: it cannot be written: {error.strerror}. Name a file in a folder that can."
        ) from error
