"""What a search tried: scores by step with the temperature (the paper's Figure 5), and against parameters."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import optuna
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mfas_optuna.search.steps import SearchStep
from mfas_optuna.visualization.observed import Observation, Observed, observe
from mfas_optuna.visualization.theme import (
    COLOURS,
    MAX_POINTS,
    QUIET,
    figure_of,
    missing,
    number_steps,
    plain,
    style,
    thinned,
    thinning,
)

JITTER = 0.6
"""Over which part of a step's width its points are spread."""
N_DIRECT_PARETO = 40
"""So many networks of the front are marked; of more, the line alone is drawn."""


def plot_search(study: optuna.Study) -> go.Figure:
    """Show every network by step, mean and standard deviation of each, the best so far and the temperature schedule.

    Source: the paper's Figure 5. Scores of a study of this program are shown as errors, 1 less the score;
    those of another as they are. A study without steps (random search, TPE) is shown by trial.

    Raises:
        PictureError: The study has more than one objective.
    """
    seen = observe(study)
    title = "Error by step" if seen.is_metric else "Score by step"
    if seen.nothing:
        return missing(title, seen.nothing)
    steps = seen.steps
    return _by_step(seen, title, steps) if steps else _by_trial(seen, title.replace("step", "trial"))


def _by_step(seen: Observed, title: str, steps: dict[SearchStep, int]) -> go.Figure:
    by_step: dict[SearchStep, list[Observation]] = {step: [] for step in steps}
    for each in seen.complete:
        if each.step is not None:
            by_step[each.step].append(each)
    places = {
        each.number: steps[step] + JITTER * ((position + 0.5) / len(members) - 0.5)
        for step, members in by_step.items()
        for position, each in enumerate(sorted(members, key=lambda each: each.slot))
    }
    placed = [each for each in seen.complete if each.number in places]
    shown = thinned(placed)
    numbers = list(steps.values())
    means = [statistics.fmean(_error(seen, each.score) for each in members) for members in by_step.values()]
    stds = [
        statistics.stdev(_error(seen, each.score) for each in members) if len(members) > 1 else 0.0
        for members in by_step.values()
    ]
    best: dict[int, float] = {}
    for each, score in zip(seen.complete, seen.running_best(), strict=True):
        if each.step is not None:
            best[steps[each.step]] = _error(seen, score)
    temperatures = {
        steps[each.step]: each.temperature for each in placed if each.step is not None and each.temperature is not None
    }
    points = [
        go.Scatter(
            x=[*numbers, *reversed(numbers)],
            y=[mean + std for mean, std in zip(means, stds, strict=True)]
            + [mean - std for mean, std in reversed(list(zip(means, stds, strict=True)))],
            fill="toself", fillcolor="rgba(58,123,213,0.18)", line={"width": 0}, mode="lines", name="± std",
            hoverinfo="skip",
        ),
        _networks(seen, shown, [places[each.number] for each in shown]),
        go.Scatter(
            x=numbers, y=means, mode="lines+markers", name="mean of step", line={"color": COLOURS[0]},
            marker={"symbol": "star", "size": 11},
            customdata=[
                [step.iteration + 1, step.depth, len(members), std]
                for (step, members), std in zip(by_step.items(), stds, strict=True)
            ],
            hovertemplate="step %{x}: iteration %{customdata[0]}, depth %{customdata[1]}<br>mean %{y:.4f} ± "
            "%{customdata[3]:.4f} of %{customdata[2]} networks<extra></extra>",
        ),
        go.Scatter(
            x=list(best), y=list(best.values()), mode="lines", name="best so far",
            line={"color": COLOURS[1], "shape": "hv", "dash": "dot"},
            hovertemplate="best so far %{y:.4f}<extra></extra>",
        ),
    ]  # fmt: skip
    notes = ["Steps go through the depths, iteration by iteration."]
    notes.append(thinning(len(shown), len(placed), "lines and band are of all"))
    if len(placed) < len(seen.complete):
        notes.append(f"{len(seen.complete) - len(placed):,} trials outside the schedule are left out.")
    note = " ".join(filter(None, notes))
    if not temperatures:
        figure = figure_of(points, title, note=note)
        figure.update_yaxes(title_text=_error_title(seen))
    else:
        figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.08)
        figure.add_traces(points, rows=1, cols=1)
        figure.add_trace(
            go.Scatter(
                x=list(temperatures), y=list(temperatures.values()), mode="lines+markers", name="temperature",
                line={"color": COLOURS[3]}, showlegend=False, hovertemplate="temperature %{y:.4g}<extra></extra>",
            ),
            row=2, col=1,
        )  # fmt: skip
        style(figure, title, note=note, height=520)
        figure.update_yaxes(title_text=_error_title(seen), row=1, col=1)
        figure.update_yaxes(title_text="temperature", rangemode="tozero", row=2, col=1)
    number_steps(figure, len(steps), row=2 if temperatures else None)
    return figure


def _by_trial(seen: Observed, title: str) -> go.Figure:
    shown = thinned(seen.complete)
    best = {each.number: _error(seen, score) for each, score in zip(seen.complete, seen.running_best(), strict=True)}
    changes = [number for number, before in zip(best, [None, *best.values()], strict=False) if best[number] != before]
    ends = [*changes, next(reversed(best))]
    traces = [
        _networks(seen, shown, [each.number for each in shown]),
        go.Scatter(
            x=ends, y=[best[number] for number in ends], mode="lines", name="best so far",
            line={"color": COLOURS[1], "shape": "hv", "dash": "dot"},
            hovertemplate="best so far %{y:.4f}<extra></extra>",
        ),
    ]  # fmt: skip
    notes = ("This search has no steps.", thinning(len(shown), len(seen.complete), "the line is of all"))
    figure = figure_of(traces, title, note=" ".join(filter(None, notes)))
    figure.update_yaxes(title_text=_error_title(seen))
    figure.update_xaxes(title_text="trial")
    return figure


def _networks(seen: Observed, shown: Sequence[Observation], places: Sequence[float]) -> go.Scatter:
    return go.Scatter(
        x=places,
        y=[_error(seen, each.score) for each in shown],
        mode="markers",
        name="network",
        marker={"color": QUIET, "size": 5, "opacity": 0.6},
        customdata=[[each.number, plain(each.architecture), each.score] for each in shown],
        hovertemplate="trial %{customdata[0]}, score %{customdata[2]:.4f}<br>%{customdata[1]}<extra></extra>",
    )


def _error(seen: Observed, score: float) -> float:
    return 1.0 - score if seen.is_metric else score


def _error_title(seen: Observed) -> str:
    return f"1 - {seen.measure}" if seen.is_metric else seen.measure


def plot_parameters(study: optuna.Study) -> go.Figure:
    """Show scores against the parameters of the fusion layers, with the networks that no other beats in both.

    Raises:
        PictureError: The study has more than one objective.
    """
    seen, title = observe(study), "Score against parameters"
    sized = [each for each in seen.best_first() if each.n_parameters is not None]
    if not sized:
        return missing(title, seen.nothing or "No trial of this study records the parameters of its network.")
    front: list[Observation] = []
    for each in sized:  # Best first, so only what is smaller than all before it is on the front.
        if not front or _size(each) < _size(front[-1]):
            front.append(each)
    on_front = {each.number for each in front}
    others = [each for each in sized if each.number not in on_front]
    shown = thinned(others, max(MAX_POINTS - len(front), 1))
    traces = []
    by_depth: dict[int | None, list[Observation]] = {}
    for each in shown:
        by_depth.setdefault(each.parameters.get("depth"), []).append(each)
    for position, depth in enumerate(sorted(by_depth, key=lambda depth: depth or 0)):
        name = "network" if depth is None else f"depth {depth}"
        marker = {"color": COLOURS[position % len(COLOURS)], "size": 6, "opacity": 0.65}
        traces.append(_sized(by_depth[depth], "markers", name, marker=marker))
    symbol = {"size": 9, "symbol": "circle-open", "color": QUIET, "line": {"width": 2}}
    mode = "lines+markers" if len(front) <= N_DIRECT_PARETO else "lines"
    line = {"color": QUIET, "shape": "hv"}
    traces.append(_sized(front[::-1], mode, "Pareto front", marker=symbol, line=line))
    figure = figure_of(
        traces, title, note=thinning(len(shown) + len(front), len(sized), "the front is of all and drawn whole")
    )
    sizes = [_size(each) for each in sized]
    if min(sizes) > 0 and max(sizes) > 30 * min(sizes):
        figure.update_xaxes(type="log", dtick="D2", tickformat="~s")
    figure.update_xaxes(title_text="parameters of the fusion layers")
    figure.update_yaxes(title_text=plain(seen.measure))
    return figure


def _size(each: Observation) -> int:
    return each.n_parameters or 0


def _sized(networks: Sequence[Observation], mode: str, name: str, **look: object) -> go.Scatter:
    return go.Scatter(
        x=[_size(each) for each in networks],
        y=[each.score for each in networks],
        mode=mode,
        name=name,
        customdata=[[each.number, plain(each.architecture)] for each in networks],
        hovertemplate="trial %{customdata[0]}: %{y:.4f}, %{x:,} parameters<br>%{customdata[1]}<extra></extra>",
        **look,
    )
