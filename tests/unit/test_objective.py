"""One trial end to end on small features: what it trains from, what it records, what it leaves when it does not end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from mfas_optuna.fusion.joint import JointFusion
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.objective import Outcome, TrialResult, TrialRunner
from mfas_optuna.registry.blobs import FolderBlobStore, decode_layer
from mfas_optuna.space import Architecture
from mfas_optuna.spec import StudySpec
from mfas_optuna.target import Target, TargetKind
from mfas_optuna.training.brief import Member, group_bytes, train_jointly
from mfas_optuna.worker.samplers import make_sampler

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
        "fusion": {"width": 4, "sharing": "sequential"},
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
            target=Target.of_classes(3),
        )
        self.weights = folder / "weights"
        features = open_features(folder / "features", {}, rebuild_command="")
        self.runner = TrialRunner(self.spec, features, FolderBlobStore(self.weights), torch.device("cpu"))
        self.sampler = MFASSampler(self.spec.search_space(), seed=0, samples_per_step=8)
        pruner = optuna.pruners.NopPruner()
        self.study = optuna.create_study(direction="maximize", sampler=self.sampler, pruner=pruner)

    def outcome(self, trial: optuna.Trial) -> Outcome:
        """Train one trial alone and return what became of it; nothing is told."""
        ((_, outcome),) = self.runner.run(self.study, [trial], uninterruptible)
        return outcome

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> TrialResult:
        assert isinstance(outcome, TrialResult)
        records.write_result(trial, outcome.record)
        self.study.tell(trial, outcome.score)
        return outcome

    def run(self, n: int = 1) -> list[TrialResult]:
        results = []
        for _ in range(n):
            trial = self.study.ask()
            results.append(self.tell(trial, self.outcome(trial)))
        return results

    def run_group(self, n: int, pruned: Sequence[int] = ()) -> list[int]:
        """Ask for n trials, run them as a group, tell them, and return their numbers in the order they ended in."""
        trials = [self.study.ask() for _ in range(n)]
        ended = self.runner.run(self.study, trials, uninterruptible)
        for trial, outcome in ended:
            if isinstance(outcome, TrialResult):
                self.tell(trial, outcome)
            else:
                assert isinstance(outcome, optuna.TrialPruned) == (trial.number in pruned)
                self.study.tell(trial, state=TrialState.PRUNED if trial.number in pruned else TrialState.FAIL)
        return [trial.number for trial, _ in ended]

    def joint_sizes(self) -> list[int]:
        return [trial.user_attrs["joint_size"] for trial in self.study.trials]

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
    assert trial.user_attrs["n_parameters"] == result.record.n_parameters == 4 * (width_in + 1)
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
    plain, limited = (
        Bench(tmp_path / "a"),
        Bench(tmp_path / "b", fusion={"width": 4, "sharing": "sequential", "share_by_activation": True}),
    )
    for bench in (plain, limited):
        bench.run(8)
    assert {layer.key.count(":") for number in range(8) for layer in plain.layers(number)} == {2}
    for number in range(8):
        activation = limited.study.trials[number].params["layer1.activation"]
        assert [layer.key.split(":")[3] for layer in limited.layers(number)] == [activation]


def test_weights_of_trials_that_are_not_complete_do_not_count(bench: Bench) -> None:
    trial = bench.study.ask()
    outcome = bench.outcome(trial)
    assert isinstance(outcome, TrialResult)
    records.write_result(trial, outcome.record)
    bench.study.tell(trial, state=TrialState.FAIL)
    assert bench.n_blobs() == 1
    bench.run(8)
    lost = bench.layers(0)[0].published
    assert all(layer.started_from != lost for number in range(1, 9) for layer in bench.layers(number))


def test_a_trial_that_is_repeated_is_the_same(bench: Bench) -> None:
    bench.run(5)
    trial = bench.study.ask()
    first = bench.outcome(trial)
    assert isinstance(first, TrialResult)
    bench.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # As a dead worker's is reaped.
    (again,) = bench.run()
    assert replace(again.record, training_s=0) == replace(first.record, training_s=0)
    assert again.score == first.score


def test_a_diverging_trial_publishes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, training={"epochs": 2, "batch_size": 16, "learning_rate": 3e38})
    assert isinstance(bench.outcome(bench.study.ask()), TrainingDiverged)
    assert bench.n_blobs() == 0
    assert bench.layers(0) == []


def test_a_pruned_trial_publishes_nothing(bench: Bench) -> None:
    bench.study.pruner = optuna.pruners.ThresholdPruner(lower=1.1)
    outcome = bench.outcome(bench.study.ask())
    assert isinstance(outcome, optuna.TrialPruned)
    assert str(outcome) == "pruned after epoch 1"
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
    for one, other in zip(*results, strict=True):
        assert (one.score, one.record.weights) == (other.score, other.record.weights)


# Groups.


def scores(bench: Bench) -> dict[int, float]:
    return {trial.number: trial.value for trial in bench.study.trials}


def started_from(bench: Bench, number: int) -> set[str | None]:
    return {layer.started_from for layer in bench.layers(number)}


@pytest.mark.parametrize("sharing", ["sequential", "snapshot"])
def test_a_group_gets_what_its_trials_get_one_by_one(tmp_path: Path, sharing: str) -> None:
    """Depth 1 and 2: 8 and 4 networks. Sums are taken in another order, so weights agree to rounding."""
    fusion = {"width": 4, "dropout": 0.2, "sharing": sharing}
    alone, grouped = Bench(tmp_path / "a", fusion=fusion), Bench(tmp_path / "b", fusion=fusion)
    alone.run(12)
    assert sorted([*grouped.run_group(8), *grouped.run_group(4)]) == list(range(12))
    sizes = grouped.joint_sizes()
    assert sizes == [8] * 8 + [4] * 4 if sharing == "snapshot" else 1 < max(sizes) < 8
    # 1 / 32 of accuracy is one row of validation: rounding may tip it, no more.
    assert scores(grouped) == pytest.approx(scores(alone), abs=1 / 32)
    for number in range(12):
        for one, other in zip(alone.layers(number), grouped.layers(number), strict=True):
            assert (one.started_from is None) == (other.started_from is None)
            first, second = (
                decode_layer(FolderBlobStore(bench.weights).get(layer.published))
                for bench, layer in ((alone, one), (grouped, other))
            )
            assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_networks_of_a_round_share_no_weights(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "sequential"})
    numbers, sizes = bench.run_group(8), bench.joint_sizes()
    n_rounds = 0
    while numbers:
        members, numbers = numbers[: sizes[numbers[0]]], numbers[sizes[numbers[0]] :]
        keys = [layer.key for number in members for layer in bench.layers(number)]
        assert len(set(keys)) == len(keys)
        n_rounds += 1
    assert 1 < n_rounds < 8


def test_after_a_failure_the_later_rounds_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(bench, monkeypatch, 0)
    ended = bench.run_group(8)
    assert 0 in ended
    assert len(ended) < 8


def test_a_snapshot_reads_the_steps_before_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "snapshot"})
    bench.run_group(8)
    assert {start for number in range(8) for start in started_from(bench, number)} == {None}
    bench.run(4)
    latest: dict[str, str] = {}  # Of step 1 the highest slot wins; slots are taken in the order of numbers here.
    for number in range(8):
        latest |= {layer.key: layer.published for layer in bench.layers(number)}
    for number in range(8, 12):
        first, second = bench.layers(number)
        assert first.started_from == latest.get(first.key)
        assert second.started_from is None


def test_a_snapshot_of_a_sampler_without_steps_reads_the_blocks_before(tmp_path: Path) -> None:
    """Blocks of as many draws as a step has, 4 here."""
    bench = Bench(
        tmp_path, fusion={"width": 4, "sharing": "snapshot"}, search={"sampler": "random", "samples_per_step": 4}
    )
    bench.study.sampler = make_sampler(bench.spec)
    bench.run(9)
    published = [{layer.published for layer in bench.layers(number)} for number in range(9)]
    for number in range(9):
        before = set().union(*published[: number // 4 * 4])
        assert started_from(bench, number) <= before | {None}
    assert any(started_from(bench, number) != {None} for number in range(4, 8))


def spoil(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Give the network of one trial a weight that is NaN."""
    original = bench.runner.build

    def build(architecture: Architecture, generator: torch.Generator) -> FusionNetwork:
        network = original(architecture, generator)
        if architecture == bench.spec.search_space().suggest(bench.study.trials[number]):
            with torch.no_grad():
                network.layers[0].weight[0, 0] = float("nan")
        return network

    monkeypatch.setattr(bench.runner, "build", build)


def test_one_network_that_diverges_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "snapshot"})
    spoil(bench, monkeypatch, 2)
    bench.run_group(8)
    states = [trial.state for trial in bench.study.trials]
    assert states == [TrialState.FAIL if number == 2 else TrialState.COMPLETE for number in range(8)]


def test_what_does_not_fit_into_memory_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "snapshot"})
    needed = group_bytes([make_member(bench)] * 3, bench.runner._data, bench.spec.training)
    monkeypatch.setattr("mfas_optuna.objective.free_bytes", lambda device: needed)
    bench.run_group(8)
    assert {trial.state for trial in bench.study.trials} == {TrialState.COMPLETE}
    assert [trial.user_attrs["joint_size"] for trial in bench.study.trials] == [2] * 8
    assert "8 networks are not trained at once (they need about" in caplog.text
    assert "trying 4" in caplog.text


def make_member(bench: Bench) -> Member:
    architecture = bench.spec.search_space().architecture(7)
    generator = torch.Generator().manual_seed(0)
    return Member(bench.runner.build(architecture, generator), architecture, generator)


@pytest.mark.parametrize(
    "message", ["DefaultCPUAllocator: not enough memory: you tried to allocate 7 bytes", "no idea"]
)
def test_what_fails_as_a_group_is_halved_until_the_guilty_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "snapshot"})
    sizes: list[int] = []
    original = train_jointly

    def train(members: list[Member], *arguments: Any, **more: Any) -> Any:
        sizes.append(len(members))
        if any(member.architecture.layers[0].features == (1, 1) for member in members):
            raise RuntimeError(message)
        return original(members, *arguments, **more)

    monkeypatch.setattr("mfas_optuna.objective.train_jointly", train)
    bench.run_group(8)
    for trial in bench.study.trials:
        is_guilty = trial.params["layer1.audio"] == trial.params["layer1.image"] == "conv2"
        assert trial.state == (TrialState.FAIL if is_guilty else TrialState.COMPLETE)
    assert sizes[0] == 8
    assert min(sizes) == 1


class NeverTheSame(optuna.pruners.BasePruner):
    """Prunes trial 1 after epoch 1; notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        self.asked.append((trial.number, len(trial.intermediate_values)))
        return trial.number == 1


def test_a_training_begun_again_in_halves_reports_no_epoch_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is exhausted in epoch 2; warnings about a second report would fail the test."""
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "snapshot"})
    pruner = NeverTheSame()
    bench.study.pruner = pruner
    original = JointFusion.gradient
    steps = 0

    def gradient(self: JointFusion, *arguments: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if len(self.networks) > 4 and steps > 5:  # Four steps are an epoch.
            raise MemoryError
        return original(self, *arguments)

    monkeypatch.setattr(JointFusion, "gradient", gradient)
    bench.run_group(8, pruned=[1])
    assert len(set(pruner.asked)) == len(pruner.asked) == 15
    states = [trial.state for trial in bench.study.trials]
    assert states == [TrialState.PRUNED if number == 1 else TrialState.COMPLETE for number in range(8)]
    assert {trial.user_attrs["joint_size"] for trial in bench.study.trials if trial.number != 1} == {4}
    sizes: list[int] = []
    monkeypatch.setattr("mfas_optuna.objective.train_jointly", noting(sizes))
    bench.run_group(4)
    assert sizes == [4]
    assert bench.runner._most == 4


def noting(sizes: list[int]) -> Any:
    def train(members: list[Member], *arguments: Any, **more: Any) -> Any:
        sizes.append(len(members))
        return train_jointly(members, *arguments, **more)

    return train


def test_an_outcome_keeps_nothing_of_its_training_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "snapshot"})

    def gradient(*_: Any) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(JointFusion, "gradient", gradient)
    outcome = bench.outcome(bench.study.ask())
    assert isinstance(outcome, MemoryError)
    assert outcome.__traceback__ is None
    assert outcome.__context__ is None


def test_each_epoch_of_a_group_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, fusion={"width": 4, "sharing": "snapshot"})
    told: list[tuple[str, int, int]] = []
    bench.runner._progress = lambda what, done, total: told.append((what, done, total))
    bench.run_group(3)
    bench.run()
    assert told == [(what, epoch, 2) for what in ("training 3 networks", "training 1 network") for epoch in (1, 2)]


# Targets of other kinds.


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_and_values_from_features_to_scores(kind: TargetKind, tmp_path: Path) -> None:
    """Two outputs follow from one layer of the audio, one of them rare as a label; the other from one of the image."""
    rng = np.random.default_rng(0)
    sizes = {"train": 400, "validation": 150, "test": 20}
    matrices = {split: rng.normal(size=(n, 10)).astype(np.float32) for split, n in sizes.items()}
    labels: dict[str, np.ndarray] = {}
    for split, rows in matrices.items():
        values = np.stack([rows[:, 2] + rows[:, 3], rows[:, 5], rows[:, 4] - 1.3], axis=1)
        is_labels = kind == "multilabel"
        labels[split] = (values > 0).astype(np.uint8) if is_labels else (500 + 20 * values).astype(np.float32)
    write_features(
        tmp_path / "features", key={}, card="", matrices=matrices, labels=labels, widths=WIDTHS,
        target=Target(kind, ("first", "second", "third")),
    )  # fmt: skip
    given = {"kind": "given", "features": ["conv1", "conv2"]}
    spec = make_spec(
        dataset={"name": "arrays", "folder": "data", "target": kind},
        backbones={"audio": given, "image": given},
        search={"samples_per_step": 8, "n_iterations": 1},
        training={"epochs": 30, "batch_size": 32, "learning_rate": 2e-2},
    )
    assert (spec.metric, spec.is_balanced) == (("f1_weighted", True) if kind == "multilabel" else ("r2", False))
    features = open_features(tmp_path / "features", {}, rebuild_command="")
    runner = TrialRunner(spec, features, FolderBlobStore(tmp_path / "weights"), torch.device("cpu"))
    data = runner._data
    assert (data.metric, data.loss.kind, data.loss.weight_C is not None) == (spec.metric, kind, spec.is_balanced)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(spec))
    scores: dict[Architecture, float] = {}
    for _ in range(3):  # The eight networks of depth 1, and four that start from their weights.
        for trial, outcome in runner.run(study, [study.ask() for _ in range(4)], uninterruptible):
            assert isinstance(outcome, TrialResult), outcome
            records.write_result(trial, outcome.record)
            study.tell(trial, outcome.score)
            scores[outcome.architecture] = outcome.score
    informed = {
        network: score
        for network, score in scores.items()
        if any(layer.features[0] == 1 for layer in network.layers)
        and any(layer.features[1] == 0 for layer in network.layers)
    }
    assert {network.depth for network in scores} == {1, 2}
    assert max(informed.values()) > 0.75
    assert max(informed.values()) > max(score for network, score in scores.items() if network not in informed) + 0.1
