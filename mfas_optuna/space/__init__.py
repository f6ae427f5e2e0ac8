"""The search space of fusion networks: what an architecture is, how many there are, and how each is named.

Pure: it needs neither torch nor optuna.
"""

from mfas_optuna.space.architecture import (
    OPERATOR_NAMES,
    OUTPUT_NAMES,
    Architecture,
    FusionLayer,
    SpaceKind,
    describe_layer,
    read_layer,
)
from mfas_optuna.space.extended import IS_SET, NOTHING, ExtendedSpace
from mfas_optuna.space.paper import ACTIVATION_NAMES, SearchSpace, SupportsSuggest

__all__ = [
    "ACTIVATION_NAMES",
    "IS_SET",
    "NOTHING",
    "OPERATOR_NAMES",
    "OUTPUT_NAMES",
    "Architecture",
    "ExtendedSpace",
    "FusionLayer",
    "SearchSpace",
    "SpaceKind",
    "SupportsSuggest",
    "describe_layer",
    "read_layer",
]
