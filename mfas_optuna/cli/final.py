"""`mfas-optuna train` and `baselines`: final training of what was found, and of what it is compared with."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mfas_optuna.cli.options import (
    DataRoot,
    Device,
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
from mfas_optuna.target import METRIC_TITLES, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mfas_optuna.worker.final import FinalOutcome, FinalRequest, MethodOutcome
    from mfas_optuna.worker.request import Listener

Top = Annotated[int, typer.Option("--top", min=1, help="How many of a search's best networks are trained.")]
Widths = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option("--width", min=1, help="Rows of every W_l; may be given more than once \\[default: final.widths]."),
]
Parameters = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--parameters",
        min=1,
        help="What each network may learn at most: its width follows from that, in place of --width \\[default: "
        "fusion.n_parameters, if the study has it].",
    ),
]
Methods = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--method", help="What to compare with; may be given more than once \\[default: everything]."),
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Seeds that what validation chose is trained with.")]
Unfrozen = Annotated[
    bool,
    typer.Option(
        "--unfrozen/--no-unfrozen", help="Train what was chosen together with the backbones too, from raw data."
    ),
]
UnfrozenSeeds = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--unfrozen-seeds", min=1, help="How many of the seeds, from 0, for that \\[default: all]."),
]


def train(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    top: Top = 5,
    width: Widths = None,
    parameters: Parameters = None,
    seeds: Seeds = 4,
    unfrozen: Unfrozen = True,
    unfrozen_seeds: UnfrozenSeeds = None,
    sampler: Sampler = None,
    mode: Mode = None,
    seed: Seed = None,
    device: Device = "auto",
    weights: Weights = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a search's best networks to the end, choose one by validation, and score it on the test split.

    What was trained is stored; the same command goes on where it was stopped. On several GPUs:
    `torchrun --nproc-per-node 4 -m mfas_optuna train ...`.
    """
    with clear_errors(as_json=as_json):
        search = request_of(
            study,
            name=name,
            storage=storage,
            sampler=sampler,
            mode=mode,
            seed=seed,
            device=device,
            data_root=data_root,
            weights=weights,
        )
        from mfas_optuna.worker.final import FinalRequest
        from mfas_optuna.worker.final import train as run_train

        n_unfrozen = (unfrozen_seeds or seeds) if unfrozen else 0
        request = FinalRequest(search, top, seeds, _widths(width), n_unfrozen, parameters)
        _run(run_train, request, quiet=quiet, as_json=as_json)


def baselines(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    method: Methods = None,
    top: Top = 5,
    width: Widths = None,
    parameters: Parameters = None,
    seeds: Seeds = 4,
    unfrozen: Unfrozen = True,
    unfrozen_seeds: UnfrozenSeeds = None,
    sampler: Sampler = None,
    mode: Mode = None,
    seed: Seed = None,
    device: Device = "auto",
    weights: Weights = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train what one would do without the search: each modality alone, simple fusion, random search and TPE.

    With the data, recipes and seeds of `train`, which comes first; simple fusion gets as many parameters as its network
    has, or --parameters, the networks of random search and TPE the same number of trials.
    """
    with clear_errors(as_json=as_json):
        search = request_of(
            study,
            name=name,
            storage=storage,
            sampler=sampler,
            mode=mode,
            seed=seed,
            device=device,
            data_root=data_root,
            weights=weights,
        )
        from mfas_optuna.worker.final import FinalRequest
        from mfas_optuna.worker.final import baselines as run_baselines

        n_unfrozen = (unfrozen_seeds or seeds) if unfrozen else 0
        methods = tuple(method) if method else None
        request = FinalRequest(search, top, seeds, _widths(width), n_unfrozen, parameters, methods)
        _run(run_baselines, request, quiet=quiet, as_json=as_json)


def _widths(widths: list[int] | None) -> tuple[int, ...] | None:
    return tuple(widths) if widths else None


def _run(
    work: Callable[[FinalRequest, Listener], FinalOutcome | None], request: FinalRequest, *, quiet: bool, as_json: bool
) -> None:
    from mfas_optuna.cli.view import make_view
    from mfas_optuna.training.processes import is_first

    with make_view(quiet=quiet or not is_first()) as view:
        outcome = work(request, view)
    if outcome is not None:
        _print(request, outcome, as_json=as_json)


def _print(request: FinalRequest, outcome: FinalOutcome, *, as_json: bool) -> None:
    from mfas_optuna.cli import output

    if as_json:
        output.print_json(
            {
                "study": request.search.study_name,
                "metric": request.spec.metric,
                "stand_in": outcome.stand_in,
                "methods": [_as_json(method) for method in outcome.methods],
            }
        )
        return
    console = output.make_console()
    output.print_stand_in(console, outcome.stand_in)
    console.print(methods_table(outcome.methods, request.spec.metric, console), soft_wrap=False)
    console.print(Text(f"The whole comparison: mfas-optuna report --study {request.search.study_name}"), style="dim")


def _as_json(method: MethodOutcome) -> dict[str, Any]:
    choice = method.choice
    return {
        "method": method.method,
        "title": method.title,
        "step": choice.step,
        "head": dict(choice.head),
        "recipe": dict(choice.recipe),
        "n_parameters": next(iter(choice.by_seed.values())).result.n_parameters,
        "validation": {seed: final.result.validation_score for seed, final in sorted(choice.by_seed.items())},
        "test": method.test_scores,
        "trials": {seed: final.number for seed, final in sorted(choice.by_seed.items())},
    }


def methods_table(methods: Sequence[MethodOutcome], metric: Metric, console: Console) -> Table:
    """Return what was trained, with means and deviations over seeds, as a table that fits a console.

    Where there is no room beside a method's name, what was chosen and its size stand below it.
    """
    from mfas_optuna.cli.output import UNLIMITED

    wide = _methods_table(methods, metric, is_narrow=False)
    needed = console.measure(wide, options=console.options.update(width=UNLIMITED)).minimum
    return wide if needed <= console.width else _methods_table(methods, metric, is_narrow=True)


def _methods_table(methods: Sequence[MethodOutcome], metric: Metric, *, is_narrow: bool) -> Table:
    from mfas_optuna.fusion.head import head_label

    title = f"Final training, {METRIC_TITLES[metric]}: mean ± deviation over seeds"
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    titles = [method.title + (", unfrozen" if method.choice.step == "unfrozen" else "") for method in methods]
    labels = [head_label(method.choice.head) for method in methods]
    sizes = [f"{next(iter(method.choice.by_seed.values())).result.n_parameters:,}" for method in methods]
    if is_narrow:
        table.add_column("method, what validation chose, parameters", overflow="fold")
        told = [
            [Text(f"{title}\n  ").append(f"{label}\n  {size}", style="dim")]
            for title, label, size in zip(titles, labels, sizes, strict=True)
        ]
    else:
        table.add_column("method", min_width=max(map(len, titles)))  # Never cut short.
        table.add_column("chosen by validation", min_width=max(map(len, labels)))
        table.add_column("parameters", justify="right", min_width=len("parameters"), no_wrap=True)
        told = [
            [Text(title), Text(label), Text(size)] for title, label, size in zip(titles, labels, sizes, strict=True)
        ]
    for heading in ("validation", "test", "seeds"):
        table.add_column(heading, justify="right", min_width=len(heading), no_wrap=True)
    for method, cells in zip(methods, told, strict=True):
        finals = list(method.choice.by_seed.values())
        validation = _mean([final.result.validation_score for final in finals])
        table.add_row(*cells, validation, _mean(list(method.test_scores.values())), str(len(finals)))
    return table


def _mean(scores: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.4f}{deviation}"
