"""Which features and activations the good networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
import plotly.graph_objects as go

from mfas_optuna.visualization.observed import Observation, observe
from mfas_optuna.visualization.theme import COLOURS, QUIET, figure_of, label, missing, plain

BEST_FRACTION = 0.1
"""The part of all networks that counts as good."""
MIN_BEST = 5
"""But as many, where there are."""
ROW_HEIGHT = 26


def plot_choices(study: optuna.Study) -> go.Figure:
    """Show how many of the best networks use each feature and activation in some layer, beside all networks.

    The best are a tenth of the networks, and five at least. The share in each layer is shown on hovering.

    Raises:
        PictureError: The study has more than one objective.
    """
    seen, title = observe(study), "What the good networks share"
    ranked = seen.best_first()
    if not ranked or not seen.columns:
        return missing(title, seen.nothing or "The trials of this study do not name features of modalities.")
    best = ranked[: max(MIN_BEST, math.ceil(BEST_FRACTION * len(ranked)))]
    groups = {**seen.columns, "activation": seen.activations}
    rows = [(kind, name) for kind, names in groups.items() for name in names]
    kinds = [label(kind, 14) for kind, _ in rows]
    # Plotly merges rows of one label, so a name that is cut needs its number.
    names = [
        label(name, 22, 1) if len(name) <= 22 else f"{label(name[:18], 22, 1)}… {row}"
        for row, (_, name) in enumerate(rows)
    ]
    depth = max(_depth(each) for each in ranked)
    traces = [
        go.Bar(
            y=[kinds, names],
            x=[_share(networks, kind, name) for kind, name in rows],
            orientation="h",
            name=heading,
            marker={"color": colour},
            customdata=[[plain(f"{kind} {name}"), _by_layer(networks, kind, name, depth)] for kind, name in rows],
            hovertemplate="%{customdata[0]}: %{x:.0%}<br>%{customdata[1]}<extra></extra>",
        )
        for heading, networks, colour in (
            (f"best {len(best)}", best, COLOURS[0]),
            (f"all {len(ranked):,}", ranked, QUIET),
        )
    ]
    note = f"Part of the networks that use it in some layer: of the best {len(best)}, and of all {len(ranked):,}."
    figure = figure_of(traces, title, note=note, height=170 + ROW_HEIGHT * len(rows), barmode="group", bargap=0.25)
    figure.update_yaxes(autorange="reversed", dividercolor="rgba(128,134,140,0.6)")
    figure.update_xaxes(tickformat=".0%", range=[0, 1.02])
    return figure


def _depth(network: Observation) -> int:
    depth = network.parameters.get("depth")
    return depth if isinstance(depth, int) else 0


def _uses(network: Observation, kind: str, name: str, layer: int) -> bool:
    return layer <= _depth(network) and network.parameters.get(f"layer{layer}.{kind}") == name


def _share(networks: Sequence[Observation], kind: str, name: str) -> float:
    using = sum(
        any(_uses(network, kind, name, layer) for layer in range(1, _depth(network) + 1)) for network in networks
    )
    return using / len(networks)


def _by_layer(networks: Sequence[Observation], kind: str, name: str, depth: int) -> str:
    """Return the share in each layer, among the networks that have it."""
    shares = []
    for layer in range(1, depth + 1):
        having = [network for network in networks if _depth(network) >= layer]
        if having:
            share = sum(_uses(network, kind, name, layer) for network in having) / len(having)
            shares.append(f"layer {layer}: {share:.0%}")
    return ", ".join(shares)
