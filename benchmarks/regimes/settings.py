"""Everything that is fixed for all cells: sizes, the study file, how it is searched, and what it is compared with.

Nothing here depends on the regime or on the number of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from benchmarks.regimes.makers import N_CLASSES, REGIMES, Regime
from mfas_optuna.space import SpaceKind

SIZES = (500, 2_000, 20_000)
"""Training pairs of the cells of each regime but `three`."""
SIZE_OF_THREE = 2_000
N_VALIDATION, N_TEST = 2_000, 5_000
"""Pairs of every cell, from the validation and test split of its pool."""
N_DRAWS = 5
FIRST_DRAW = 1
"""Draw 0 was looked at while settings were chosen."""
N_PARAMETERS = 5_000
"""What any network may learn at most: during the search, and in the final comparison."""
N_FINALISTS = 5
"""Networks of a search among which validation chooses."""
N_SEEDS = 2
"""Seeds that what validation chose is trained with; its test score is the mean over them."""
SEARCHED = "mfas"
FIXED = ("concat_all", "concat_all_2", "towers_auxiliary", "hadamard", "towers_probed")
"""The five fixed methods."""

SPACES: tuple[SpaceKind, ...] = get_args(SpaceKind)
SPACE_SETTINGS: Mapping[SpaceKind, str] = {
    "extended": f"""\
[space]
kind = "extended"
activations = ["relu", "tanh", "identity"]
max_depth = 3

[fusion]
n_parameters = {N_PARAMETERS}
""",
    "paper": """\
[space]
activations = ["relu", "tanh", "identity"]
max_depth = 3

[fusion]
width = 16
""",
}
TRAINING_SETTINGS = """\
[training]
epochs = 4
min_steps = 320
batch_size = 256
weight_decay = 1e-2

[final]
epochs = 20
min_steps = 1600
patience = 6
batch_size = 128
recipes = [
  { learning_rate = 3e-3, weight_decay = 1e-2 },
  { learning_rate = 3e-3, weight_decay = 1e-1, dropout = 0.3 },
  { learning_rate = 1e-2, weight_decay = 1e-2, dropout = 0.1 },
]
"""
"""How networks are trained: short enough that all draws take an hour or two on two cores. Settled on draw 0 of three
cells with their test scores in view; the draws that count begin with 1."""


@dataclass(frozen=True)
class Cell:
    """A regime with a number of pairs.

    Attributes:
        regime: Which.
        n_train: Training pairs.
    """

    regime: Regime
    n_train: int

    @property
    def name(self) -> str:
        """What it is called in files and tables."""
        return f"{self.regime}-{self.n_train}"


@dataclass(frozen=True)
class Plan:
    """What is done with every cell.

    Attributes:
        space: What is searched.
        methods: The fixed methods.
        n_trials: Of a search.
        n_validation: Pairs.
        n_test: Pairs.
        n_parameters: What a network may learn at most.
        n_finalists: Networks of a search among which validation chooses.
        n_seeds: Seeds of what was chosen.
        training: How networks are trained, as TOML.
    """

    space: SpaceKind = "extended"
    methods: tuple[str, ...] = FIXED
    n_trials: int = 120
    n_validation: int = N_VALIDATION
    n_test: int = N_TEST
    n_parameters: int = N_PARAMETERS
    n_finalists: int = N_FINALISTS
    n_seeds: int = N_SEEDS
    training: str = TRAINING_SETTINGS


def cells(regimes: Sequence[Regime] = REGIMES, sizes: Sequence[int] | None = None) -> list[Cell]:
    """Return the cells of some regimes.

    Args:
        regimes: Which.
        sizes: Training pairs; None: those that each regime has.
    """
    own: dict[Regime, Sequence[int]] = {regime: SIZES if regime != "three" else (SIZE_OF_THREE,) for regime in regimes}
    return [Cell(regime, size) for regime in regimes for size in (own[regime] if sizes is None else sizes)]


def study_text(cell: Cell, draw: int, layers: Mapping[str, Sequence[str]], plan: Plan) -> str:
    """Return the study file of a draw.

    Args:
        cell: Which.
        draw: Its number, also the seed of the search.
        layers: Names of the layers, by modality.
        plan: What is done with it.
    """
    classes = ", ".join(f'"{label}"' for label in range(N_CLASSES))
    backbones = "\n".join(
        f'[backbones.{modality}]\nkind = "given"\nfeatures = [{", ".join(f"{name!r}" for name in names)}]\n'
        for modality, names in layers.items()
    )
    return f"""\
title = "{cell.regime}, {cell.n_train} pairs, draw {draw}"

[dataset]
name = "arrays"
folder = "data"
target = "multiclass"
classes = [{classes}]

{backbones}
{SPACE_SETTINGS[plan.space]}
[search]
n_iterations = "unlimited"
samples_per_step = 12
n_trials = {plan.n_trials}
seed = {draw}

{plan.training}"""
