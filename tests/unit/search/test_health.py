"""How the surrogate did: the correlation against SciPy's, when a choice is near uniform, and what the sampler tells."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import optuna
import pytest
import scipy.stats

from mfas_optuna import SearchSpace
from mfas_optuna import trials as records
from mfas_optuna.search import proposal as proposals
from mfas_optuna.search.health import MIN_PAIRS, StepHealth, is_near_uniform, rank_correlation
from mfas_optuna.search.steps import SearchStep

from .helpers import SPACE, make_sampler, make_study, objective, proposal_of, run, score

# The correlation.


@pytest.mark.parametrize("seed", range(20))
def test_the_rank_correlation_is_spearmans_also_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(MIN_PAIRS, 40))
    predicted = rng.normal(size=n)
    measured = np.round(predicted + rng.normal(size=n), seed % 3)  # To whole numbers, many of which are equal.
    found = rank_correlation(list(zip(predicted.tolist(), measured.tolist(), strict=True)))
    assert found == pytest.approx(scipy.stats.spearmanr(predicted, measured).statistic, abs=1e-12)


def test_equal_ranks_by_hand() -> None:
    """Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5 (sum), squares 4.5 and 5."""
    assert rank_correlation([(0.1, 1), (0.3, 2), (0.3, 3), (0.9, 4)]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_only_the_order_counts() -> None:
    pairs = [(0.0, 0.1), (1.0, 0.2), (1e9, 0.7), (-5.0, 0.05)]
    assert rank_correlation(pairs) == 1.0
    assert rank_correlation([(predicted, -measured) for predicted, measured in pairs]) == -1.0


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(0.1 * i, 0.2 * i) for i in range(MIN_PAIRS - 1)],
        [(0.5, 0.2 * i) for i in range(9)],
        [(0.2 * i, 0.5) for i in range(9)],
    ],
    ids=["none", "too few", "predictions do not differ", "scores do not differ"],
)
def test_where_there_is_no_correlation(pairs: list[tuple[float, float]]) -> None:
    assert rank_correlation(pairs) is None


# Near uniform.


@pytest.mark.parametrize(
    ("n_effective", "n_candidates", "n_sampled", "expected"),
    [
        (870.0, 870, 15, True),
        (696.1, 870, 15, True),
        (696.0, 870, 15, False),
        (41.0, 870, 15, False),
        (15.0, 15, 15, False),  # All are taken: there is no choice.
        (3.0, 3, 15, False),
        (16.0, 16, 15, True),
    ],
)
def test_near_uniform(n_effective: float, n_candidates: int, n_sampled: int, expected: bool) -> None:
    assert is_near_uniform(n_effective, n_candidates, n_sampled) == expected


def test_accuracies_to_the_powers_of_the_paper_are_near_uniform() -> None:
    """The case that the warning is for: scores of 0.6 to 0.9, from the first temperature to the fifth."""
    predicted = np.linspace(0.6, 0.9, 900)
    for temperature in (9.4, 7.8, 5.8, 2.2, 1.2):
        n_effective = proposals.effective_choices(proposals.log_weights_paper(predicted, temperature))
        assert is_near_uniform(n_effective, 900, 15)


# The sampler.


def pairs_by_hand(study: optuna.Study) -> dict[SearchStep, list[tuple[float, float]]]:
    """Prediction and score of every predicted network when it was trained for the first time, from what people see."""
    pairs = defaultdict(list)
    seen = set()
    for trial in study.trials:
        notation = trial.user_attrs["architecture"]
        if "predicted_score" in trial.user_attrs and notation not in seen:
            step = SearchStep(trial.user_attrs["iteration"] - 1, trial.params["depth"])
            pairs[step].append((trial.user_attrs["predicted_score"], trial.value))
        seen.add(notation)
    return pairs


def plan_of(study: optuna.Study, step: SearchStep) -> records.Plan:
    plans = [records.read_plan(trial.system_attrs) for trial in study.trials]
    return next(plan for plan in plans if plan is not None and (plan.iteration, plan.depth) == step)


@pytest.mark.parametrize("mode", ["calibrated", "paper"])
def test_health_of_each_step(mode: str) -> None:
    study = run(make_study(make_sampler(mode=mode, n_iterations=3, samples_per_step=8)))
    health = study.sampler.health(study)
    pairs = pairs_by_hand(study)
    assert list(health) == [SearchStep(iteration, depth) for iteration in range(3) for depth in (2, 3)]
    for step, found in health.items():
        plan = plan_of(study, step)
        predicted, measured = zip(*pairs[step], strict=True)
        assert found == StepHealth(
            rank_correlation=pytest.approx(scipy.stats.spearmanr(predicted, measured).statistic),
            n_unseen=len(predicted),
            predicted_std=plan.predicted_std,
            n_candidates=plan.n_candidates,
            n_effective=plan.n_effective,
            is_near_uniform=plan.n_effective > 0.8 * plan.n_candidates,
        )
    n_unseen = [found.n_unseen for found in health.values()]
    assert n_unseen == [8] * 6 if mode == "calibrated" else sum(n_unseen) < 8 * 6  # Paper trained some of them again.


def test_minimising_tells_the_same() -> None:
    up = run(make_study(make_sampler(samples_per_step=8)))
    down = make_study(make_sampler(samples_per_step=8), direction="minimize")
    down.optimize(lambda trial: -score(SPACE.suggest(trial)), n_trials=200)
    health, mirrored = up.sampler.health(up), down.sampler.health(down)
    assert len(health) == 4
    assert [found.rank_correlation for found in mirrored.values()] == pytest.approx(
        [found.rank_correlation for found in health.values()]
    )


def test_a_step_in_progress() -> None:
    study = make_study(make_sampler(samples_per_step=8))
    assert study.sampler.health(study) == {}
    correlations = []
    for n_trials in (8, 1, 2, 1):
        study.optimize(objective(), n_trials=n_trials)
        correlations.append([found.rank_correlation for found in study.sampler.health(study).values()])
    assert correlations[:3] == [[], [None], [None]]
    assert correlations[3][0] is not None
    assert len(pairs_by_hand(study)[SearchStep(0, 2)]) == MIN_PAIRS


def test_trials_of_others_are_neither_predicted_nor_unseen_any_more() -> None:
    """In mode paper networks may come again: one that somebody else evaluated is left out of its step's figure."""
    space = SearchSpace({"a": ["a1"], "b": ["b1", "b2"]}, ["relu"], max_depth=2)  # All 4 of depth 2 are trained.
    study = make_study(make_sampler(space, mode="paper", n_iterations=1))
    study.enqueue_trial({"depth": 2, "layer1.a": "a1", "layer1.b": "b1", "layer2.a": "a1", "layer2.b": "b2"})
    run(study, 100, space)
    assert len(study.trials) == 1 + 2 + 4
    assert study.sampler.health(study)[SearchStep(0, 2)].n_unseen == 3


def test_the_leader_stores_it_for_people() -> None:
    study = run(make_study(make_sampler(samples_per_step=8)))
    health = study.sampler.health(study)
    before: StepHealth | None = None
    n_leaders = 0
    for trial in study.trials:
        plan = records.read_plan(trial.system_attrs)
        keys = ("n_candidates", "n_effective", "predicted_std", "rank_correlation_before")
        shown = {key: trial.user_attrs[key] for key in keys if key in trial.user_attrs}
        if plan is None or plan.depth == 1:
            assert shown == {}
            continue
        n_leaders += 1
        of_step = health[SearchStep(plan.iteration, plan.depth)]
        expected: dict[str, Any] = {
            "n_candidates": of_step.n_candidates,
            "n_effective": of_step.n_effective,
            "predicted_std": of_step.predicted_std,
        }
        if before is not None:
            expected["rank_correlation_before"] = before.rank_correlation
        assert shown == expected
        assert plan.rank_correlation_before == (None if before is None else before.rank_correlation)
        before = of_step
    assert n_leaders == 4


# Warnings.


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "mfas_optuna.search.sampler"]


def test_mode_calibrated_as_it_comes_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    run(make_study(make_sampler(n_iterations=3)))
    assert warnings_in(caplog) == []


def test_mode_calibrated_warns_of_each_step_that_it_is_too_hot_for(caplog: pytest.LogCaptureFixture) -> None:
    study = run(make_study(make_sampler(temperature_max=50.0, temperature_decay=2.0)))
    near = [step for step, found in study.sampler.health(study).items() if found.is_near_uniform]
    messages = warnings_in(caplog)
    assert 0 < len(near) < 4  # It cools down.
    assert [message[: message.index(":")] for message in messages] == [
        f"Iteration {step.iteration + 1}, depth {step.depth}" for step in near
    ]
    plan = plan_of(study, near[0])
    assert f"{plan.n_effective:.0f} of {plan.n_candidates} candidates in effect" in messages[0]
    assert "drawn almost at random. Lower temperature_max" in messages[0]


def test_mode_paper_warns_once_a_study(caplog: pytest.LogCaptureFixture) -> None:
    sampler = make_sampler(mode="paper")
    for number in (1, 2):
        study = run(make_study(sampler))
        assert sum(found.is_near_uniform for found in sampler.health(study).values()) > 1
        messages = warnings_in(caplog)
        assert len(messages) == number
        assert messages[-1].startswith("Iteration 1, depth 2: ")
        assert "use mode calibrated" in messages[-1]


def test_who_does_not_lead_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    study = make_study(make_sampler(temperature_max=50.0))
    study.optimize(objective(), n_trials=4)
    study.ask()
    study.sampler = make_sampler(temperature_max=50.0)
    study.ask()
    assert [proposal_of(trial).slot for trial in study.trials[4:]] == [0, 1]
    assert len(warnings_in(caplog)) == 1
