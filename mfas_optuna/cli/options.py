"""What the commands have in common: options, the settings they come to, and errors as messages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mfas_optuna.cli import completion
from mfas_optuna.cli.supervisor import is_one_of_several

if TYPE_CHECKING:
    from mfas_optuna.spec import StudySpec
    from mfas_optuna.worker.request import SearchRequest

JSON_VERSION = 1
"""Of what commands print with --json (mfas_optuna.cli.schemas)."""

Study = Annotated[
    str,
    typer.Option(
        "--study",
        "-s",
        help="Study: a name from `mfas-optuna studies`, or a .toml file.",
        autocompletion=completion.studies,
    ),
]
Name = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "--name",
        help="Name in the database \\[default: the study's, with what differs from its file].",
        autocompletion=completion.names,
    ),
]
Storage = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--storage", help="Database URL \\[default: MFAS_STORAGE, the study file's, or mfas.db in MFAS_HOME]."
    ),
]
Weights = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--weights",
        help="Folder or URL of the weights \\[default: MFAS_WEIGHTS, the study file's, or weights/ in MFAS_HOME].",
    ),
]
Sampler = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--sampler", help="mfas, random or tpe.", autocompletion=completion.samplers),
]
Mode = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--mode", help="calibrated or paper (for the mfas sampler).", autocompletion=completion.modes),
]
Seed = Annotated[Optional[int], typer.Option("--seed", min=0, help="Seed of every random choice.")]  # noqa: UP045
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", autocompletion=completion.devices)]
Joint = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--joint",
        help="Networks trained at once at most: a number, or auto: a step's, 1 with tpe \\[default: MFAS_JOINT, auto].",
    ),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--workers", min=1, help="Workers on this machine, each a process \\[default: MFAS_WORKERS, 1]."),
]
Trials = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--trials", min=1, help="Finished trials after which the search ends \\[default: its schedule]."),
]
DataRoot = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--data-root", help="Folder of raw data \\[default: MFAS_DATA]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]


@contextlib.contextmanager
def clear_errors(*, as_json: bool = False) -> Iterator[None]:
    """Turn errors into one clear message and an exit code: 2 for bad input, 1 for a failed run, 130 or 143 stopped.

    Args:
        as_json: Print the error as JSON on standard output too, in place of the result.
    """
    import logging

    from mfas_optuna.errors import BlobError, Interrupted, MfasError

    debug = bool(os.environ.get("MFAS_DEBUG"))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(message)s")
    try:
        yield
    except Interrupted as stop:
        if not is_one_of_several():
            typer.echo("Stopped. The same command goes on from here.", err=True)
        raise typer.Exit(stop.exit_code) from stop
    except KeyboardInterrupt as stop:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from stop
    except MfasError as error:
        if debug:
            raise
        # What refers to a blob, and where a copy may be, is known to no code that reads one.
        hint = f" {_ABOUT_BLOBS}" if isinstance(error, BlobError) else ""
        typer.echo(f"mfas-optuna: {error}{hint}", err=True)
        if as_json:
            _print_error(error, f"{error}{hint}", error.exit_code)
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
        if as_json:
            _print_error(error, str(error), 1)
        raise typer.Exit(1) from error


_ABOUT_BLOBS = "`mfas-optuna fsck` says what refers to it, and with --repair puts back a copy that this machine has."


def _print_error(error: Exception, message: str, exit_code: int) -> None:
    import json

    details = getattr(error, "problems", None) or getattr(error, "differences", None) or ()
    told = {
        "type": type(error).__name__,
        "message": message,
        "details": [str(detail) for detail in details],
        "exit_code": exit_code,
    }
    typer.echo(json.dumps({"version": JSON_VERSION, "error": told}, indent=1))


def specs(
    study: str, sampler: str | None, mode: str | None, seed: int | None, trials: int | None
) -> tuple[str, StudySpec, StudySpec]:
    """Return the study's short name, its file's settings, and those with the command line's."""
    from mfas_optuna.spec import find_study, load_spec

    path = find_study(study)
    in_file = load_spec(path)
    return path.stem, in_file, in_file.with_search(sampler=sampler, mode=mode, seed=seed, n_trials=trials)


def names_of(
    study: str,
    *,
    name: str | None,
    storage: str | None,
    sampler: str | None,
    mode: str | None,
    seed: int | None,
    trials: int | None,
) -> tuple[str, str]:
    """Return the database's URL and the study's name in it, without importing what is heavy."""
    from mfas_optuna import spec as settings

    stem, in_file, resolved = specs(study, sampler, mode, seed, trials)
    url = settings.storage_url(storage, resolved, settings.home_folder())
    return url, settings.check_study_name(name or resolved.default_study_name(stem, in_file))


def worker_arguments(**options: str | int | Path | None) -> list[str]:
    """Return options that were given as a command line's arguments."""
    given = ((f"--{key.replace('_', '-')}", value) for key, value in options.items() if value is not None)
    return [part for option, value in given for part in (option, str(value))]


def request_of(
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
    weights: str | None = None,
) -> SearchRequest:
    from mfas_optuna.worker.request import SearchRequest

    return SearchRequest.of(
        study,
        name=name,
        storage=storage,
        sampler=sampler,
        mode=mode,
        n_trials=trials,
        seed=seed,
        device=device,
        data_root=data_root,
        joint=joint,
        weights=weights,
    )
