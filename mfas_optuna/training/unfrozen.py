"""The second step of final training: backbones and head together, on raw data, with a loss on every modality's output.

Source: MFAS section 3.2, "Loss function": the multitask loss on z_x, z_y and z_xy. The paper is silent on its weights,
rates and length: decision 29.

As in `unimodal`, all that is drawn follows from the seed and the number of steps taken, so that an interrupted training
becomes what it would have become.

Shapes: B batch, C outputs.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfas_optuna.datasets import Dataset, Split
from mfas_optuna.datasets.augmentation import Changes, layout_of
from mfas_optuna.errors import HomeError, TrainingDiverged
from mfas_optuna.fusion.losses import loss_for
from mfas_optuna.progress import Progress, silent
from mfas_optuna.spec import AugmentationSettings
from mfas_optuna.spec.final import UnfrozenSettings
from mfas_optuna.target import METRICS, Metric
from mfas_optuna.training.checkpoint import Checkpoint
from mfas_optuna.training.fused import FusedModel, FusedOutputs
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.metrics import make_scorer
from mfas_optuna.training.processes import Processes
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
from mfas_optuna.training.scoring import Batches

_WHAT = "training backbones and head together"
_NEWS_S = 1.0
_STEPS_BETWEEN_NEWS = 20


@dataclass(frozen=True)
class UnfrozenResult:
    """What training backbones and head together came to.

    Attributes:
        epoch_scores: Score on the validation split: before any step, then after each epoch.
        best_epoch: 0-based index into these of the score and weights that count; 0: training made nothing better.
        score: Its score.
        state: Weights and buffers of the whole model then, on the CPU, contiguous.
    """

    epoch_scores: list[float]
    best_epoch: int
    score: float
    state: dict[str, Tensor]


def train_unfrozen(
    model: FusedModel,
    dataset: Dataset,
    settings: UnfrozenSettings,
    *,
    device: torch.device,
    seed: int,
    metric: Metric | None = None,
    is_balanced: bool = False,
    augmentation: AugmentationSettings | None = None,
    checkpoint: Path | None = None,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> UnfrozenResult:
    """Train all parts of a model in place; leave it with the weights that count, in eval mode, asking for no gradients.

    The loss is that of the fused output, plus `auxiliary_weight` times the sum of those of each modality's own output,
    plus `auxiliary_weight` times the mean of those of the head's auxiliary outputs where it has such. AdamW under a
    one-cycle schedule with a rate of its own for the backbones; they are in train mode, so that batch normalisation
    and dropout work as they did when the backbones were trained. On CUDA the forward pass of training is in bfloat16
    where torch's autocast deems that safe; scores are of float32.

    The weights that count are those with the best score on the validation split, the earlier ones among equals. Those
    before any step take part, so this training never makes the validation score worse. It ends early after `patience`
    epochs that brought nothing better.

    Equal model, data, settings, seed, device and thread count give equal results, on the CPU bit for bit, interrupted
    or not; torch's global generators are left as they were.

    Processes that `accelerate launch` or `torchrun` started train together: each calls this with equal arguments, takes
    its share of every batch, and gets the same result. The steps are those of one process, up to rounding, but for
    batch normalisation, which sees the share alone, and for dropout masks (decision 29).

    Args:
        model: Trained on frozen backbones.
        dataset: The data that the backbones were trained on.
        settings: How long and how fast.
        device: Where it is trained, and where it stays; one of several processes takes its own of this type.
        seed: Of the order of samples, their augmentation, and dropout.
        metric: What a score is; None: the first that suits the target.
        is_balanced: Whether the loss is weighted against frequent classes or labels.
        augmentation: How training samples are changed, anew in each epoch.
        checkpoint: A folder, of this training alone, from which it goes on and in which it keeps how far it is; one of
            another training is removed. The caller removes it once it has kept the result. None: nothing is kept. Of
            several processes all read it and the first writes it.
        processes: This process and those that train with it; None: those that the environment tells of.
        progress: Told of batches done, over all epochs; of several processes the first tells.

    Raises:
        TrainingDiverged: The loss became NaN or infinite.
        FusionShapeError: The model does not fit the data.
        HomeError: The checkpoint's folder cannot be written, or is not the same for all processes.
        DeviceError: There are several processes, and accelerate is missing.
    """
    processes = Processes(device) if processes is None else processes
    training = _Training(
        model,
        dataset,
        settings,
        processes=processes,
        seed=seed,
        metric=metric or METRICS[dataset.target.kind][0],
        is_balanced=is_balanced,
        augmentation=augmentation,
    )
    kept = None if checkpoint is None else Checkpoint(checkpoint, training.key())
    training.start(None if kept is None else _read(kept, processes))
    training.run(kept if processes.is_first else None, progress if processes.is_first else silent)
    return training.end()


def _read(checkpoint: Checkpoint, processes: Processes) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return what was kept, the same in all processes; the first reads first, and removes what is damaged."""
    kept = checkpoint.read() if processes.is_first else None
    processes.wait()
    if not processes.is_first:
        kept = checkpoint.read()
    step = torch.tensor(float(-1 if kept is None else kept[0]["step"]), device=processes.device)
    of_first = step.clone()
    processes.copy_first([of_first])
    n_other = (step != of_first).float()
    processes.add_up([n_other])
    if n_other.item():
        raise HomeError(
            f"{checkpoint.folder}: {n_other.item():.0f} of {processes.n} processes found another checkpoint there than "
            "the first. Set MFAS_HOME to a folder that all of them share."
        )
    return kept


def score_fused(model: FusedModel, split: Split, metric: Metric, device: torch.device, scale: LabelScale) -> float:
    """Return the metric of a model on a split, and leave it on the device and in eval mode.

    Args:
        model: The model.
        split: The split; whoever gives the test split notes that in the study's ledger.
        metric: One that suits the target.
        device: Where it runs.
        scale: Of the labels; for values that of the training split.
    """
    model.to(device).eval()
    inputs = {modality: Batches(split, modality, scale, device) for modality in model.modalities}
    outputs_NC = _outputs(model, inputs, torch.arange(len(split)))
    return _score(outputs_NC, scale, split, metric)


def _score(outputs_NC: Tensor, scale: LabelScale, split: Split, metric: Metric) -> float:
    scorer = make_scorer(scale.kind, metric)
    scorer.add(outputs_NC.t()[None], scale.tensor(split.labels, outputs_NC.device))
    return scorer.scores()[0]


@torch.inference_mode()
def _outputs(model: FusedModel, inputs: Mapping[str, Batches], rows_N: Tensor) -> Tensor:
    """Return the fused outputs (N, C) of some rows; the model is on the device and in eval mode."""
    n_at_once = min(of_modality.n_rows_at_once for of_modality in inputs.values())
    parts = []
    for rows in rows_N.split(n_at_once):
        x = {modality: of_modality.take(rows)[0] for modality, of_modality in inputs.items()}
        parts.append(model(x).fused_BC.float())
    return torch.cat(parts)


class _Training:
    """A model with its optimiser, the number of steps that were taken, and the best that was found."""

    def __init__(
        self,
        model: FusedModel,
        dataset: Dataset,
        settings: UnfrozenSettings,
        *,
        processes: Processes,
        seed: int,
        metric: Metric,
        is_balanced: bool,
        augmentation: AugmentationSettings | None,
    ) -> None:
        self._model, self._dataset, self._settings = model, dataset, settings
        self._processes, self._seed, self._metric = processes, seed, metric
        self._device = device = processes.device
        self._is_balanced, self._augmentation = is_balanced, augmentation
        train, target = dataset.splits["train"], dataset.target
        self._scale = LabelScale.of(target.kind, train.labels)
        self._train, self._validation = (
            {modality: Batches(dataset.splits[split], modality, self._scale, device) for modality in model.modalities}
            for split in ("train", "validation")
        )
        self._loss = loss_for(target, train.labels, is_balanced=is_balanced, device=device)
        self._labels = self._scale.tensor(train.labels, device)
        self._n_samples = len(train)
        self._n_batches = n_batches(self._n_samples, settings.batch_size)
        self._total = settings.epochs * self._n_batches
        self._done = 0
        self._loss_sum = torch.zeros((), device=device)
        self._scores: list[float] = []
        self._best_epoch = 0
        self._best_state: dict[str, Tensor] = {}

    def key(self) -> dict[str, Any]:
        """Return what the training follows from, as JSON values; called before it starts."""
        dataset, augmentation, model = self._dataset, self._augmentation, self._model
        labels = hashlib.sha256(np.ascontiguousarray(dataset.splits["train"].labels).tobytes()).hexdigest()
        return {
            "settings": self._settings.model_dump(mode="json"),
            "seed": self._seed,
            "data": dataset.fingerprint,
            "layouts": {modality: layout_of(dataset, modality) for modality in model.modalities},
            "taps": {modality: [asdict(tap) for tap in taps] for modality, taps in model.taps.items()},
            "target": dataset.target.as_record(),
            "labels": labels,
            "metric": self._metric,
            "is_balanced": self._is_balanced,
            "augmentation": None if augmentation is None else augmentation.model_dump(mode="json", exclude={"views"}),
            "first_weights": weights_digest(model),
            "torch": torch.__version__,
            "device": self._device.type,
            "n_processes": self._processes.n,
        }

    def start(self, kept: tuple[dict[str, Any], dict[str, Tensor]] | None) -> None:
        """Set up the optimiser, and go to where the training was when it was kept, or score what is there."""
        model, settings = self._model, self._settings
        model.to(self._device).requires_grad_(True)
        for modality, of_modality in self._train.items():
            if of_modality.is_image:
                # Not to(memory_format=...): that refuses a network that has parameters of five axes too.
                for parameter in model.backbone(modality).parameters():
                    if parameter.ndim == 4:
                        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._optimizer = OneCycleAdamW(
            [
                (list(model.backbones.parameters()), settings.backbone_learning_rate),
                (list(model.head_parameters()), settings.learning_rate),
            ],
            weight_decay=settings.weight_decay,
            n_steps=self._total,
        )
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._processes.copy_first([*self._optimizer.parameters, *self._buffers])
        if kept is None:
            self._look()
        else:
            self._restore(*kept)

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self._optimizer.state()
        tensors |= {f"model.{name}": tensor for name, tensor in self._model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best_state.items()}
        tensors["loss_sum"] = self._loss_sum
        values |= {"step": self._done, "scores": self._scores, "best_epoch": self._best_epoch}
        return values, tensors

    def _restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._done, self._scores, self._best_epoch = values["step"], values["scores"], values["best_epoch"]
        self._best_state = with_prefix(tensors, "best.")
        self._model.load_state_dict(with_prefix(tensors, "model."))
        self._optimizer.restore(values, tensors, self._done)
        self._loss_sum.copy_(tensors["loss_sum"])

    def run(self, checkpoint: Checkpoint | None, progress: Progress) -> None:
        """Take all steps that are left, or as many as bring something."""
        settings = self._settings
        order_generator = torch.Generator().manual_seed(self._seed)
        told_at = written_at = time.monotonic()
        pause_s = CHECKPOINT_S
        for epoch in range(settings.epochs):
            order = torch.randperm(self._n_samples, generator=order_generator)
            ends_at = (epoch + 1) * self._n_batches
            if ends_at <= self._done:
                continue  # Gone through before the interruption.
            if len(self._scores) - 1 - self._best_epoch >= settings.patience:
                break
            changes = self._draw_changes(epoch)
            self._model.train()
            with scoped_generators(self._device) as generators:
                for rows in batches(order, settings.batch_size)[self._done - ends_at :]:
                    if self._done % _STEPS_BETWEEN_NEWS == 0 or time.monotonic() - told_at > _NEWS_S:
                        told_at = time.monotonic()
                        progress(_WHAT, self._done, self._total)
                    self._step(rows, changes, generators)
                    is_due = self._done == ends_at or time.monotonic() - written_at >= pause_s
                    if self._done == ends_at:
                        self._end_epoch(epoch)
                    if checkpoint is not None and is_due:
                        started = time.monotonic()
                        checkpoint.write(self._done, *self._state())
                        written_at = time.monotonic()
                        pause_s = max(CHECKPOINT_S, WORK_FOR_WRITING * (written_at - started))
        progress(_WHAT, self._total, self._total)

    def end(self) -> UnfrozenResult:
        """Leave the model with the weights that count."""
        self._model.load_state_dict(self._best_state)
        self._model.requires_grad_(False).eval()
        return UnfrozenResult(self._scores, self._best_epoch, self._scores[self._best_epoch], self._best_state)

    def _step(self, rows: Tensor, changes: Mapping[str, Changes | None], generators: list[torch.Generator]) -> None:
        processes = self._processes
        share = processes.share(rows)
        inputs = {}
        for modality, of_modality in self._train.items():
            inputs[modality], labels = of_modality.take(share, changes[modality])
        seeds = (self._seed, self._done, *([processes.rank] if processes.rank else []))
        for generator in generators:
            generator.manual_seed(step_seed(*seeds))
        is_cuda = self._device.type == "cuda"
        with torch.autocast("cuda", dtype=torch.bfloat16) if is_cuda else contextlib.nullcontext():
            outputs = self._model(inputs, generators[-1])
        loss = self._multitask_loss(outputs, labels)
        if processes.n > 1:
            loss = loss * self._part_of(rows, share)
        self._optimizer.zero_grad()
        loss.backward()
        self._loss_sum += self._exchange(loss.detach())
        self._optimizer.step()
        self._done += 1

    def _part_of(self, rows: Tensor, share: Tensor) -> Tensor | float:
        """Return what the loss of a share, a mean over its rows, counts in that of the batch."""
        if len(share) == len(rows):
            return 1 / self._processes.n
        weight_C = self._loss.weight_C
        if self._scale.kind != "multiclass" or weight_C is None:
            return len(share) / len(rows)
        of_share, of_all = (weight_C[self._labels[of.to(self._device)]].sum() for of in (share, rows))
        return of_share / of_all

    def _exchange(self, loss: Tensor) -> Tensor:
        """Add up the gradients of all processes, and return their loss; afterwards all hold the same."""
        processes = self._processes
        if processes.n == 1:
            return loss
        parameters = self._optimizer.parameters
        # One that no process has a gradient of must stay without.
        has_gradient = loss.new_tensor([parameter.grad is not None for parameter in parameters])
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        processes.add_up(
            [loss, has_gradient, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
        )
        for parameter, n_with in zip(parameters, has_gradient.tolist(), strict=True):
            if not n_with:
                parameter.grad = None
        processes.copy_first(self._buffers)
        return loss

    def _multitask_loss(self, outputs: FusedOutputs, labels: Tensor) -> Tensor:
        loss = self._loss(outputs.fused_BC.float(), labels)
        weight = self._settings.auxiliary_weight
        if weight == 0.0:  # Not 0 times a loss, which would still have to be gone back through.
            return loss
        for own_BC in outputs.own.values():
            loss = loss + weight * self._loss(own_BC.float(), labels)
        for auxiliary_BC in outputs.auxiliary:
            loss = loss + weight / len(outputs.auxiliary) * self._loss(auxiliary_BC.float(), labels)
        return loss

    def _draw_changes(self, epoch: int) -> dict[str, Changes | None]:
        settings = self._augmentation
        if settings is None:
            return dict.fromkeys(self._train)
        return {
            modality: Changes.draw(
                self._n_samples,
                layout_of(self._dataset, modality),
                settings,
                (settings.seed, self._seed, epoch, number),
            )
            for number, modality in enumerate(self._train)
        }

    def _end_epoch(self, epoch: int) -> None:
        loss_sum = self._loss_sum.item()
        if not math.isfinite(loss_sum):
            settings = self._settings
            raise TrainingDiverged(
                epoch,
                f"The loss of backbones and head together became {loss_sum} in epoch {epoch}. Lower "
                f"final.unfrozen.learning_rate ({settings.learning_rate}) and backbone_learning_rate "
                f"({settings.backbone_learning_rate}).",
            )
        self._loss_sum.zero_()
        self._look()

    def _look(self) -> None:
        """Score the model as it is, and keep its weights when nothing was better."""
        self._model.eval()
        split = self._dataset.splits["validation"]
        outputs_NC = self._validation_outputs(len(split))
        score = _score(outputs_NC, self._scale, split, self._metric)
        if not self._scores or score > self._scores[self._best_epoch]:
            self._best_epoch = len(self._scores)
            state = self._model.state_dict()
            self._best_state = {
                name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, tensor in state.items()
            }
        self._scores.append(score)

    def _validation_outputs(self, n_rows: int) -> Tensor:
        """Return the fused outputs (N, C) of the validation split, of which each process computes a part."""
        rows_N, device = self._processes.part(torch.arange(n_rows)), self._device
        outputs_NC = torch.zeros(n_rows, self._dataset.target.n_outputs, device=device)
        if len(rows_N):
            outputs_NC[rows_N.to(device)] = _outputs(self._model, self._validation, rows_N)
        self._processes.add_up([outputs_NC])
        return outputs_NC
