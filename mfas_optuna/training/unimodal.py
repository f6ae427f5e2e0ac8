"""Training a backbone on its own modality, before any search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mfas_optuna.backbones import to_input
from mfas_optuna.datasets import Dataset, Split
from mfas_optuna.datasets.augmentation import Shifts, draw_shifts, translate
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.progress import Progress, silent
from mfas_optuna.spec import AugmentationSettings, UnimodalTraining

# A split moves to an accelerator as a whole when it leaves at least half of the free memory.
_FRACTION_OF_FREE_MEMORY = 0.5
_ROWS_AT_ONCE_SCORING = 250
_STEPS_BETWEEN_NEWS = 20
_FEWEST_STEPS = 8  # OneCycleLR divides by zero when a quarter of its steps is one step.


@dataclass(frozen=True)
class UnimodalResult:
    """How well a modality does alone.

    Attributes:
        validation_score: Accuracy on the validation split, 0 to 1.
        test_score: Accuracy on the test split, 0 to 1. Nothing may be chosen by it.
    """

    validation_score: float
    test_score: float


def train_unimodal(
    model: nn.Module,
    dataset: Dataset,
    modality: str,
    settings: UnimodalTraining,
    *,
    device: torch.device,
    augmentation: AugmentationSettings | None = None,
    progress: Progress = silent,
) -> UnimodalResult:
    """Train a network on one modality, in place, and leave it frozen: in eval mode, asking for no gradients.

    AdamW under a one-cycle schedule on the cross-entropy; the weights after the last epoch count. The order of samples
    comes from `settings.seed`, so equal weights, data, settings, device and thread count give equal results.

    Args:
        model: A network of one input whose output is (batch, n_classes).
        dataset: The data.
        modality: Which input it gets.
        settings: How long and how fast.
        device: Where it is trained, and where it stays.
        augmentation: How training samples are translated, anew in each epoch.
        progress: Told of batches done, over all epochs.

    Raises:
        TrainingDiverged: The loss became NaN or infinite.
    """
    what = f"training the {modality} backbone"
    train = _Batches(dataset.splits["train"], modality, device)
    model.to(device)
    if train.is_image:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    n_batches = math.ceil(len(train) / settings.batch_size)
    total = settings.epochs * n_batches
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.learning_rate, total_steps=max(total, _FEWEST_STEPS), pct_start=0.25
    )
    generator = torch.Generator().manual_seed(settings.seed)
    done = 0
    for epoch in range(settings.epochs):
        order = torch.randperm(len(train), generator=generator)
        loss_sum = torch.zeros((), device=device)
        shifts_NA = None
        if augmentation is not None and train.n_axes > 0:
            shifts_NA = draw_shifts(
                len(train), train.n_axes, augmentation.shift, (augmentation.seed, settings.seed, epoch)
            )
        for rows in order.split(settings.batch_size):
            if done % _STEPS_BETWEEN_NEWS == 0:
                progress(what, done, total)
            x, y = train.take(rows, None if shifts_NA is None else shifts_NA[rows.numpy()])
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.detach()
            done += 1
        # Looked at once an epoch: an accelerator would have to wait at each look.
        if not math.isfinite(loss_sum.item()):
            raise TrainingDiverged(
                epoch,
                f"The loss of the {modality} backbone became {loss_sum.item()} in epoch {epoch}. "
                f"Lower its learning_rate ({settings.learning_rate}).",
            )
    progress(what, total, total)
    model.requires_grad_(False).eval()
    return UnimodalResult(
        validation_score=_accuracy(model, _Batches(dataset.splits["validation"], modality, device)),
        test_score=_accuracy(model, _Batches(dataset.splits["test"], modality, device)),
    )


@torch.inference_mode()
def _accuracy(model: nn.Module, batches: _Batches) -> float:
    hits = torch.zeros((), dtype=torch.int64, device=batches.device)
    for rows in torch.arange(len(batches)).split(_ROWS_AT_ONCE_SCORING):
        x, y = batches.take(rows)
        hits += (model(x).argmax(dim=1) == y).sum()
    return int(hits.item()) / len(batches)


class _Batches:
    """Rows of one split and modality, ready for a network."""

    def __init__(self, split: Split, modality: str, device: torch.device) -> None:
        self.device = device
        self._array = split.inputs[modality]
        self._labels = torch.from_numpy(split.labels.copy()).to(device)
        self.is_image = self._array.ndim == 4
        self.n_axes = max(self._array.ndim - 2, 0)
        self._resident: Tensor | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self._array.nbytes < free * _FRACTION_OF_FREE_MEMORY:
                self._resident = torch.from_numpy(np.array(self._array)).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def take(self, rows: Tensor, shifts_BA: Shifts | None = None) -> tuple[Tensor, Tensor]:
        if self._resident is not None:
            rows = rows.to(self.device)
            x = to_input(self._resident.index_select(0, rows), self.device)
        else:
            x = to_input(self._array[rows.numpy()], self.device)
        if shifts_BA is not None:
            x = translate(x, shifts_BA)
        if self.is_image:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, self._labels.index_select(0, rows.to(self.device))
