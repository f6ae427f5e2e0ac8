"""One trial end to end: architecture, warm-started fusion network, brief training, published weights, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import trials as records
from mfas_optuna.features.cache import FeatureSet
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.registry.blobs import FolderBlobStore, encode_layer
from mfas_optuna.registry.key import WeightKey
from mfas_optuna.registry.lineage import LayerRecord, Order, versions, warm_start
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.space import Architecture
from mfas_optuna.spec import StudySpec
from mfas_optuna.training.brief import BriefData, train_briefly
from mfas_optuna.trials import LayerWeights

Interruptible = Callable[[bool], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a trial found.

    Attributes:
        architecture: What was trained.
        score: Accuracy on the validation split of the epoch that counts.
        n_parameters: Weights and biases of the fusion layers, head not counted (the paper's Table 5).
    """

    architecture: Architecture
    score: float
    n_parameters: int


class TrialRunner:
    """Runs trials of one study on one device; reads the registry anew for each from the trials that are complete."""

    def __init__(self, spec: StudySpec, features: FeatureSet, weights: Path, device: torch.device) -> None:
        """Load the features onto the device.

        Args:
            spec: The study's settings.
            features: Cached features of every split.
            weights: Folder of the weight blobs.
            device: Where trials train.
        """
        self._spec = spec
        self._space = spec.search_space()
        self._features = features
        self._store = FolderBlobStore(weights)
        self._device = device
        self._data = BriefData.load(features, standardize=spec.training.standardize, device=device)
        self._lineage: dict[int, tuple[Order, list[LayerRecord]]] = {}

    def run(self, study: optuna.Study, trial: optuna.Trial, interruptible: Interruptible) -> TrialResult:
        """Train the trial's network and record everything but its score, which the caller tells.

        Args:
            study: The trial's study.
            trial: A trial just asked for.
            interruptible: Gives a context in which a signal may raise at once (True), or not (False).

        Raises:
            TrainingDiverged: The loss or a weight became NaN or infinite; nothing was published.
            optuna.TrialPruned: The study's pruner ended it.
        """
        architecture = self._space.suggest(trial)
        seed = self._seed(study, trial)
        generator = torch.Generator().manual_seed(seed)
        network = self.build(architecture, generator)
        keys = self._keys(architecture, network)
        started_from = warm_start(list(network.layers), keys, versions(self._complete(study)), self._store)

        def on_epoch(epoch: int, score: float) -> None:
            with interruptible(False):
                trial.report(score, epoch + 1)
                if trial.should_prune():
                    raise optuna.TrialPruned(f"pruned after epoch {epoch + 1}")

        started = time.perf_counter()
        with interruptible(True):
            result = train_briefly(
                network,
                architecture,
                self._data,
                self._space,
                self._spec.training,
                generator=generator,
                on_epoch=on_epoch,
            )
        seconds = time.perf_counter() - started
        published = [self._store.put(encode_layer(state)) for state in result.layer_states]
        records.write_result(
            trial,
            architecture=architecture.paper_notation(),
            n_parameters=network.n_fusion_parameters,
            best_epoch=result.best_epoch + 1,
            training_s=round(seconds, 3),
            seed=seed,
            weights=[
                LayerWeights(key.as_text(), start, digest)
                for key, start, digest in zip(keys, started_from, published, strict=True)
            ],
        )
        return TrialResult(architecture, result.score, network.n_fusion_parameters)

    def build(self, architecture: Architecture, generator: torch.Generator) -> FusionNetwork:
        """Return a fresh fusion network of this study on its device."""
        network = FusionNetwork(
            architecture,
            self._features.layout.widths(self._space),
            self._space.activations,
            width=self._spec.fusion.width,
            n_classes=self._features.n_classes,
            dropout=self._spec.fusion.dropout,
            generator=generator,
        )
        return network.to(self._device)

    def time_trial(self, architecture: Architecture, seed: int) -> float:
        """Return the seconds that one brief training takes; nothing is recorded."""
        generator = torch.Generator().manual_seed(seed)
        network = self.build(architecture, generator)
        started = time.perf_counter()
        train_briefly(network, architecture, self._data, self._space, self._spec.training, generator=generator)
        return time.perf_counter() - started

    def _keys(self, architecture: Architecture, network: FusionNetwork) -> list[WeightKey]:
        shares = self._spec.fusion.share_by_activation
        return [
            WeightKey(index, columns, rows, self._space.activations[layer.activation] if shares else None)
            for index, ((columns, rows), layer) in enumerate(zip(network.layer_sizes, architecture.layers, strict=True))
        ]

    def _seed(self, study: optuna.Study, trial: optuna.Trial) -> int:
        """Return the seed of a trial's training: it follows the trial's place, so that a repeated one is the same."""
        attributes = records.system_attributes(study, records.trial_id_of(trial))
        proposal = records.read_proposal(attributes)
        base = self._spec.search.seed
        if proposal is not None and proposal.is_scheduled:
            place: Sequence[int] = (proposal.iteration, proposal.depth, proposal.slot, proposal.attempt)
            return seed_from(base, "train", *place)
        ordinal = records.read_ordinal(attributes)
        return seed_from(base, "train", _n_before(study, trial.number) if ordinal is None else ordinal)

    def _complete(self, study: optuna.Study) -> list[tuple[Order, list[LayerRecord]]]:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.number not in self._lineage:
                self._lineage[trial.number] = (self._order(trial), _layer_records(trial))
        return list(self._lineage.values())

    def _order(self, trial: FrozenTrial) -> Order:
        proposal = records.read_proposal(trial.system_attrs)
        if proposal is None or not proposal.is_scheduled:
            return (-1, 0, trial.number)
        return (proposal.iteration * self._space.max_depth + proposal.depth - 1, proposal.slot, trial.number)


def _n_before(study: optuna.Study, number: int) -> int:
    """Return how many trials before this one did not fail: the same after a kill and a repetition."""
    return sum(
        trial.number < number and trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        for trial in study.get_trials(deepcopy=False)
    )


def _layer_records(trial: FrozenTrial) -> list[LayerRecord]:
    return [
        LayerRecord(WeightKey.from_text(layer.key), layer.started_from, layer.published)
        for layer in records.read_weights(trial.user_attrs)
    ]
