"""Data that are files on disk: what a reader says of its samples, and of what is wrong with them.

A format's module finds its samples (`Source`) without reading them, and gives a function that reads one. Reading all of
them, in parallel and so that it goes on where it stopped, is the same for every format (`building`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mfas_optuna.errors import DataError
from mfas_optuna.target import Target

Layout = Literal["image", "video", "skeleton", "vector", "other"]
"""What the axes of a modality's samples are: image (C, H, W), spectrograms too; video (C, T, H, W); skeleton
(C, T, V, M), coordinates, frames, joints, persons; vector (F); anything else."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data.

    Attributes:
        where: File, and row or line where that is known.
        rule: What was expected and what was found.
        remedy: What to do about it.
        sample: The sample that is concerned, which can be left out; empty when it is not a matter of single samples.
        is_error: Whether the data cannot be used as they are; else it is a warning.
    """

    where: str
    rule: str
    remedy: str
    sample: str = ""
    is_error: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.rule} {self.remedy}"


class SampleError(DataError):
    """A sample cannot be read.

    Attributes:
        problem: What is wrong with it.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))

    def __reduce__(self) -> tuple[type[SampleError], tuple[Problem]]:
        return SampleError, (self.problem,)


@dataclass(frozen=True, slots=True)
class Sample:
    """One pair: what it is called, and where it is read from.

    Attributes:
        name: Unique name, under which it can be left out.
        label: Class number, or row of labels or values.
        at: What the reader needs to find it: paths or rows.
    """

    name: str
    label: Any
    at: Any


@dataclass(frozen=True, slots=True)
class Modality:
    """What the samples of a modality are once they are read.

    Attributes:
        shape: Of one sample, without the batch; channels first.
        dtype: uint8, where a value v means v / 255, or float32.
        layout: What the axes are.
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    layout: Layout


@dataclass(frozen=True)
class Source:
    """The samples of a data set, found but not read.

    Attributes:
        splits: Samples of "train", "validation" and "test", in a fixed order.
        target: What is predicted.
        modalities: By name, in order.
        read: Reads one sample: {modality: array of its shape and dtype}; raises SampleError. It is called from several
            threads at once.
        facts: What tell these files from others (names, sizes, times), as JSON values.
        card: Text on where the data come from and what was done to them, without counts.
        problems: What was found wrong while looking for samples.
        stand_in: What the generated data in the folder stand in for; empty for real data.
        reads_here: Whether `read` must be called from one thread alone.
    """

    splits: Mapping[str, Sequence[Sample]]
    target: Target
    modalities: Mapping[str, Modality]
    read: Callable[[Sample], Mapping[str, npt.NDArray[np.generic]]]
    facts: Mapping[str, Any]
    card: str
    problems: Sequence[Problem] = field(default=())
    stand_in: str = ""
    reads_here: bool = False
