"""The tabulated benchmark: stored tables are whole, replays are searches, and differences are computed rightly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from scipy import stats

from benchmarks.table import table as tables
from benchmarks.table.__main__ import main
from benchmarks.table.compare import Difference
from benchmarks.table.contestants import CONTESTANTS, DISTINCT
from benchmarks.table.landscapes import LANDSCAPES
from benchmarks.table.replay import Answers, replay
from benchmarks.table.table import Table, TableError
from mfas_optuna import MFASSampler, SearchSpace

SPACE = SearchSpace({"audio": ["conv1", "conv2", "conv3"], "image": ["conv1", "conv2"]}, ["relu", "sigmoid"], 2)


def made(n_seeds: int = 4, noise: float = 0.01) -> Table:
    """A table whose networks score by their features, with noise."""
    rng = np.random.default_rng(0)
    value_N = np.array(
        [
            0.5 + 0.1 * sum(sum(layer.features) - layer.activation for layer in network.layers) / network.depth
            for depth in (1, 2)
            for network in SPACE.architectures(depth)
        ]
    )
    scores_NS = np.clip(value_N[:, None] + noise * rng.normal(size=(SPACE.size, n_seeds)), 0, 1)
    hits_NS = np.round(1000 * scores_NS).astype(np.int32)
    return Table("made", SPACE, hits_NS, hits_NS - 1, 1000, np.arange(SPACE.size), {"what": "made up"})


@pytest.mark.parametrize("name", LANDSCAPES)
def test_a_stored_table_has_every_network_of_its_space(name: str) -> None:
    table = tables.load(name)
    assert table.space == LANDSCAPES[name].space()
    assert table.hits_NS.shape == (table.space.size, LANDSCAPES[name].n_seeds)
    assert 0 <= table.hits_NS.min() <= table.hits_NS.max() <= table.n_rows
    assert len(np.unique(table.hits_NS)) > 20
    assert not np.array_equal(table.hits_NS, table.second_hits_NS)
    assert (table.hits_NS.std(axis=1) > 0).mean() > 0.9  # Each training is one of its own.
    assert table.card["study"] == LANDSCAPES[name].study


def test_a_table_survives_storing(tmp_path: Path) -> None:
    table = made()
    table.save(tmp_path)
    again = tables.load("made", tmp_path)
    assert again.space == table.space
    np.testing.assert_array_equal(again.hits_NS, table.hits_NS)
    np.testing.assert_array_equal(again.second_hits_NS, table.second_hits_NS)
    np.testing.assert_array_equal(again.parameters_N, table.parameters_N)
    assert again.card == table.card


def test_a_table_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    made().save(tmp_path)
    with pytest.raises(TableError, match=r"no such table; stored are: made"):
        tables.load("mmade", tmp_path)


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    file = made().save(tmp_path)
    with np.load(file) as stored:
        arrays = dict(stored)
    about = json.loads(arrays["about"].tobytes()) | {"version": 0}
    np.savez(file, **arrays | {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)})
    with pytest.raises(TableError, match=r"expected a table of version 1, found 0. .*table build made"):
        tables.load("made", tmp_path)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    file = made().save(tmp_path)
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(TableError, match=r"not a whole table .*table build made"):
        tables.load("made", tmp_path)


def test_a_table_that_lacks_networks_is_refused(tmp_path: Path) -> None:
    table = made()
    replace(table, hits_NS=table.hits_NS[:-1], second_hits_NS=table.second_hits_NS[:-1]).save(tmp_path)
    with pytest.raises(TableError, match=r"expected 156 networks"):
        tables.load("made", tmp_path)


def test_a_sampler_of_another_space_is_refused() -> None:
    other = SearchSpace({"audio": ["conv1"], "image": ["conv1"]}, ["relu"], 2)
    with pytest.raises(TableError, match=r"has SearchSpace.*the sampler searches SearchSpace"):
        replay(made(), lambda space, seed: MFASSampler(other, seed=seed), 0, n_trials=5)


def test_the_truth_is_of_the_trainings_that_are_not_shown() -> None:
    table = made()
    answers = Answers.draw(table, 3)
    scores_NS = table.scores
    np.testing.assert_allclose(3 * answers.truth_N + answers.observed_N, scores_NS.sum(axis=1))
    assert (np.abs(scores_NS - answers.observed_N[:, None]).min(axis=1) == 0).all()
    with pytest.raises(TableError, match="one training of each network"):
        Answers.draw(made(n_seeds=1), 3)


@pytest.mark.parametrize("contestant", sorted(set(CONTESTANTS) - {"gp"}))
def test_equal_seeds_give_equal_searches(contestant: str) -> None:
    table = made()
    first, again = (replay(table, contestant, 5, n_trials=40) for _ in range(2))
    other = replay(table, contestant, 6, n_trials=40)
    np.testing.assert_array_equal(first.networks_T, again.networks_T)
    assert not np.array_equal(first.networks_T, other.networks_T)
    assert len(first.networks_T) == 40
    if contestant in {*DISTINCT, "uniform", "calibrated"}:
        assert len(set(first.networks_T)) == 40


@pytest.mark.parametrize("contestant", ["uniform", "calibrated"])
def test_a_search_may_try_every_network(contestant: str) -> None:
    networks = replay(made(), contestant, 0, n_trials=SPACE.size).networks_T
    assert sorted(networks) == list(range(SPACE.size))


def test_gp_searches_too() -> None:
    assert len(replay(made(), "gp", 0, n_trials=15).networks_T) == 15


@pytest.mark.parametrize("contestant", ["uniform", "calibrated", "paper", "tpe"])
def test_simulated_workers_do_all_trials(contestant: str) -> None:
    alone, together = (replay(made(), contestant, 1, n_trials=60, n_workers=n) for n in (1, 7))
    assert len(together.networks_T) == 60
    assert not np.array_equal(alone.networks_T, together.networks_T)


def test_top_and_regret() -> None:
    table = made(noise=0)
    trace = replay(table, "uniform", 0, n_trials=SPACE.size)
    best = np.sort(table.scores.mean(axis=1))[::-1]
    assert trace.top_mean(SPACE.size) == pytest.approx(best[:5].mean())
    assert trace.regret(SPACE.size) == pytest.approx(0)
    assert trace.regret(3) == pytest.approx(best[0] - table.scores[trace.networks_T[:3], 0].max())
    n = trace.trials_to_best()
    assert n is not None
    assert table.scores[trace.networks_T[n - 1], 0] >= np.sort(best)[-2]


def test_a_difference_has_students_interval() -> None:
    first_R, second_R = np.random.default_rng(1).normal(size=(2, 12)) * 1e-3
    difference = Difference.of(first_R, second_R)
    interval = stats.ttest_rel(first_R, second_R).confidence_interval()
    assert difference.low == pytest.approx(1e4 * interval.low)
    assert difference.high == pytest.approx(1e4 * interval.high)
    assert difference.win_rate == pytest.approx((first_R > second_R).mean())
    assert Difference.of(first_R, first_R + np.linspace(0, 1, 12)).win_rate == pytest.approx(0.5 / 12)


def test_separation_is_that_of_the_best_tenth() -> None:
    rng = np.random.default_rng(2)
    space = SearchSpace({"a": [f"f{i}" for i in range(20)], "b": [f"g{i}" for i in range(10)]}, ["relu"], 2)
    value_N = np.zeros(space.size)
    value_N[:4020] = rng.uniform(0.6, 0.7, size=4020)  # Far above the rest: the best tenth is among them.
    noise_NS = 0.02 * rng.normal(size=(space.size, 6))
    hits_NS = np.round(1e6 * (value_N[:, None] + 0.1 + noise_NS)).astype(np.int32)
    table = Table("x", space, hits_NS, hits_NS, 10**6, value_N, {})
    assert table.separation() == pytest.approx(0.1 / 12**0.5 / 0.02, rel=0.1)


def test_nan_is_no_score() -> None:
    study = optuna.create_study(direction="maximize", sampler=MFASSampler(SPACE, seed=0))
    trial = study.ask()
    SPACE.suggest(trial)
    with pytest.warns(UserWarning, match="nan is not acceptable"):
        told = study.tell(trial, float("nan"))
    assert told.state == optuna.trial.TrialState.FAIL
    assert study.trials[0].user_attrs["failure_message"] == "the objective failed or returned no number"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "nothing"], "no such table; stored are"),
        (["replay", "digits", "--seeds", "1"], "at least 2 seeds"),
        (["replay", "digits", "--trials", "10"], "30 trials"),
        (["card", "../digits"], "no such table"),
    ],
)
def test_wrong_arguments_are_told_apart(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_command_compares_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made().save(tmp_path)
    given = ["replay", "made", "--tables", str(tmp_path), "--pictures", str(tmp_path / "pictures")]
    assert main([*given, "--seeds", "3", "--trials", "60", "--contestants", "calibrated", "uniform"]) == 0
    printed = capsys.readouterr().out
    assert "| calibrated " in printed
    assert "3 searches of each contestant" in printed
    assert "wins" in printed
    assert "</svg>" in (tmp_path / "pictures" / "table-made.svg").read_text()
