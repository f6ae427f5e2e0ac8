"""What a page shows besides tables, read from the database: figures, drawings, the data card, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.report.data import MethodResult, StudyResults
from mfas_optuna.report.tables import Table, clean, count, score
from mfas_optuna.report.verdict import Verdict
from mfas_optuna.space import describe_layer, read_layer
from mfas_optuna.visualization import (
    draw_head,
    plot_choices,
    plot_lineage,
    plot_methods,
    plot_parameters,
    plot_search,
    plot_surrogate,
    plot_timings,
)
from mfas_optuna.visualization.drawing import draw_parameters
from mfas_optuna.visualization.observed import observe

PLOTS = {
    "methods": plot_methods,
    "search": plot_search,
    "surrogate": plot_surrogate,
    "choices": plot_choices,
    "parameters": plot_parameters,
    "lineage": plot_lineage,
    "timings": plot_timings,
}
"""The figures of a page, by name."""
N_DRAWN = 5
"""Best networks of the search that are drawn."""
N_FAILURES = 10
"""Different failures that are listed."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A network for people.

    Attributes:
        title: Which it is.
        facts: Its figures, in words.
        layers: A line for each fusion layer, where these are said in words too.
        svg: The drawing; empty where its kind has none.
    """

    title: str
    facts: str
    layers: tuple[str, ...]
    svg: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is shown of a study.

    Attributes:
        figures: plotly figures, by name.
        compared: The networks of which the verdict speaks.
        best: The best networks of the search, best first.
        card: The data card.
        failures: Failed trials by reason and message; None where there are none.
    """

    figures: Mapping[str, Any]
    compared: tuple[Drawing, ...]
    best: tuple[Drawing, ...]
    card: str
    failures: Table | None


def picture(storage_url: str, results: StudyResults, verdict: Verdict) -> Pictures:
    """Read from the database what a page shows besides its tables.

    Raises:
        StorageError: The database or the study cannot be found.
    """
    with database.clear_errors(storage_url):
        storage = database.open_storage(storage_url)
        study = database.load_study(storage, results.study_name)
        return picture_study(study, results, verdict)


def picture_study(study: optuna.Study, results: StudyResults, verdict: Verdict) -> Pictures:
    """Return what a page shows of a study besides its tables."""
    columns = observe(study).columns
    return Pictures(
        figures={name: plot(study) for name, plot in PLOTS.items()},
        compared=tuple(_compared(results, verdict, columns)),
        best=tuple(_best(results, columns)),
        card=records.read_card(study),
        failures=_failures(study.get_trials(deepcopy=False, states=(TrialState.FAIL,))),
    )


def _compared(results: StudyResults, verdict: Verdict, columns: Mapping[str, Sequence[str]]) -> Iterable[Drawing]:
    methods: dict[str, MethodResult] = {} if results.ours is None else {results.ours.name: results.ours}
    for comparison in (verdict.searching, verdict.sampler):
        if comparison is not None:
            methods.setdefault(comparison.ours.name, comparison.ours)
            methods.setdefault(comparison.other.name, comparison.other)
    for method in methods.values():
        counted = method.counted
        if counted is not None:
            facts = f"{counted.label}; {count(counted.n_parameters)} parameters besides the backbones"
            drawn = draw_head(counted.head, columns)
            yield Drawing(method.title, facts, tuple(_layers(counted.head)), drawn or "")


def _layers(head: Mapping[str, Any]) -> Iterable[str]:
    for number, layer in enumerate(map(read_layer, head.get("layers", ())), start=1):
        read = [f"{modality} {name}" for modality, names in layer.features.items() for name in names]
        below = [] if number == 1 else [f"fusion {number - 1}"]
        yield f"fusion {number}: {describe_layer([*read, *below], layer.activation, layer.operator)}"
    if head.get("output") == "all":
        yield "The head reads all layers."


def _best(results: StudyResults, columns: Mapping[str, Sequence[str]]) -> Iterable[Drawing]:
    for rank, network in enumerate(results.searches[0].best[:N_DRAWN], start=1):
        facts = f"{network.architecture}; validation {score(network.score)}"
        if network.n_parameters is not None:
            facts += f"; {count(network.n_parameters)} fusion parameters"
        drawn = draw_parameters(network.parameters, columns) or ""
        yield Drawing(f"{rank}. trial {network.number}", facts, (), drawn)


def _failures(trials: Iterable[FrozenTrial]) -> Table | None:
    counted = Counter(
        (
            str(trial.user_attrs.get(records.FAILURE_REASON, "found dead")),
            str(trial.user_attrs.get(records.FAILURE_MESSAGE, "")),
        )
        for trial in trials
    )
    if not counted:
        return None
    rows = tuple((reason, message, count(times)) for (reason, message), times in counted.most_common(N_FAILURES))
    left_out = len(counted) - len(rows)
    notes = (f"{left_out:,} further messages are left out.",) if left_out else ()
    return clean(Table("Failed trials", ("reason", "message", "trials"), (False, False, True), rows, notes))
