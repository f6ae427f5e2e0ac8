"""Train-time augmentation: training samples translated at random, for backbones and for the features they give.

Shapes: N samples, C channels, A axes of positions (2 for images), V views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mfas_optuna.datasets.dataset import Dataset, Split

Shifts = npt.NDArray[np.int64]


def draw_shifts(n_samples: int, n_axes: int, most: int, seed: Sequence[int]) -> Shifts:
    """Return by how many positions each sample is translated along each axis, (N, A), uniform in [-most, most]."""
    return np.random.default_rng(list(seed)).integers(-most, most + 1, size=(n_samples, n_axes))


def translate(samples: Tensor, shifts_NA: Shifts) -> Tensor:
    """Return samples (N, C, ...) moved along the axes after C; zeros move in.

    Args:
        samples: Any dtype and device.
        shifts_NA: Positions for each sample and axis; none may exceed the axis.
    """
    moved = torch.zeros_like(samples)
    for shift in np.unique(shifts_NA, axis=0):
        rows = torch.from_numpy(np.flatnonzero((shifts_NA == shift).all(axis=1))).to(samples.device)
        sizes = samples.shape[2:]
        to: list[slice] = [slice(max(s, 0), size + min(s, 0)) for s, size in zip(shift.tolist(), sizes, strict=True)]
        of: list[slice] = [slice(max(-s, 0), size + min(-s, 0)) for s, size in zip(shift.tolist(), sizes, strict=True)]
        target: tuple[Tensor | slice, ...] = (rows, slice(None), *to)
        source: tuple[Tensor | slice, ...] = (rows, slice(None), *of)
        moved[target] = samples[source]
    return moved


class TranslatedInputs:
    """A modality's training inputs, each sample translated by its own shift when it is read.

    What a sample becomes depends on its row alone, not on what is read together with it.
    """

    def __init__(self, inputs: npt.NDArray[np.generic], shifts_NA: Shifts) -> None:
        self._inputs = inputs
        self._shifts_NA = shifts_NA
        self.shape = inputs.shape
        self.ndim = inputs.ndim
        self.dtype = inputs.dtype

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, rows: slice) -> npt.NDArray[np.generic]:
        samples = torch.from_numpy(np.array(self._inputs[rows]))
        moved: npt.NDArray[np.generic] = translate(samples, self._shifts_NA[rows]).numpy()
        return moved


def view_name(view: int) -> str:
    """Return the name of the split that holds a view of the training split; view 0 is the split itself."""
    return "train" if view == 0 else f"train.{view}"


def with_views(dataset: Dataset, n_views: int, most: int, seed: int) -> Dataset:
    """Return the data with further views of the training split, each a split of its own.

    Args:
        dataset: The data.
        n_views: Views in all; the first is the training split as it is.
        most: Positions by which samples are translated at most; inputs without positions stay as they are.
        seed: Seed of the translations.
    """
    train = dataset.splits["train"]
    splits = dict(dataset.splits)
    for view in range(1, n_views):
        inputs = {
            modality: TranslatedInputs(
                array, draw_shifts(len(train), max(array.ndim - 2, 0), most, (seed, view, number))
            )
            for number, (modality, array) in enumerate(train.inputs.items())
        }
        splits[view_name(view)] = Split(inputs, train.labels, train.tasks)  # type: ignore[arg-type]  # is sliced, no more
    return replace(dataset, splits=splits)
