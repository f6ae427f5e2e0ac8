"""One trial end to end on small features: what it trains from, what it records, what it leaves when it does not end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from mfas_optuna import MFASSampler
from mfas_optuna import trials as records
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.features.cache import open_features, write_features
from mfas_optuna.objective import TrialResult, TrialRunner
from mfas_optuna.spec import StudySpec

WIDTHS = {"audio": {"conv1": 2, "conv2": 3}, "image": {"conv1": 2, "conv2": 3}}


@contextlib.contextmanager
def uninterruptible(_: bool) -> Iterator[None]:
    yield


def make_spec(**changes: Any) -> StudySpec:
    backbone = {"kind": "lenet", "channels": [2, 3], "features": ["conv1", "conv2"]}
    values: dict[str, Any] = {
        "title": "A study for tests",
        "dataset": {"name": "digits"},
        "backbones": {"audio": backbone, "image": backbone},
        "space": {"activations": ["relu", "sigmoid"], "max_depth": 2},
        "fusion": {"width": 4},
        "training": {"epochs": 2, "batch_size": 16},
    }
    return StudySpec.model_validate({**values, **changes})


class Bench:
    """A study in memory and a runner over random features."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.spec = make_spec(**changes)
        rng = np.random.default_rng(0)
        sizes = {"train": 64, "validation": 32, "test": 32}
        write_features(
            folder / "features",
            key={},
            card="",
            matrices={split: rng.normal(size=(n, 10)).astype(np.float32) for split, n in sizes.items()},
            labels={split: rng.integers(0, 3, n) for split, n in sizes.items()},
            widths=WIDTHS,
            n_classes=3,
        )
        self.weights = folder / "weights"
        features = open_features(folder / "features", {}, rebuild_command="")
        self.runner = TrialRunner(self.spec, features, self.weights, torch.device("cpu"))
        self.sampler = MFASSampler(self.spec.search_space(), seed=0, samples_per_step=4)
        pruner = optuna.pruners.NopPruner()
        self.study = optuna.create_study(direction="maximize", sampler=self.sampler, pruner=pruner)

    def run(self, n: int = 1) -> list[TrialResult]:
        results = []
        for _ in range(n):
            trial = self.study.ask()
            results.append(self.runner.run(self.study, trial, uninterruptible))
            self.study.tell(trial, results[-1].score)
        return results

    def layers(self, number: int) -> list[records.LayerWeights]:
        return records.read_weights(self.study.trials[number].user_attrs)

    def n_blobs(self) -> int:
        return len(list(self.weights.rglob("*.safetensors")))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_a_trial_records(bench: Bench) -> None:
    (result,) = bench.run()
    trial = bench.study.trials[0]
    assert trial.user_attrs["architecture"] == result.architecture.paper_notation()
    assert trial.value == max(trial.intermediate_values.values()) == result.score
    assert list(trial.intermediate_values) == [1, 2]
    assert trial.intermediate_values[trial.user_attrs["best_epoch"]] == trial.value
    width_in = sum(WIDTHS[modality][trial.params[f"layer1.{modality}"]] for modality in WIDTHS)
    assert trial.user_attrs["n_parameters"] == result.n_parameters == 4 * (width_in + 1)
    assert [layer.key for layer in bench.layers(0)] == [f"0:{width_in}:4"]
    assert json.loads(trial.user_attrs["weights"])[0]["started_from"] is None


def test_layers_start_from_the_latest_complete_trial_of_their_key(bench: Bench) -> None:
    bench.run(20)
    latest: dict[str, str] = {}
    for number in range(20):
        for layer in bench.layers(number):
            assert layer.started_from == latest.get(layer.key)
        latest |= {layer.key: layer.published for layer in bench.layers(number)}
    assert {trial.params["depth"] for trial in bench.study.trials} == {1, 2}


def test_the_activation_is_part_of_the_key_only_when_asked_for(tmp_path: Path) -> None:
    plain, limited = Bench(tmp_path / "a"), Bench(tmp_path / "b", fusion={"width": 4, "share_by_activation": True})
    for bench in (plain, limited):
        bench.run(8)
    assert {layer.key.count(":") for number in range(8) for layer in plain.layers(number)} == {2}
    for number in range(8):
        activation = limited.study.trials[number].params["layer1.activation"]
        assert [layer.key.split(":")[3] for layer in limited.layers(number)] == [activation]


def test_weights_of_trials_that_are_not_complete_do_not_count(bench: Bench) -> None:
    trial = bench.study.ask()
    bench.runner.run(bench.study, trial, uninterruptible)
    bench.study.tell(trial, state=TrialState.FAIL)
    assert bench.n_blobs() == 1
    bench.run(8)
    assert all(layer.started_from != bench.layers(0)[0].published for n in range(1, 9) for layer in bench.layers(n))


def test_a_trial_that_is_repeated_is_the_same(bench: Bench) -> None:
    bench.run(5)
    trial = bench.study.ask()
    first = bench.runner.run(bench.study, trial, uninterruptible)
    bench.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # As a dead worker's is reaped.
    (again,) = bench.run()
    assert again == first
    assert [layer.published for layer in bench.layers(6)] == [layer.published for layer in bench.layers(5)]


def test_a_diverging_trial_publishes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, training={"epochs": 2, "batch_size": 16, "learning_rate": 3e38})
    with pytest.raises(TrainingDiverged):
        bench.run()
    assert bench.n_blobs() == 0
    assert bench.layers(0) == []


def test_a_pruned_trial_publishes_nothing(bench: Bench) -> None:
    bench.study.pruner = optuna.pruners.ThresholdPruner(lower=1.1)
    with pytest.raises(optuna.TrialPruned, match="after epoch 1"):
        bench.run()
    assert bench.n_blobs() == 0


def test_an_enqueued_network_is_trained_too(bench: Bench) -> None:
    architecture = bench.spec.search_space().architecture(30)
    bench.study.enqueue_trial(bench.spec.search_space().parameters(architecture))
    (result,) = bench.run()
    assert result.architecture == architecture
    assert len(bench.layers(0)) == 2


def test_dropout_and_one_seed_give_one_result(tmp_path: Path) -> None:
    fusion = {"width": 4, "dropout": 0.3}
    results = [Bench(tmp_path / name, fusion=fusion).run(3) for name in ("a", "b")]
    assert results[0] == results[1]
