"""What both layouts share: the genres, and what a look at the files gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.samples import Problem, Sample

GENRES = (
    "Drama",
    "Comedy",
    "Romance",
    "Thriller",
    "Crime",
    "Action",
    "Adventure",
    "Horror",
    "Documentary",
    "Mystery",
    "Sci-Fi",
    "Fantasy",
    "Family",
    "Biography",
    "War",
    "History",
    "Music",
    "Animation",
    "Musical",
    "Western",
    "Sport",
    "Short",
    "Film-Noir",
)
"""The 23 genres in the order of the data set's authors: by number of films, most first."""

LEFT_OUT = ("News", "Adult", "Talk-Show", "Reality-TV")
"""Genres that occur in the raw files and that the authors left out, being too rare."""

SPLITS = {"train": "train", "validation": "dev", "test": "test"}
"""What the files call the splits."""

LEAVE_OUT = "Mend it, or leave the film out with --skip-bad."

Row = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Found:
    """What a look at the files of one layout gives.

    Attributes:
        splits: Samples of "train", "validation" and "test"; labels are tuples of 0 and 1, one for each name.
        names: Of the genres.
        read: Reads a sample.
        facts: What tell these files from others.
        card: Where the data come from and what was done to them.
        problems: What is wrong with them so far; films that it names are not in `splits`.
    """

    splits: Mapping[str, Sequence[Sample]]
    names: tuple[str, ...]
    read: Callable[[Sample], Row]
    facts: Mapping[str, Any]
    card: str
    problems: Sequence[Problem]
