"""Splits that the data do not bring: made stratified, from a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mfas_optuna.target import Target

_N_BINS = 10

Rows = npt.NDArray[np.int64]


def hold_out(labels: npt.NDArray[np.generic], target: Target, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Divide rows in two, so that each class is in both in the same proportions, as far as whole numbers allow.

    Rows with several labels are grouped by their rarest one, values by tenths of the first one's range of ranks.

    Args:
        labels: Of all rows.
        target: What they are.
        fraction: Part of the rows of each group that is held out; a group of two rows or more has one at least on
            either side.
        seed: Seed of the choice.

    Returns:
        The rows that stay and those that are held out, each in rising order.
    """
    rng = np.random.default_rng(seed)
    groups_N = _groups(labels, target)
    is_held_N = np.zeros(len(labels), dtype=bool)
    for group in np.unique(groups_N):
        rows = rng.permutation(np.flatnonzero(groups_N == group))
        n_held = round(fraction * len(rows))
        if len(rows) > 1:
            n_held = min(max(n_held, 1), len(rows) - 1)
        is_held_N[rows[:n_held]] = True
    return np.flatnonzero(~is_held_N), np.flatnonzero(is_held_N)


def _groups(labels: npt.NDArray[np.generic], target: Target) -> Rows:
    if target.kind == "multiclass":
        return labels.astype(np.int64)
    if target.kind == "regression":
        ranks = np.argsort(np.argsort(labels[:, 0], kind="stable"), kind="stable")
        return np.asarray(ranks * _N_BINS // len(labels), dtype=np.int64)
    has_NC = labels.astype(bool)
    rarity_C = np.argsort(np.argsort(has_NC.sum(axis=0), kind="stable"), kind="stable")
    ranks_NC = np.where(has_NC, rarity_C, labels.shape[1])  # A row without labels is a group of its own.
    return np.asarray(ranks_NC.min(axis=1), dtype=np.int64)
