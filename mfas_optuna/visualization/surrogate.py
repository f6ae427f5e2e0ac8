"""Whether the surrogate guided the search: predictions, their order, and how sharply it chose."""

from __future__ import annotations

import optuna
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mfas_optuna.search.health import MIN_PAIRS, NEAR_UNIFORM_FRACTION, rank_correlation
from mfas_optuna.search.steps import SearchStep
from mfas_optuna.visualization.observed import Observation, observe
from mfas_optuna.visualization.theme import COLOURS, QUIET, missing, number_steps, plain, style, thinned, thinning


def plot_surrogate(study: optuna.Study) -> go.Figure:
    """Show predicted against measured scores, their rank correlation by step, and among how many each step chose.

    Points and correlations are of networks that nobody had evaluated when they were predicted
    (docs/decisions/0020-surrogate-health.md). A step's choice is given as the part of its candidates that was in effect
    (exp of the entropy of the probabilities): 1 is uniform.

    Raises:
        PictureError: The study has more than one objective.
    """
    seen, title = observe(study), "What the surrogate knew"
    if seen.nothing:
        return missing(title, seen.nothing)
    pairs: dict[SearchStep, list[Observation]] = {}
    known: set[str] = set()
    for each in seen.complete:
        if each.architecture not in known:
            known.add(each.architecture)
            if each.predicted is not None and each.step is not None:
                pairs.setdefault(each.step, []).append(each)
    if not pairs:
        return missing(
            title, "No trial of this study was predicted: its sampler has no surrogate, or it is at depth 1."
        )
    steps = seen.steps
    predicted = [each for members in pairs.values() for each in members]
    shown = thinned(predicted)
    figure = make_subplots(rows=3, cols=1, row_heights=[0.5, 0.25, 0.25], vertical_spacing=0.11)
    ends = [min(each.score for each in predicted), max(each.score for each in predicted)]
    figure.add_trace(
        go.Scatter(
            x=ends, y=ends, mode="lines", name="as predicted", line={"color": QUIET, "dash": "dot"}, hoverinfo="skip"
        ),
        row=1, col=1,
    )  # fmt: skip
    depths = sorted({step.depth for step in pairs})
    for position, depth in enumerate(depths):
        members = [each for each in shown if each.step is not None and each.step.depth == depth]
        figure.add_trace(
            go.Scatter(
                x=[each.predicted for each in members], y=[each.score for each in members], mode="markers",
                name=f"depth {depth}", marker={"size": 6, "opacity": 0.7, "color": COLOURS[position % len(COLOURS)]},
                customdata=[[each.number, plain(each.architecture)] for each in members],
                hovertemplate="trial %{customdata[0]}: predicted %{x:.4f}, measured %{y:.4f}<br>%{customdata[1]}"
                "<extra></extra>",
            ),
            row=1, col=1,
        )  # fmt: skip
    correlations = {
        step: rank_correlation([(each.predicted, each.score) for each in members if each.predicted is not None])
        for step, members in sorted(pairs.items())
    }
    given = {step: value for step, value in correlations.items() if value is not None}
    figure.add_trace(
        go.Bar(
            x=[steps[step] for step in given], y=list(given.values()), marker={"color": COLOURS[0]}, showlegend=False,
            customdata=[[step.iteration + 1, step.depth, len(pairs[step])] for step in given],
            hovertemplate="step %{x}: iteration %{customdata[0]}, depth %{customdata[1]}<br>rank correlation %{y:.2f} "
            "over %{customdata[2]} networks<extra></extra>",
        ),
        row=2, col=1,
    )  # fmt: skip
    chosen = {
        step: plan
        for step, plan in seen.plans.items()
        if step in steps and plan.predicted_std is not None and plan.n_candidates
    }
    figure.add_trace(
        go.Bar(
            x=[steps[step] for step in chosen],
            y=[plan.n_effective / plan.n_candidates for plan in chosen.values()],
            marker={"color": COLOURS[3]}, showlegend=False,
            customdata=[[plan.n_effective, plan.n_candidates, plan.predicted_std] for plan in chosen.values()],
            hovertemplate="step %{x}: %{customdata[0]:.1f} of %{customdata[1]:,} candidates in effect<br>std of "
            "predictions %{customdata[2]:.4f}<extra></extra>",
        ),
        row=3, col=1,
    )  # fmt: skip
    figure.add_hline(y=NEAR_UNIFORM_FRACTION, line={"color": QUIET, "dash": "dot"}, row=3, col=1)
    notes = [
        f"Networks that nobody had tried. Above the dotted line ({NEAR_UNIFORM_FRACTION:g}) a choice is nearly "
        f"uniform; of fewer than {MIN_PAIRS} networks no correlation is given.",
        thinning(len(shown), len(predicted), "correlations are of all"),
    ]
    style(figure, title, note=" ".join(filter(None, notes)), height=780)
    figure.update_xaxes(title_text="predicted", row=1, col=1)
    figure.update_yaxes(title_text=plain(seen.measure), row=1, col=1)
    for row, heading, low in ((2, "rank correlation", -1), (3, "choice in effect", 0)):
        figure.update_yaxes(title_text=heading, range=[low, 1.02], row=row, col=1)
        number_steps(figure, len(steps), row=row)
    return figure
