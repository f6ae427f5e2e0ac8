"""Brief training of one fusion network on cached features (lines 13 and 23 of Algorithm 1).

The rows that a network reads are gathered once, side by side in the order of its layers; an epoch shuffles them as a
whole, so that each batch is a slice and costs no gathering.

Shapes: N rows, B batch, S columns of all layers' features of one network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.features.cache import FeatureLayout, FeatureSet
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import Architecture, SearchSpace
from mfas_optuna.spec import BriefTraining
from mfas_optuna.threads import one_thread
from mfas_optuna.training.metrics import accuracy

SMALLEST_DEVIATION = 1e-6
"""Columns that vary less are only centred."""


@dataclass(frozen=True)
class BriefData:
    """Training and validation rows on the device, standardised when the study says so."""

    layout: FeatureLayout
    train_NF: Tensor
    train_labels_N: Tensor
    validation_NF: Tensor
    validation_labels_N: Tensor

    @staticmethod
    def load(features: FeatureSet, *, standardize: bool, device: torch.device) -> BriefData:
        """Copy the rows of both splits to the device as float32.

        Args:
            features: Opened cache.
            standardize: Subtract the training split's column means and divide by its deviations.
            device: Where trials train.
        """

        def rows(split: str) -> Tensor:
            matrix_NF = torch.tensor(features.matrix(split), dtype=torch.float32)
            if standardize:
                mean_F = torch.as_tensor(features.mean, dtype=torch.float32)
                std_F = torch.as_tensor(features.std, dtype=torch.float32)
                matrix_NF.sub_(mean_F).div_(torch.where(std_F > SMALLEST_DEVIATION, std_F, torch.ones_like(std_F)))
            return matrix_NF.to(device)

        def labels(split: str) -> Tensor:
            return torch.tensor(features.labels(split), dtype=torch.int64, device=device)

        return BriefData(features.layout, rows("train"), labels("train"), rows("validation"), labels("validation"))

    def columns(self, architecture: Architecture, space: SearchSpace) -> Tensor:
        """Return the columns that a network reads, layer by layer, modality by modality."""
        indices: list[int] = []
        for layer in architecture.layers:
            for (modality, names), feature in zip(space.modalities.items(), layer.features, strict=True):
                where = self.layout.columns(modality, names[feature])
                indices.extend(range(where.start, where.stop))
        return torch.tensor(indices, device=self.train_NF.device)


@dataclass(frozen=True)
class BriefResult:
    """What brief training found.

    Attributes:
        epoch_scores: Validation accuracy after each epoch.
        best_epoch: 0-based epoch whose score and weights count.
        score: Its validation accuracy.
        layer_states: For each fusion layer its `weight` and `bias` after that epoch, on the CPU.
    """

    epoch_scores: list[float]
    best_epoch: int
    score: float
    layer_states: list[dict[str, Tensor]]


@one_thread()
def train_briefly(
    network: FusionNetwork,
    architecture: Architecture,
    data: BriefData,
    space: SearchSpace,
    settings: BriefTraining,
    *,
    generator: torch.Generator,
    on_epoch: Callable[[int, float], None] | None = None,
) -> BriefResult:
    """Train a network in place for a few epochs, scoring it on the whole validation split after each.

    Equal network, data, settings and generator state give equal results, bit for bit on the CPU, where one thread does
    the work.

    Args:
        network: A network of `architecture` on the data's device; trained in place.
        architecture: What it is.
        data: Rows to train and score on.
        space: The space that the architecture's indices count in.
        settings: How long and how fast.
        generator: A CPU generator for the order of rows and for dropout.
        on_epoch: Called with the 0-based epoch and its score; what it raises ends the training.

    Raises:
        TrainingDiverged: The loss or a weight became NaN or infinite.
    """
    device = data.train_NF.device
    columns_S = data.columns(architecture, space)
    train_NS = data.train_NF.index_select(1, columns_S)
    validation_S = data.validation_NF.index_select(1, columns_S).split(network.feature_widths, dim=1)
    dropout_generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    n_rows = len(train_NS)
    n_steps = settings.epochs * math.ceil(n_rows / settings.batch_size)
    step = 0
    scores: list[float] = []
    best_epoch, states = 0, []
    for epoch in range(settings.epochs):
        order_N = torch.randperm(n_rows, generator=generator).to(device)
        inputs_NS = train_NS.index_select(0, order_N)
        labels_N = data.train_labels_N.index_select(0, order_N)
        loss_sum = torch.zeros((), device=device)
        network.train()
        for inputs_BS, labels_B in zip(
            inputs_NS.split(settings.batch_size), labels_N.split(settings.batch_size), strict=True
        ):
            optimizer.param_groups[0]["lr"] = settings.learning_rate * _factor(settings.schedule, step / n_steps)
            logits_BC = network(inputs_BS.split(network.feature_widths, dim=1), dropout_generator)
            loss = functional.cross_entropy(logits_BC, labels_B)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach()
            step += 1
        _check_finite(network, float(loss_sum), epoch, settings)
        scores.append(_score(network, validation_S, data.validation_labels_N))
        if settings.keep == "last" or epoch == 0 or scores[-1] > scores[best_epoch]:
            best_epoch, states = epoch, _copy_layers(network)
        if on_epoch is not None:
            on_epoch(epoch, scores[-1])
    return BriefResult(scores, best_epoch, scores[best_epoch], states)


def _factor(schedule: str, progress: float) -> float:
    """Return what the learning rate is multiplied by, after this fraction of all steps."""
    return 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0


def _check_finite(network: FusionNetwork, loss_sum: float, epoch: int, settings: BriefTraining) -> None:
    """Look at the weights too: the loss of the last step was taken before its update."""
    what = "loss" if not math.isfinite(loss_sum) else "weights"
    if what == "weights" and bool(torch.stack([weights.isfinite().all() for weights in network.parameters()]).all()):
        return
    raise TrainingDiverged(
        epoch,
        f"The {what} became NaN or infinite in epoch {epoch + 1}. "
        f"Lower training.learning_rate ({settings.learning_rate:g}) or standardise the features.",
    )


@torch.inference_mode()
def _score(network: FusionNetwork, inputs: tuple[Tensor, ...], labels_N: Tensor) -> float:
    network.eval()
    return accuracy(network(inputs), labels_N)


def _copy_layers(network: FusionNetwork) -> list[dict[str, Tensor]]:
    return [
        {name: tensor.detach().to("cpu", copy=True) for name, tensor in layer.state_dict().items()}
        for layer in network.layers
    ]
