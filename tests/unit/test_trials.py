"""The records of trials and studies: contracts with Optuna's storage, and with databases written before."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mfas_optuna import trials as records
from mfas_optuna.trials import LayerWeights, Plan, Proposal, TrialRecord, WorkerIdentity

PROPOSAL = Proposal("abcd", 1, 2, 3, False, False, 77, 0.5, 0.9, 1)
PLAN = Plan("abcd", 1, 2, (3, 1, 2), (0.3, 0.1, 0.2), 0.5, 90, 12.5, 0.02, 0.25)


@pytest.fixture(params=["memory", "sqlite"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    storage = None if request.param == "memory" else f"sqlite:///{tmp_path / 'x.db'}"
    return optuna.create_study(storage=storage, direction="maximize")


def frozen(study: optuna.Study) -> optuna.trial.FrozenTrial:
    return study.get_trials()[-1]


def test_keys_are_frozen() -> None:
    """Stored databases hold them; changing one orphans every record under it."""
    assert (records._PROPOSAL, records._PLAN, records._FAILURE, records._WORKER) == (
        "mfas:proposal", "mfas:plan", "mfas:failure", "mfas:worker"
    )  # fmt: skip
    assert (records._SPEC, records._FINGERPRINT, records._BACKBONES, records._FEATURES, records._CARD) == (
        "mfas:spec", "mfas:fingerprint", "mfas:backbones", "mfas:features", "mfas:data_card"
    )  # fmt: skip
    assert [field.name for field in fields(Proposal)] == [
        "space", "iteration", "depth", "slot", "is_over_draw", "is_surplus", "network", "temperature",
        "predicted_score", "attempt"
    ]  # fmt: skip


def test_system_attributes_can_be_written_and_read(study: optuna.Study) -> None:
    trial = study.ask()
    worker = WorkerIdentity("host", "boot", 12, 3456)
    records.write_proposal(study, frozen(study), PROPOSAL)
    records.write_plan(study, frozen(study), PLAN)
    study._storage.set_trial_system_attr(trial._trial_id, *records.worker_attribute(worker))
    attributes = records.system_attributes(study, records.trial_id_of(trial))
    assert records.read_proposal(attributes) == PROPOSAL
    assert records.read_plan(attributes) == PLAN
    assert records.read_worker(attributes) == worker
    assert records.read_failure(attributes) is None


def test_records_are_there_after_the_end(study: optuna.Study) -> None:
    trial = study.ask()
    records.write_proposal(study, frozen(study), PROPOSAL)
    records.mirror_proposal(study, frozen(study), PROPOSAL, "[(1,1,1),(1,1,1)]")
    records.write_failure(study, trial, "diverged", "x" * 900)
    study.tell(trial, state=TrialState.FAIL)
    ended = frozen(study)
    assert records.read_proposal(ended.system_attrs) == PROPOSAL
    assert records.read_failure(ended.system_attrs) == "diverged"
    assert ended.user_attrs == {
        "architecture": "[(1,1,1),(1,1,1)]", "iteration": 2, "slot": 3, "temperature": 0.5, "predicted_score": 0.9,
        "failure": "diverged", "failure_message": "x" * 500,
    }  # fmt: skip


def test_how_a_plan_was_drawn_is_shown(study: optuna.Study) -> None:
    study.ask()
    records.mirror_plan(study, frozen(study), replace(PLAN, predicted_scores=None, predicted_std=None))
    assert frozen(study).user_attrs == {}
    records.mirror_plan(study, frozen(study), PLAN)
    assert frozen(study).user_attrs == {"n_candidates": 90, "n_effective": 12.5, "predicted_std": 0.02}
    records.mirror_plan(study, frozen(study), replace(PLAN, rank_correlation_before=-0.5))
    assert frozen(study).user_attrs["rank_correlation_before"] == -0.5


def test_plans_of_before_there_was_a_correlation_are_read() -> None:
    stored = {"version": 1, **asdict(PLAN)}
    del stored["rank_correlation_before"]
    assert records.read_plan({"mfas:plan": stored}) == PLAN


def test_a_finished_trial_cannot_be_changed(study: optuna.Study) -> None:
    study.tell(study.ask(), 0.5)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        records.write_proposal(study, frozen(study), PROPOSAL)


def test_records_of_another_version_are_as_none() -> None:
    assert records.read_proposal({"mfas:proposal": {"version": 99}}) is None
    assert records.read_plan({}) is None
    assert records.read_worker({"mfas:worker": "text"}) is None


def test_enqueued_trials_are_told_by_optunas_attribute(study: optuna.Study) -> None:
    study.enqueue_trial({"depth": 2})
    study.ask()
    assert records.is_enqueued(frozen(study).system_attrs)
    assert records.fixed_parameters(frozen(study).system_attrs) == {"depth": 2}
    study.ask()
    assert not records.is_enqueued(frozen(study).system_attrs)


def test_results_and_lineage(study: optuna.Study) -> None:
    trial = study.ask()
    weights = (LayerWeights("0:48:16", None, "a" * 64), LayerWeights("1:64:16", "b" * 64, "c" * 64))
    record = TrialRecord("[(1,1,1)]", 784, 2, 0.1234, 5, 15, "2.13.0", "cpu", weights)
    records.write_result(trial, record)
    study.tell(trial, 0.5)
    attributes = frozen(study).user_attrs
    assert records.read_weights(attributes) == list(weights)
    shown = {key: value for key, value in attributes.items() if key != "weights"}
    assert shown == {
        "architecture": "[(1,1,1)]",
        "depth": 2,
        "n_parameters": 784,
        "best_epoch": 2,
        "training_s": 0.123,
        "seed": 5,
        "joint_size": 15,
        "torch": "2.13.0, cpu",
        "warm_layers": 1,
    }
    assert records.read_weights({}) == []


def test_best_networks_once_each_and_finite(study: optuna.Study) -> None:
    for score, notation in ((0.5, "[(1,1,1)]"), (0.9, "[(1,1,2)]"), (0.9, "[(2,1,2)]"), (0.7, "[(1,1,1)]")):
        trial = study.ask()
        trial.set_user_attr("architecture", notation)
        study.tell(trial, score)
    infinite = study.ask()
    infinite.set_user_attr("architecture", "[(2,2,2)]")
    study.tell(infinite, math.inf)
    study.tell(study.ask(), 0.99)  # Not of this project: it names no network.
    pruned = study.ask()
    pruned.set_user_attr("architecture", "[(2,2,1)]")
    pruned.report(0.95, 1)
    study.tell(pruned, state=TrialState.PRUNED)
    found = [
        (network.architecture, network.score, network.number) for network in records.best_networks(study.trials, 5)
    ]
    assert found == [("[(1,1,2)]", 0.9, 1), ("[(2,1,2)]", 0.9, 2), ("[(1,1,1)]", 0.7, 3)]
    assert records.best_networks(study.trials, 1, minimize=True)[0].score == 0.5


def test_timings_add_up(study: optuna.Study) -> None:
    records.add_timing(study, "search", 1.5)
    records.add_timing(study, "search", 2.0)
    records.add_timing(study, "data", 1.0)
    assert records.read_timings(study) == {"search": 3.5, "data": 1.0}
