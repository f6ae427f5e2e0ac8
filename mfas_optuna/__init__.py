"""mfas-optuna: finds the best way to fuse trained networks, as an Optuna study.

Importing this package imports neither torch nor optuna; what needs them does so when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mfas_optuna.space import Architecture, ExtendedSpace, FusionLayer, SearchSpace

if TYPE_CHECKING:
    from mfas_optuna.api import FusionResult, FusionStudy
    from mfas_optuna.export import load_model
    from mfas_optuna.search.sampler import MFASSampler

__all__ = [
    "Architecture",
    "ExtendedSpace",
    "FusionLayer",
    "FusionResult",
    "FusionStudy",
    "MFASSampler",
    "SearchSpace",
    "__version__",
    "load_model",
]

__version__ = "0.1.0"


_WHERE = {
    "FusionResult": "mfas_optuna.api",
    "FusionStudy": "mfas_optuna.api",
    "MFASSampler": "mfas_optuna.search.sampler",
    "load_model": "mfas_optuna.export",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
