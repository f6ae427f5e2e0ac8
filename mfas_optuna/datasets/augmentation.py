"""Train-time augmentation: training samples changed at random, for backbones and for the features they give.

| layout | shift | flip | rotate |
|---|---|---|---|
| image (C, H, W) | along H and W | along W | |
| video (C, T, H, W) | along H and W, all frames alike | along W, all frames | |
| skeleton (C, T, V, M) | | | about the vertical axis, all frames and persons alike |
| vector, other | | | |

What a sample becomes depends on its row, the epoch or view, and the seed; not on what is read together with it.

Shapes: N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import EllipsisType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mfas_optuna.datasets.dataset import Dataset, Split
from mfas_optuna.datasets.samples import Layout
from mfas_optuna.errors import DataError
from mfas_optuna.spec import AugmentationSettings


@dataclass(frozen=True)
class Changes:
    """How each of N samples is changed; None: not in this way.

    Attributes:
        shifts_N2: Positions along the last two axes.
        flips_N: Whether it is mirrored along the last axis.
        angles_N: Radians about the y axis, from z to x.
    """

    shifts_N2: npt.NDArray[np.int64] | None = None
    flips_N: npt.NDArray[np.bool_] | None = None
    angles_N: npt.NDArray[np.float64] | None = None

    @staticmethod
    def draw(n_samples: int, layout: Layout, settings: AugmentationSettings, seed: Sequence[int]) -> Changes | None:
        """Return changes that suit a layout, all uniform; None where the settings change nothing of it."""
        rng = np.random.default_rng(list(seed))
        shifts_N2 = flips_N = angles_N = None
        if layout in ("image", "video"):
            if settings.shift:
                shifts_N2 = rng.integers(-settings.shift, settings.shift + 1, size=(n_samples, 2))
            if settings.flip:
                flips_N = rng.random(n_samples) < 0.5
        elif layout == "skeleton" and settings.rotate:
            angles_N = np.deg2rad(rng.uniform(-settings.rotate, settings.rotate, n_samples))
        if shifts_N2 is None and flips_N is None and angles_N is None:
            return None
        return Changes(shifts_N2, flips_N, angles_N)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Changes:
        """Return the changes of some samples."""
        return Changes(
            None if self.shifts_N2 is None else self.shifts_N2[rows],
            None if self.flips_N is None else self.flips_N[rows],
            None if self.angles_N is None else self.angles_N[rows],
        )

    def apply(self, samples: Tensor) -> Tensor:
        """Return the samples (N, C, ...), of any dtype and on any device, changed; those given may be written to.

        Raises:
            DataError: Skeletons without three coordinates cannot be turned, nor images moved off altogether.
        """
        if self.shifts_N2 is not None:
            samples = _translate(samples, self.shifts_N2)
        if self.flips_N is not None:
            rows = torch.from_numpy(np.flatnonzero(self.flips_N)).to(samples.device)
            samples[rows] = samples[rows].flip(-1)
        if self.angles_N is not None:
            samples = _turn(samples, self.angles_N)
        return samples


def _translate(samples: Tensor, shifts_N2: npt.NDArray[np.int64]) -> Tensor:
    """Return samples moved along the last two axes; zeros move in."""
    sizes = samples.shape[-2:]
    most = int(np.abs(shifts_N2).max(initial=0))
    if most > min(sizes):
        raise DataError(f"augmentation.shift: samples are {list(sizes)}, a shift of {most} leaves nothing. Lower it.")
    moved = torch.zeros_like(samples)
    for shift in np.unique(shifts_N2, axis=0):
        rows = torch.from_numpy(np.flatnonzero((shifts_N2 == shift).all(axis=1))).to(samples.device)
        to: list[slice] = [slice(max(s, 0), size + min(s, 0)) for s, size in zip(shift.tolist(), sizes, strict=True)]
        of: list[slice] = [slice(max(-s, 0), size + min(-s, 0)) for s, size in zip(shift.tolist(), sizes, strict=True)]
        target: tuple[Tensor | slice | EllipsisType, ...] = (rows, ..., *to)
        source: tuple[Tensor | slice | EllipsisType, ...] = (rows, ..., *of)
        moved[target] = samples[source]
    return moved


def _turn(samples: Tensor, angles_N: npt.NDArray[np.float64]) -> Tensor:
    """Return skeletons turned about the y axis; their first three channels are x, y and z."""
    if samples.shape[1] < 3 or not samples.is_floating_point():
        raise DataError(
            "augmentation.rotate: expected skeletons of float32 with the coordinates x, y, z, found "
            f"{str(samples.dtype).removeprefix('torch.')} with {samples.shape[1]}. Leave out rotate."
        )
    angles = torch.from_numpy(angles_N).to(samples).view(-1, *[1] * (samples.ndim - 2))
    cos, sin = angles.cos(), angles.sin()
    turned = samples.clone()
    turned[:, 0] = cos * samples[:, 0] + sin * samples[:, 2]
    turned[:, 2] = cos * samples[:, 2] - sin * samples[:, 0]
    return turned


class ChangedInputs:
    """A modality's training inputs, each sample changed in its own way when it is read."""

    def __init__(self, inputs: npt.NDArray[np.generic], changes: Changes) -> None:
        self._inputs = inputs
        self._changes = changes
        self.shape = inputs.shape
        self.ndim = inputs.ndim
        self.dtype = inputs.dtype

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, rows: slice) -> npt.NDArray[np.generic]:
        changed: npt.NDArray[np.generic] = (
            self._changes[rows].apply(torch.from_numpy(np.array(self._inputs[rows]))).numpy()
        )
        return changed


def layout_of(dataset: Dataset, modality: str) -> Layout:
    """Return what the axes of a modality are; where nothing is said, arrays of 4 axes are images."""
    is_image = dataset.splits["train"].inputs[modality].ndim == 4
    return dataset.layouts.get(modality, "image" if is_image else "other")


def view_name(view: int) -> str:
    """Return the name of the split that holds a view of the training split; view 0 is the split itself."""
    return "train" if view == 0 else f"train.{view}"


def with_views(dataset: Dataset, settings: AugmentationSettings) -> Dataset:
    """Return the data with further views of the training split, each a split of its own.

    Args:
        dataset: The data.
        settings: How many views, the first being the training split as it is, and what changes in the others.
    """
    train = dataset.splits["train"]
    splits = dict(dataset.splits)
    for view in range(1, settings.views):
        inputs = dict(train.inputs)
        for number, (modality, array) in enumerate(train.inputs.items()):
            seed = (settings.seed, view, number)
            changes = Changes.draw(len(train), layout_of(dataset, modality), settings, seed)
            if changes is not None:
                inputs[modality] = ChangedInputs(array, changes)  # type: ignore[assignment]  # is sliced, no more
        splits[view_name(view)] = Split(inputs, train.labels, train.tasks)
    return replace(dataset, splits=splits)
