"""The command line: parses, calls, prints. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Optional

import typer

from mfas_optuna import __version__
from mfas_optuna.cli import data, doctor, final, own, report, slurm, status, supervisor, upkeep
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
app.command("status")(status.status)
app.command("train")(final.train)
app.command("baselines")(final.baselines)
app.command("report")(report.report)
app.command("export")(exporting.export)
app.command("predict")(exporting.predict)
app.command("fsck")(upkeep.fsck)
app.command("gc")(upkeep.gc)
app.command("doctor")(doctor.doctor)
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
    with clear_errors(as_json=as_json):
        from mfas_optuna import spec as settings

        n_workers = settings.n_workers(workers)
        url, in_database = names_of(
            study, name=name, storage=storage, sampler=sampler, mode=mode, seed=seed, trials=trials
        )
        on_death = supervisor.trials_of_the_dead(url, in_database)
        if n_workers == 1 and not dry_run and not supervisor.is_child():
            raise typer.Exit(supervisor.Supervisor(sys.argv[1:], 1, on_death, _say).wait())

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
            from mfas_optuna.worker.estimate import dry_run as run_dry

            output.print_estimate(run_dry(request), as_json=as_json)
            return
        from mfas_optuna.worker.search import lead
        from mfas_optuna.worker.search import search as run_search

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

            outcome = run_search(request, view) if n_workers == 1 else lead(request, view, work)
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
        from mfas_optuna.worker.search import search as run_search

        outcome = run_search(request, QuietView() if quiet else PlainView())
        if not quiet:
            _say(f"Study {request.study_name}: {outcome.n_finished} trials")


@app.command()
def prepare(
    study: Study,
    device: Device = "auto",
    weights: Weights = None,
    data_root: DataRoot = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make the features again, and whatever else is damaged.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a study's data, trained backbones and features, or check that they are there and sound."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import make_view

        request = request_of(study, name=None, storage=None, device=device, data_root=data_root, weights=weights)
        from mfas_optuna.worker.search import prepare as run_prepare

        with make_view(quiet=quiet) as view:
            prepared = run_prepare(request, view, force=force)
        output.print_prepared(request.spec, prepared, as_json=as_json)


@app.command()
def studies(as_json: Json = False) -> None:
    """List the studies that `--study` can name."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output
        from mfas_optuna.errors import SpecError
        from mfas_optuna.spec import load_spec, study_files

        found: list[tuple[str, str, str]] = []
        for name, path in study_files().items():
            try:
                title = load_spec(path).title
            except SpecError as error:  # The others can be listed nevertheless.
                title = f"cannot be used: {error.problems[0]}"
            found.append((name, title, str(path)))
        output.print_studies(found, as_json=as_json)


@app.command()
def schema(
    command: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
        typer.Argument(help="Command, such as status, data check or error; all of them when left out."),
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json."""
    with clear_errors():
        import difflib
        import json

        from mfas_optuna.cli.schemas import SCHEMAS
        from mfas_optuna.cli.schemas import schema as schema_of
        from mfas_optuna.errors import SpecError

        name = " ".join(command or [])
        if name and name not in SCHEMAS:
            near = difflib.get_close_matches(name, SCHEMAS, n=3, cutoff=0.4) or list(SCHEMAS)
            raise SpecError(
                [f"schema: expected a command that prints JSON, found {name!r}. Did you mean {', '.join(near)}?"]
            )
        typer.echo(json.dumps(schema_of(name) if name else {each: schema_of(each) for each in SCHEMAS}, indent=1))


@app.command()
def show(study: Study, sampler: Sampler = None, mode: Mode = None, seed: Seed = None, as_json: Json = False) -> None:
    """Print a study file resolved: every setting, and the size of its space."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli import output

        _, _, resolved = specs(study, sampler, mode, seed, None)
        output.print_spec(study, resolved, as_json=as_json)


@app.command()
def dashboard(
    storage: Storage = None,
    host: Annotated[str, typer.Option("--host", help="Interface to serve on, by name or address.")] = "127.0.0.1",
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--port", min=1, max=65535, help="Port \\[default: 8080, or the next free one]."),
    ] = None,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let the dashboard's pages rename, annotate and delete studies.")
    ] = False,
    expose: Annotated[
        bool,
        typer.Option(
            "--expose-without-password",
            help="Allow a --host that other machines reach: whoever reaches it reads all studies of the database, with "
            "--allow-writes changes and deletes them; it asks for no password and encrypts nothing.",
        ),
    ] = False,
) -> None:
    """Show the database in optuna-dashboard: read-only, and on this machine's loopback interface.

    The dashboard asks for no password. From another machine, open it through an SSH tunnel; the command is printed.
    """
    with clear_errors():
        from mfas_optuna import spec as settings
        from mfas_optuna.dashboard import Address, serve_dashboard
        from mfas_optuna.prepare import artifacts_folder
        from mfas_optuna.storage import masked

        home = settings.home_folder()
        url = settings.storage_url(storage, None, home)

        def announce(address: Address) -> None:
            kind = "with writes" if allow_writes else "read-only; --allow-writes lets it change studies"
            typer.echo(f"optuna-dashboard for {masked(url)} ({kind})")
            typer.echo(f"  open: {address.url}  (Ctrl-C ends it)")
            if address.is_exposed:
                typer.echo("  Other machines reach it, and it asks for no password.", err=True)
            else:
                typer.echo(f"  from another machine: {address.tunnel}, then the same address there")
            sys.stdout.flush()

        artifacts = artifacts_folder(home)
        serve_dashboard(url, artifacts, announce, host=host, port=port, allow_writes=allow_writes, expose=expose)
