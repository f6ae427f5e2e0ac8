"""How well a modality does alone: scores of a network on one of the inputs, and of guessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mfas_optuna.backbones import to_input
from mfas_optuna.datasets import Dataset, Split
from mfas_optuna.datasets.augmentation import Changes
from mfas_optuna.errors import OutputShapeError
from mfas_optuna.target import Metric
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.metrics import make_scorer

# A split moves to an accelerator as a whole when it leaves at least half of the free memory.
_FRACTION_OF_FREE_MEMORY = 0.5
_MOST_ROWS_AT_ONCE = 250
_VALUES_AT_ONCE = 2**23  # 32 MB of inputs; what a large network makes of them is some ten times that.


@dataclass(frozen=True)
class UnimodalResult:
    """How well a modality does alone.

    Attributes:
        validation_score: The metric on the validation split, 1 at best.
        test_score: The metric on the test split. Nothing may be chosen by it.
    """

    validation_score: float
    test_score: float


def score_unimodal(
    model: nn.Module, dataset: Dataset, modality: str, metric: Metric, device: torch.device
) -> UnimodalResult | None:
    """Return the scores of a network that was trained elsewhere, and leave it on the device and in eval mode.

    None where its output is not (batch, C), C being the target's number of outputs: it was trained for something else,
    and any number in place of a score would be compared with others.

    Args:
        model: A network of one input. For values its outputs are in the units of the labels.
        dataset: The data.
        modality: Which input it gets.
        metric: What the scores are.
        device: Where it runs.
    """
    model.to(device).eval()
    try:
        return score_splits(model, dataset, modality, metric, device, LabelScale.of_units(dataset.target.kind))
    except OutputShapeError:
        return None


def score_splits(
    model: nn.Module, dataset: Dataset, modality: str, metric: Metric, device: torch.device, scale: LabelScale
) -> UnimodalResult:
    """Return the scores of a network in eval mode whose values are on the given scale.

    Raises:
        OutputShapeError: Its output is not (batch, C).
    """
    validation, test = (
        _score(model, dataset, Batches(dataset.splits[split], modality, scale, device), modality, metric)
        for split in ("validation", "test")
    )
    return UnimodalResult(validation, test)


@torch.inference_mode()
def _score(model: nn.Module, dataset: Dataset, batches: Batches, modality: str, metric: Metric) -> float:
    target = dataset.target
    scorer = make_scorer(target.kind, metric)
    for rows in torch.arange(len(batches)).split(batches.n_rows_at_once):
        x, labels = batches.take(rows)
        outputs_BC = model(x)
        check_outputs(outputs_BC, len(rows), target.n_outputs, modality)
        scorer.add(outputs_BC.t()[None], labels)
    return scorer.scores()[0]


def chance_score(dataset: Dataset, metric: Metric) -> float:
    """Return the validation score of predicting the same for every sample, as well as the training split tells.

    Classes: the most frequent one. Labels: the better of those that are more often present than not, and all of them.
    Values: their means.
    """
    target = dataset.target
    scale = LabelScale.of(target.kind, dataset.splits["train"].labels)
    cpu = torch.device("cpu")
    train, validation = (scale.tensor(dataset.splits[split].labels, cpu) for split in ("train", "validation"))
    if target.kind == "multiclass":
        guesses = [torch.bincount(train, minlength=target.n_outputs).double()]
    elif target.kind == "multilabel":
        guesses = [train.mean(dim=0) - 0.5, torch.ones(target.n_outputs)]
    else:
        guesses = [torch.zeros(target.n_outputs)]  # Standardised.
    scorer = make_scorer(target.kind, metric)
    scorer.add(torch.stack(guesses)[:, :, None].expand(-1, -1, len(validation)), validation)
    return max(scorer.scores())


def check_outputs(outputs: Any, n_samples: int, n_outputs: int, modality: str) -> None:
    """Do nothing when a network's output is (B, C).

    Raises:
        OutputShapeError: It is not.
    """
    found = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    expected = [n_samples, n_outputs]
    if found != expected:
        raise OutputShapeError(
            expected,
            found,
            f"The {modality} backbone: expected {n_outputs} outputs for each of {n_samples} samples, {expected}, found "
            f"{found}. Give a network for this target, or a task that it was trained for.",
        )


class Batches:
    """Rows of one split and modality, ready for a network."""

    def __init__(self, split: Split, modality: str, scale: LabelScale, device: torch.device) -> None:
        self._device = device
        self._array = split.inputs[modality]
        self._labels = scale.tensor(split.labels, device)
        self.is_image = self._array.ndim == 4
        self._resident: Tensor | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self._array.nbytes < free * _FRACTION_OF_FREE_MEMORY:
                self._resident = torch.from_numpy(np.array(self._array)).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def n_rows_at_once(self) -> int:
        """Rows that a network may be given at once where no gradient is asked for."""
        n_values = int(np.prod(self._array.shape[1:]))
        return max(1, min(_MOST_ROWS_AT_ONCE, _VALUES_AT_ONCE // n_values))

    def take(self, rows: Tensor, changes: Changes | None = None) -> tuple[Tensor, Tensor]:
        """Return inputs (B, ...) as float32 and labels of some rows, the inputs changed as is due to their rows."""
        on_device = rows.to(self._device)
        if self._resident is not None:
            samples = self._resident.index_select(0, on_device)
        else:
            samples = torch.from_numpy(self._array[rows.numpy()])  # Fresh memory, which may be written to.
        if changes is not None:
            samples = changes[rows.numpy()].apply(samples)
        x = to_input(samples, self._device)
        if self.is_image:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, self._labels.index_select(0, on_device)
