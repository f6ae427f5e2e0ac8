"""What a trial and a study record: every attribute key of this project is written and read here alone.

System attributes carry what the sampler needs to rebuild its state; user attributes carry the same for people, who
see them in the dashboard. Finished trials cannot be changed, so everything is written before `tell`.

Optuna has no public call for a trial's system attributes; its own samplers use the storage, and so does this module,
once, in `_set_system`. tests/unit/test_trials.py checks that this still works.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna.space import SearchSpace

FailureReason = Literal["diverged", "out_of_memory", "error", "given_back", "worker_died"]
"""Why a trial failed; a trial that was found dead has no reason, or `worker_died` when it is known what ended it."""

LOST: tuple[FailureReason | None, ...] = (None, "given_back", "worker_died")
"""Reasons that say nothing against the network: its trial ended with its worker, or was given back."""

RECORD_VERSION = 1

_Record = TypeVar("_Record")

# System attributes of a trial.
_PROPOSAL = "mfas:proposal"
_PLAN = "mfas:plan"
_ORDINAL = "mfas:ordinal"
_FAILURE = "mfas:failure"
_WORKER = "mfas:worker"
_FIXED_PARAMETERS = "fixed_params"  # Optuna's own, of an enqueued trial.

# User attributes of a trial, as the dashboard shows them.
ARCHITECTURE = "architecture"
ITERATION = "iteration"
DEPTH = "depth"
SLOT = "slot"
TEMPERATURE = "temperature"
PREDICTED_SCORE = "predicted_score"
N_CANDIDATES = "n_candidates"
N_EFFECTIVE = "n_effective"
PREDICTED_STD = "predicted_std"
RANK_CORRELATION_BEFORE = "rank_correlation_before"
N_PARAMETERS = "n_parameters"
BEST_EPOCH = "best_epoch"
TRAINING_SECONDS = "training_s"
SEED = "seed"
JOINT_SIZE = "joint_size"
TORCH = "torch"
WEIGHTS = "weights"
WARM_LAYERS = "warm_layers"
FAILURE_REASON = "failure"
FAILURE_MESSAGE = "failure_message"

# User attributes of a study; the first one is for people.
STAND_IN = "STAND-IN"
_SPEC = "mfas:spec"
_FINGERPRINT = "mfas:fingerprint"
_BACKBONES = "mfas:backbones"
_FEATURES = "mfas:features"
_CARD = "mfas:data_card"
_TIMINGS = "mfas:timings_s"
_PROBES = "mfas:probe_scores"


@dataclass(frozen=True, slots=True)
class Proposal:
    """The place in the schedule that a trial took, and the network it was given.

    Attributes:
        space: Digest of the search space that `network` counts in.
        iteration: 0-based iteration; -1 for a network drawn outside the schedule.
        depth: Depth of the step; 0 outside the schedule.
        slot: Slot in the step, or the number an over-draw got; -1 outside the schedule.
        is_over_draw: Whether it was taken beyond the step's slots.
        is_surplus: Whether there was no use for a further trial just then; a worker gives it back and waits.
        network: Index of the architecture in the space.
        temperature: Temperature of the step; None where nothing was sampled by temperature.
        predicted_score: The surrogate's prediction; None where there was none.
        attempt: How often this network had failed in this step for a recorded reason.
    """

    space: str
    iteration: int
    depth: int
    slot: int
    is_over_draw: bool
    is_surplus: bool
    network: int
    temperature: float | None
    predicted_score: float | None
    attempt: int

    @property
    def is_scheduled(self) -> bool:
        """Whether the trial holds a place of the schedule."""
        return self.iteration >= 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered networks of a step, published by the trial that leads it.

    Attributes:
        space: Digest of the search space that `networks` count in.
        iteration: 0-based iteration.
        depth: Depth of the step.
        networks: Indices of architectures, in the order in which slots take them.
        predicted_scores: The surrogate's prediction for each; None at depth 1.
        temperature: Temperature of the step; None at depth 1.
        n_candidates: Among how many networks the plan was drawn.
        n_effective: exp of the entropy of the probabilities: among how many the choice was really made.
        predicted_std: Standard deviation of the predictions over all candidates; None at depth 1.
        fit_s: Seconds that fitting the surrogate and predicting took.
        rank_correlation_before: Between predicted and measured scores of the networks of the newest step before this
            one that was predicted (`search.health`), as far as they were complete; None when it could not be given.
    """

    space: str
    iteration: int
    depth: int
    networks: tuple[int, ...]
    predicted_scores: tuple[float, ...] | None
    temperature: float | None
    n_candidates: int
    n_effective: float
    predicted_std: float | None
    fit_s: float
    rank_correlation_before: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """The process that runs a trial, so that another can tell whether it still lives.

    Attributes:
        host: Host name.
        boot_id: Identity of the host's boot.
        pid: Process number.
        process_start: The process's start, in clock ticks since the boot; tells a reused pid apart.
    """

    host: str
    boot_id: str
    pid: int
    process_start: int


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Lineage of one layer's weights in a trial.

    Attributes:
        key: Text of the weight key.
        started_from: Digest that the layer started from; None when it started afresh.
        published: Digest of the weights after training.
    """

    key: str
    started_from: str | None
    published: str


def is_finished(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards the budget: it is complete or pruned."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _set_system(study: optuna.Study, trial_id: int, key: str, value: Any) -> None:
    study._storage.set_trial_system_attr(trial_id, key, value)


def system_attributes(study: optuna.Study, trial_id: int) -> dict[str, Any]:
    """Return a trial's system attributes as stored now; a trial object may hold older ones."""
    return dict(study._storage.get_trial_system_attrs(trial_id))


def is_running(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Return whether a trial is running as stored now; a trial object may be older."""
    return study._storage.get_trial(trial._trial_id).state == TrialState.RUNNING


def trial_id_of(trial: FrozenTrial | optuna.Trial) -> int:
    """Return the storage's identifier of a trial."""
    return int(trial._trial_id)


# The schedule.


def write_proposal(study: optuna.Study, trial: FrozenTrial, proposal: Proposal) -> None:
    """Record the place that a running trial took."""
    _set_system(study, trial._trial_id, _PROPOSAL, {"version": RECORD_VERSION, **asdict(proposal)})


def read_proposal(system_attrs: Mapping[str, Any]) -> Proposal | None:
    """Return the place a trial recorded, or None when it recorded none."""
    return _read(Proposal, system_attrs.get(_PROPOSAL))


def write_plan(study: optuna.Study, trial: FrozenTrial, plan: Plan) -> None:
    """Publish a step's plan on the trial that leads it."""
    _set_system(study, trial._trial_id, _PLAN, {"version": RECORD_VERSION, **asdict(plan)})


def read_plan(system_attrs: Mapping[str, Any]) -> Plan | None:
    """Return the plan that a trial published, or None when it published none."""
    plan = _read(Plan, system_attrs.get(_PLAN))
    if plan is None:
        return None
    predicted = None if plan.predicted_scores is None else tuple(plan.predicted_scores)
    return Plan(**{**asdict(plan), "networks": tuple(plan.networks), "predicted_scores": predicted})


def _read(record: type[_Record], value: Any) -> _Record | None:
    if not isinstance(value, Mapping) or value.get("version") != RECORD_VERSION:
        return None
    return record(**{key: item for key, item in value.items() if key != "version"})


def write_ordinal(study: optuna.Study, trial: FrozenTrial, ordinal: int) -> None:
    """Record which draw of an independent sampler a running trial is."""
    _set_system(study, trial._trial_id, _ORDINAL, ordinal)


def read_ordinal(system_attrs: Mapping[str, Any]) -> int | None:
    """Return which draw of an independent sampler a trial is, or None when it recorded none."""
    return system_attrs.get(_ORDINAL)


def is_enqueued(system_attrs: Mapping[str, Any]) -> bool:
    """Return whether a trial was enqueued with fixed parameters."""
    return _FIXED_PARAMETERS in system_attrs


def fixed_parameters(system_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that an enqueued trial fixes; none for another trial."""
    return dict(system_attrs.get(_FIXED_PARAMETERS, {}))


def enqueue_again(study: optuna.Study, system_attrs: Mapping[str, Any]) -> None:
    """Enqueue what a trial that is lost or given back was enqueued with; do nothing for one that was not."""
    if is_enqueued(system_attrs):
        study.enqueue_trial(fixed_parameters(system_attrs))


def mirror_proposal(study: optuna.Study, trial: FrozenTrial, proposal: Proposal, notation: str) -> None:
    """Repeat a proposal's scalars as user attributes, which the dashboard shows; iterations count from 1 there."""
    values: dict[str, Any] = {ARCHITECTURE: notation}
    if proposal.is_scheduled:
        values |= {ITERATION: proposal.iteration + 1, SLOT: proposal.slot}
    if proposal.temperature is not None:
        values[TEMPERATURE] = proposal.temperature
    if proposal.predicted_score is not None:
        values[PREDICTED_SCORE] = proposal.predicted_score
    _mirror(study, trial, values)


def mirror_plan(study: optuna.Study, trial: FrozenTrial, plan: Plan) -> None:
    """Repeat as user attributes of the trial that leads a step how its networks were chosen; nothing at depth 1."""
    if plan.predicted_std is not None:
        values = {N_CANDIDATES: plan.n_candidates, N_EFFECTIVE: plan.n_effective, PREDICTED_STD: plan.predicted_std}
        if plan.rank_correlation_before is not None:
            values[RANK_CORRELATION_BEFORE] = plan.rank_correlation_before
        _mirror(study, trial, values)


def _mirror(study: optuna.Study, trial: FrozenTrial, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in trial.user_attrs:
            study._storage.set_trial_user_attr(trial._trial_id, key, value)


# Failures and workers.


def write_failure(study: optuna.Study, trial: FrozenTrial | optuna.Trial, reason: FailureReason, message: str) -> None:
    """Record why a running trial is about to fail."""
    _set_system(study, trial._trial_id, _FAILURE, reason)
    study._storage.set_trial_user_attr(trial._trial_id, FAILURE_REASON, reason)
    study._storage.set_trial_user_attr(trial._trial_id, FAILURE_MESSAGE, message[:500])


def read_failure(system_attrs: Mapping[str, Any]) -> FailureReason | None:
    """Return why a trial failed; None when it was found dead or did not fail."""
    return system_attrs.get(_FAILURE)


def worker_attribute(worker: WorkerIdentity) -> tuple[str, dict[str, Any]]:
    """Return key and value of the system attribute that says which process runs a trial."""
    return _WORKER, {"version": RECORD_VERSION, **asdict(worker)}


def read_worker(system_attrs: Mapping[str, Any]) -> WorkerIdentity | None:
    """Return the process that runs a trial, or None when it recorded none."""
    return _read(WorkerIdentity, system_attrs.get(_WORKER))


# Results.


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """What a trial records besides its score.

    Attributes:
        architecture: In the paper's notation.
        n_parameters: Weights and biases of the fusion layers, head not counted (the paper's Table 5).
        best_epoch: 1-based epoch whose score and weights count.
        training_s: Seconds of training; of a group's, this network's share.
        seed: Seed of the initial weights and of dropout.
        joint_size: Networks that were trained as one computation with this one, itself among them. Results are equal
            bit for bit on the CPU only for equal ones.
        torch_version: The torch that trained it.
        device: Type of the device that trained it.
        weights: Lineage of each layer's weights, first layer first.
    """

    architecture: str
    n_parameters: int
    best_epoch: int
    training_s: float
    seed: int
    joint_size: int
    torch_version: str
    device: str
    weights: tuple[LayerWeights, ...]


def write_result(trial: optuna.Trial, record: TrialRecord) -> None:
    """Record what a running trial found besides its score, as attributes that people see."""
    values = {
        ARCHITECTURE: record.architecture,
        DEPTH: len(record.weights),
        N_PARAMETERS: record.n_parameters,
        BEST_EPOCH: record.best_epoch,
        TRAINING_SECONDS: round(record.training_s, 3),
        SEED: record.seed,
        JOINT_SIZE: record.joint_size,
        TORCH: f"{record.torch_version}, {record.device}",
        WEIGHTS: json.dumps([asdict(layer) for layer in record.weights]),
        WARM_LAYERS: sum(layer.started_from is not None for layer in record.weights),
    }
    for key, value in values.items():
        trial.set_user_attr(key, value)


def read_weights(user_attrs: Mapping[str, Any]) -> list[LayerWeights]:
    """Return the lineage of a trial's weights; empty when it recorded none."""
    text = user_attrs.get(WEIGHTS)
    return [LayerWeights(**item) for item in json.loads(text)] if isinstance(text, str) else []


@dataclass(frozen=True, slots=True)
class RankedNetwork:
    """One of the best networks of a study.

    Attributes:
        architecture: In the paper's notation.
        score: Validation score of its best trial.
        n_parameters: Weights and biases of its fusion layers; None for a trial that did not record them.
        number: The trial that scored it.
        parameters: The trial's parameters: depth, features and activations by name.
    """

    architecture: str
    score: float
    n_parameters: int | None
    number: int
    parameters: dict[str, Any]


def best_networks(trials: Iterable[FrozenTrial], count: int, *, minimize: bool = False) -> list[RankedNetwork]:
    """Return the best networks of complete trials, each once, best first; the earlier trial first among equals."""
    sign = -1.0 if minimize else 1.0
    complete = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE and ARCHITECTURE in trial.user_attrs and math.isfinite(trial.values[0])
    ]
    ranked: dict[str, RankedNetwork] = {}
    for trial in sorted(complete, key=lambda trial: (-sign * trial.values[0], trial.number)):
        notation = trial.user_attrs[ARCHITECTURE]
        if notation not in ranked:
            ranked[notation] = RankedNetwork(
                notation, trial.values[0], trial.user_attrs.get(N_PARAMETERS), trial.number, dict(trial.params)
            )
    return list(ranked.values())[:count]


# Studies.


def write_study(study: optuna.Study, *, scientific: Mapping[str, Any], fingerprint: str) -> None:
    """Record the settings that a study was created with."""
    study.set_user_attr(_SPEC, json.dumps(scientific))
    study.set_user_attr(_FINGERPRINT, fingerprint)


def read_scientific(study: optuna.Study) -> dict[str, Any] | None:
    """Return the settings that a study was created with; None for a study that is not of this project."""
    text = study.user_attrs.get(_SPEC)
    return json.loads(text) if isinstance(text, str) else None


def write_study_inputs(
    study: optuna.Study, *, backbones: Mapping[str, Any], features: str, card: str, stand_in: str
) -> None:
    """Record what a study's scores rest on: its backbones (digests and unimodal scores), features and data card.

    And what generated data stand in for; empty for real data.
    """
    if stand_in:
        study.set_user_attr(STAND_IN, stand_in)
    study.set_user_attr(_BACKBONES, json.dumps(backbones))
    study.set_user_attr(_FEATURES, features)
    study.set_user_attr(_CARD, card)


def read_backbones(study: optuna.Study) -> dict[str, Any] | None:
    """Return the record of a study's backbones, or None when there is none yet."""
    text = study.user_attrs.get(_BACKBONES)
    return json.loads(text) if isinstance(text, str) else None


def read_stand_in(study: optuna.Study) -> str:
    """Return what the generated data of a study stand in for; empty for real data."""
    return str(study.user_attrs.get(STAND_IN, ""))


def read_card(study: optuna.Study) -> str:
    """Return the data card of a study; empty before its data are there."""
    return str(study.user_attrs.get(_CARD, ""))


def read_features(study: optuna.Study) -> str | None:
    """Return the fingerprint of the features that a study's scores rest on, or None when there is none yet."""
    return study.user_attrs.get(_FEATURES)


def write_probe_scores(study: optuna.Study, scores: Mapping[str, Sequence[float]]) -> None:
    """Record what linear probes say of each choice of each modality, by which its features are ranked."""
    study.set_user_attr(_PROBES, json.dumps({modality: list(of_choices) for modality, of_choices in scores.items()}))


def read_probe_scores(study: optuna.Study) -> dict[str, list[float]] | None:
    """Return the scores of probes, or None where there are none, as in the paper's space."""
    text = study.user_attrs.get(_PROBES)
    return json.loads(text) if isinstance(text, str) else None


def ranked_space(study: optuna.Study, space: SearchSpace) -> SearchSpace:
    """Return a study's space with its features ranked as the study recorded; as it is where it recorded nothing."""
    scores = read_probe_scores(study)
    return space if scores is None else space.ranked(scores)


def add_timing(study: optuna.Study, stage: str, seconds: float) -> None:
    """Add seconds to a stage's total of a study."""
    timings = read_timings(study)
    timings[stage] = round(timings.get(stage, 0.0) + seconds, 3)
    study.set_user_attr(_TIMINGS, json.dumps(timings))


def read_timings(study: optuna.Study) -> dict[str, float]:
    """Return the seconds spent in each stage of a study."""
    text = study.user_attrs.get(_TIMINGS)
    return json.loads(text) if isinstance(text, str) else {}
