"""The comparison as a picture: the true mean of the top five by number of trials, mean and 95 % band."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.table.compare import Comparison
from benchmarks.table.replay import N_TOP

COLOURS = {
    "calibrated": "#c0392b",
    "paper": "#e59866",
    "uniform": "#7f8c8d",
    "random": "#bdc3c7",
    "tpe": "#2471a3",
    "tpe-distinct": "#7fb3d5",
    "gp": "#1e8449",
    "nsga2": "#8e44ad",
}

FROM_TRIAL = 50
"""What a contestant has by then is shown, and what is better; depth 1 alone would take most of the picture."""


def draw(comparison: Comparison, file: Path, *, every: int = 5) -> None:
    """Draw one table's comparison as an SVG file."""
    counts = np.arange(max(N_TOP, every), comparison.n_trials + 1, every)
    with mpl.rc_context({"svg.hashsalt": "mfas", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        lowest, highest = [], []
        for name, traces in comparison.traces.items():
            longest = max(len(trace.networks_T) for trace in traces)
            known = counts[counts <= longest]
            means_RT = 100 * np.array([[trace.top_mean(int(n)) for n in known] for trace in traces])
            mean_T = means_RT.mean(axis=0)
            half_T = 1.96 * means_RT.std(axis=0, ddof=1) / len(traces) ** 0.5
            colour = COLOURS.get(name)  # None: the next of the cycle, for ablations.
            (line,) = axes.plot(known, mean_T, color=colour, label=name, linewidth=2 if name == "calibrated" else 1.2)
            axes.fill_between(known, mean_T - half_T, mean_T + half_T, color=line.get_color(), alpha=0.18, linewidth=0)
            lowest.append(float(np.interp(FROM_TRIAL, known, mean_T)))
            highest.append(float((mean_T + half_T)[known >= min(FROM_TRIAL, known[-1])].max()))
        # Before FROM_TRIAL the bands are wide, and would take the rest of the picture.
        axes.set_ylim(min(lowest), max(highest) + 0.05 * (max(highest) - min(lowest)))
        axes.set_xlim(0, counts[-1])
        axes.set_xlabel("trials")
        axes.set_ylabel(f"true mean score of the top {N_TOP}, %")
        axes.set_title(
            f"{comparison.table.name}: {len(next(iter(comparison.traces.values())))} searches, mean and 95 % band"
        )
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, ncols=2, loc="lower right")  # Where no curve is: they rise.
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", metadata={"Date": None})
