"""mfas-optuna: finds the best way to fuse trained networks, as an Optuna study.

Importing this package imports neither torch nor optuna; `MFASSampler` does so when it is first used.
"""

from typing import TYPE_CHECKING, Any

from mfas_optuna.space import Architecture, FusionLayer, SearchSpace

if TYPE_CHECKING:
    from mfas_optuna.search.sampler import MFASSampler

__all__ = ["Architecture", "FusionLayer", "MFASSampler", "SearchSpace", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "MFASSampler":
        from mfas_optuna.search.sampler import MFASSampler

        return MFASSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
