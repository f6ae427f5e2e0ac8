"""How results are printed: the machine, tables in Markdown, and each figure beside its target.

Needs no torch, so that a process that only starts others stays small.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

NO_GPU = "GPU: no GPU: not measured"


@dataclass(frozen=True)
class Verdict:
    """A figure beside its target.

    Attributes:
        what: What the figure is.
        value: The figure.
        bound: Its target.
        side: On which side of the target it should lie.
        unit: Unit of both; a ratio has "x".
    """

    what: str
    value: float
    bound: float
    side: Literal["at least", "at most"] = "at least"
    unit: str = "x"

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.bound if self.side == "at least" else self.value <= self.bound

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "does not hold"
        value = f"{self.value:.2f}" if self.value < 100 else f"{self.value:,.0f}"
        return f"{self.what}: {value}{self.unit}, target {self.side} {self.bound:g}{self.unit}: {verdict}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; the first column is for words, the others for figures."""
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = (
        "|"
        + "|".join("-" * (width + 2) if index == 0 else "-" * (width + 1) + ":" for index, width in enumerate(widths))
        + "|"
    )
    return "\n".join([line(headings), rule, *(line(row) for row in rows)])


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Return the machine and the versions in one line; of a GPU only `gpu_name` knows."""
    return (
        f"{_cpu_model()}, {n_cores()} cores, Python {platform.python_version()}, torch {version('torch')}, "
        f"optuna {version('optuna')}"
    )


def gpu_name() -> str | None:
    """Return the name of the GPU, or None where there is none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
