"""The command line: parses, calls, prints. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mfas_optuna import __version__

if TYPE_CHECKING:
    from mfas_optuna.spec import StudySpec
    from mfas_optuna.worker import SearchRequest

app = typer.Typer(
    name="mfas-optuna",
    help="Finds the best way to fuse trained networks: multimodal fusion architecture search as an Optuna study.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Build the data of a study from its raw files.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Study = Annotated[str, typer.Option("--study", "-s", help="Study: a name from `mfas-optuna studies`, or a .toml file.")]
Name = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option("--name", help="Name in the database [default: the study's, with what differs from its file]."),
]
Storage = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--storage", help="Database URL [default: MFAS_STORAGE, the study file's, or mfas.db in MFAS_HOME]."),
]
Sampler = Annotated[Optional[str], typer.Option("--sampler", help="mfas, random or tpe.")]  # noqa: UP045
Mode = Annotated[Optional[str], typer.Option("--mode", help="calibrated or paper (for the mfas sampler).")]  # noqa: UP045
Seed = Annotated[Optional[int], typer.Option("--seed", min=0, help="Seed of every random choice.")]  # noqa: UP045
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Joint = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--joint",
        help="Networks trained at once at most: a number, or auto: a step's, 1 with tpe [default: MFAS_JOINT, auto].",
    ),
]
DataRoot = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--data-root", help="Folder of raw data [default: MFAS_DATA]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]


def main() -> None:
    """Run the command line."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mfas-optuna {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the library's log.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["MFAS_DEBUG"] = "1"


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn errors into one clear message and an exit code: 2 for bad input, 1 for a failed run, 130 or 143 stopped."""
    import logging

    from mfas_optuna.errors import Interrupted, MfasError

    debug = bool(os.environ.get("MFAS_DEBUG"))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(message)s")
    try:
        yield
    except Interrupted as stop:
        typer.echo("Stopped. The same command goes on from here.", err=True)
        raise typer.Exit(stop.exit_code) from stop
    except KeyboardInterrupt as stop:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from stop
    except MfasError as error:
        if debug:
            raise
        typer.echo(f"mfas-optuna: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        typer.echo(
            f"mfas-optuna: unexpected {type(error).__name__}: {error}\n"
            "This is a fault of the program. `mfas-optuna --debug ...` shows where.",
            err=True,
        )
        raise typer.Exit(1) from error


def _specs(
    study: str, sampler: str | None, mode: str | None, seed: int | None, trials: int | None
) -> tuple[str, StudySpec, StudySpec]:
    """Return the study's short name, its file's settings, and those with the command line's."""
    from mfas_optuna.spec import find_study, load_spec

    path = find_study(study)
    in_file = load_spec(path)
    return path.stem, in_file, in_file.with_search(sampler=sampler, mode=mode, seed=seed, n_trials=trials)


def _request(
    study: str,
    *,
    name: str | None,
    storage: str | None,
    sampler: str | None = None,
    mode: str | None = None,
    trials: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    data_root: Path | None = None,
    joint: str | None = None,
) -> SearchRequest:
    from mfas_optuna import spec as settings
    from mfas_optuna.worker import SearchRequest

    stem, in_file, resolved = _specs(study, sampler, mode, seed, trials)
    home = settings.home_folder()
    return SearchRequest(
        spec=resolved,
        study_name=settings.check_study_name(name or resolved.default_study_name(stem, in_file)),
        home=home,
        storage_url=settings.storage_url(storage, resolved, home),
        data_root=settings.data_root(data_root),
        device=device,
        rebuild_command=f"mfas-optuna prepare --study {study} --force",
        joint=settings.joint(joint),
    )


@app.command()
def search(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    sampler: Sampler = None,
    mode: Mode = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--trials", min=1, help="Finished trials after which the search ends [default: its schedule]."),
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
    joint: Joint = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few trials, print what the search would take, and write nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Search a study, or go on with it where it stopped; print its best networks."""
    with _clear_errors():
        from mfas_optuna import worker
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view

        request = _request(
            study,
            name=name,
            storage=storage,
            sampler=sampler,
            mode=mode,
            trials=trials,
            seed=seed,
            device=device,
            data_root=data_root,
            joint=joint,
        )
        if dry_run:
            output.print_estimate(worker.dry_run(request), as_json=as_json)
            return
        with make_view(quiet=quiet) as view:
            outcome = worker.search(request, view)
        output.print_outcome(request, outcome, as_json=as_json)


@app.command()
def status(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    sampler: Sampler = None,
    mode: Mode = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Print how far a stored study is, its best networks, and why trials failed."""
    with _clear_errors():
        from mfas_optuna import worker
        from mfas_optuna.cli import output

        request = _request(study, name=name, storage=storage, sampler=sampler, mode=mode, seed=seed)
        output.print_status(worker.status(request), as_json=as_json)


@app.command()
def prepare(
    study: Study,
    device: Device = "auto",
    data_root: DataRoot = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make the features again, and whatever else is damaged.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make a study's data, trained backbones and features, or check that they are there and sound."""
    with _clear_errors():
        from mfas_optuna import worker
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view

        request = _request(study, name=None, storage=None, device=device, data_root=data_root)
        with make_view(quiet=quiet) as view:
            prepared = worker.prepare(request, view, force=force)
        output.print_prepared(request.spec, prepared)


@data_app.command("build")
def build_data(
    study: Annotated[str, typer.Argument(help="The study whose data are built.")],
    data_root: DataRoot = None,
    force: Annotated[bool, typer.Option("--force", help="Build again although they are there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Build a study's data set from its raw files into MFAS_HOME."""
    with _clear_errors():
        from mfas_optuna import worker
        from mfas_optuna.cli.view import make_view

        request = _request(study, name=None, storage=None, data_root=data_root)
        with make_view(quiet=quiet) as view:
            folder = worker.build_data(request, view, force=force)
        typer.echo(str(folder))


@app.command()
def studies(as_json: Json = False) -> None:
    """List the studies that `--study` can name."""
    with _clear_errors():
        import json

        from mfas_optuna.spec import load_spec, study_files

        files = study_files()
        if as_json:
            typer.echo(json.dumps({name: str(path) for name, path in files.items()}, indent=1))
            return
        width = max((len(name) for name in files), default=0)
        for name, path in files.items():
            typer.echo(f"{name:<{width}}  {load_spec(path).title}  ({path})")


@app.command()
def show(study: Study, sampler: Sampler = None, mode: Mode = None, seed: Seed = None, as_json: Json = False) -> None:
    """Print a study file resolved: every setting, and the size of its space."""
    with _clear_errors():
        from mfas_optuna.cli import output

        _, _, resolved = _specs(study, sampler, mode, seed, None)
        output.print_spec(study, resolved, as_json=as_json)


@app.command()
def dashboard(
    storage: Storage = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on the loopback interface.")] = 8080,
) -> None:
    """Show the database in optuna-dashboard, on this machine's loopback interface only.

    The dashboard asks for no password and lets anybody who reaches it delete studies; so it is not bound elsewhere.
    """
    with _clear_errors():
        from mfas_optuna import spec as settings
        from mfas_optuna import worker
        from mfas_optuna.storage import masked

        home = settings.home_folder()
        url = settings.storage_url(storage, None, home)
        typer.echo(f"optuna-dashboard for {masked(url)}: http://127.0.0.1:{port}  (Ctrl-C ends it)")
        worker.serve_dashboard(url, port)
