"""What is stored, looked at from outside: whether it is sound, and what of it nothing refers to."""

from mfas_optuna.audit.fsck import Audit, Problem, audit, silence_s
from mfas_optuna.audit.garbage import Swept, partial_work, references, references_of_home, sweep, sweep_folders

__all__ = [
    "Audit",
    "Problem",
    "Swept",
    "audit",
    "partial_work",
    "references",
    "references_of_home",
    "silence_s",
    "sweep",
    "sweep_folders",
]
