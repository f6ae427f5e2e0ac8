"""Training a backbone on its own modality, before any search.

The order of samples, their augmentation, dropout masks and the learning rate follow from the number of steps taken and
the seeds. So weights, the optimiser's moments and that number are all that an interrupted training needs to become what
it would have become.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mfas_optuna.datasets import Dataset
from mfas_optuna.datasets.augmentation import Changes, layout_of
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.fusion.losses import Loss, loss_for
from mfas_optuna.progress import Progress, silent
from mfas_optuna.spec import AugmentationSettings, UnimodalTraining
from mfas_optuna.target import METRICS, Metric
from mfas_optuna.training.checkpoint import Checkpoint
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.resumable import (
    CHECKPOINT_S,
    WORK_FOR_WRITING,
    OneCycleAdamW,
    batches,
    n_batches,
    scoped_generators,
    step_seed,
    weights_digest,
    with_prefix,
)
from mfas_optuna.training.scoring import (
    Batches,
    UnimodalResult,
    chance_score,
    check_outputs,
    score_splits,
    score_unimodal,
)

__all__ = ["UnimodalResult", "chance_score", "score_unimodal", "train_unimodal"]

_NEWS_S = 1.0
_STEPS_BETWEEN_NEWS = 20


def train_unimodal(
    model: nn.Module,
    dataset: Dataset,
    modality: str,
    settings: UnimodalTraining,
    *,
    device: torch.device,
    augmentation: AugmentationSettings | None = None,
    metric: Metric | None = None,
    is_balanced: bool = False,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> UnimodalResult:
    """Train a network on one modality, in place, and leave it frozen: in eval mode, asking for no gradients.

    AdamW under a one-cycle schedule on the target's loss (`fusion.losses`); the weights after the last epoch count. On
    CUDA the forward pass is in bfloat16 where torch's autocast deems that safe. All randomness comes from the
    seeds, so equal weights, data, settings, device and thread count give equal results, interrupted or not; torch's
    global generators are left as they were.

    A network that is trained for values gives them standardised by the training split.

    Args:
        model: A network of one input whose output is (batch, C), C being the target's number of outputs.
        dataset: The data.
        modality: Which input it gets.
        settings: How long and how fast.
        device: Where it is trained, and where it stays.
        augmentation: How training samples are changed, anew in each epoch.
        metric: What the scores are; None: the first that suits the target.
        is_balanced: Whether the loss is weighted against frequent classes or labels.
        checkpoint: A folder, of this training alone, from which it goes on and in which it keeps how far it is; one of
            another training is removed. The caller removes it once it has kept the result. None: nothing is kept.
        progress: Told of batches done, over all epochs.

    Raises:
        TrainingDiverged: The loss became NaN or infinite.
        OutputShapeError: The network's output is not (batch, C).
        HomeError: The checkpoint's folder cannot be written.
    """
    training = _Training(model, dataset, modality, settings, device, augmentation, is_balanced)
    kept = None if checkpoint is None else Checkpoint(checkpoint, training.key())
    training.start(None if kept is None else kept.read())
    training.run(kept, progress)
    model.requires_grad_(False).eval()
    target = dataset.target
    scale = LabelScale.of(target.kind, dataset.splits["train"].labels)
    return score_splits(model, dataset, modality, metric or METRICS[target.kind][0], device, scale)


class _Training:
    """A network with its optimiser, and the number of steps that were taken."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        modality: str,
        settings: UnimodalTraining,
        device: torch.device,
        augmentation: AugmentationSettings | None,
        is_balanced: bool,
    ) -> None:
        self._model, self._dataset, self._modality = model, dataset, modality
        self._settings, self._device, self._augmentation = settings, device, augmentation
        self._is_balanced = is_balanced
        split, target = dataset.splits["train"], dataset.target
        self._train = Batches(split, modality, LabelScale.of(target.kind, split.labels), device)
        self._loss: Loss = loss_for(target, split.labels, is_balanced=is_balanced, device=device)
        self._n_batches = n_batches(len(self._train), settings.batch_size)
        self._total = settings.epochs * self._n_batches
        self._done = 0
        self._loss_sum = torch.zeros((), device=device)

    def key(self) -> dict[str, Any]:
        """Return what the training follows from, as JSON values; called before it starts."""
        dataset, augmentation = self._dataset, self._augmentation
        labels = hashlib.sha256(np.ascontiguousarray(dataset.splits["train"].labels).tobytes()).hexdigest()
        return {
            "settings": self._settings.model_dump(mode="json"),
            "data": dataset.fingerprint,
            "modality": self._modality,
            "layout": layout_of(dataset, self._modality),
            "target": dataset.target.as_record(),
            "labels": labels,  # Those of a task differ from the target's.
            "is_balanced": self._is_balanced,
            "augmentation": None if augmentation is None else augmentation.model_dump(mode="json", exclude={"views"}),
            "first_weights": weights_digest(self._model),
            "torch": torch.__version__,
            "device": self._device.type,
        }

    def start(self, kept: tuple[dict[str, Any], dict[str, Tensor]] | None) -> None:
        """Set up the optimiser, and go to where the training was when it was kept."""
        model, settings = self._model, self._settings
        model.to(self._device)
        if self._train.is_image:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        model.requires_grad_(True).train()
        self._optimizer = OneCycleAdamW(
            [(list(model.parameters()), settings.learning_rate)],
            weight_decay=settings.weight_decay,
            n_steps=self._total,
        )
        if kept is not None:
            self._restore(*kept)

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self._optimizer.state()
        tensors |= {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        tensors["loss_sum"] = self._loss_sum
        return {"step": self._done, **values}, tensors

    def _restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._done = values["step"]
        self._model.load_state_dict(with_prefix(tensors, "model."))
        self._optimizer.restore(values, tensors, self._done)
        self._loss_sum.copy_(tensors["loss_sum"])

    def run(self, checkpoint: Checkpoint | None, progress: Progress) -> None:
        """Take all steps that are left."""
        what, settings = f"training the {self._modality} backbone", self._settings
        order_generator = torch.Generator().manual_seed(settings.seed)
        told_at = written_at = time.monotonic()
        pause_s = CHECKPOINT_S
        for epoch in range(settings.epochs):
            order = torch.randperm(len(self._train), generator=order_generator)
            ends_at = (epoch + 1) * self._n_batches
            if ends_at <= self._done:
                continue  # Gone through before the interruption.
            changes = self._draw_changes(epoch)
            with scoped_generators(self._device) as generators:
                for rows in batches(order, settings.batch_size)[self._done - ends_at :]:
                    if self._done % _STEPS_BETWEEN_NEWS == 0 or time.monotonic() - told_at > _NEWS_S:
                        told_at = time.monotonic()
                        progress(what, self._done, self._total)
                    self._step(rows, changes, generators)
                    is_due = self._done == ends_at or time.monotonic() - written_at >= pause_s
                    if self._done == ends_at:
                        self._end_epoch(epoch)
                    if checkpoint is not None and is_due:
                        started = time.monotonic()
                        checkpoint.write(self._done, *self._state())
                        written_at = time.monotonic()
                        pause_s = max(CHECKPOINT_S, WORK_FOR_WRITING * (written_at - started))
        progress(what, self._total, self._total)

    def _step(self, rows: Tensor, changes: Changes | None, generators: list[torch.Generator]) -> None:
        x, labels = self._train.take(rows, changes)
        seed = step_seed(self._settings.seed, self._done)
        for generator in generators:
            generator.manual_seed(seed)
        is_cuda = self._device.type == "cuda"
        with torch.autocast("cuda", dtype=torch.bfloat16) if is_cuda else contextlib.nullcontext():
            outputs = self._model(x)
        check_outputs(outputs, len(rows), self._dataset.target.n_outputs, self._modality)
        loss = self._loss(outputs.float(), labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._loss_sum += loss.detach()
        self._done += 1

    def _draw_changes(self, epoch: int) -> Changes | None:
        settings = self._augmentation
        if settings is None:
            return None
        layout = layout_of(self._dataset, self._modality)
        return Changes.draw(len(self._train), layout, settings, (settings.seed, self._settings.seed, epoch))

    def _end_epoch(self, epoch: int) -> None:
        """Look at the loss; once an epoch, since an accelerator has to wait at each look."""
        loss_sum = self._loss_sum.item()
        if not math.isfinite(loss_sum):
            raise TrainingDiverged(
                epoch,
                f"The loss of the {self._modality} backbone became {loss_sum} in epoch {epoch}. "
                f"Lower its learning_rate ({self._settings.learning_rate}).",
            )
        self._loss_sum.zero_()
