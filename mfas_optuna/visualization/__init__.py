"""Pictures of any study of ours, as plotly figures or SVG; every function takes the study alone, as Optuna's do.

What a study lacks, its figure says in words (docs/decisions/0037-pictures.md).
"""

from mfas_optuna.visualization.choices import plot_choices
from mfas_optuna.visualization.drawing import draw_head, draw_network
from mfas_optuna.visualization.lineage import plot_lineage
from mfas_optuna.visualization.methods import plot_methods, plot_timings
from mfas_optuna.visualization.search import plot_parameters, plot_search
from mfas_optuna.visualization.surrogate import plot_surrogate

__all__ = [
    "draw_head",
    "draw_network",
    "plot_choices",
    "plot_lineage",
    "plot_methods",
    "plot_parameters",
    "plot_search",
    "plot_surrogate",
    "plot_timings",
]
