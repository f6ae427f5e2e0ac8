"""`mfas-optuna data`: build, check and make up the data of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mfas_optuna.cli import completion
from mfas_optuna.cli.options import DataRoot, Json, Quiet, Study, clear_errors, request_of

app = typer.Typer(help="Build, check or make up the data of a study.", no_args_is_help=True)


@app.command("build")
def build_data(
    study: Annotated[str, typer.Argument(help="The study whose data are built.", autocompletion=completion.studies)],
    data_root: DataRoot = None,
    force: Annotated[bool, typer.Option("--force", help="Build again although they are there.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build a study's data set from its raw files into MFAS_HOME."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view
        from mfas_optuna.worker.data import build_data

        request = request_of(study, name=None, storage=None, data_root=data_root)
        with make_view(quiet=quiet) as view:
            folder = build_data(request, view, force=force)
        if as_json:
            output.print_json({"study": study, "folder": str(folder)})
        else:
            typer.echo(str(folder))


@app.command("check")
def check_data(
    study: Study,
    data_root: DataRoot = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave samples out that cannot be used; the study records which.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read all data of a study once, list everything that is wrong with them, and print their card.

    What was read is kept for the search. Exits with 2 when the data cannot be used as they are.
    """
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view
        from mfas_optuna.worker.data import check_data

        request = request_of(study, name=None, storage=None, data_root=data_root)
        with make_view(quiet=quiet) as view:
            report = check_data(request, view, skip_bad=skip_bad)
        output.print_data_report(study, report, as_json=as_json)
        if report.folder is None:
            raise typer.Exit(2)


@app.command("make")
def make_data(
    data_set: Annotated[
        str,
        typer.Argument(
            help="What the data stand in for: ntu or mmimdb.", autocompletion=completion.words("mmimdb", "ntu")
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples in all splits together.")] = 200,
    classes: Annotated[int, typer.Option("--classes", min=2, help="Classes, or genres.")] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything.")] = 0,
    layout: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option(
            "--layout",
            help="Of mmimdb: raw (JSON and JPEG) or hdf5 \\[default: raw].",
            autocompletion=completion.words("raw", "hdf5"),
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate data in the formats of a data set that cannot be passed on, for trying things out.

    They are marked as generated, in their folder and in whatever is made of them.
    """
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view
        from mfas_optuna.worker.data import make_data

        options = {} if layout is None else {"layout": layout}
        with make_view(quiet=quiet) as view:
            mark = make_data(data_set, folder, view, n_samples=samples, n_classes=classes, seed=seed, options=options)
        if as_json:
            output.print_json({"data_set": data_set, "folder": str(folder), "stand_in": mark})
        else:
            typer.echo(f"{folder}: {mark}")
