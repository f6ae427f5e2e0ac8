"""What final training came to, and what all of it took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import timedelta

import optuna
import plotly.graph_objects as go

from mfas_optuna import finals
from mfas_optuna import trials as records
from mfas_optuna.finals import SEARCH_TITLES, Choice, Step
from mfas_optuna.visualization.theme import COLOURS, QUIET, closer, figure_of, label, missing, plain

STEPS: tuple[Step, ...] = ("frozen", "unfrozen")
ROW_HEIGHT = 34
FAR = 5.0
"""Methods further below the best one than this times the spread of the better half would press the others together."""


def plot_methods(study: optuna.Study) -> go.Figure:
    """Show test and validation scores of all methods trained to the end: mean ± standard deviation over seeds.

    Args:
        study: A search, whose final trainings are looked up in the same storage, or the study of final trainings.
    """
    title = "Methods, trained to the end"
    final = finals.of_search(study)
    trainings = [] if final is None else finals.read(final)
    if final is None or not trainings:
        return missing(
            title, "No final training is stored. `mfas-optuna train`, then `mfas-optuna baselines` make some."
        )
    settings = finals.read_settings(final) or {}
    tuning_seeds: list[int] = settings.get("tuning_seeds", [])
    titles = finals.read_titles(final)
    for each in trainings:
        titles.setdefault(each.training.method, each.training.method)
    scored = finals.test_scores(finals.read_ledger(final))
    rows: dict[str, tuple[str, Choice]] = {}
    for name, heading in titles.items():
        for step in STEPS:
            choice = finals.chosen(trainings, name, step, tuning_seeds)
            if choice is not None:
                shown = heading if step == "frozen" else f"{heading}, {step}"
                rows[shown if shown not in rows else f"{shown} ({name})"] = (name, choice)
    if not rows:
        return missing(title, "No method is trained with all seeds by which validation chooses.")
    test = {
        row: {seed: scored[one.number] for seed, one in choice.by_seed.items() if one.number in scored}
        for row, (_, choice) in rows.items()
    }
    validation = {
        row: {seed: one.result.validation_score for seed, one in choice.by_seed.items()}
        for row, (_, choice) in rows.items()
    }
    order = sorted(rows, key=lambda row: statistics.fmean((test[row] or validation[row]).values()))
    searched = {row for row, (name, _) in rows.items() if name in SEARCH_TITLES}
    means = [statistics.fmean((test[row] or validation[row]).values()) for row in order]
    low, n_left = _from(means)
    labels = {row: f"<b>{label(row)}</b>" if row in searched else label(row) for row in order}
    traces = [
        _means(validation, order, labels, "validation", QUIET, "diamond-open"),
        _means(test, order, labels, "test", COLOURS[1], "circle"),
    ]
    note = "Mean ± standard deviation over seeds; results of a search in bold."
    if n_left:
        note += f" Of the {n_left} that are worst by far, the mean alone stands at the left."
    figure = figure_of(
        [trace for trace in traces if len(trace.x)],
        title,
        note=note,
        height=150 + ROW_HEIGHT * len(order),
    )
    figure.update_yaxes(categoryorder="array", categoryarray=[labels[row] for row in order])
    figure.update_xaxes(title_text="score")
    if n_left:
        ends = [trace.x[place] + trace.error_x.array[place] for trace in figure.data for place in range(len(trace.x))]
        ends_shown = closer(low, max(ends))
        figure.update_xaxes(range=ends_shown)
        for row, mean in zip(order[:n_left], means, strict=False):
            figure.add_annotation(
                x=ends_shown[0], y=labels[row], text=f"◂ {mean:.4f}", xanchor="left", showarrow=False, font={"size": 12}
            )
    return figure


def _from(means: Sequence[float]) -> tuple[float, int]:
    """Return from where a picture of means is shown, and how many are left of it: those far below the better half.

    Args:
        means: In rising order.
    """
    half = means[len(means) // 2 :]
    low = half[-1] - FAR * (half[-1] - half[0])
    shown = [mean for mean in means if mean >= low]
    return shown[0], len(means) - len(shown)


def _means(
    scores: Mapping[str, Mapping[int, float]],
    order: list[str],
    labels: Mapping[str, str],
    name: str,
    colour: str,
    symbol: str,
) -> go.Scatter:
    rows = [row for row in order if scores[row]]
    return go.Scatter(
        x=[statistics.fmean(scores[row].values()) for row in rows],
        y=[labels[row] for row in rows],
        error_x={
            "array": [statistics.stdev(scores[row].values()) if len(scores[row]) > 1 else 0.0 for row in rows],
            "color": colour,
            "thickness": 1.5,
        },
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 9},
        customdata=[
            [plain(row), ", ".join(f"seed {seed}: {score:.4f}" for seed, score in sorted(scores[row].items()))]
            for row in rows
        ],
        hovertemplate="%{customdata[0]}<br>" + name + " %{x:.4f}<br>%{customdata[1]}<extra></extra>",
    )


def plot_timings(study: optuna.Study) -> go.Figure:
    """Show how long each stage took: data, backbones, features, the search, and all final trainings by step."""
    title = "Time by stage"
    stages = dict(records.read_timings(study))
    final = finals.of_search(study)
    for each in [] if final is None else finals.read(final):
        stage = f"final training, {each.training.step}"
        stages[stage] = stages.get(stage, 0.0) + each.result.training_s
    if not stages:
        return missing(title, "No time is recorded in this study.")
    seconds = list(stages.values())
    clocks = [str(timedelta(seconds=round(value))) for value in seconds]
    bars = go.Bar(
        x=[value / 60 for value in seconds],
        y=[label(stage) for stage in stages],
        orientation="h",
        text=clocks,
        textposition="auto",
        textangle=0,
        cliponaxis=False,
        marker={"color": COLOURS[2]},
        hovertemplate="%{y}: %{x:.2f} min<extra></extra>",
    )
    note = "As h:mm:ss. What a stage found made already took no time."
    figure = figure_of([bars], title, note=note, height=150 + ROW_HEIGHT * len(stages))
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="minutes", range=[0, max(seconds) / 60 * 1.16 or 1])
    return figure
