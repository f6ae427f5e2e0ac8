"""The command line: parses, calls, prints. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from mfas_optuna import __version__
from mfas_optuna.cli import data, final, own, report, slurm, supervisor, upkeep
from mfas_optuna.cli import export as exporting
from mfas_optuna.cli.options import (
    DataRoot,
    Device,
    Joint,
    Json,
    Mode,
    Name,
    Quiet,
    Sampler,
    Seed,
    Storage,
    Study,
    Trials,
    Weights,
    Workers,
    clear_errors,
    names_of,
    request_of,
    specs,
    worker_arguments,
)

app = typer.Typer(
    name="mfas-optuna",
    help="Finds the best way to fuse trained networks: multimodal fusion architecture search as an Optuna study.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.command("init")(own.init)
app.command("taps")(own.taps)
app.command("train")(final.train)
app.command("baselines")(final.baselines)
app.command("report")(report.report)
app.command("export")(exporting.export)
app.command("predict")(exporting.predict)
app.command("fsck")(upkeep.fsck)
app.command("gc")(upkeep.gc)
app.command("slurm")(slurm.slurm)


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


@app.command()
def search(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    sampler: Sampler = None,
    mode: Mode = None,
    trials: Trials = None,
    seed: Seed = None,
    device: Device = "auto",
    joint: Joint = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    workers: Workers = None,
    as_json: Json = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few trials, print what the search would take, and write nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Search a study, or go on with it where it stopped; print its best networks.

    The same command in several terminals, or on several machines with one PostgreSQL, shares the work.
    """
    with clear_errors():
        from mfas_optuna import spec as settings

        n_workers = settings.n_workers(workers)
        url, in_database = names_of(
            study, name=name, storage=storage, sampler=sampler, mode=mode, seed=seed, trials=trials
        )
        on_death = supervisor.trials_of_the_dead(url, in_database)
        if n_workers == 1 and not dry_run and not supervisor.is_child():
            raise typer.Exit(supervisor.Supervisor(sys.argv[1:], 1, on_death, _say).wait())

        from mfas_optuna import worker
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view
        from mfas_optuna.errors import Interrupted

        request = request_of(
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
            weights=weights,
        )
        if dry_run:
            output.print_estimate(worker.dry_run(request), as_json=as_json)
            return
        with make_view(quiet=quiet) as view:

            def work(look: Callable[[], None]) -> None:
                same = worker_arguments(
                    study=study, name=name, storage=storage, sampler=sampler, mode=mode, trials=trials, seed=seed,
                    device=device, joint=joint, weights=weights, data_root=data_root,
                )  # fmt: skip
                team = supervisor.Supervisor(["worker", "--quiet", *same], n_workers, on_death, view.say)
                code = team.wait(meanwhile=look)
                if team.stopped_by is not None:
                    raise Interrupted(team.stopped_by)
                if code:
                    raise typer.Exit(code)

            outcome = worker.search(request, view) if n_workers == 1 else worker.lead(request, view, work)
        output.print_outcome(request, outcome, as_json=as_json)
        if not (as_json or quiet):
            typer.echo(f"Next: mfas-optuna train --study {study}, then baselines and report.", err=True)


def _say(text: str) -> None:
    typer.echo(text, err=True)


@app.command("worker")
def work(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    sampler: Sampler = None,
    mode: Mode = None,
    trials: Trials = None,
    seed: Seed = None,
    device: Device = "auto",
    joint: Joint = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    quiet: Quiet = False,
) -> None:
    """Join a study's search as one worker, for schedulers: plain lines on standard error, no result."""
    with clear_errors():
        url, in_database = names_of(
            study, name=name, storage=storage, sampler=sampler, mode=mode, seed=seed, trials=trials
        )
        if not supervisor.is_child():
            on_death = supervisor.trials_of_the_dead(url, in_database)
            raise typer.Exit(supervisor.Supervisor(sys.argv[1:], 1, on_death, _say).wait())

        from mfas_optuna import worker
        from mfas_optuna.cli.view import PlainView, QuietView

        request = request_of(
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
            weights=weights,
        )
        outcome = worker.search(request, QuietView() if quiet else PlainView())
        if not quiet:
            _say(f"Study {request.study_name}: {outcome.n_finished} trials")


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
    with clear_errors():
        from mfas_optuna import worker
        from mfas_optuna.cli import output

        request = request_of(study, name=name, storage=storage, sampler=sampler, mode=mode, seed=seed)
        output.print_status(worker.status(request), as_json=as_json)


@app.command()
def prepare(
    study: Study,
    device: Device = "auto",
    weights: Weights = None,
    data_root: DataRoot = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make the features again, and whatever else is damaged.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make a study's data, trained backbones and features, or check that they are there and sound."""
    with clear_errors():
        from mfas_optuna import worker
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view

        request = request_of(study, name=None, storage=None, device=device, data_root=data_root, weights=weights)
        with make_view(quiet=quiet) as view:
            prepared = worker.prepare(request, view, force=force)
        output.print_prepared(request.spec, prepared)


@app.command()
def studies(as_json: Json = False) -> None:
    """List the studies that `--study` can name."""
    with clear_errors():
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
    with clear_errors():
        from mfas_optuna.cli import output

        _, _, resolved = specs(study, sampler, mode, seed, None)
        output.print_spec(study, resolved, as_json=as_json)


@app.command()
def dashboard(
    storage: Storage = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on the loopback interface.")] = 8080,
) -> None:
    """Show the database in optuna-dashboard, on this machine's loopback interface only.

    The dashboard asks for no password and lets anybody who reaches it delete studies; so it is not bound elsewhere.
    """
    with clear_errors():
        from mfas_optuna import spec as settings
        from mfas_optuna import worker
        from mfas_optuna.storage import masked

        home = settings.home_folder()
        url = settings.storage_url(storage, None, home)
        typer.echo(f"optuna-dashboard for {masked(url)}: http://127.0.0.1:{port}  (Ctrl-C ends it)")
        worker.serve_dashboard(url, port)
