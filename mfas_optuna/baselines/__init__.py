"""Every simple way to fuse, as a head that is trained like any other."""

from mfas_optuna.baselines.architectures import fixed_architectures
from mfas_optuna.baselines.methods import AnyHead, fixed_methods, head_from_record, width_for
from mfas_optuna.baselines.probes import RankedLayer, probe_choices, rank_layers

__all__ = [
    "AnyHead",
    "RankedLayer",
    "fixed_architectures",
    "fixed_methods",
    "head_from_record",
    "probe_choices",
    "rank_layers",
    "width_for",
]
