"""Data cards: what data are, in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.dataset import class_counts
from mfas_optuna.target import Target

_MOST_NAMED = 60
_ROWS_LOOKED_AT = 512


def describe(
    text: str,
    target: Target,
    labels: Mapping[str, npt.NDArray[np.generic]],
    inputs: Mapping[str, Mapping[str, npt.NDArray[np.generic]]],
    *,
    stand_in: str = "",
    skipped: Sequence[str] = (),
) -> str:
    """Return a card: whether the data are real, where they come from, counts of splits and classes, shapes, ranges.

    Args:
        text: Where the data come from and what was done to them.
        target: What is predicted.
        labels: Of each split.
        inputs: Of each split and modality; ranges are those of the first rows.
        stand_in: What generated data stand in for; empty for real data.
        skipped: Names of samples that were left out.
    """
    lines = [f"STAND-IN: {stand_in}."] if stand_in else []
    lines.append(text.rstrip())
    lines.append("samples: " + ", ".join(f"{len(of_split):,} for {split}" for split, of_split in labels.items()) + ".")
    for modality, first in next(iter(inputs.values())).items():
        shown = np.asarray(first[:_ROWS_LOOKED_AT])
        lines.append(
            f"{modality}: {first.dtype} {list(first.shape[1:])}, {shown.min():.4g} to {shown.max():.4g} in the first "
            f"{len(shown)} training samples."
        )
    lines += _target_lines(target, labels)
    if skipped:
        more = f" and {len(skipped) - _MOST_NAMED} more" if len(skipped) > _MOST_NAMED else ""
        lines.append(f"left out, {len(skipped)}: {', '.join(skipped[:_MOST_NAMED])}{more}.")
    return "\n".join(lines) + "\n"


def _target_lines(target: Target, labels: Mapping[str, npt.NDArray[np.generic]]) -> list[str]:
    splits = ", ".join(labels)
    if target.kind == "regression":
        train = labels["train"].astype(np.float64)
        described = (
            f"{name} {mean:.4g} ± {deviation:.4g}"
            for name, mean, deviation in zip(target.names, train.mean(axis=0), train.std(axis=0), strict=True)
        )
        return [f"target: {target.n_outputs} values (training mean ± deviation): {'; '.join(described)}."]
    counts = [class_counts(of_split, target) for of_split in labels.values()]
    what = "classes" if target.kind == "multiclass" else "labels, any number of them a sample"
    described = (
        f"{name} {'/'.join(str(of_split[index]) for of_split in counts)}" for index, name in enumerate(target.names)
    )
    return [f"target: {target.n_outputs} {what} ({splits}): {', '.join(described)}."]
