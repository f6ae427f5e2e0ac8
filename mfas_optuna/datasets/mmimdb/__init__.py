"""MM-IMDB: posters and plots of 25,959 films with their genres, in the files of its authors (Arevalo et al., 2017)."""

from __future__ import annotations

from mfas_optuna.datasets.mmimdb.make import make
from mfas_optuna.datasets.mmimdb.source import find

__all__ = ["find", "make"]
