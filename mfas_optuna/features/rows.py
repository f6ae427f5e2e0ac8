"""Rows of features read piece by piece, their statistics, and whether half precision is enough for them.

Shapes: N rows, F columns, n rows of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.errors import DataError

ROW_RULE = "float16 when finite, below 6e4, and column means and deviations within 1e-3; else float32"
"""The rule of `choose_row_type`, named in what features follow from; changes with it."""
LARGEST_VALUE = 6e4
"""Float16 ends at 65504."""
LARGEST_SHIFT = 1e-3
"""By how much of its deviation the mean and the deviation of a column may change."""

_ROWS_AT_ONCE = 4096
_CONSTANT_BELOW = 1e-7
"""A deviation smaller than this part of the mean is below the resolution of float32: the column is constant."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Rows whose columns may lie in several arrays side by side, memory-mapped perhaps, read a piece at a time.

    Attributes:
        blocks: Arrays (N, F_i) of equal length.
    """

    blocks: Sequence[Floats]

    def __len__(self) -> int:
        return len(self.blocks[0])

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return sum(block.shape[1] for block in self.blocks)

    def pieces(self) -> Iterator[tuple[int, Floats]]:
        """Give the index of the first row of each piece, and the piece, (n, F)."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield start, np.concatenate([block[start : start + _ROWS_AT_ONCE] for block in self.blocks], axis=1)


def column_statistics(rows: Rows, dtype: npt.DTypeLike) -> tuple[Doubles, Doubles]:
    """Return mean and standard deviation of each column, of the rows as they are when stored as `dtype`.

    Computed in float64, in two passes over the rows, with never more than a piece of them in memory.
    """
    n, n_columns = len(rows), rows.n_columns
    sums = np.zeros(n_columns)
    for _, piece in rows.pieces():
        sums += piece.astype(dtype).sum(axis=0, dtype=np.float64)
    mean = sums / n
    squares = np.zeros(n_columns)
    for _, piece in rows.pieces():
        squares += np.square(piece.astype(dtype) - mean).sum(axis=0)
    return mean, np.sqrt(squares / n)


@dataclass(frozen=True)
class RowType:
    """What rows are stored as.

    Attributes:
        dtype: float16 or float32.
        mean: Mean of each training column as stored, (F,).
        std: Standard deviation of each training column as stored, (F,).
        why_not_half: Why it is not float16; empty when it is.
    """

    dtype: np.dtype[Any]
    mean: Doubles
    std: Doubles
    why_not_half: str


def choose_row_type(rows: Mapping[str, Rows], column_name: Callable[[int], str]) -> RowType:
    """Choose float16 where it loses nothing that counts, else float32.

    Float16 is chosen when every value is below `LARGEST_VALUE`, and, for each column of the training split, the mean
    and the deviation of the rounded values are those of the float32 values within `LARGEST_SHIFT` times its deviation.
    (Of a column that is constant in float32, within that part of its value.)

    Args:
        rows: Of each split; "train" among them.
        column_name: What a column is called in messages.

    Raises:
        DataError: A value is NaN or infinite.
    """
    why = ""
    for split, of_split in rows.items():
        why = _too_large(split, of_split, column_name) or why
    mean, std = column_statistics(rows["train"], np.float32)
    if not why:
        half_mean, half_std = column_statistics(rows["train"], np.float16)
        scale = np.where(std > _CONSTANT_BELOW * np.abs(mean), std, np.abs(mean))
        for what, shift in (("mean", np.abs(half_mean - mean)), ("deviation", np.abs(half_std - std))):
            if not why and (shift > LARGEST_SHIFT * scale).any():
                column = int(np.argmax(shift - LARGEST_SHIFT * scale))
                why = (
                    f"as float16 the {what} of {column_name(column)} would change by {shift[column]:.2g}, more than "
                    f"{LARGEST_SHIFT:g} times its deviation of {std[column]:.2g}"
                )
        if not why:
            return RowType(np.dtype(np.float16), half_mean, half_std, "")
    return RowType(np.dtype(np.float32), mean, std, why)


def _too_large(split: str, rows: Rows, column_name: Callable[[int], str]) -> str:
    """Return why the values of a split are too large for float16, or nothing; every value is looked at."""
    why = ""
    for start, piece in rows.pieces():
        largest = np.abs(piece).max(initial=0.0)  # NaN when any is.
        if not np.isfinite(largest):
            row, column = (int(index) for index in np.argwhere(~np.isfinite(piece))[0])
            raise DataError(
                f"Features of split {split!r}: row {start + row}, column {column} ({column_name(column)}) is "
                f"{piece[row, column]}. Look for NaN in the data and in the backbone's weights."
            )
        if largest >= LARGEST_VALUE and not why:
            row, column = (int(index) for index in np.unravel_index(np.abs(piece).argmax(), piece.shape))
            why = (
                f"{column_name(column)} is {piece[row, column]:g} in row {start + row} of {split}, and float16 is used "
                f"below {LARGEST_VALUE:g} only"
            )
    return why
