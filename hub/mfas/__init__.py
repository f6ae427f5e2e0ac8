"""Progressive search for multimodal fusion networks (MFAS, Algorithm 1) as an Optuna sampler."""

from mfas_optuna.search.sampler import MFASSampler
from mfas_optuna.space import Architecture, FusionLayer, SearchSpace

__all__ = ["Architecture", "FusionLayer", "MFASSampler", "SearchSpace"]
