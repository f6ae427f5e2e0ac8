"""MFASSampler through Optuna: what it proposes, when it ends, what it refuses, what it survives."""

from __future__ import annotations

import logging
import math
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mfas_optuna import MFASSampler, SearchSpace
from mfas_optuna import trials as records
from mfas_optuna.errors import SamplerError
from mfas_optuna.search.steps import MAX_REAPED_FAILURES

from .helpers import SPACE, make_sampler, make_study, networks_of, objective, places, proposal_of, run, score

N_PLANNED = 8 + 2 * (4 + 4)
TWO_DEEP = SearchSpace(SPACE.modalities, SPACE.activations, max_depth=2)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


# What it proposes.


def test_the_whole_schedule_and_then_the_end() -> None:
    sampler = make_sampler()
    study = run(make_study(sampler))
    assert len(study.trials) == N_PLANNED
    assert sampler.is_finished(study)
    steps = Counter((iteration, depth) for iteration, depth, _, _, _ in places(study))
    assert steps == {(iteration, depth): 4 for iteration in (0, 1) for depth in (1, 2, 3)}


def test_every_network_extends_one_completed_at_the_depth_below() -> None:
    study = run(make_study(make_sampler()))
    for trial in study.trials:
        proposal = proposal_of(trial)
        parent = SPACE.architecture(proposal.network).parent
        if parent is not None:
            iterations = range(proposal.iteration + 1) if proposal.depth == 2 else [proposal.iteration]
            below = [network for each in iterations for network in networks_of(study, each, proposal.depth - 1)]
            assert SPACE.index(parent) in below


def test_calibrated_never_trains_a_network_twice() -> None:
    study = run(make_study(make_sampler(n_iterations=None)), 120)
    networks = [network for _, _, _, network, _ in places(study)]
    assert len(networks) == len(set(networks)) == 120


def test_paper_trains_depth_one_in_each_iteration() -> None:
    study = run(make_study(make_sampler(mode="paper")))
    assert sorted(networks_of(study, 0, 1)) == sorted(networks_of(study, 1, 1)) == list(range(8))
    assert len(study.trials) == 2 * (8 + 4 + 4)


def test_the_trial_names_the_proposed_network() -> None:
    study = run(make_study(make_sampler()))
    for trial in study.trials:
        architecture = SPACE.architecture(proposal_of(trial).network)
        assert trial.params == SPACE.parameters(architecture)
        assert trial.value == score(architecture)
        assert trial.user_attrs["architecture"] == architecture.paper_notation()
        assert trial.user_attrs["iteration"] in (1, 2)
        assert ("predicted_score" in trial.user_attrs) == (architecture.depth > 1)


def test_minimising_is_maximising_the_negative() -> None:
    up = run(make_study(make_sampler()))
    down = make_study(make_sampler(), direction="minimize")
    down.optimize(lambda trial: -score(SPACE.suggest(trial)), n_trials=200)
    assert places(up) == places(down)
    last = down.trials[-1].user_attrs["predicted_score"]
    assert last == pytest.approx(-up.trials[-1].user_attrs["predicted_score"], abs=1e-6)


@pytest.mark.parametrize("mode", ["calibrated", "paper"])
def test_same_seed_same_search(mode: str) -> None:
    assert places(run(make_study(make_sampler(mode=mode)))) == places(run(make_study(make_sampler(mode=mode))))
    assert places(run(make_study(make_sampler(mode=mode)))) != places(run(make_study(make_sampler(mode=mode, seed=1))))


def test_it_finds_better_networks_than_it_began_with() -> None:
    study = run(make_study(make_sampler(n_iterations=4)))
    first = [score(SPACE.architecture(network)) for network in networks_of(study, 0, 1)]
    assert study.best_value > max(first)


# State from the trials alone.


@pytest.mark.parametrize("mode", ["calibrated", "paper"])
def test_a_fresh_sampler_at_each_trial_proposes_the_same(mode: str) -> None:
    study = make_study(make_sampler(mode=mode))
    for _ in range(40):
        study.sampler = make_sampler(mode=mode)
        if study.sampler.is_finished(study):
            break
        study.optimize(objective(), n_trials=1)
    assert places(study) == places(run(make_study(make_sampler(mode=mode))))


def test_a_pickled_sampler_and_reseeding_change_nothing() -> None:
    study = make_study(make_sampler())
    for number in range(N_PLANNED):
        if number % 3 == 0:
            study.sampler = pickle.loads(pickle.dumps(study.sampler))  # noqa: S301
        study.sampler.reseed_rng()
        study.optimize(objective(), n_trials=1)
    assert places(study) == places(run(make_study(make_sampler())))


def test_the_order_in_which_a_storage_returns_trials_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = places(run(make_study(make_sampler())))
    original = optuna.Study.get_trials
    monkeypatch.setattr(optuna.Study, "get_trials", lambda *a, **k: original(*a, **k)[::-1])
    study = run(make_study(make_sampler()))
    monkeypatch.undo()
    assert places(study) == expected


def test_another_process_with_another_hash_seed_goes_on_the_same(tmp_path: Path) -> None:
    program = """
import sys, optuna
from tests.unit.search.helpers import make_sampler, objective, places
optuna.logging.set_verbosity(optuna.logging.WARNING)
settings = dict(storage=sys.argv[1], study_name="s", direction="maximize", load_if_exists=True)
study = optuna.create_study(sampler=make_sampler(), **settings)
study.optimize(objective(), n_trials=int(sys.argv[2]))
"""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    root = Path(__file__).parents[3]
    for hash_seed, n_trials in (("1", "11"), ("2", "100")):
        subprocess.run(
            [sys.executable, "-c", program, url, n_trials], cwd=root, env={"PYTHONHASHSEED": hash_seed}, check=True
        )
    study = optuna.load_study(study_name="s", storage=url)
    assert places(study) == places(run(make_study(make_sampler())))


def test_a_study_deleted_and_made_anew_under_the_same_sampler() -> None:
    sampler, storage = make_sampler(), optuna.storages.InMemoryStorage()
    for _ in range(2):
        study = run(make_study(sampler, storage=storage, study_name="s"))
        assert len(study.trials) == N_PLANNED
        optuna.delete_study(study_name="s", storage=storage)


def test_one_sampler_for_two_studies() -> None:
    sampler = make_sampler()
    first, second = make_study(sampler), make_study(sampler)
    for _ in range(N_PLANNED):
        first.optimize(objective(), n_trials=1)
        second.optimize(objective(), n_trials=1)
    assert places(first) == places(second) == places(run(make_study(make_sampler())))


# Ask and tell, several at once.


def test_ask_and_tell_as_optimize() -> None:
    study = make_study(make_sampler())
    while not study.sampler.is_finished(study):
        trial = study.ask()
        study.tell(trial, score(SPACE.suggest(trial)))
    assert places(study) == places(run(make_study(make_sampler())))


def test_an_ask_after_the_end_is_uniform_and_holds_no_slot() -> None:
    study = run(make_study(make_sampler()))
    asked = [study.ask() for _ in range(20)]
    networks = {SPACE.suggest(trial) for trial in asked}
    assert len(networks) > 15
    assert all(not proposal_of(trial).is_scheduled for trial in study.trials[N_PLANNED:])
    assert study.sampler.is_finished(study)


@pytest.mark.parametrize("n_at_once", [2, 3, 5])
def test_several_trials_at_once_hold_different_slots(n_at_once: int) -> None:
    study = make_study(make_sampler())
    while not study.sampler.is_finished(study):
        trials = []
        while len(trials) < n_at_once and study.sampler.decide(study).kind in ("slot", "over_draw"):
            trials.append(study.ask())
        for trial in reversed(trials):
            study.tell(trial, score(SPACE.suggest(trial)))
    held = [place[:3] for place in places(study)]
    assert len(held) == len(set(held))
    for step in {place[:2] for place in places(study)}:
        networks = networks_of(study, *step)
        assert len(networks) == len(set(networks))
    n_over_draws = sum(proposal_of(trial).is_over_draw for trial in study.trials)
    assert len(study.trials) == N_PLANNED + n_over_draws
    assert n_over_draws <= 3  # ceil(4 / 5) for each step above depth 1 but the last.


def test_an_ask_never_waits_for_training() -> None:
    """Nobody ever tells: asks go on, at depth 1, with trials outside the schedule, and return at once."""
    study = make_study(make_sampler())
    trials = [study.ask() for _ in range(12)]
    for trial in trials:
        SPACE.suggest(trial)
    assert [proposal_of(trial).is_scheduled for trial in study.trials] == [True] * 8 + [False] * 4
    assert study.sampler.decide(study).kind == "wait"


def test_asked_for_while_it_should_wait_it_over_draws_from_the_plan() -> None:
    study = make_study(make_sampler())
    study.optimize(objective(), n_trials=4)
    asked = [study.ask() for _ in range(9)]
    proposals = [proposal_of(trial) for trial in study.trials[4:]]
    assert len({proposal.network for proposal in proposals}) == len(asked)
    assert all((proposal.iteration, proposal.depth) == (0, 2) for proposal in proposals)
    assert [proposal.is_over_draw for proposal in proposals] == [False] * 4 + [True] * 5
    assert [proposal.is_surplus for proposal in proposals] == [False] * 5 + [True] * 4


def test_threads_share_a_sampler() -> None:
    sampler = make_sampler(n_iterations=3)
    study = make_study(sampler)
    barrier = threading.Barrier(2, timeout=20)
    overlaps = []

    def slow(trial: optuna.Trial) -> float:
        if trial.number < 2:  # Both threads hold a trial at once at least here.
            overlaps.append(barrier.wait())
        return score(SPACE.suggest(trial))

    study.optimize(slow, n_trials=200, n_jobs=2)
    assert sorted(overlaps) == [0, 1]
    assert sampler.is_finished(study)
    for step in {place[:2] for place in places(study) if place[0] >= 0}:
        networks = networks_of(study, *step)
        assert len(networks) == len(set(networks))


# Failures.


def failing(*reasons: records.FailureReason | None) -> tuple[optuna.Study, int]:
    """Let trials of slot 2 fail for the given reasons, then run to the end; return the study and its network."""
    study = make_study(make_sampler())
    study.optimize(objective(), n_trials=2)
    networks = set()
    for reason in reasons:
        trial = study.ask()
        networks.add(proposal_of(study.trials[-1]).network)
        if reason is not None:
            records.write_failure(study, trial, reason, "for the test")
            study.tell(trial, state=TrialState.FAIL)
        else:  # As a storage reaps a dead trial: nobody's after_trial runs.
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert len(networks) == 1
    return run(study), networks.pop()


@pytest.mark.parametrize(
    ("reasons", "is_tried_again"),
    [
        (("diverged",), True),
        (("diverged", "error"), False),
        (("given_back",) * 30, True),
        ((None,) * (MAX_REAPED_FAILURES - 1), True),
        ((None,) * MAX_REAPED_FAILURES, False),
    ],
)
def test_failed_networks_are_tried_again_and_left_out_in_the_end(
    reasons: tuple[records.FailureReason | None, ...], is_tried_again: bool
) -> None:
    study, network = failing(*reasons)
    assert (network in networks_of(study, 0, 1)) == is_tried_again
    assert study.sampler.is_finished(study)
    assert len(networks_of(study, 0, 1)) == 4


def test_an_objective_that_raises_is_a_recorded_failure() -> None:
    study = make_study(make_sampler())

    def moody(trial: optuna.Trial) -> float:
        architecture = SPACE.suggest(trial)
        if architecture.layers[0].features == (1, 1):
            raise ValueError("not this one")
        return score(architecture)

    study.optimize(moody, n_trials=300, catch=(ValueError,))
    assert study.sampler.is_finished(study)
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert {trial.user_attrs["failure"] for trial in failed} == {"error"}
    places_of = [proposal_of(trial) for trial in failed]
    assert max(Counter((place.iteration, place.depth, place.network) for place in places_of).values()) == 2


@pytest.mark.parametrize("how", ["fail", "prune"])
def test_when_all_of_depth_one_fail_or_are_pruned_the_search_ends(how: str) -> None:
    study = make_study(make_sampler())

    def bad(trial: optuna.Trial) -> float:
        SPACE.suggest(trial)
        if how == "prune":
            raise optuna.TrialPruned
        return math.nan

    study.optimize(bad, n_trials=300)
    assert study.sampler.is_finished(study)
    assert len(study.trials) == (8 if how == "prune" else 16)


def test_a_pruned_trial_is_no_parent() -> None:
    study = make_study(make_sampler())

    def pruning(trial: optuna.Trial) -> float:
        architecture = SPACE.suggest(trial)
        if architecture.depth == 1 and architecture.layers[0].activation == 0:
            raise optuna.TrialPruned
        return score(architecture)

    study.optimize(pruning, n_trials=300)
    assert study.sampler.is_finished(study)
    for trial in study.trials:
        assert trial.params["depth"] == 1 or trial.params["layer1.activation"] == "sigmoid"


def test_infinite_scores_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    study = make_study(make_sampler())
    with caplog.at_level(logging.WARNING):
        study.optimize(lambda trial: math.inf if trial.number == 3 else score(SPACE.suggest(trial)), n_trials=200)
    assert sum("Trial 3 is complete with the score inf" in message for message in caplog.messages) == 1
    assert len(networks_of(study, 0, 2)) == 4
    assert all(math.isfinite(trial.user_attrs.get("predicted_score", 0.0)) for trial in study.trials)


# Dead ends.


@pytest.mark.parametrize("mode", ["calibrated", "paper"])
def test_fewer_candidates_than_k(mode: str) -> None:
    space = SearchSpace({"a": ["a1"], "b": ["b1", "b2"]}, ["relu"], max_depth=3)
    study = run(make_study(make_sampler(space, mode=mode, samples_per_step=50, n_iterations=3)), 500, space)
    assert study.sampler.is_finished(study)
    assert len({place[3] for place in places(study)}) == space.size
    assert len(study.trials) == (space.size if mode == "calibrated" else 3 * space.size)


@pytest.mark.parametrize("mode", ["calibrated", "paper"])
@pytest.mark.parametrize("max_depth", [1, 2])
def test_the_smallest_spaces(mode: str, max_depth: int) -> None:
    space = SearchSpace({"a": ["a1"], "b": ["b1"]}, ["relu"], max_depth=max_depth)
    study = run(make_study(make_sampler(space, mode=mode)), 100, space)
    assert len(study.trials) == max_depth * (1 if mode == "calibrated" else 2)
    assert study.sampler.is_finished(study)


def test_without_an_end_it_ends_when_everything_was_evaluated() -> None:
    space = SearchSpace({"a": ["a1"], "b": ["b1", "b2"]}, ["relu", "tanh"], max_depth=2)
    study = run(make_study(make_sampler(space, n_iterations=None)), 500, space)
    assert len(study.trials) == space.size == 20


# Other trials.


def test_enqueued_trials_are_completed_and_are_history() -> None:
    study = make_study(make_sampler())
    study.enqueue_trial({"depth": 2, "layer1.audio": "a2", "layer2.activation": "sigmoid"})
    run(study)
    assert study.trials[0].params["layer1.audio"] == "a2"
    assert study.trials[0].params["layer2.activation"] == "sigmoid"
    assert study.trials[0].state == TrialState.COMPLETE
    assert records.read_proposal(study.trials[0].system_attrs) is None
    assert len(study.trials) == 1 + N_PLANNED


def test_a_partly_fixed_sampler_is_followed() -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        fixed = optuna.samplers.PartialFixedSampler({"layer1.activation": "relu"}, make_sampler())
    study = make_study(fixed)
    study.optimize(objective(), n_trials=60)
    assert {trial.params["layer1.activation"] for trial in study.trials} == {"relu"}


def test_trials_of_other_samplers_hold_no_slot() -> None:
    study = make_study(optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective(), n_trials=10)
    study.sampler = make_sampler()
    run(study)
    assert study.sampler.is_finished(study)
    assert all(records.read_proposal(trial.system_attrs) is None for trial in study.trials[:10])
    networks = [SPACE.from_parameters(trial.params) for trial in study.trials[10:]]
    assert not set(networks) & {SPACE.from_parameters(trial.params) for trial in study.trials[:10]}


def test_parameters_outside_the_space_are_sampled_at_random() -> None:
    study = make_study(make_sampler())

    def with_rate(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        return score(SPACE.suggest(trial)) - rate

    study.optimize(with_rate, n_trials=200)
    assert len(study.trials) == N_PLANNED
    assert len({trial.params["rate"] for trial in study.trials}) == N_PLANNED


def test_an_added_trial_is_history() -> None:
    study = make_study(make_sampler())
    architecture = SPACE.architecture(0)
    choices = SPACE.parameter_choices()
    study.add_trial(
        optuna.create_trial(
            params=SPACE.parameters(architecture),
            distributions={
                name: optuna.distributions.IntDistribution(1, 3)
                if name == "depth"
                else optuna.distributions.CategoricalDistribution(list(choices[name]))
                for name in SPACE.parameters(architecture)
            },
            value=0.5,
        )
    )
    run(study)
    assert all(proposal_of(trial).network != 0 for trial in study.trials[1:])
    assert study.sampler.is_finished(study)


# What it refuses.


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "fast"}, {"n_iterations": 0}, {"samples_per_step": 0}, {"quorum": 0.0}, {"quorum": 1.1},
        {"temperature_min": 0.0}, {"temperature_min": 2.0}, {"temperature_max": 0.05}, {"temperature_decay": 0.0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(settings: dict[str, object]) -> None:
    with pytest.raises(SamplerError, match=next(iter(settings)).replace("_max", "_min")):
        make_sampler(**settings)


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler())
    with pytest.raises(SamplerError, match="one objective, found 2"):
        study.ask()


def test_mode_paper_refuses_to_minimise() -> None:
    study = make_study(make_sampler(mode="paper"), direction="minimize")
    with pytest.raises(SamplerError, match="minimises"):
        study.ask()


@pytest.mark.parametrize("value", [1.5, -0.1])
def test_mode_paper_refuses_scores_that_are_no_accuracies(value: float) -> None:
    study = make_study(make_sampler(mode="paper"))
    with pytest.raises(SamplerError, match="trial 0 scored"):
        study.optimize(lambda trial: value + 0 * len(SPACE.suggest(trial).layers), n_trials=3)


def test_without_a_seed_one_is_drawn() -> None:
    assert MFASSampler(SPACE).seed != MFASSampler(SPACE).seed


def test_calibrated_does_not_plan_a_network_that_is_running() -> None:
    """An over-draw of one iteration that still runs when the next one is planned."""
    study = make_study(make_sampler(TWO_DEEP, quorum=0.5))
    study.optimize(objective(TWO_DEEP), n_trials=4)
    slots = [study.ask() for _ in range(4)]
    over_draw = study.ask()
    assert proposal_of(study.trials[-1]).is_over_draw
    for trial in slots:
        study.tell(trial, score(TWO_DEEP.suggest(trial)))
    running = proposal_of(study.trials[-1]).network
    study.optimize(objective(TWO_DEEP), n_trials=7)
    plans = [records.read_plan(trial.system_attrs) for trial in study.trials]
    assert [plan.iteration for plan in plans if plan is not None] == [0, 0, 1, 1]
    of_step = {(plan.iteration, plan.depth): plan.networks for plan in plans if plan is not None}
    assert running not in of_step[1, 2]
    study.tell(over_draw, score(TWO_DEEP.suggest(over_draw)))


def test_a_trial_that_died_while_being_asked_for_holds_no_slot_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(make_sampler())
    study.optimize(objective(), n_trials=3)
    study._storage.create_new_trial(study._study_id)  # Killed before it could record a place.
    assert study.sampler.decide(study).slot == 4
    monkeypatch.setattr("mfas_optuna.search.history.UNRECORDED_GRACE_S", 0)
    assert study.sampler.decide(study).slot == 3
    run(study)
    assert study.sampler.is_finished(study)
    assert len(study.trials) == N_PLANNED + 1


def test_scores_that_do_not_differ_are_no_reason_to_prefer_a_network() -> None:
    study = optuna.create_study(direction="maximize", sampler=make_sampler(samples_per_step=4))
    study.optimize(lambda trial: 0.5 + 0 * SPACE.suggest(trial).depth, n_trials=16)
    leaders = [trial for trial in study.trials if "n_effective" in trial.user_attrs]
    assert leaders
    assert all(trial.user_attrs["n_effective"] == pytest.approx(trial.user_attrs["n_candidates"]) for trial in leaders)
