"""Final training on frozen backbones: a head on cached features, to the end.

The order of rows, the view and the dropout masks of an epoch follow from the seed and the number of the epoch. So
weights, the optimiser's moments and the scores so far are all that an interrupted training needs to become what it
would have become.

Shapes: N rows, F columns of all features, B batch, C outputs.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.fusion.head import Head
from mfas_optuna.fusion.losses import Loss
from mfas_optuna.fusion.network import HeadOutputs
from mfas_optuna.progress import Progress, silent
from mfas_optuna.spec import FinalSettings, Recipe
from mfas_optuna.target import Metric
from mfas_optuna.threads import one_thread
from mfas_optuna.training.brief import ROWS_AT_ONCE_SCORING, BriefData, n_passes, shuffled_batches
from mfas_optuna.training.checkpoint import Checkpoint
from mfas_optuna.training.metrics import make_scorer

CHECKPOINT_S = 10.0
"""Seconds of work that an interruption loses at most, and an epoch."""


@dataclass(frozen=True)
class HeadResult:
    """What the training of a head came to.

    Attributes:
        epoch_scores: Score on the validation split after each epoch.
        best_epoch: 0-based epoch whose score and weights count.
        score: Its score.
        state: The head's state dict after that epoch, on the CPU.
    """

    epoch_scores: list[float]
    best_epoch: int
    score: float
    state: dict[str, Tensor]


def head_loss(outputs: HeadOutputs, labels: Tensor, loss: Loss, auxiliary_weight: float) -> Tensor:
    """Return the loss of the fused output and, weighted, the mean of the auxiliary ones, ()."""
    total = loss(outputs.fused_BC, labels)
    if outputs.auxiliary and auxiliary_weight > 0:
        total = total + auxiliary_weight * torch.stack([loss(each, labels) for each in outputs.auxiliary]).mean()
    return total


@one_thread()
def train_head(
    head: Head,
    data: BriefData,
    settings: FinalSettings,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    key: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    what: str = "training",
) -> HeadResult:
    """Train a head in place until its validation score has not risen for `patience` epochs; the best epoch counts.

    AdamW under a cosine schedule over all epochs. Equal head, data, settings, recipe and seed give equal results,
    interrupted or not, bit for bit on the CPU, where one thread does the work. A head without anything to learn is
    scored only.

    Args:
        head: On the data's device; its weights are those of the best epoch afterwards.
        data: Rows to train and score on.
        settings: Epochs, patience, batch size, weight of auxiliary losses.
        recipe: Learning rate and weight decay.
        seed: Of the order of rows, views and dropout masks.
        checkpoint: A folder of this training alone, from which it goes on and in which it keeps how far it is. The
            caller removes it once it has kept the result. None: nothing is kept.
        key: What the features are, so that a checkpoint of others is not gone on with; JSON values.
        progress: Told of each epoch.
        what: What progress calls it.

    Raises:
        TrainingDiverged: The loss, a weight or the score became NaN or infinite.
        HomeError: The checkpoint's folder cannot be written.
    """
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    if not parameters:
        score = score_head(head, data.validation_NF, data.validation_labels, data.loss, data.metric)
        return HeadResult([score], 0, score, _copy(head.state_dict()))
    training = _Training(head, parameters, data, settings, recipe, seed)
    kept = None if checkpoint is None else Checkpoint(checkpoint, {**training.key(), **(key or {})})
    if kept is not None:
        training.restore(kept.read())
    training.run(kept, progress, what)
    return training.result()


@torch.inference_mode()
def score_head(head: Head, rows_NF: Tensor, labels: Tensor, loss: Loss, metric: Metric) -> float:
    """Return the metric of a head on some rows; it is left in eval mode.

    Args:
        head: On the rows' device.
        rows_NF: Standardised as those it was trained on.
        labels: As `LabelScale` makes them.
        loss: Says what kind of target it is.
        metric: What the score is.
    """
    head.eval()
    scorer = make_scorer(loss.kind, metric)
    for rows_BF, of_batch in zip(rows_NF.split(ROWS_AT_ONCE_SCORING), labels.split(ROWS_AT_ONCE_SCORING), strict=True):
        scorer.add(head(rows_BF).fused_BC.t()[None], of_batch)
    return scorer.scores()[0]


class _Training:
    """A head with its optimiser, the epochs that were gone through, and the best of them."""

    def __init__(
        self,
        head: Head,
        parameters: list[torch.nn.Parameter],
        data: BriefData,
        settings: FinalSettings,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self._head, self._data, self._settings, self._recipe, self._seed = head, data, settings, recipe, seed
        self._parameters = parameters
        self._optimizer = torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        n_rows, batch_size = len(data.train_NF), settings.batch_size
        self._n_passes = n_passes(n_rows, batch_size, settings.epochs, settings.min_steps)
        self._n_batches = self._n_passes * math.ceil(n_rows / batch_size)
        self._scores: list[float] = []
        self._best: dict[str, Tensor] = {}
        self._best_epoch = 0

    def key(self) -> dict[str, Any]:
        """Return what the training follows from besides the features, as JSON values; called before it starts."""
        weights = hashlib.sha256()
        for name, tensor in self._head.state_dict().items():
            weights.update(f"{name} {list(tensor.shape)}".encode())
            weights.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return {
            "settings": self._settings.model_dump(
                mode="json", include={"epochs", "min_steps", "batch_size", "auxiliary_weight"}
            ),
            "recipe": self._recipe.model_dump(mode="json"),
            "seed": self._seed,
            "first_weights": weights.hexdigest(),
            "torch": torch.__version__,
            "device": self._data.train_NF.device.type,
        }

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = {f"head.{name}": tensor for name, tensor in self._head.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for number, parameter in enumerate(self._parameters):
            for name, tensor in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{number}.{name}"] = tensor
        return {"scores": self._scores, "best_epoch": self._best_epoch}, tensors

    def restore(self, kept: tuple[dict[str, Any], dict[str, Tensor]] | None) -> None:
        """Go to where the training was when it was kept."""
        if kept is None:
            return
        values, tensors = kept

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self._head.load_state_dict(part("head."))
        for number, parameter in enumerate(self._parameters):
            for name, tensor in part(f"optimizer.{number}.").items():
                # The number of steps of a fused optimiser lies beside its parameter.
                self._optimizer.state[parameter][name] = tensor.to(parameter.device)
        self._best = part("best.")
        self._scores, self._best_epoch = list(values["scores"]), values["best_epoch"]

    def run(self, checkpoint: Checkpoint | None, progress: Progress, what: str) -> None:
        """Go through the epochs that are left."""
        settings = self._settings
        written_at = time.monotonic()
        while len(self._scores) < settings.epochs and not self._is_out_of_patience():
            epoch = len(self._scores)
            progress(what, epoch + 1, settings.epochs)
            self._epoch(epoch)
            if checkpoint is not None and time.monotonic() - written_at >= CHECKPOINT_S:
                checkpoint.write(epoch, *self._state())
                written_at = time.monotonic()

    def _is_out_of_patience(self) -> bool:
        return len(self._scores) - 1 - self._best_epoch >= self._settings.patience

    def _epoch(self, epoch: int) -> None:
        data, settings = self._data, self._settings
        device = data.train_NF.device
        seeds = np.random.SeedSequence((self._seed, epoch)).generate_state(2, np.uint64)
        order = torch.Generator().manual_seed(int(seeds[0] >> 1))
        dropout = torch.Generator(device).manual_seed(int(seeds[1] >> 1))
        self._head.train()
        loss_sum = torch.zeros((), device=device)
        step, n_steps = epoch * self._n_batches, settings.epochs * self._n_batches
        for rows_BF, of_batch in itertools.chain.from_iterable(
            shuffled_batches(data, settings.batch_size, order) for _ in range(self._n_passes)
        ):
            (group,) = self._optimizer.param_groups
            group["lr"] = self._recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / n_steps))
            loss = head_loss(self._head(rows_BF, dropout), of_batch, data.loss, settings.auxiliary_weight)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            loss_sum += loss.detach()
            step += 1
        score = score_head(self._head, data.validation_NF, data.validation_labels, data.loss, data.metric)
        if not (math.isfinite(loss_sum.item()) and math.isfinite(score) and self._is_finite()):
            raise TrainingDiverged(
                epoch,
                f"Loss, weights or score became NaN or infinite in epoch {epoch + 1}. "
                f"Lower learning_rate ({self._recipe.learning_rate:g}) in final.recipes.",
            )
        self._scores.append(score)
        if epoch == 0 or score > self._scores[self._best_epoch]:
            self._best_epoch, self._best = epoch, _copy(self._head.state_dict())

    def _is_finite(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self._parameters)

    def result(self) -> HeadResult:
        """Return what it came to, and put the best epoch's weights into the head."""
        self._head.load_state_dict(self._best)
        return HeadResult(self._scores, self._best_epoch, self._scores[self._best_epoch], self._best)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
