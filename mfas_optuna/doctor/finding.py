"""One thing that was looked at, and what an examination is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mfas_optuna.spec import StudySpec

Level = Literal["ok", "warning", "problem"]
Area = Literal["packages", "environment", "machine", "home", "database", "weights", "study"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: What it is part of.
        name: What it is.
        level: Whether it is as it should be; a search fails on a problem, and may do worse for a warning.
        found: What was found.
        remedy: What to do; empty where nothing is to be done.
    """

    area: Area
    name: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined.

    Attributes:
        home: The home folder.
        storage_url: The database.
        weights: Folder or URL of the weights; None: in the home folder.
        data_root: Folder of raw data, or None.
        spec: The study; None: no study in particular.
        study: How the study was named.
    """

    home: Path
    storage_url: str
    weights: str | None = None
    data_root: Path | None = None
    spec: StudySpec | None = None
    study: str = ""
