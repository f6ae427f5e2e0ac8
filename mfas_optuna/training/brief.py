"""Brief training of fusion networks on cached features (lines 13 and 23 of Algorithm 1): one, or a group at once.

An epoch shuffles the rows as a whole, so that each batch is a slice and costs no gathering.

Shapes: N rows, F columns of all features, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.features.cache import FeatureLayout, FeatureSet
from mfas_optuna.fusion.group import FusionGroup
from mfas_optuna.fusion.joint import JointFusion, is_plain
from mfas_optuna.fusion.losses import Loss, loss_for
from mfas_optuna.fusion.mixed import MixedFusion
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import Architecture, SearchSpace
from mfas_optuna.spec import BriefTraining
from mfas_optuna.target import METRICS, Metric
from mfas_optuna.threads import one_thread
from mfas_optuna.training.adamw import FlatAdamW
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.metrics import make_scorer

ROWS_AT_ONCE_SCORING = 512


@dataclass(frozen=True)
class BriefData:
    """Training and validation rows on the device, standardised when the study says so.

    Attributes:
        layout: Which columns hold which feature.
        train_NF: Rows to train on.
        train_labels: What is predicted of them: classes (N,), or labels or standardised values (N, C).
        validation_NF: Rows to score on.
        validation_labels: What is predicted of these.
        loss: What is minimised.
        metric: What a score is.
        more_views_NF: Further views of the training rows, of augmented samples; each epoch draws one of all views.
    """

    layout: FeatureLayout
    train_NF: Tensor
    train_labels: Tensor
    validation_NF: Tensor
    validation_labels: Tensor
    loss: Loss = Loss()  # noqa: RUF009 - it is frozen
    metric: Metric = "accuracy"
    more_views_NF: tuple[Tensor, ...] = ()

    @staticmethod
    def load(
        features: FeatureSet,
        *,
        standardize: bool,
        device: torch.device,
        metric: Metric | None = None,
        is_balanced: bool = False,
    ) -> BriefData:
        """Copy the rows of both splits to the device as float32.

        Args:
            features: Opened cache.
            standardize: Subtract the training split's column means and divide by its deviations.
            device: Where trials train.
            metric: What a score is; None: the first that suits the target.
            is_balanced: Whether the loss is weighted against frequent classes or labels.
        """
        kind = features.target.kind
        train_labels = features.labels("train")
        scale = LabelScale.of(kind, train_labels)

        def rows(split: str) -> Tensor:
            return standardized_rows(features, split, standardize=standardize).to(device)

        return BriefData(
            layout=features.layout,
            train_NF=rows("train"),
            train_labels=scale.tensor(train_labels, device),
            validation_NF=rows("validation"),
            validation_labels=scale.tensor(features.labels("validation"), device),
            loss=loss_for(features.target, train_labels, is_balanced=is_balanced, device=device),
            metric=metric or METRICS[kind][0],
            more_views_NF=tuple(rows(split) for split in sorted(features.arrays) if split.startswith("train.")),
        )

    def draw_view(self, generator: torch.Generator) -> Tensor:
        """Return the rows of a view of the training split, drawn uniformly; nothing is drawn when there is but one."""
        if not self.more_views_NF:
            return self.train_NF
        views = (self.train_NF, *self.more_views_NF)
        return views[int(torch.randint(len(views), (), generator=generator))]

    def reads(self, architecture: Architecture, space: SearchSpace) -> list[list[tuple[slice, ...]]]:
        """Return for each layer of a network the columns of what it takes of each modality."""
        return [
            [
                tuple(self.layout.columns(modality, name) for name in space.members(modality, choice))
                for modality, choice in zip(space.choices, layer.features, strict=True)
            ]
            for layer in architecture.layers
        ]


def standardized_rows(features: FeatureSet, split: str, *, standardize: bool) -> Tensor:
    """Return the rows of a split as float32 (N, F) on the CPU, standardised by the training split when asked for."""
    matrix_NF = torch.tensor(features.matrix(split), dtype=torch.float32)
    if standardize:
        shift_F, scale_F = features.layout.standardization(features.mean, features.std)
        matrix_NF.sub_(torch.from_numpy(shift_F)).div_(torch.from_numpy(scale_F))
    return matrix_NF


@dataclass(frozen=True)
class BriefResult:
    """What brief training found.

    Attributes:
        epoch_scores: Score on the validation split after each epoch.
        best_epoch: 0-based epoch whose score and weights count.
        score: Its score.
        layer_states: For each fusion layer its `weight` and `bias` after that epoch, on the CPU.
    """

    epoch_scores: list[float]
    best_epoch: int
    score: float
    layer_states: list[dict[str, Tensor]]


@dataclass(frozen=True)
class Member:
    """One network of a group.

    Attributes:
        network: Where it starts, on the data's device; its parameters are those of its last epoch afterwards.
        architecture: What it is.
        generator: A CPU generator of its dropout masks.
        on_epoch: Called with the 0-based epoch and its score; what it raises ends this network's training.
    """

    network: FusionNetwork
    architecture: Architecture
    generator: torch.Generator
    on_epoch: Callable[[int, float], None] | None = None


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
    """Train one network in place for a few epochs, scoring it on the whole validation split after each.

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
    member = Member(network, architecture, generator, on_epoch)
    (outcome,) = train_jointly([member], data, space, settings, order=generator)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@one_thread()
def train_jointly(
    members: Sequence[Member],
    data: BriefData,
    space: SearchSpace,
    settings: BriefTraining,
    *,
    order: torch.Generator,
    around_epoch_end: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[BriefResult | Exception]:
    """Train a group of networks on the same batches; each becomes what it would become alone on them.

    Args:
        members: The networks.
        data: Rows to train and score on.
        space: The space that the architectures' indices count in.
        settings: How long and how fast.
        order: A CPU generator for the order of rows.
        around_epoch_end: Gives a context in which the `on_epoch` of all members are called.

    Returns:
        For each member its result, or the exception that ended its training: TrainingDiverged when its loss or a
        weight became NaN or infinite, or whatever its `on_epoch` raised. The others go on without it.
    """
    group = _Group(members, data, space, settings)
    n_rows = len(data.train_NF)
    passes = n_passes(n_rows, settings.batch_size, settings.epochs, settings.min_steps)
    n_steps = settings.epochs * passes * math.ceil(n_rows / settings.batch_size)
    step = 0
    for epoch in range(settings.epochs):
        for _ in range(passes):
            for rows_BF, labels in shuffled_batches(data, settings.batch_size, order):
                group.step(rows_BF, labels, settings.learning_rate * _factor(settings.schedule, step / n_steps))
                step += 1
        group.end_epoch(epoch, around_epoch_end)
        if not group.is_alive:
            break
    return group.outcomes()


def n_passes(n_rows: int, batch_size: int, epochs: int, min_steps: int) -> int:
    """Return how often an epoch goes over the rows, so that all epochs together have at least so many steps."""
    return max(1, math.ceil(min_steps / (epochs * math.ceil(n_rows / batch_size))))


def shuffled_batches(data: BriefData, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows and labels of each batch of one pass over the training split.

    Args:
        data: On the device.
        batch_size: Rows of a batch; the last may have fewer.
        generator: A CPU generator of the order of rows, then of their view.
    """
    order_N = torch.randperm(len(data.train_NF), generator=generator).to(data.train_NF.device)
    rows_NF = data.draw_view(generator).index_select(0, order_N)
    labels = data.train_labels.index_select(0, order_N)
    yield from zip(rows_NF.split(batch_size), labels.split(batch_size), strict=True)


def group_bytes(members: Sequence[Member], data: BriefData, settings: BriefTraining) -> int:
    """Return about how many bytes the training of a group takes besides the data.

    The training rows once more, shuffled; parameters with their gradient and two moments, in the group, in the networks
    and in the best epoch's copies; for each row of a batch or of a scoring, what is kept of each layer: the products of
    each modality, and eight values for each of h; of networks that are computed one by one what layers read, twice.
    """
    n_parameters = sum(parameter.numel() for member in members for parameter in member.network.parameters())
    n_values = sum(_n_values_kept(member.network) for member in members)
    bytes_of_value = data.train_NF.element_size()
    n_rows = min(settings.batch_size, len(data.train_NF)) + ROWS_AT_ONCE_SCORING
    return data.train_NF.nbytes + bytes_of_value * (8 * n_parameters + n_values * n_rows)


def _n_values_kept(network: FusionNetwork) -> int:
    """Return about how many values of a row are kept for the gradient: what layers read, and eight for each of h."""
    if network.is_plain:
        return sum((8 + len(parts)) * network.width for parts in network.part_widths)
    return sum(2 * columns + 8 * joined for columns, joined in network.layer_sizes)


class _Group:
    """The networks that are still training, and what became of the others."""

    def __init__(self, members: Sequence[Member], data: BriefData, space: SearchSpace, settings: BriefTraining) -> None:
        self._members = members
        self._data = data
        self._settings = settings
        self._reads = [data.reads(member.architecture, space) for member in members]
        self._scores: list[list[float]] = [[] for _ in members]
        self._best: list[tuple[int, dict[str, Tensor]]] = [(0, {}) for _ in members]
        self._ended: dict[int, Exception] = {}
        device = data.train_NF.device
        self._generators = [
            torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=member.generator)))
            for member in members
        ]
        self._alive = list(range(len(members)))
        self._regroup()

    @property
    def is_alive(self) -> bool:
        return bool(self._alive)

    def _regroup(self) -> None:
        """Build the joint network of those that are left."""
        networks = [self._members[index].network for index in self._alive]
        reads = [self._reads[index] for index in self._alive]
        is_joint = len({network.width for network in networks}) == 1 and all(map(is_plain, networks, reads))
        self._joint: FusionGroup = (
            JointFusion(networks, reads, self._data.loss)
            if is_joint
            else MixedFusion(networks, reads, self._data.loss, auxiliary_weight=self._settings.auxiliary_weight)
        )
        self._optimizer = FlatAdamW(self._joint.flat, weight_decay=self._settings.weight_decay)
        self._loss_sums_N = torch.zeros(len(self._alive), device=self._data.train_NF.device)

    def step(self, rows_BF: Tensor, labels: Tensor, learning_rate: float) -> None:
        """Take one step of all networks."""
        generators = [self._generators[index] for index in self._alive]
        self._loss_sums_N += self._joint.gradient(rows_BF, labels, generators)
        self._optimizer.step(learning_rate)

    def end_epoch(self, epoch: int, around: Callable[[], AbstractContextManager[None]]) -> None:
        """Score all networks, and part with those that diverged or are told to end."""
        states = self._joint.states()
        scores = self._score()
        losses = self._loss_sums_N.tolist()
        ended = len(self._ended)
        with around():
            for position, index in enumerate(self._alive):
                member, state = self._members[index], states[position]
                member.network.load_state_dict(state)
                try:
                    self._check_finite(losses[position], state, scores[position], epoch)
                    self._keep(index, epoch, scores[position], state)
                    if member.on_epoch is not None:
                        member.on_epoch(epoch, scores[position])
                except Exception as error:  # The trial boundary: it ends this network alone.
                    # A traceback would keep this group, with its buffers, as long as the outcome is kept.
                    self._ended[index] = error.with_traceback(None)
        self._loss_sums_N.zero_()
        if len(self._ended) > ended:
            self._part()

    def _keep(self, index: int, epoch: int, score: float, state: dict[str, Tensor]) -> None:
        scores = self._scores[index]
        if self._settings.keep == "last" or epoch == 0 or score > scores[self._best[index][0]]:
            self._best[index] = (epoch, {name: tensor.to("cpu", copy=True) for name, tensor in state.items()})
        scores.append(score)

    def _part(self) -> None:
        """Go on with those that have not ended, and with what the optimiser remembers of them."""
        left = [position for position, index in enumerate(self._alive) if index not in self._ended]
        self._alive = [self._alive[position] for position in left]
        if not self._alive:
            return
        joint, before = self._joint, self._optimizer
        moments = [joint.unpack(moment) for moment in (before.exp_avg, before.exp_avg_sq)]
        self._regroup()
        self._optimizer.exp_avg, self._optimizer.exp_avg_sq = (
            self._joint.pack([of_each[position] for position in left]) for of_each in moments
        )
        self._optimizer.n_steps = before.n_steps

    @torch.inference_mode()
    def _score(self) -> list[float]:
        scorer = make_scorer(self._data.loss.kind, self._data.metric)
        rows, labels = self._data.validation_NF, self._data.validation_labels
        for rows_BF, of_batch in zip(rows.split(ROWS_AT_ONCE_SCORING), labels.split(ROWS_AT_ONCE_SCORING), strict=True):
            scorer.add(self._joint.forward(rows_BF), of_batch)
        return scorer.scores()

    def _check_finite(self, loss_sum: float, state: dict[str, Tensor], score: float, epoch: int) -> None:
        """Look at the weights too: the loss of the last step was taken before its update."""
        if not math.isfinite(loss_sum):
            what = "loss"
        elif not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            what = "weights"
        elif not math.isfinite(score):  # Huge weights can do that to R².
            what = "score"
        else:
            return
        raise TrainingDiverged(
            epoch,
            f"The {what} became NaN or infinite in epoch {epoch + 1}. "
            f"Lower training.learning_rate ({self._settings.learning_rate:g}) or standardise the features.",
        )

    def outcomes(self) -> list[BriefResult | Exception]:
        """Return what became of each member."""
        return [self._ended.get(index) or self._result(index) for index in range(len(self._members))]

    def _result(self, index: int) -> BriefResult:
        best_epoch, state = self._best[index]
        layers: list[dict[str, Tensor]] = [{} for _ in range(self._members[index].architecture.depth)]
        for name, tensor in state.items():
            room, _, rest = name.partition(".")
            if room == "layers":
                number, _, of_layer = rest.partition(".")
                layers[int(number)][of_layer] = tensor
        return BriefResult(self._scores[index], best_epoch, self._scores[index][best_epoch], layers)


def _factor(schedule: str, progress: float) -> float:
    """Return what the learning rate is multiplied by, after this fraction of all steps."""
    return 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0
