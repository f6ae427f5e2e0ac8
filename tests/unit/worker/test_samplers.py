"""Optuna's own samplers under a study's seed, and the device a user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from mfas_optuna import MFASSampler
from mfas_optuna import trials as records
from mfas_optuna.errors import DeviceError
from mfas_optuna.spec import load_spec
from mfas_optuna.worker.devices import choose_device
from mfas_optuna.worker.samplers import make_pruner, make_sampler
from tests.unit.search.helpers import SPACE, score

SPEC = load_spec(Path(__file__).parents[3] / "studies" / "digits.toml")


def run(name: str, seed: int, stops: list[int]) -> list[dict[str, Any]]:
    """Run 20 trials with a fresh sampler after each stop, and a failed trial there, as a killed worker leaves."""
    study = optuna.create_study(direction="maximize")
    while True:
        n_done = sum(trial.state.name == "COMPLETE" for trial in study.trials)
        if n_done == 20:
            return [trial.params for trial in study.trials if trial.state.name == "COMPLETE"]
        study.sampler = make_sampler(SPEC.with_search(sampler=name, seed=seed))
        until = next((stop for stop in stops if stop > n_done), 20)
        study.optimize(lambda trial: score(SPACE.suggest(trial)), n_trials=until - n_done)
        if until < 20:
            trial = study.ask()
            SPACE.suggest(trial)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_a_resumed_search_proposes_what_an_uninterrupted_one_would(name: str) -> None:
    uninterrupted = run(name, 0, [])
    assert run(name, 0, [3, 4, 15]) == uninterrupted
    assert run(name, 1, []) != uninterrupted


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_a_network_that_failed_for_a_reason_is_not_drawn_again(name: str) -> None:
    study = optuna.create_study(direction="maximize", sampler=make_sampler(SPEC.with_search(sampler=name)))
    drawn = []
    for _ in range(10):
        trial = study.ask()
        drawn.append(SPACE.suggest(trial).paper_notation())
        records.write_failure(study, trial, "diverged", "for the test")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len(set(drawn)) > 5
    assert [records.read_ordinal(trial.system_attrs) for trial in study.trials] == list(range(10))


def test_a_dead_trials_draw_is_taken_up_and_no_living_ones() -> None:
    study = optuna.create_study(direction="maximize", sampler=make_sampler(SPEC.with_search(sampler="random")))
    trials = [study.ask() for _ in range(3)]
    networks = [SPACE.suggest(trial) for trial in trials]
    study.tell(trials[1], state=optuna.trial.TrialState.FAIL)
    again = study.ask()
    assert SPACE.suggest(again) == networks[1]
    assert SPACE.suggest(study.ask()) not in networks


def test_the_sampler_of_a_study_has_its_settings() -> None:
    sampler = make_sampler(SPEC.with_search(mode="paper", seed=7))
    assert isinstance(sampler, MFASSampler)
    assert (sampler.mode, sampler.seed, sampler.space) == ("paper", 7, SPEC.search_space())
    assert (sampler.schedule.samples_per_step, sampler.schedule.n_iterations) == (15, 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", optuna.pruners.NopPruner),
        ("median", optuna.pruners.MedianPruner),
    ],
)
def test_pruners_by_name(name: str, kind: type[optuna.pruners.BasePruner]) -> None:
    assert type(named_pruner(name)) is kind


def named_pruner(name: str) -> optuna.pruners.BasePruner:
    search = SPEC.search.model_copy(update={"pruner": name})
    return make_pruner(SPEC.model_copy(update={"search": search}))


@pytest.mark.parametrize("lost", [TrialState.FAIL, TrialState.RUNNING])
def test_successive_halving_does_not_compare_with_failed_trials(lost: TrialState) -> None:
    """Four trials reach the first rung, of which one in four goes on: with a better one lost, the best of the rest."""
    study = optuna.create_study(direction="maximize", pruner=named_pruner("successive_halving"))
    first = study.ask()
    first.report(0.0, 1)
    study.tell(first, 0.0)  # Optuna takes the size of its rungs from the first complete trial.
    trials = [study.ask() for _ in range(5)]
    ends = []
    for trial, value in zip(trials, (0.9, 0.1, 0.2, 0.3, 0.8), strict=True):
        trial.report(value, 1)
        ends.append(trial.should_prune())
        if trial is trials[0] and lost == TrialState.FAIL:
            study.tell(trial, state=TrialState.FAIL)
    assert ends[4] == (lost == TrialState.RUNNING)


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "mps", "cpu:3", "cuda:99", ""):
        with pytest.raises(DeviceError, match="--device"):
            choose_device(name)
