"""How all pictures look: legible on white and on black, small as data, and inert whatever names are in them."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

import plotly.graph_objects as go

COLOURS = ("#3a7bd5", "#d2691e", "#2a9060", "#a05fc0", "#c94f4f", "#1b8a98")
"""Of series: each has a contrast of 3 or more to LIGHT and to DARK."""
QUIET = "#80868c"
"""Of what stands behind."""
LIGHT, DARK = "#ffffff", "#16191d"
"""The two backgrounds."""
MAX_POINTS = 1500
"""More points than these are thinned out in a picture."""
LABEL_WIDTH = 24
"""Characters of a label on an axis before it is broken."""

_Item = TypeVar("_Item")


def plain(text: object) -> str:
    """Return a text that plotly shows as it is: no tag, no link, no control character."""
    shown = "".join(character if character.isprintable() else " " for character in str(text))
    return html.escape(shown, quote=False)


def label(text: str, width: int = LABEL_WIDTH, lines: int = 3) -> str:
    """Return a plain label, broken into short lines; what does not fit into `lines` ends in an ellipsis."""
    broken = textwrap.wrap(text, width, max_lines=lines, placeholder=" …") or [""]
    return "<br>".join(plain(line) for line in broken)


def thinned(items: Sequence[_Item], limit: int | None = None) -> Sequence[_Item]:
    """Return at most `limit` of the items, or MAX_POINTS, evenly spaced, the first among them."""
    limit = MAX_POINTS if limit is None else limit
    if len(items) <= limit:
        return items
    return [items[position * len(items) // limit] for position in range(limit)]


def thinning(n_shown: int, n_all: int, rest: str) -> str:
    """Return what to say of thinned points; empty where none was left out."""
    return "" if n_shown == n_all else f"{n_shown:,} of {n_all:,} points are drawn; {rest}."


def figure_of(traces: Sequence[Any], title: str, *, note: str = "", height: int = 380, **layout: Any) -> go.Figure:
    """Return a figure of traces in the common look.

    Args:
        traces: What is drawn.
        title: A few words; not escaped.
        note: What the reader should know of it, shown beneath the title; not escaped.
        height: In pixels; the width follows the reader's.
        layout: Further settings of plotly's layout.
    """
    figure = go.Figure(data=list(traces))
    style(figure, title, note=note, height=height, **layout)
    return figure


def style(figure: go.Figure, title: str, *, note: str = "", height: int = 380, **layout: Any) -> None:
    """Give a figure the common look; arguments as of `figure_of`."""
    lines = textwrap.wrap(note, 72)
    heading: dict[str, Any] = {"text": title, "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "yref": "container"}
    heading["pad"] = {"l": 8, "t": 10}
    if lines:
        heading["subtitle"] = {"text": "<br>".join(lines), "font": {"size": 12}}
    axis = {
        "gridcolor": "rgba(128,134,140,0.25)",
        "zerolinecolor": "rgba(128,134,140,0.45)",
        "linecolor": "rgba(128,134,140,0.6)",
        "automargin": True,
        "title": {"standoff": 8},
    }
    figure.update_layout(
        title=heading,
        height=height,
        template="none",
        colorway=list(COLOURS),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": QUIET},
        margin={"l": 8, "r": 8, "t": 72 + 18 * len(lines), "b": 8},  # Title, note and legend.
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        hoverlabel={"font": {"size": 12}, "align": "left", "namelength": -1},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": COLOURS[0]},
        meta={"title": title, "note": note},
        **layout,
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)


def missing(title: str, why: str) -> go.Figure:
    """Return a figure that says in words what is not there; `layout.meta["missing"]` holds them."""
    figure = go.Figure()
    style(figure, title, height=160)
    figure.update_layout(meta={"title": title, "note": "", "missing": why})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    lines = "<br>".join(plain(line) for line in textwrap.wrap(why, 48))
    figure.add_annotation(text=lines, x=0, y=0.5, xref="paper", yref="paper", showarrow=False, align="left")
    return figure


def number_steps(figure: go.Figure, n_steps: int, row: int | None = None) -> None:
    """Number the steps on the x axis of a figure, or of one row of it, each where there is room for it."""
    column = None if row is None else 1
    figure.update_xaxes(title_text="step", range=[0.4, n_steps + 0.6], row=row, col=column)
    figure.update_xaxes(tick0=1, dtick=max(1, round(n_steps / 12)), row=row, col=column)


def closer(low: float, high: float) -> list[float]:
    """Return a range about two values, with some room."""
    room = 0.08 * (high - low) or 0.01
    return [low - room, high + room]
