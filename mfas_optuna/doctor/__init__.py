"""Whether everything that a search needs is there on this machine; nothing is written.

What is wrong with the packages is said without importing them all: a broken one must not keep the rest from being told.
"""

from __future__ import annotations

from mfas_optuna.doctor import environment, packages
from mfas_optuna.doctor.finding import Finding, Level, Subject

__all__ = ["Finding", "Level", "Subject", "examine", "examine_packages"]


def examine_packages() -> list[Finding]:
    """Return what there is to say of Python, this program and the packages that it cannot do without."""
    return packages.required()


def examine(subject: Subject) -> list[Finding]:
    """Return what there is to say of everything but the packages that `examine_packages` looks at.

    Call it only when those have no problem.
    """
    # These import torch, SQLAlchemy and Optuna, which may be what is broken.
    from mfas_optuna.doctor import database, machine, study

    return [
        *packages.extras(subject),
        *environment.variables(),
        *machine.computing(),
        *machine.home(subject.home),
        *database.standing(subject.storage_url),
        *study.weights(subject.home, subject.weights),
        *study.inputs(subject),
    ]
