"""NTU RGB+D: RGB videos and Kinect skeletons of actions, in its authors' files; and small ones of the same kind."""

from __future__ import annotations

from mfas_optuna.datasets.ntu.make import make
from mfas_optuna.datasets.ntu.source import find

__all__ = ["find", "make"]
