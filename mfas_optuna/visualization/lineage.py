"""Whose weights the best networks started from."""

from __future__ import annotations

import optuna
import plotly.graph_objects as go

from mfas_optuna.visualization.observed import Observation, Observed, observe
from mfas_optuna.visualization.theme import COLOURS, QUIET, closer, figure_of, missing, number_steps, plain, thinned

MAX_EDGES = 400
"""Of a longer lineage, the nearest part is drawn."""
MAX_BACKGROUND = 500


def plot_lineage(study: optuna.Study, *, n_best: int = 5) -> go.Figure:
    """Show through which trials the weights of the best networks came to them, a line for each layer's.

    A line leads from the trial that published a layer's weights to one that started from them.

    Args:
        study: A search.
        n_best: Of how many of the best networks, 1 or more.

    Raises:
        PictureError: The study has more than one objective.
    """
    seen, title = observe(study), "Lineage of shared weights"
    if seen.nothing:
        return missing(title, seen.nothing)
    if not any(each.weights for each in seen.complete):
        return missing(title, "No trial of this study records weights.")
    best = seen.best_first()[:n_best]
    edges, is_whole = _edges(seen, best)
    if not edges:
        return missing(title, "The best networks started every layer afresh: they share no weights.")
    steps = seen.steps
    places: dict[int, float] = {}
    last = 1
    for each in seen.complete:  # A trial outside the schedule stands with the step before it.
        last = last if each.step is None else steps[each.step]
        places[each.number] = last if len(steps) > 1 else each.number
    behind = thinned(seen.complete, MAX_BACKGROUND)
    traces = [
        go.Scatter(
            x=[places[each.number] for each in behind], y=[each.score for each in behind], mode="markers",
            name="other networks", marker={"color": QUIET, "size": 4, "opacity": 0.35}, hoverinfo="skip",
        )
    ]  # fmt: skip
    for layer in sorted({layer for layer, _, _ in edges}):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for _, source, target in (edge for edge in edges if edge[0] == layer):
            xs += [places[source.number], places[target.number], None]
            ys += [source.score, target.score, None]
        traces.append(
            go.Scatter(
                x=xs, y=ys, mode="lines", name=f"W{layer + 1}", hoverinfo="skip",
                line={"color": COLOURS[layer % len(COLOURS)], "width": 1.4},
            )
        )  # fmt: skip
    chosen = {each.number for each in best}
    ancestors = {each.number: each for _, source, target in edges for each in (source, target)}
    for name, members, marker in (
        ("ancestor", [each for each in ancestors.values() if each.number not in chosen], {"size": 6, "color": QUIET}),
        (f"best {len(best)}", best, {"size": 11, "symbol": "star", "color": COLOURS[1]}),
    ):
        traces.append(
            go.Scatter(
                x=[places[each.number] for each in members], y=[each.score for each in members], mode="markers",
                name=name, marker=marker,
                customdata=[[each.number, plain(each.architecture)] for each in members],
                hovertemplate="trial %{customdata[0]}: %{y:.4f}<br>%{customdata[1]}<extra></extra>",
            )
        )  # fmt: skip
    note = "A line leads from the trial that left a layer's weights to the one that started from them."
    if not is_whole:
        note += f" The nearest {len(edges)} of them are drawn."
    figure = figure_of(traces, title, note=note, height=440)
    if len(steps) > 1:
        number_steps(figure, len(steps))
    else:
        figure.update_xaxes(title_text="trial")
    scores = [each.score for _, source, target in edges for each in (source, target)]
    figure.update_yaxes(title_text=plain(seen.measure), range=closer(min(scores), max(scores)))
    return figure


def _edges(seen: Observed, best: list[Observation]) -> tuple[list[tuple[int, Observation, Observation]], bool]:
    """Return layer, giver and taker of all weights that lead to some networks, the nearest first; and whether all."""
    giver_of: dict[str, tuple[Observation, int]] = {}
    for each in seen.complete:
        for layer, weights in enumerate(each.weights):
            giver_of.setdefault(weights.published, (each, layer))
    edges: list[tuple[int, Observation, Observation]] = []
    waiting = [(each, layer) for each in best for layer in range(len(each.weights))]
    reached = {(each.number, layer) for each, layer in waiting}
    for taker, layer in waiting:  # Grows while it is read: breadth first.
        started = taker.weights[layer].started_from
        if started is None or started not in giver_of:
            continue
        if len(edges) == MAX_EDGES:
            return edges, False
        giver, of_layer = giver_of[started]
        edges.append((layer, giver, taker))
        if (giver.number, of_layer) not in reached:
            reached.add((giver.number, of_layer))
            waiting.append((giver, of_layer))
    return edges, True
