"""Trials end to end: architectures, warm-started fusion networks, brief training as a group, published weights."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

import optuna
import torch
from optuna.trial import TrialState

from mfas_optuna import trials as records
from mfas_optuna.errors import BudgetError, MfasError, SpecError
from mfas_optuna.failpoints import reach
from mfas_optuna.features.cache import FeatureSet
from mfas_optuna.fusion.layers import joined_width
from mfas_optuna.fusion.network import FusionNetwork, width_within
from mfas_optuna.memory import free_bytes
from mfas_optuna.progress import Progress, silent
from mfas_optuna.registry.blobs import BlobStore, encode_layer
from mfas_optuna.registry.key import WeightKey
from mfas_optuna.registry.lineage import LayerRecord, Order, rounds, versions, warm_start
from mfas_optuna.search.proposal import seed_from
from mfas_optuna.space import Architecture, SearchSpace
from mfas_optuna.spec import StudySpec
from mfas_optuna.storage import is_database_error, reports
from mfas_optuna.training.brief import BriefData, BriefResult, Member, group_bytes, train_jointly
from mfas_optuna.trials import LayerWeights, TrialRecord

_log = logging.getLogger(__name__)

Interruptible = Callable[[bool], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a trial found.

    Attributes:
        architecture: What was trained.
        score: The study's metric on the validation split, in the epoch that counts.
        record: What is recorded besides the score.
    """

    architecture: Architecture
    score: float
    record: TrialRecord


Outcome = TrialResult | Exception
"""A result, or what ended a trial: TrialPruned, TrainingDiverged, out of memory, or any other error."""
_Lineage = list[tuple[Order, list[LayerRecord]]]
"""Order and layers of trials whose weights count."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a trial stands among the others.

    Attributes:
        order: Decides whose weights are the latest.
        rows: Names the order of rows: trials of a step train on the same batches, together or alone.
        before: Under `snapshot`, only weights of trials with a smaller first number of their order count; None: all.
        seed: Seed of the initial weights and of dropout.
    """

    order: Order
    rows: tuple[int | str, ...]
    before: int | None
    seed: int


class _Reporter:
    """Reports a trial's score at the end of each epoch, and ends it when the study's pruner says so.

    A training that is begun again, in a smaller group, goes through epochs that were reported already: these are
    neither reported nor judged again.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._n_reported = 0
        self._is_pruned = False

    def __call__(self, epoch: int, score: float) -> None:
        """Take note of the score of a 0-based epoch.

        Raises:
            optuna.TrialPruned: The pruner ended the trial.
        """
        if epoch >= self._n_reported:
            self._trial.report(score, epoch + 1)
            self._n_reported = epoch + 1
            self._is_pruned = self._trial.should_prune()
        if self._is_pruned and epoch + 1 == self._n_reported:
            raise optuna.TrialPruned(f"pruned after epoch {epoch + 1}")


@dataclass(frozen=True, slots=True)
class _Assignment:
    """A trial with what it trains."""

    trial: optuna.Trial
    architecture: Architecture
    keys: list[WeightKey]
    place: _Place
    report: _Reporter


class TrialRunner:
    """Runs trials of one study on one device; reads the registry anew for each from the trials that are complete."""

    def __init__(
        self,
        spec: StudySpec,
        features: FeatureSet,
        store: BlobStore,
        device: torch.device,
        progress: Progress = silent,
        *,
        space: SearchSpace | None = None,
    ) -> None:
        """Load the features onto the device.

        Args:
            spec: The study's settings.
            features: Cached features of every split.
            store: Store of the weight blobs.
            device: Where trials train.
            progress: Told of each epoch that a group has gone through.
            space: The study's space, its features ranked; None: as the settings say, which rank nothing.
        """
        self._spec = spec
        self._progress = progress
        self._space = spec.search_space() if space is None else space
        self._sharing = spec.sharing()
        self._features = features
        self._store = store
        self._device = device
        self._data = BriefData.load(
            features,
            standardize=spec.training.standardize,
            device=device,
            metric=spec.metric,
            is_balanced=spec.is_balanced,
        )
        self._check_budget()
        self._widths: dict[Architecture, int] = {}  # Of networks that were measured against the budget.
        self._most: int | None = None  # Networks that memory has been found to allow at once.
        self._lineage: dict[int, tuple[Order, list[LayerRecord]]] = {}

    def run(
        self, study: optuna.Study, trials: Sequence[optuna.Trial], interruptible: Interruptible
    ) -> list[tuple[optuna.Trial, Outcome]]:
        """Train the networks of trials, in rounds of those that can be trained at once, and return what became of them.

        Nothing but epoch scores is recorded here: the caller records and tells all of them at once. When a network
        fails, those of later rounds are not trained and are missing in what is returned: it is to be tried again
        first, as if all were trained one by one.

        Args:
            study: The trials' study.
            trials: Trials just asked for, in the order of their slots.
            interruptible: Gives a context in which a signal may raise at once (True), or not (False).
        """
        assignments: list[_Assignment] = []
        ended: list[tuple[optuna.Trial, Outcome]] = []
        for trial in trials:
            try:
                assignments.append(self._assign(study, trial))
            except BudgetError as error:  # Of this network alone.
                _log.warning("Trial %d is pruned: %s", trial.number, error)
                ended.append((trial, optuna.TrialPruned(str(error))))
        earlier = self._earlier(study)
        for indices in self._rounds(assignments):
            members = [assignments[index] for index in indices]
            outcomes = self._train(study, members, earlier, interruptible)
            ended += [(member.trial, outcome) for member, outcome in zip(members, outcomes, strict=True)]
            for member, outcome in zip(members, outcomes, strict=True):
                if isinstance(outcome, TrialResult):
                    earlier.append((member.place.order, _layer_records(outcome.record.weights)))
            if any(
                isinstance(outcome, Exception) and not isinstance(outcome, optuna.TrialPruned) for outcome in outcomes
            ):
                break
        return ended

    def build(self, architecture: Architecture, generator: torch.Generator) -> FusionNetwork:
        """Return a fresh fusion network of this study on its device.

        Raises:
            BudgetError: It cannot meet the study's budget of parameters.
        """
        return self._build(architecture, self.width(architecture), generator).to(self._device)

    def width(self, architecture: Architecture) -> int:
        """Return H of a network: the study's, or what its budget of parameters allows.

        Raises:
            BudgetError: The network has more parameters whatever its width.
        """
        fusion = self._spec.fusion
        if fusion.n_parameters is None:
            assert fusion.fixed_width is not None
            return fusion.fixed_width
        if architecture not in self._widths:
            self._widths[architecture] = width_within(
                fusion.n_parameters, lambda width: self._build(architecture, width, torch.Generator())
            )
        return self._widths[architecture]

    def _meets_budget(self, architecture: Architecture) -> bool:
        try:
            self.width(architecture)
        except BudgetError:
            return False
        return True

    def _build(self, architecture: Architecture, width: int, generator: torch.Generator) -> FusionNetwork:
        return FusionNetwork(
            architecture,
            self._features.layout.widths(self._space),
            self._space.activations,
            width=width,
            n_outputs=self._features.target.n_outputs,
            dropout=self._spec.fusion.dropout,
            generator=generator,
        )

    def time_group(self, architectures: Sequence[Architecture], seed: int) -> float:
        """Return the seconds that brief training of networks of one step takes; nothing is recorded.

        Those that cannot meet the budget are left out.
        """
        architectures = [architecture for architecture in architectures if self._meets_budget(architecture)]
        if not architectures:
            return 0.0
        if self._sharing == "snapshot":
            divided = [list(range(len(architectures)))]
        else:
            divided = rounds([self._keys(architecture) for architecture in architectures])
        started = time.perf_counter()
        for indices in divided:
            members = []
            for index in indices:
                generator = torch.Generator().manual_seed(seed_from(seed, index))
                members.append(Member(self.build(architectures[index], generator), architectures[index], generator))
            rows = torch.Generator().manual_seed(seed)
            train_jointly(members, self._data, self._space, self._spec.training, order=rows)
        return time.perf_counter() - started

    def _check_budget(self) -> None:
        """Refuse a budget that not even the smallest network meets."""
        budget = self._spec.fusion.n_parameters
        if budget is None:
            return
        widths = self._features.layout.widths(self._space)
        narrowest = [min(width for width in of_modality if width > 0) for of_modality in widths]
        read = sum(narrowest) if self._space.kind == "paper" else min(narrowest)
        least = read + 1 + 2 * self._features.target.n_outputs
        if least > budget:
            raise SpecError([
                f"fusion.n_parameters: no network has so few weights and biases; the smallest, with one layer of width "
                f"1, has {least}. Expected {least} at least, found {budget}."
            ])  # fmt: skip

    # Which trials go together.

    def _assign(self, study: optuna.Study, trial: optuna.Trial) -> _Assignment:
        architecture = self._space.suggest(trial)
        attributes = records.system_attributes(study, records.trial_id_of(trial))
        place = self._place(attributes, trial.number, architecture, lambda: _n_before(study, trial.number))
        return _Assignment(trial, architecture, self._keys(architecture), place, _Reporter(trial))

    def _place(
        self,
        attributes: dict[str, object],
        number: int,
        architecture: Architecture | None,
        count_before: Callable[[], int],
    ) -> _Place:
        """Return a trial's place, by what it recorded, so that one that is repeated has the same."""
        base = self._spec.search.seed
        proposal = records.read_proposal(attributes)
        if proposal is not None and proposal.is_scheduled:
            step = proposal.iteration * self._space.max_depth + proposal.depth - 1
            slot = (proposal.iteration, proposal.depth, proposal.slot, proposal.attempt)
            return _Place((step, proposal.slot, number), slot[:2], step, seed_from(base, "train", *slot))
        ordinal = records.read_ordinal(attributes)
        if ordinal is None and architecture is not None and self._space.kind == "extended":
            # Networks that a search begins with: what becomes of one depends on no other, and not on its number, since
            # one that was interrupted comes back with another.
            index = self._space.index(architecture)
            return _Place((-1, index, number), ("outside",), -1, seed_from(base, "train", "given", index))
        if ordinal is None:  # Enqueued, or added by hand.
            return _Place((-1, 0, number), ("outside",), None, seed_from(base, "train", count_before()))
        # Samplers without steps: as many draws as a step of Algorithm 1 has stand for one.
        block, slot_of_block = divmod(ordinal, self._spec.search.samples_per_step)
        return _Place((block, slot_of_block, number), (block,), block, seed_from(base, "train", ordinal))

    def _keys(self, architecture: Architecture) -> list[WeightKey]:
        fusion = self._spec.fusion
        widths = self._features.layout.widths(self._space)
        width = self.width(architecture)
        below: list[int] = []
        keys = []
        for index, layer in enumerate(architecture.layers):
            operator = self._space.operators[layer.operator]
            of_features = [of_modality[choice] for of_modality, choice in zip(widths, layer.features, strict=True)]
            parts = [*(columns for columns in of_features if columns > 0), *below]
            joined = None if operator == "concatenation" else f"{operator}({'+'.join(map(str, parts))})"
            activation = self._space.activations[layer.activation] if fusion.share_by_activation else None
            keys.append(WeightKey(index, sum(parts), width, activation, joined))
            below = [joined_width(operator, len(parts), width)]
        return keys

    def _rounds(self, assignments: Sequence[_Assignment]) -> Iterator[list[int]]:
        """Yield the indices of those that are trained at once: on the same batches, and by the kind of sharing."""
        start = 0
        for _, group in groupby(assignments, key=lambda assignment: assignment.place.rows):
            members = list(group)
            if self._sharing == "snapshot":
                divided = [list(range(len(members)))]
            else:
                divided = rounds([member.keys for member in members])
            for indices in divided:
                for part in range(0, len(indices), self._most or len(indices)):
                    yield [start + index for index in indices[part : part + (self._most or len(indices))]]
            start += len(members)

    # Training.

    def _train(
        self, study: optuna.Study, members: Sequence[_Assignment], earlier: _Lineage, interruptible: Interruptible
    ) -> list[Outcome]:
        """Train networks at once; where memory does not allow that, or something fails, in halves."""
        started = time.perf_counter()
        group: list[Member] = []
        starts: list[list[str | None]] = []
        for assignment in members:
            generator = torch.Generator().manual_seed(assignment.place.seed)
            network = self.build(assignment.architecture, generator)
            found = versions(self._readable(earlier, assignment.place))
            starts.append(warm_start(list(network.layers), assignment.keys, found, self._store))
            group.append(Member(network, assignment.architecture, generator, assignment.report))
        why = self._too_large(group)
        results: list[BriefResult | Exception] = []
        try:
            if why is None:
                results = self._train_group(study, members, group, interruptible)
        except MfasError:
            raise
        except Exception as error:  # The trial boundary: one that fails is found by halving, and fails alone.
            if is_database_error(error):
                raise
            is_memory = is_out_of_memory(error)
            if len(members) == 1:
                if not is_memory:
                    _log.warning("Trial %d failed.", members[0].trial.number, exc_info=error)
                # Its traceback would keep the group's memory while others train.
                error.__context__ = error.__cause__ = None
                return [error.with_traceback(None)]
            why = "they do not fit into memory" if is_memory else f"{type(error).__name__}: {error}"
            if is_memory:
                self._most = (len(members) + 1) // 2
        if why is not None:
            del group
            half = (len(members) + 1) // 2
            _log.warning("%d networks are not trained at once (%s); trying %d.", len(members), why, half)
            return [
                *self._train(study, members[:half], earlier, interruptible),
                *self._train(study, members[half:], earlier, interruptible),
            ]
        seconds = (time.perf_counter() - started) / len(members)
        states = [state for result in results if isinstance(result, BriefResult) for state in result.layer_states]
        published = iter(self._store.put_all([encode_layer(state) for state in states]))
        reach("after publish")
        return [
            result
            if isinstance(result, Exception)
            else self._result(
                assignment,
                result,
                n_parameters=member.network.n_fusion_parameters,
                seconds=seconds,
                joint_size=len(group),
                weights=tuple(
                    LayerWeights(key.as_text(), digest, next(published))
                    for key, digest in zip(assignment.keys, started_from, strict=True)
                ),
            )
            for assignment, member, result, started_from in zip(members, group, results, starts, strict=True)
        ]

    def _train_group(
        self,
        study: optuna.Study,
        members: Sequence[_Assignment],
        group: Sequence[Member],
        interruptible: Interruptible,
    ) -> list[BriefResult | Exception]:
        epochs = itertools.count(1)
        what = "training 1 network" if len(group) == 1 else f"training {len(group)} networks"

        @contextlib.contextmanager
        def reporting() -> Iterator[None]:
            self._progress(what, next(epochs), self._spec.training.epochs)
            with interruptible(False), reports(study, [member.trial for member in members]):
                yield

        rows = torch.Generator().manual_seed(seed_from(self._spec.search.seed, "rows", *members[0].place.rows))
        with interruptible(True):
            return train_jointly(
                group, self._data, self._space, self._spec.training, order=rows, around_epoch_end=reporting
            )

    def _too_large(self, group: Sequence[Member]) -> str | None:
        free = free_bytes(self._device)
        needed = group_bytes(group, self._data, self._spec.training)
        if len(group) == 1 or free is None or needed <= free:
            return None
        return f"they need about {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free"

    def _result(
        self,
        assignment: _Assignment,
        result: BriefResult,
        *,
        n_parameters: int,
        seconds: float,
        joint_size: int,
        weights: tuple[LayerWeights, ...],
    ) -> TrialResult:
        record = TrialRecord(
            architecture=self._space.notation(assignment.architecture),
            n_parameters=n_parameters,
            best_epoch=result.best_epoch + 1,
            training_s=seconds,
            seed=assignment.place.seed,
            joint_size=joint_size,
            torch_version=torch.__version__,
            device=self._device.type,
            weights=weights,
        )
        return TrialResult(assignment.architecture, result.score, record)

    # The registry.

    def _earlier(self, study: optuna.Study) -> _Lineage:
        """Return the layers of all complete trials."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.number not in self._lineage:
                architecture = self._space.from_parameters(trial.params)
                order = self._place(trial.system_attrs, trial.number, architecture, lambda: 0).order
                self._lineage[trial.number] = (order, _layer_records(records.read_weights(trial.user_attrs)))
        return list(self._lineage.values())

    def _readable(self, earlier: _Lineage, place: _Place) -> _Lineage:
        """Return those that a trial may start from."""
        if self._sharing == "sequential" or place.before is None:
            return earlier
        return [item for item in earlier if item[0][0] < place.before]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is exhausted; torch's CPU allocator raises a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def _n_before(study: optuna.Study, number: int) -> int:
    """Return how many trials before this one did not fail: the same after a kill and a repetition."""
    return sum(
        trial.number < number and trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        for trial in study.get_trials(deepcopy=False)
    )


def _layer_records(weights: Iterable[LayerWeights]) -> list[LayerRecord]:
    return [LayerRecord(WeightKey.from_text(layer.key), layer.started_from, layer.published) for layer in weights]
