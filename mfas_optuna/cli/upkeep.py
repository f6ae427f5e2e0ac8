"""`mfas-optuna fsck` and `gc`: whether what is stored is sound, and what of it nothing refers to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mfas_optuna.cli import completion
from mfas_optuna.cli.options import (
    Json,
    Mode,
    Name,
    Quiet,
    Sampler,
    Seed,
    Storage,
    Study,
    Weights,
    clear_errors,
    request_of,
)

if TYPE_CHECKING:
    from mfas_optuna.worker.upkeep import FsckOutcome, GcOutcome


def fsck(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    weights: Weights = None,
    sampler: Sampler = None,
    mode: Mode = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--trials", min=1, help="Budget that it was searched with \\[default: the study file's]."),
    ] = None,
    seed: Seed = None,
    grace: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--grace", min=0, help="Seconds of silence after which a worker is taken for dead \\[default: its own]."
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put back weights of which this machine has a copy; change nothing else.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check everything that a stored study refers to, and name all problems at once; exit 1 when there are any.

    Records and scores of complete trials, every weight blob, where weights came from, trials left running, the budget,
    the places of the schedule, final trainings, and the features on this machine.
    """
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli.view import make_view
        from mfas_optuna.worker.upkeep import fsck as run_fsck

        request = request_of(
            study,
            name=name,
            storage=storage,
            sampler=sampler,
            mode=mode,
            trials=trials,
            seed=seed,
            weights=weights,
        )
        with make_view(quiet=quiet or as_json) as view:
            outcome = run_fsck(request, view, grace_s=grace, repair=repair)
        _print_fsck(outcome, as_json=as_json)
        if outcome.audit.problems:
            raise typer.Exit(1)


def _print_fsck(outcome: FsckOutcome, *, as_json: bool) -> None:
    from dataclasses import asdict

    from mfas_optuna.cli import output

    found = outcome.audit
    if as_json:
        output.print_json(
            {
                "study": outcome.study_name,
                "store": outcome.store,
                "sound": not found.problems,
                "checked": found.checked,
                "repaired": outcome.repaired,
                "problems": [asdict(problem) for problem in found.problems],
            }
        )
        return
    for problem in found.problems:
        typer.echo(f"{problem.kind}: {problem}")
    if outcome.repaired:
        typer.echo(f"Put back: {len(outcome.repaired)} blobs.")
    checked = found.checked
    features = "features" if checked["features"] else "no features on this machine"
    typer.echo(
        f"{outcome.study_name}: {'sound' if not found.problems else f'{len(found.problems)} problems'}; checked "
        f"{checked['trials']} trials ({checked['complete']} complete), {checked['finals']} final trainings, "
        f"{checked['blobs']} blobs in {outcome.store}, {features}."
    )


def gc(
    storage: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--storage",
            help="Database URL; name every one whose studies keep weights in the store "
            "\\[default: MFAS_STORAGE, the study file's, or mfas.db in MFAS_HOME].",
        ),
    ] = None,
    weights: Weights = None,
    study: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--study",
            "-s",
            help="Study whose file names database and weights; all studies are looked at.",
            autocompletion=completion.studies,
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", min=0, help="Seconds for which what nothing refers to is kept: longer than a training."
        ),
    ] = 86_400.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove weights that no study of the database refers to, and what interrupted work has left; workers may run.

    A store of weights cannot know which databases use it. Where several do, name each of them with --storage: what
    only the studies of another one refer to is removed. The studies that were looked at are printed; try --dry-run.
    """
    with clear_errors(as_json=as_json):
        from mfas_optuna import spec as settings
        from mfas_optuna.worker.upkeep import collect_garbage

        spec = None if study is None else settings.load_spec(settings.find_study(study))
        home = settings.home_folder()
        urls = [settings.storage_url(url, spec, home) for url in storage or [""]]
        where = settings.weights_location(weights, spec)
        _print_gc(collect_garbage(urls, home, where, grace_s=grace, dry_run=dry_run), as_json=as_json)


def _print_gc(outcome: GcOutcome, *, as_json: bool) -> None:
    from mfas_optuna.cli import output

    swept = outcome.swept
    if as_json:
        output.print_json(
            {
                "studies": [{"study": name, "storage": url} for name, url in outcome.studies],
                "store": outcome.store,
                "dry_run": outcome.is_dry_run,
                "n_removed": len(swept.removed),
                "bytes": swept.n_bytes,
                "n_referenced": swept.n_referenced,
                "n_young": swept.n_young,
                "removed": [{"kind": kind, "name": name, "bytes": size} for kind, name, size in swept.removed],
            }
        )
        return
    for name, url in outcome.studies:
        typer.echo(f"Looked at study {name} in {url}")
    for kind, name, size in swept.removed:
        typer.echo(f"{kind}: {name}, {size:,} bytes")
    verb = "Would remove" if outcome.is_dry_run else "Removed"
    typer.echo(
        f"{verb} {len(swept.removed)} files and folders, {swept.n_bytes:,} bytes, from {outcome.store} and the home. "
        f"Kept {swept.n_referenced} blobs that are referred to, and {swept.n_young} files that are too young."
    )
